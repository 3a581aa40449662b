"""`plan` and `drift`: what would be done, and what is not as it should be.

They are given a `Look` and nothing else: it can be asked what is wanted and what is there, and has no way to
change either. That is what makes the two commands harmless, whatever the code here does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from orchestrator.api import orders
from orchestrator.model import codec
from orchestrator.model.action import Action
from orchestrator.model.desired import Desired, Wanted
from orchestrator.model.drift import Difference
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass, replace
from orchestrator.model.observation import Observation
from orchestrator.model.stack import Stack
from orchestrator.planner import drift as planned
from orchestrator.planner.plan import plan as decide
from orchestrator.planner.rehearse import Line, rehearse
from orchestrator.planner.rollouts import said
from orchestrator.planner.steps import Step, base, departure, steps

_NO_ACTIONS: Mapping[str, Action] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One stack, to be looked at."""

    desired: Desired | None
    """What is wanted of it; None when nothing is."""
    observe: Callable[[Desired], Awaitable[Observation]]
    """All that matters to what is or may be wanted."""
    in_flight: Mapping[str, Action]
    """What is being done at the moment, by target."""
    differences: Callable[[], list[Difference]]
    """In what its containers, networks and volumes are not as they were made."""


# --- plan --------------------------------------------------------------------------------------------


async def plan(look: Look, request: Mapping[str, Any]) -> dict[str, Any]:
    """What `up` (or `down`) would do from here: the planner, rehearsed against the effect model. Raises
    UserError when the request has a saved plan that does not fit."""
    if request.get("plan"):
        await demand_as_planned(look, request)
    wanted = codec.decode(Stack, request["stack"])
    if request.get("down"):
        desired = orders.down(
            look.desired or Desired(stack=wanted), remove_volumes=False, remove_orphans=False, timeout=None
        )
    else:
        desired = orders.up(look.desired, wanted, options(request))
    desired, observation = await _as_ordered(look, desired)
    lines = rehearse(desired, observation, observation.at)
    first = decide(desired, observation, observation.at, _NO_ACTIONS)
    verdicts = look.desired.rollouts.items() if look.desired is not None else ()
    sentences = [sentence for name, one in verdicts if (sentence := said(name, one))]
    return {
        "lines": [
            {"at": round(line.at, 2), "target": line.target, "verb": line.verb, "because": line.because}
            for line in lines
            if line.verb != "refuse"
        ],
        "waits": [
            {"target": line.target, "because": line.because, "failed": True}
            for line in lines
            if line.verb == "refuse"
        ],
        "warnings": [*sentences, *first.warnings],
        "base": base(look.desired),
        "steps": [codec.encode(step) for step in steps(lines)],
    }


async def _as_ordered(look: Look, desired: Desired) -> tuple[Desired, Observation]:
    """What would be wanted if it were ordered now, with the world as it is now: an order tries anew what had
    failed."""
    observation = replace(await look.observe(desired), failures={})
    acknowledged = orders.acknowledge(look.desired, desired, observation.containers, observation.at)
    return acknowledged, observation


def options(request: Mapping[str, Any]) -> orders.UpOptions:
    """Of a request for `plan` or `up`."""
    return orders.UpOptions(
        services=tuple(request.get("services", ())),
        wanted=Wanted(request.get("wanted", "running")),
        force_recreate=bool(request.get("force_recreate")),
        no_recreate=bool(request.get("no_recreate")),
        no_deps=bool(request.get("no_deps")),
        remove_orphans=bool(request.get("remove_orphans")),
        timeout=request.get("timeout"),
        repair=request.get("repair"),
    )


async def demand_as_planned(look: Look, request: Mapping[str, Any]) -> None:
    """Raises UserError when a saved plan (request["plan"]) is not what `up` would do now."""
    saved = request["plan"]
    if saved["base"] != base(look.desired):
        raise _moved("the stack was changed since by another command (`pystack events` tells which)")
    stack = codec.decode(Stack, request["stack"])
    desired = orders.up(look.desired, stack, options(request))
    desired, observation = await _as_ordered(look, desired)
    lines: tuple[Line, ...] = rehearse(desired, observation, observation.at)
    because = departure([codec.decode(Step, step) for step in saved["steps"]], steps(lines))
    if because:
        raise _moved(because)


def _moved(because: str) -> UserError:
    return UserError(
        f"the plan does not fit any more: {because}",
        exit_code=ExitCode.CONFLICT,
        hint="nothing was done; make the plan anew",
    )


# --- drift -------------------------------------------------------------------------------------------


async def drift(look: Look, request: Mapping[str, Any]) -> dict[str, Any]:
    """What is wanted, as `up` last said, against what is there."""
    desired, name = look.desired, str(request["stack"])
    if desired is None:
        raise UserError(
            f"nothing is wanted of stack {name}, so there is nothing to compare with",
            hint="`pystack plan` shows what `up` would do",
        )
    services = tuple(request.get("services") or ())
    orders.demand(desired.stack, services)
    observation = await look.observe(desired)
    below = look.differences()
    targets = {one.target for one in below if one.target.startswith("volume:")}
    above = planned.differences(desired, observation, observation.at, look.in_flight)
    rows = [*(one for one in above if one.target not in targets), *below]
    file = request.get("file")
    return {
        "stack": name,
        "repair": desired.repair,
        "differences": [
            row(one) for one in rows if not services or one.service in services or not one.service
        ],
        "file": list(planned.moved(desired.stack, codec.decode(Stack, file))) if file is not None else [],
    }


def row(one: Difference) -> dict[str, Any]:
    return {
        "target": one.target,
        "service": one.service,
        "what": one.what,
        "wanted": one.wanted,
        "found": one.found,
        "because": one.because,
        "mendable": one.mendable,
    }
