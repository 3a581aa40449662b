"""Rules of `pystack check` about what is said and, as the rest of the file stands, has no effect."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.stackfile.doubts import checked, fixed, replicas
from orchestrator.stackfile.finding import Found, Look, bodies, part, text
from orchestrator.stackfile.tree import Map


def never_unhealthy(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        said = text(service, "x-on-unhealthy")
        if said not in ("", "ignore") and checked(service) is False:
            yield Found(
                path=("services", name, "x-on-unhealthy"),
                mark=service.mark("x-on-unhealthy"),
                message=f"{name} has no health check, so it never turns unhealthy",
                hint=f"give {name} a `healthcheck:`",
            )


def nothing_to_change(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        if "x-on-change" in service and not service.get("configs") and not service.get("secrets"):
            yield Found(
                path=("services", name, "x-on-change"),
                mark=service.mark("x-on-change"),
                message=f"{name} has no config or secret that could change",
            )


def nothing_to_drain(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        ports = fixed(service) if not text(service, "network_mode") else ()
        shared = any(first == last and text(port, "mode") != "host" for _, port, first, last, _ in ports)
        if "x-drain" in service and not shared:
            yield Found(
                path=("services", name, "x-drain"),
                mark=service.mark("x-drain"),
                message=f"{name} publishes no port that its containers share, so nothing is drained",
            )


def _courses(service: Map) -> Iterator[tuple[str, Map]]:
    deploy = part(service, "deploy")
    for key in ("update_config", "rollback_config"):
        yield key, part(deploy, key)


def never_start_first(look: Look) -> Iterator[Found]:
    """The same reasons as the planner's (`updates`); a test compares them."""
    for name, service in look.services():
        because = _obstacle(look, name, service)
        for key, course in _courses(service):
            if because and course.get("order") == "start-first":
                yield Found(
                    path=("services", name, "deploy", key, "order"),
                    mark=course.mark("order"),
                    message=f"{name} can't be updated start-first, as {because}",
                )


def _obstacle(look: Look, name: str, service: Map) -> str:
    if service.get("container_name"):
        return "it has a container_name"
    attachments = [one for _, one in bodies(service.get("networks"))]
    for key in ("ipv4_address", "mac_address"):
        if any(one.get(key) for one in (*attachments, service)):
            return f"it has {'an' if key.startswith('i') else 'a'} {key}"
    mode = text(service, "network_mode")
    if mode == "host":
        return "it is on the network of the machine"
    if mode.startswith("service:"):
        return f"it is on the network of {mode.removeprefix('service:')}"
    for other, body in look.services():
        for key in ("network_mode", "pid", "ipc", "uts"):
            if other in look.active and text(body, key) == f"service:{name}":
                return f"{other} shares its {'network' if key == 'network_mode' else key + ' namespace'}"
    for _, port, first, last, _ in fixed(service):
        if first == last and text(port, "mode") == "host":
            return "it publishes a port with mode: host"
        if first != last and last - first < replicas(service):
            return f"its ports {first}-{last}/{text(port, 'protocol')} have no room for one more"
    return ""


def never_back(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        deploy = part(service, "deploy")
        if (
            "rollback_config" in deploy
            and text(part(deploy, "update_config"), "failure_action") != "rollback"
        ):
            yield Found(
                path=("services", name, "deploy", "rollback_config"),
                mark=deploy.key_mark("rollback_config"),
                message=f"{name} never goes back, as its update_config does not say failure_action: rollback",
            )


def ratio_ignored(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        for key, course in _courses(service):
            if course.get("failure_action") == "continue" and course.get("max_failure_ratio"):
                yield Found(
                    path=("services", name, "deploy", key, "max_failure_ratio"),
                    mark=course.mark("max_failure_ratio"),
                    message=f"with failure_action: continue, {name} is updated however many fail",
                )
