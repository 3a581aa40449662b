"""The process that pulls for the supervisor, which must not hold what speaks HTTP in memory.

Standard input is lines of JSON: {"id", "name", "platform", "environment"} asks for an image, {"cancel": id}
takes that back. The answers are lines on standard output: {"image", "here", "size", "extracting"} now and
then, and at last {"id", "done"} or {"id", "error"}. At the end of its input it leaves, whatever is under way.

The environment is the user's who asked. It comes by the pipe, so that it stands in no list of processes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from orchestrator.images.store.content import Store
from orchestrator.images.transfer.arriving import Step
from orchestrator.images.transfer.pulling import Pulling, open_pulling
from orchestrator.model.errors import EngineError, ExitCode, PystackError

_LINE_LIMIT = 1 << 20
_TELL_SECONDS = 0.2


class _Desk:
    """Takes orders, tells how far they are."""

    def __init__(self, pulling: Pulling, nursery: trio.Nursery) -> None:
        self._pulling = pulling
        self._nursery = nursery
        self._scopes: dict[int, trio.CancelScope] = {}

    def take(self, order: Mapping[str, Any]) -> None:
        if "cancel" in order:
            scope = self._scopes.get(order["cancel"])
            if scope is not None:
                scope.cancel()
        else:
            self._nursery.start_soon(self._carry_out, order)

    async def _carry_out(self, order: Mapping[str, Any]) -> None:
        number = order["id"]
        scope = self._scopes[number] = trio.CancelScope()
        try:
            with scope:
                pulled = await self._pulling.pull(
                    order["name"], environment=order["environment"], platform=order["platform"]
                )
                _say({"id": number, "done": {"digest": pulled.digest, "fresh": pulled.fresh}})
            if scope.cancelled_caught:
                _say({"id": number, "error": {"message": "given up"}})
        except PystackError as error:
            _say({"id": number, "error": _told(error)})
        except OSError as error:
            text = f"{order['name']}: {error.strerror or error}"
            _say({"id": number, "error": {"message": text, "retryable": True}})
        finally:
            del self._scopes[number]


def _told(error: PystackError) -> dict[str, object]:
    said = {"message": error.message, "hint": error.hint, "exit_code": int(error.exit_code)}
    if isinstance(error, EngineError):
        return {**said, "retryable": error.retryable, "lasting": error.lasting}
    return said


class _Reporter:
    """Collects the steps of layers; tells of them a few times a second."""

    def __init__(self) -> None:
        self._steps: dict[tuple[str, str], Step] = {}

    def take(self, step: Step) -> None:
        self._steps[step.image, step.layer] = step

    async def tell(self) -> None:
        while True:
            await trio.sleep(_TELL_SECONDS)
            images: dict[str, list[Step]] = {}
            for (image, _), step in self._steps.items():
                images.setdefault(image, []).append(step)
            for image, steps in images.items():
                here = sum(step.here if step.state not in ("waiting", "here") else 0 for step in steps)
                size = sum(step.size for step in steps if step.state != "here")
                unpacking = all(step.state in ("extracting", "done", "here") for step in steps)
                _say({"image": image, "here": here, "size": size, "extracting": unpacking})
                if all(step.state in ("done", "here") for step in steps):
                    self._steps = {key: step for key, step in self._steps.items() if key[0] != image}


async def _serve(root: Path) -> None:
    reporter = _Reporter()
    stdin = trio.lowlevel.FdStream(os.dup(0))
    async with open_pulling(Store(root), tell=reporter.take) as pulling, trio.open_nursery() as nursery:
        desk = _Desk(pulling, nursery)
        nursery.start_soon(reporter.tell)
        held = b""
        while piece := await stdin.receive_some(1 << 16):
            held += piece
            *lines, held = held.split(b"\n")
            for line in lines:
                desk.take(json.loads(line))
            if len(held) > _LINE_LIMIT:
                break
        nursery.cancel_scope.cancel()


def _say(data: Mapping[str, object]) -> None:
    os.write(1, json.dumps(data).encode() + b"\n")


def main() -> int:
    """`python -m orchestrator.images.transfer.puller ROOT`."""
    try:
        trio.run(_serve, Path(sys.argv[1]))
    except BaseExceptionGroup as group:
        if group.subgroup((BrokenPipeError, KeyboardInterrupt)) is None:
            raise
        return int(ExitCode.FAILED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
