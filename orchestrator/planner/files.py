"""Configs and secrets whose content has changed while their containers stay.

What the user has said `x-on-change` for is exchanged, at the next look: the content of the stack as it was
last loaded or, for a file of the host, as it is by now. Of other files the user is told; the next `up`
replaces the containers (see changes).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.model.action import SwapFiles
from orchestrator.model.desired import Desired
from orchestrator.model.drift import Difference
from orchestrator.model.frozen import replace
from orchestrator.model.observation import Container, Observation
from orchestrator.model.stack import FileMount
from orchestrator.planner.creating import signal_number
from orchestrator.planner.draft import Draft
from orchestrator.planner.survey import Fate, Survey


def changed(names: Iterable[str]) -> str:
    """A sentence for "config a", "secret b"."""
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} and {last} changed" if others else f"{last} changed"


def swap(survey: Survey, draft: Draft) -> None:
    """A SwapFiles for each container that stays and has old content; before its start, if it does not run."""
    memory, now = survey.layout.memory, survey.observation.files
    if memory.content is not None and memory.content[0] is survey.by_service and memory.content[1] == now:
        return
    quiet = True
    for name, files in survey.layout.files.items():
        for container in survey.by_service.get(name, ()):
            quiet = _judge(survey, draft, container, files) and quiet
    memory.content = (survey.by_service, now) if quiet else None


def _judge(survey: Survey, draft: Draft, container: Container, files: tuple[FileMount, ...]) -> bool:
    """Whether all that it holds is as it should be."""
    held = {mount.target: mount for mount in container.definition.mounts if isinstance(mount, FileMount)}
    fresh: list[FileMount] = []
    told: list[str] = []
    for file in files:
        before = held.get(file.target)
        if before is None:
            continue
        told += filter(None, [_told(survey.desired, container, file, before, survey.observation)])
        wanted = _current(survey, file, before)
        if wanted.on_change and (wanted.content, wanted.digest) != (before.content, before.digest):
            fresh.append(wanted)
    if survey.fate(container) in (Fate.KEEP, Fate.CYCLE):
        for sentence in told:
            draft.warn(sentence)
        if fresh and not _is_leaving(survey, container):
            _swap(draft, container, fresh)
    return not fresh and not told


def _swap(draft: Draft, container: Container, fresh: list[FileMount]) -> None:
    draft.act(
        SwapFiles(
            id=container.id,
            name=container.name,
            files=tuple(fresh),
            signals=tuple(dict.fromkeys(signal_number(file.on_change) for file in fresh)),
            because=changed(f"{file.kind} {file.name}" for file in fresh),
        )
    )


def _is_leaving(survey: Survey, container: Container) -> bool:
    """Its run ends: what comes after it begins with the new content."""
    run = container.run
    if run is None or run.finished is not None:
        return False
    return run.stopping is not None or survey.fate(container) is Fate.CYCLE


def _current(survey: Survey, file: FileMount, before: FileMount) -> FileMount:
    """The file with the content that it should have now. With `--no-repair` that of the last `up`."""
    now = survey.observation.files.get(file.path) if file.path is not None else None
    if not survey.desired.repair:
        now = None
    if now is None:
        return file if file.content is not None or file.digest else replace(file, digest=before.digest)
    return replace(file, digest=now or before.digest)


def _told(
    desired: Desired, container: Container, file: FileMount, before: FileMount, observation: Observation
) -> str:
    """What the user has to hear of a file of the host, because nothing is done about it; or ""."""
    now = observation.files.get(file.path) if file.path is not None else None
    if now is None or not before.digest or now == before.digest:
        return ""
    if now == "":
        return f"{_whose(file, container)}: {file.path} is gone; what its containers have stays"
    if file.on_change and (desired.repair or file.digest == now):
        return ""
    return (
        f"{_whose(file, container)}: {file.path} has changed since its containers were made; "
        f"`up` {'exchanges it' if file.on_change else 'replaces them'}"
    )


def differences(desired: Desired, observation: Observation) -> Iterator[Difference]:
    """Containers whose files of the host are not what they were made with, where only the user can help."""
    for container in observation.containers:
        service = desired.stack.services.get(container.service)
        if service is None or service.oneoff or desired.down:
            continue
        held = {mount.target: mount for mount in container.definition.mounts if isinstance(mount, FileMount)}
        for file in service.mounts:
            before = held.get(file.target) if isinstance(file, FileMount) else None
            because = _told(desired, container, before, before, observation) if before is not None else ""
            if before is not None and because:
                yield Difference(
                    target=f"container:{container.name}",
                    what=f"{before.kind} {before.name}",
                    wanted="as it was made with",
                    found="changed" if observation.files.get(before.path or "") else "gone",
                    because=because,
                    stack=desired.stack.name,
                    service=container.service,
                    id=container.id,
                    mendable=False,
                )


def _whose(file: FileMount, container: Container) -> str:
    return f"{file.kind} {file.name} of {container.service}"
