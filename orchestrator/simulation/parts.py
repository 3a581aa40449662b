"""Steps of `pre_start` for the laws: what a wish means for them, worked out without the planner. Pure."""

from __future__ import annotations

from orchestrator.model import fingerprint, steps
from orchestrator.model.desired import Desired
from orchestrator.model.frozen import replace
from orchestrator.model.observation import Container, Observation
from orchestrator.model.stack import Service
from orchestrator.simulation.tables import tables

_latest: list[tuple[Desired, Observation, Desired]] = []


def with_parts(desired: Desired, world: Observation) -> Desired:
    """The wish with the steps as services of their own. They are wanted as their service is; one that has
    succeeded has been done, whatever was ordered since."""
    if not _latest or _latest[0][0] is not desired or _latest[0][1] is not world:
        _latest[:] = [(desired, world, _with_parts(desired, world))]
    return _latest[0][2]


def _with_parts(desired: Desired, world: Observation) -> Desired:
    whole = steps.with_steps(desired.stack)
    if whole is desired.stack:
        return desired
    intents = dict(desired.intents)
    for name, service in whole.services.items():
        intent = desired.intents.get(service.step.of) if service.step is not None else None
        if intent is not None:
            done = tuple(
                one.run.started for one in tables(world).by_service.get(name, ()) if _done(one) and one.run
            )
            turn = max(intent.turn, intent.restart_turn)
            intents[name] = replace(intent, turn=turn, restart_turn=0, under_way=done)
    return replace(desired, stack=whole, intents=intents)


def _done(step: Container) -> bool:
    run = step.run
    return run is not None and run.finished is not None and run.exit_code == 0 and run.stopping is None


def up_to_date(desired: Desired, world: Observation, service: Service) -> str:
    """The fingerprint that a container should have. That of a step changes with anything of its service."""
    own = fingerprint.of_service(service)
    if service.step is None:
        return own
    owner = desired.stack.services[service.step.of]
    own = fingerprint.joined(own, fingerprint.of_service(owner))
    if owner.root == service.root:
        return own
    there = tables(world).by_service.get(owner.name, ())
    image = world.images.get(getattr(owner.root, "reference", ""))
    return fingerprint.joined(own, image.id if image is not None else there[0].image_id if there else "")
