"""What `down` takes away besides containers, and when it is finished."""

from __future__ import annotations

from orchestrator.model.desired import Desired
from orchestrator.model.observation import Container, Observation
from orchestrator.planner import networks, volumes
from orchestrator.planner.draft import Draft
from orchestrator.planner.survey import Fate, Survey


def leave(survey: Survey, draft: Draft) -> None:
    """Networks when the last container has gone, and volumes if asked for."""
    ours = {c.id: c for c in survey.observation.containers if survey.fate(c) is Fate.REMOVE}
    networks.leave(survey, draft, ours)
    if survey.desired.remove_volumes:
        volumes.leave(survey, draft, ours)


def finished(desired: Desired, observation: Observation) -> bool:
    """A stack that was taken down has nothing left and can be forgotten.

    Orphans that nobody asked to remove, and networks and volumes that others use, do not count.
    """
    if not desired.down:
        return False
    stack = desired.stack
    left = [container for container in observation.containers if not _spared(desired, container)]
    mine = [state for state in observation.networks.values() if state.stack == stack.name and not state.users]
    if left or mine:
        return False
    external = {volume.name for volume in stack.volumes.values() if volume.external}
    return not desired.remove_volumes or not any(
        state.stack == stack.name and not state.users and name not in external
        for name, state in observation.volumes.items()
    )


def _spared(desired: Desired, container: Container) -> bool:
    stack = desired.stack
    known = container.service in stack.services or container.service in stack.disabled
    return not known and not desired.remove_orphans and not container.definition.oneoff
