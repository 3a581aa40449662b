"""Who may start now. Services come after those they depend on, so that a failure is known further up."""

from __future__ import annotations

from orchestrator.model.action import StartContainer
from orchestrator.model.desired import Intent, Wanted
from orchestrator.model.errors import ExitCode
from orchestrator.model.observation import Container, State
from orchestrator.planner import volumes
from orchestrator.planner.draft import Draft
from orchestrator.planner.gates import Answer, Gates
from orchestrator.planner.ports import HostPorts
from orchestrator.planner.restarts import Sequel, sequel, wanted_turn
from orchestrator.planner.survey import Fate, Survey

_FIRST = Sequel(kind="start", because="")


def start(survey: Survey, draft: Draft, ports: HostPorts) -> None:
    """A StartContainer for each container that is wanted running, does not run and need not wait."""
    gates = Gates(survey, draft)
    for name in survey.layout.order:
        intent = survey.intent(name)
        if intent is None or intent.wanted is not Wanted.RUNNING or survey.desired.down:
            continue
        for container in survey.seats.get(name, ()):
            if not survey.live(container) and survey.fate(container) in (Fate.KEEP, Fate.CYCLE):
                _start_one(survey, draft, ports, gates, intent, container)


def _start_one(
    survey: Survey, draft: Draft, ports: HostPorts, gates: Gates, intent: Intent, container: Container
) -> None:
    target = f"container:{container.name}"
    run = container.run
    then = _FIRST if run is None else sequel(run, container.definition.restart, intent, survey.now)
    because = then.because or "not running"
    match then.kind:
        case "rest":
            return
        case "broken":
            failure = survey.observation.failures.get(target)
            hint = failure.hint if failure is not None and failure.because == then.because else ""
            draft.refuse(target, then.because, then.exit_code, hint)
            return
        case "later" if then.at > survey.now:
            draft.wait(target, then.because)
            draft.wake(then.at)
            return
        case "start":
            gate = gates.before(container)
            if gate.answer is Answer.FAILED:
                draft.refuse(target, gate.because, gate.exit_code, gate.hint)
                return
            if gate.answer is Answer.NOT_YET:
                draft.wait(target, gate.because)
                return
            because = then.because or gate.because or because
    if (volume := volumes.lost_by(survey, container)) is not None:
        draft.refuse(target, volumes.lost_words(volume), ExitCode.FAILED, volumes.lost_hint(volume))
        return
    peers = _peers(survey, draft, container)
    if peers is None or _port_clash(draft, ports, container):
        return
    draft.act(
        StartContainer(
            id=container.id,
            name=container.name,
            turn=wanted_turn(intent),
            attempt=then.attempt,
            restarts=then.restarts,
            peers=peers,
            because=because,
        )
    )


def _peers(survey: Survey, draft: Draft, container: Container) -> dict[str, str] | None:
    """The containers whose namespaces it joins: a namespace without a process in it can't be joined."""
    found: dict[str, str] = {}
    for peer, shared in survey.layout.shares[container.service].items():
        first = survey.peer(peer)
        if first is None or not _joinable(survey, first):
            because = f"{peer}, whose {shared} it shares, does not run"
            if _comes_back(survey, peer):
                draft.wait(f"container:{container.name}", because)
            else:
                draft.refuse(f"container:{container.name}", because)
            return None
        found[peer] = first.id
    return found


def _joinable(survey: Survey, container: Container) -> bool:
    return (
        container.run is not None
        and container.state is State.RUNNING
        and container.run.stopping is None
        and survey.fate(container) in (Fate.KEEP, Fate.LEAVE)
    )


def _comes_back(survey: Survey, service: str) -> bool:
    intent = survey.intent(service)
    if intent is None or intent.wanted is not Wanted.RUNNING:
        return False
    if survey.vacant.get(service):
        return True
    first = survey.peer(service)  # nobody else's namespaces are shared, whoever of the service runs
    if first is None:
        return False
    if survey.live(first) or first.run is None or survey.fate(first) in (Fate.REPLACE, Fate.REMOVE):
        return True
    return sequel(first.run, first.definition.restart, intent, survey.now).kind in ("start", "later")


def _port_clash(draft: Draft, ports: HostPorts, container: Container) -> bool:
    clash = ports.clash(container)
    if clash is None:
        return False
    target = f"container:{container.name}"
    if clash.passing:
        draft.wait(target, clash.because)
    else:
        draft.refuse(target, clash.because, ExitCode.CONFLICT, clash.hint)
    return True
