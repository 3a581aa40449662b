"""plan(desired, observation, now) -> Plan: one pass, in order."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model.action import Action
from orchestrator.model.desired import Desired
from orchestrator.model.observation import Observation
from orchestrator.model.plan import Plan
from orchestrator.planner import (
    fates,
    files,
    images,
    leaving,
    networks,
    probing,
    rotation,
    stopping,
    volumes,
)
from orchestrator.planner.creating import create
from orchestrator.planner.draft import Draft
from orchestrator.planner.ports import HostPorts
from orchestrator.planner.starting import start
from orchestrator.planner.survey import survey

finished = leaving.finished

_NOTHING: Mapping[str, Action] = {}


def plan(
    desired: Desired, observation: Observation, now: float, in_flight: Mapping[str, Action] = _NOTHING
) -> Plan:
    """What can be done now to bring the stack to what is desired, what waits and why, when to look again.

    `in_flight` (by target) is what is being done at this moment: those targets are left alone, and what
    those actions take (addresses, ports, ranges) is taken. Raises UserError when the stack has a cycle.
    """
    seen = survey(desired, observation, now, in_flight)
    draft = Draft(now, in_flight, observation.failures)
    ports = HostPorts(survey=seen)
    if not desired.down:
        seen.segments = networks.assess(seen)
    fates.judge(seen, draft)
    rotation.route(seen, draft)
    stopping.stop(seen, draft)
    stopping.remove(seen, draft)
    if desired.down:
        leaving.leave(seen, draft)
        return draft.finish()
    networks.arrange(seen, draft)
    volumes.arrange(seen, draft)
    images.arrange(seen, draft)
    create(seen, draft, ports)
    files.swap(seen, draft)
    start(seen, draft, ports)
    probing.probe(seen, draft)
    return draft.finish()
