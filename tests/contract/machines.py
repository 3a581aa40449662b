"""The engines that the contract holds for. Add one by adding a factory to MACHINES.

A machine offers four services, by name: `forever` runs until told, `once` exits with 3 after a moment,
`stubborn` ignores SIGTERM, `missing` names a command that does not exist. `forever` has a health check that
succeeds and mounts the volume `data`; none needs an image.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
import trio

from orchestrator.engines.base import Engine
from orchestrator.engines.simulated import Program, SimulatedEngine
from orchestrator.model.stack import Service, Stack
from tests.kit.stacks import check, service, stack

STACK = "contract"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """An engine for the stack `wish`, and boot time."""

    engine: Engine
    now: Callable[[], float]
    wish: Stack


def services(**commands: tuple[str, ...]) -> dict[str, Service]:
    """The four services, with the command lines that a real engine needs."""
    probe = check(interval=3600.0, timeout=5.0)
    return {
        "forever": service(
            command=commands.get("forever"), healthcheck=probe, volumes=("data:/data", "/scratch")
        ),
        "once": service(command=commands.get("once")),
        "stubborn": service(command=commands.get("stubborn")),
        "missing": service(command=commands.get("missing")),
    }


@asynccontextmanager
async def simulated() -> AsyncIterator[Machine]:
    programs = {
        "once": Program(exits_after=0.02, exit_codes=(3,)),
        "stubborn": Program(ends_within=None),
        "missing": Program(refuses=(127, "no such command: missing")),
    }
    engine = SimulatedEngine(now=trio.current_time, programs=programs)
    yield Machine(engine=engine, now=trio.current_time, wish=stack(STACK, **services()))
    assert engine.violations == []


MACHINES: dict[
    str, tuple[Callable[[], AbstractAsyncContextManager[Machine]], tuple[pytest.MarkDecorator, ...]]
] = {
    "simulated": (simulated, ()),
}
"""Name -> (factory, marks such as pytest.mark.kernel)."""
