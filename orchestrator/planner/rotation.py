"""Host ports that containers of a service share: who gets new connections, and who leaves before a stop.

A container that is alone with its ports is never spoken of, so it costs nothing. Whoever is to be stopped
while another goes on serving leaves the rotation first, and is told to stop when its connections have ended
or have had their time. What the user stops, and what stops as a whole, stops at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from orchestrator.model import rotation
from orchestrator.model.action import RoutePorts
from orchestrator.model.observation import Container, HealthStatus, State
from orchestrator.planner.draft import Draft
from orchestrator.planner.survey import ENDING, Survey, Turnout

SETTLING = 0.1
"""Seconds after leaving in which a connection may still be on its way to be counted."""
LOOK = 0.1
"""Seconds between two counts of connections."""
LONGEST_LOOK = 5.0
"""Seconds between two looks at whether a program listens, the longer the longer it has not."""


def route(survey: Survey, draft: Draft) -> None:
    """A RoutePorts for each service whose shared ports should lead elsewhere than they do. Fills in
    `survey.turnouts`."""
    if survey.desired.down:
        return
    for service, containers in survey.by_service.items():
        sharing = _sharing(containers) if len(containers) > 1 else ()
        wanted = _wanted(survey, sharing)
        if not wanted:
            continue
        _look_again(survey, draft, sharing)
        now = _takers(sharing)
        names = {one.id: one for one in sharing}
        survey.turnouts[service] = Turnout(now=now, wanted=frozenset(one.id for one in wanted))
        joining, leaving = survey.turnouts[service].wanted - now, now - survey.turnouts[service].wanted
        if not joining and not leaving:
            continue
        said = [f"{names[one].name} joins" for one in names if one in joining]
        said += [f"{names[one].name} leaves: {_why(survey, names[one])}" for one in names if one in leaving]
        draft.act(
            RoutePorts(
                stack=survey.desired.stack.name,
                service=service,
                members=tuple(one.id for one in wanted),
                because="; ".join(said),
            )
        )


def holds_up(survey: Survey, draft: Draft, container: Container) -> bool:
    """Whether `container`, which is to be stopped, has to leave the rotation or to be drained before."""
    turnout = survey.turnouts.get(container.service)
    if turnout is None or container.id in turnout.wanted:
        return False  # what the user stops, all of a service, leaves nobody to lead connections to
    if f"ports:{container.service}" in survey.observation.failures:
        return False  # a stop does not depend on whether the ports can be led elsewhere
    target = f"container:{container.name}"
    if container.id in turnout.now:
        draft.wait(target, "leaves the rotation of its ports first")
        return True
    run = container.run
    if run is None or run.rotation is None:
        return False
    service = survey.desired.stack.services.get(container.service, container.definition)
    end = run.rotation.since + service.drain
    left = survey.observation.connections.get(container.id, 0)
    soonest = min(run.rotation.since + SETTLING, end)
    if survey.now >= (end if left else soonest):
        return False
    draft.wait(target, f"is drained: {_count(left)} left" if left else "is drained")
    draft.wake(min(end, survey.now + LOOK) if left else soonest)
    return True


def _look_again(survey: Survey, draft: Draft, sharing: Iterable[Container]) -> None:
    """Nobody tells us that a program listens from now on."""
    for one in sharing:
        if one.run is not None and one.id in survey.observation.deaf:
            age = survey.now - one.run.started
            draft.wake(survey.now + min(max(LOOK, age / 10), LONGEST_LOOK))


def _sharing(containers: Iterable[Container]) -> Sequence[Container]:
    """Those that run and have a host port in common with another that runs, in order of their seats."""
    holders = _holders(containers)
    sharing = {one.id for found in holders.values() if len(found) > 1 for one in found}
    return [one for one in containers if one.id in sharing] if sharing else ()


def _holders(containers: Iterable[Container]) -> Mapping[rotation.PortKey, list[Container]]:
    holders: dict[rotation.PortKey, list[Container]] = {}
    for one in containers:
        if one.ports and one.state is State.RUNNING:
            for port in one.ports:
                holders.setdefault(rotation.key_of(port), []).append(one)
    return holders


def _takers(sharing: Collection[Container]) -> frozenset[str]:
    """Who gets connections to any port that is shared."""
    found = (rotation.takers(holders) for holders in _holders(sharing).values() if len(holders) > 1)
    return frozenset(one.id for takers in found for one in takers)


def _wanted(survey: Survey, sharing: Sequence[Container]) -> Sequence[Container]:
    """Who should get connections: the first of these that is anybody. Nobody: it is left as it is."""
    able = [one for one in sharing if one.run is not None and one.run.stopping is None]
    staying = [one for one in able if survey.fate(one) not in ENDING]
    if not staying:
        return ()
    return (
        [one for one in staying if not _unfit(survey, one)]
        or [one for one in able if not _unfit(survey, one)]  # it serves as long as its successor can't
        or staying
    )


def _unfit(survey: Survey, container: Container) -> str:
    """Why it can't serve, in words."""
    run = container.run
    if run is not None and run.paused:
        return "it is paused"
    if container.healthcheck is None:
        return "it does not listen yet" if container.id in survey.observation.deaf else ""
    status = run.health.status if run is not None and run.health is not None else HealthStatus.STARTING
    match status:
        case HealthStatus.HEALTHY:
            return ""
        case HealthStatus.UNHEALTHY:
            return "it is unhealthy"
    return "it is not healthy yet"


def _why(survey: Survey, container: Container) -> str:
    run, judgement = container.run, survey.fates[container.id]
    if run is not None and run.stopping is not None:
        return "it is stopping"
    return judgement.because if judgement.fate in ENDING else _unfit(survey, container)


def _count(connections: int) -> str:
    return "1 connection" if connections == 1 else f"{connections} connections"
