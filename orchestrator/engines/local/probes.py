"""One run of a health check's command in its container: exit code, and at most 4 KiB of what it printed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from orchestrator.engines.local import clock
from orchestrator.engines.local.execs import Execs, Execution
from orchestrator.engines.local.keeper import KeeperLost
from orchestrator.engines.local.program import exec_process
from orchestrator.engines.local.table import Live
from orchestrator.images.config import ImageConfig
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import ProbeResult
from orchestrator.model.stack import Healthcheck

OUTPUT_LIMIT = 4096
TIMED_OUT = -1
AT_ONCE = 0.2
"""Seconds after which a check's output is read while it runs."""
KEEPERS = 3
"""So many are asked to begin a check."""


async def probe(execs: Execs, live: Live, image: ImageConfig | None, check: Healthcheck) -> ProbeResult:
    """Never raises for what the check does: a check that can't be run has failed."""
    started = clock.now()
    process = exec_process(
        live.container,
        image,
        argv=_argv(check),
        environment_more={},
        user=None,
        workdir=None,
        tty=False,
        host_name=os.uname().nodename,
    )
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.set_blocking(writing, True)
    try:
        try:
            execution = await _begin(execs, live, process, [nothing, writing, writing])
        except EngineError as error:
            code = int(error.exit_code)
            return ProbeResult(started=started, ended=clock.now(), exit_code=code, output=error.message)
        finally:
            os.close(nothing)
            os.close(writing)
        return await _result(execution, reading, check.timeout or 30.0, started)
    finally:
        trio.lowlevel.notify_closing(reading)
        os.close(reading)


async def _begin(execs: Execs, live: Live, process: Mapping[str, Any], stdio: Sequence[int]) -> Execution:
    """A keeper that dies under it says nothing about the container: its successor is asked again."""
    for _ in range(KEEPERS - 1):
        with contextlib.suppress(KeeperLost):
            return await execs.begin(live, process, stdio)
    return await execs.begin(live, process, stdio)


def _argv(check: Healthcheck) -> list[str]:
    kind, *words = check.test or ("CMD",)
    return ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words


async def _result(execution: Execution, reading: int, timeout: float, started: float) -> ProbeResult:
    output = bytearray()
    with trio.move_on_after(timeout) as limit:
        # Nearly all have ended by then, and a pipe holds what they say.
        with trio.move_on_after(AT_ONCE):
            await execution.wait()
        if not execution.ended.is_set():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_collect, reading, output)
                await execution.wait()
                nursery.cancel_scope.cancel()
    if limit.cancelled_caught:
        execution.kill()
        text = f"Health check exceeded timeout ({timeout:g}s)"
        return ProbeResult(started=started, ended=clock.now(), exit_code=TIMED_OUT, output=text)
    _take(reading, output)
    text = output[:OUTPUT_LIMIT].decode(errors="replace")
    return ProbeResult(started=started, ended=clock.now(), exit_code=execution.exit_code or 0, output=text)


async def _collect(reading: int, output: bytearray) -> None:
    """Keep the pipe empty, so that a chatty check is not blocked; only the first 4 KiB are kept."""
    while True:
        await trio.lowlevel.wait_readable(reading)
        if not _take(reading, output):
            return


def _take(reading: int, output: bytearray) -> bool:
    try:
        chunk = os.read(reading, 65536)
    except BlockingIOError:
        return True
    if len(output) < OUTPUT_LIMIT:
        output += chunk[:OUTPUT_LIMIT]
    return bool(chunk)
