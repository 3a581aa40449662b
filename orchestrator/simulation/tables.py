"""An observation, arranged to be asked about one container at a time. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model.frozen import dataclass
from orchestrator.model.observation import Container, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The containers of `world`."""

    world: Observation
    by_id: Mapping[str, Container]
    by_service: Mapping[str, list[Container]]


_latest: list[Tables] = []
"""Those of the world that was asked about last: many actions are decided on one look."""


def tables(world: Observation) -> Tables:
    """Made once for each observation that is asked about several times in a row."""
    if not _latest or _latest[0].world is not world:
        by_service: dict[str, list[Container]] = {}
        for one in world.containers:
            by_service.setdefault(one.service, []).append(one)
        by_id = {one.id: one for one in world.containers}
        _latest[:] = [Tables(world=world, by_id=by_id, by_service=by_service)]
    return _latest[0]
