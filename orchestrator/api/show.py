"""Rows for `ps` and `ls`, and the sentences in them: pure functions of what was observed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.engines.local.program import arguments
from orchestrator.images.config import ImageConfig
from orchestrator.model.desired import Desired, Wanted
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import Container, HealthStatus, PublishedPort, Run, State
from orchestrator.model.stack import DirectoryRoot, HostRoot, ImageRoot, RootFilesystem
from orchestrator.model.steps import shown
from orchestrator.planner.restarts import sequel
from orchestrator.planner.rollouts import said

_UNITS = ((2, 1, "hours"), (14, 24, "days"), (60, 24 * 7, "weeks"), (730, 24 * 30, "months"))
"""Below so many days: so many hours make one of these (docker's figures)."""


def elapsed(seconds: float) -> str:
    """In docker's words: "Less than a second", "3 seconds", "About an hour", "2 days"."""
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if int(seconds) == 1 else f"{int(seconds)} seconds"
    minutes, hours = int(seconds // 60), int(seconds / 3600 + 0.5)
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    for days, size, word in _UNITS:
        if hours < days * 24:
            return f"{hours // size} {word}"
    return f"{hours // (24 * 365)} years"


def restarts(container: Container, desired: Desired | None, now: float) -> bool:
    """Whether a run that has ended is followed by another: by policy, or because it was asked for."""
    intent = desired.intents.get(container.service) if desired is not None else None
    if intent is None or container.run is None or intent.wanted is not Wanted.RUNNING:
        return False
    if container.run.finished is None:
        return False
    return sequel(container.run, container.definition.restart, intent, now).kind in ("start", "later")


def state(container: Container) -> str:
    """In docker's words."""
    if container.state is State.RUNNING and container.run is not None and container.run.paused:
        return "paused"
    return container.state.value


def status(container: Container, now: float, *, restarting: bool = False) -> str:
    """What `ps` says of a container's state."""
    run = container.run
    if run is None:
        return "Created"
    if run.finished is not None:
        if restarting:
            return f"Restarting ({run.exit_code}) {elapsed(now - run.finished)} ago"
        return _ended(run, now)
    words = f"Up {elapsed(now - run.started)}"
    if run.stopping is not None:
        return f"{words} (stopping)"
    if run.paused:
        return f"{words} (Paused)"
    if run.health is not None:
        shown = run.health.status
        return f"{words} (health: starting)" if shown is HealthStatus.STARTING else f"{words} ({shown})"
    return words


def _ended(run: Run, now: float) -> str:
    ago = elapsed(now - (run.finished or now))
    if run.error and run.exit_code is not None:
        return f"Failed to start ({run.exit_code}) {ago} ago"
    code = "unknown" if run.exit_code is None else run.exit_code
    return f"Exited ({code}){' OOM killed' if run.oom_killed else ''} {ago} ago"


def root_name(root: RootFilesystem) -> str:
    match root:
        case ImageRoot(reference=reference):
            return reference
        case HostRoot():
            return "(host)"
        case DirectoryRoot(path=path):
            return path


def port_row(port: PublishedPort) -> dict[str, Any]:
    return {
        "host_ip": port.host_ip or "0.0.0.0",  # noqa: S104
        "host_port": port.host_port,
        "target": port.target,
        "protocol": port.protocol,
    }


def command(container: Container, image: ImageConfig | None) -> str:
    """What runs in it: the service's words, else its image's; "" when neither has any."""
    try:
        return " ".join(arguments(container.definition, image))
    except EngineError:
        return ""


def labels(container: Container, image: ImageConfig | None) -> dict[str, str]:
    """Its image's, its service's, and those by which tools of docker compose find it. Pure."""
    project = "com.docker.compose"
    return {
        **(image.labels if image else {}),
        **container.definition.labels,
        f"{project}.project": container.stack,
        f"{project}.service": shown(container.definition)
        if container.definition.step is not None
        else container.service.rpartition("-run-")[0] or container.service,
        f"{project}.container-number": str(container.slot or 1),
        f"{project}.oneoff": str(container.definition.oneoff),
    }


def container_row(
    container: Container,
    desired: Desired | None,
    waits: Mapping[str, str],
    now: float,
    image: ImageConfig | None = None,
    lost: str = "",
) -> dict[str, Any]:
    """One row of `ps`. `waits`: target -> why it is not as it should be. `image`: its image's defaults.
    `lost`: what it has lost for good, in words."""
    run = container.run
    owner = shown(container.definition) if container.definition.step is not None else container.service
    known = desired is not None and (owner in desired.stack.services or owner in desired.stack.disabled)
    restarting = restarts(container, desired, now)
    rollout = desired.rollouts.get(container.service) if desired is not None else None
    verdict = said(container.service, rollout) if rollout is not None else ""
    health = run.health.status.value if run and run.finished is None and run.health else ""
    return {
        "id": container.id,
        "name": container.name,
        "service": owner,
        "slot": container.slot,
        "oneoff": container.definition.oneoff,
        **({"step": container.definition.step.number} if container.definition.step else {}),
        "orphan": not known,
        "image": root_name(container.definition.root),
        "command": command(container, image),
        **({"runtime": container.definition.runtime} if container.definition.runtime else {}),
        "created": container.created_at,
        "state": "restarting" if restarting else state(container),
        "status": status(container, now, restarting=restarting) + (f" ({lost})" if lost else ""),
        "exit_code": run.exit_code if run and run.finished is not None else None,
        "oom_killed": run.oom_killed if run else False,
        "health": health,
        "ports": [port_row(port) for port in container.ports] if container.state is State.RUNNING else [],
        "expose": list(container.definition.expose),
        "pid": run.pid if run and run.finished is None else 0,
        "restarts": run.restarts if run else 0,
        "addresses": dict(container.addresses),
        "labels": labels(container, image),
        "because": (run.error if run else "")
        or waits.get(f"container:{container.name}", "")
        or lost
        or verdict,
        **({"update": verdict} if verdict else {}),
    }


def stack_row(desired: Desired, containers: Iterable[Container]) -> dict[str, Any]:
    """One row of `ls`: `exited(1), running(3)`."""
    counts = Counter(state(container) for container in containers)
    words = ", ".join(f"{word}({count})" for word, count in sorted(counts.items()))
    return {"name": desired.stack.name, "status": words or "created(0)", "files": list(desired.stack.files)}
