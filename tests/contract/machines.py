"""The engines that the contract holds for. Add one by adding a factory to MACHINES.

A machine offers five services, by name: `forever` runs until told, `once` exits with 3 after a moment,
`stubborn` ignores SIGTERM, `missing` names a command that does not exist, `talker` logs that it is ready after
a moment. `forever` has a health check that
succeeds, mounts the volume `data` and has the config CONFIG; none needs an image.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from orchestrator.engines.base import Engine
from orchestrator.engines.local import clock
from orchestrator.engines.local.machine import open_machine
from orchestrator.engines.local.places import Places
from orchestrator.engines.simulated import Program, SimulatedEngine
from orchestrator.kernel import syscalls
from orchestrator.model.stack import FileMount, OfHost, Service, Stack
from tests.kit.stacks import check, service, stack

STACK = "contract"
CONFIG = FileMount(kind="config", name="c", target="/c.conf", content="old", on_change="SIGCONT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """An engine for the stack `wish`, and boot time."""

    engine: Engine
    now: Callable[[], float]
    wish: Stack


def services(**commands: tuple[str, ...]) -> dict[str, Service]:
    """The five services, with the command lines that a real engine needs."""
    forever = service(
        command=commands.get("forever"),
        # Not the first process of a pid namespace of its own, which is deaf to what it has no handler for,
        # and has none yet when it is signalled right after its start (pid_namespaces(7)).
        pid=OfHost(),
        healthcheck=check(interval=3600.0, timeout=5.0),
        volumes=("data:/data", "/scratch"),
    )
    return {
        "forever": replace(forever, mounts=(*forever.mounts, CONFIG)),
        "once": service(command=commands.get("once")),
        "stubborn": service(command=commands.get("stubborn")),
        "missing": service(command=commands.get("missing")),
        "talker": service(command=commands.get("talker"), log_ready="ready"),
    }


@asynccontextmanager
async def simulated(_: Path) -> AsyncIterator[Machine]:
    programs = {
        "once": Program(exits_after=0.02, exit_codes=(3,)),
        "stubborn": Program(ends_within=None),
        "missing": Program(refuses=(127, "no such command: missing")),
    }
    engine = SimulatedEngine(now=trio.current_time, programs=programs)
    yield Machine(engine=engine, now=trio.current_time, wish=stack(STACK, **services()))
    assert engine.violations == []


@asynccontextmanager
async def local(root: Path) -> AsyncIterator[Machine]:
    """This machine, below a state root of its own."""
    places = Places(run=root / "run", data=root / "data")
    for directory in (places.run, places.stacks, places.volumes, places.bundles):
        directory.mkdir(parents=True)
    wish = stack(
        STACK,
        **services(
            forever=("sleep", "1000"),
            once=("sh", "-c", "sleep 0.02; exit 3"),
            stubborn=("sleep", "1000"),
            missing=("missing",),
            talker=("sh", "-c", "echo not yet; sleep 0.02; echo ready; sleep 1000"),
        ),
    )
    async with trio.open_nursery() as nursery:
        found = await open_machine(places, nursery)
        engine = found.engine(STACK)
        engine.watch(wish)
        yield Machine(engine=engine, now=clock.now, wish=wish)
        await found.clear()
        nursery.cancel_scope.cancel()
    # Before Linux 6.15 a supervisor adopts what its keeper leaves; this process goes on to test other things.
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 0)


Factory = Callable[[Path], AbstractAsyncContextManager[Machine]]

MACHINES: dict[str, tuple[Factory, tuple[pytest.MarkDecorator, ...]]] = {
    "simulated": (simulated, ()),
    "local": (local, (pytest.mark.kernel,)),
}
"""Name -> (factory, which gets a directory of its own; marks)."""
