"""Rules of `pystack check` about what most likely does not do what was meant: ports that collide, waiting,
commands, things that nothing uses.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from orchestrator.stackfile.finding import Found, Look, Path, bodies, items, part, text
from orchestrator.stackfile.problem import Mark
from orchestrator.stackfile.tree import Map, Node, Seq

# --- ports -----------------------------------------------------------------------------------------

_EVERYWHERE = frozenset(("", "0.0.0.0", "::"))  # noqa: S104 - compared, not bound


def fixed(service: Map) -> Iterator[tuple[int, Map, int, int, Mark | None]]:
    """The published ports that say where on the machine: entry, first and last."""
    for index, port, mark in items(service.get("ports")):
        first, _, last = text(port, "published").partition("-") if isinstance(port, Map) else ("", "", "")
        if isinstance(port, Map) and first.isdecimal() and (not last or last.isdecimal()):
            yield index, port, int(first), int(last or first), mark


def duplicate_port(look: Look) -> Iterator[Found]:
    taken: dict[tuple[object, int], list[tuple[str, str]]] = {}
    for name, service in look.services():
        for index, port, first, last, mark in fixed(service):
            if first != last or replicas(service) == 0:
                continue
            address = text(port, "host_ip")
            holders = taken.setdefault((port.get("protocol"), first), [])
            for holder, other in holders:
                if address == other or {address, other} & _EVERYWHERE:
                    both = {name, holder} <= look.active
                    yield Found(
                        path=("services", name, "ports", index),
                        mark=mark,
                        message=f"port {first} of this machine is that of {holder} already"
                        + ("" if both else ": they can't be on together"),
                        severity="error" if both else "note",
                    )
                    break
            holders.append((name, address))


def scarce_port(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        count = replicas(service)
        for index, port, first, last, mark in fixed(service):
            shared = first == last and text(port, "mode") != "host"
            if last - first + 1 < count and not shared:
                yield Found(
                    path=("services", name, "ports", index),
                    mark=mark,
                    message=f"{count} containers of {name} can't have {text(port, 'published')} one each",
                    hint=f'a range ("{first}-{first + count - 1}:{port.get("target")}") has one for each',
                )


def crowded_network(look: Look) -> Iterator[Found]:
    on = [(name, service) for name, service in look.services() if name in look.active]
    for network in dict.fromkeys(key for _, service in on for key in _networks(service)):
        there, most = 0, _addresses(look, network)
        for name, service in on:
            before = there
            there += replicas(service) if network in _networks(service) else 0
            if before <= most < there:
                where = service if "scale" in service else part(service, "deploy")
                yield Found(
                    path=("services", name),
                    mark=where.mark("scale" if "scale" in service else "replicas"),
                    message=f"with {name}, network {network} has {there:,} containers and {most:,} addresses",
                )


def _networks(service: Map) -> list[str]:
    return [] if "network_mode" in service else list(part(service, "networks")) or ["default"]


def _addresses(look: Look, network: str) -> int:
    """That containers can have on it. What is the machine's own, or is not well written, has enough."""
    from orchestrator.model.ranges import room

    body = part(part(look.tree, "networks"), network)
    rows = [row for _, row, _ in items(part(body, "ipam").get("config")) if isinstance(row, Map)]
    row = next((row for row in rows if "subnet" in row and ":" not in text(row, "subnet")), Map())
    numbered = any(
        "ipv4_address" in part(part(service, "networks"), network) for _, service in look.services()
    )
    try:
        most = room(
            text(row, "subnet"),
            gateway=text(row, "gateway"),
            ip_range="" if numbered else text(row, "ip_range"),
        )
    except ValueError:
        return sys.maxsize
    return sys.maxsize if body.get("external") else most


def replicas(service: Map) -> int:
    """How many containers it asks for."""
    for count in (service.get("scale"), part(service, "deploy").get("replicas")):
        if isinstance(count, int):
            return count
    return 1


# --- waiting ---------------------------------------------------------------------------------------

_ONE_SHOT = re.compile(r"(^|[-_])(db-?)?(migrat(e|ions?|or)|init|setup|seed(er)?|bootstrap)($|[-_])")


def _needs(look: Look) -> Iterator[tuple[str, str, Map, Map, Mark | None]]:
    """Who waits for whom: the dependent, the other, the entry, the other's body."""
    services = dict(look.services())
    for name, service in services.items():
        needs = part(service, "depends_on")
        for other, entry in bodies(needs):
            if other in services:
                yield name, other, entry, services[other], needs.key_mark(other)


def checked(service: Map) -> bool | None:
    """Has it a health check? None when only the image can tell."""
    check = service.get("healthcheck")
    if isinstance(check, Map):
        test = check.get("test")
        if check.get("disable") is not True and ("x-http" in check or "x-tcp" in check):
            return True
        if check.get("disable") is True or (isinstance(test, Seq) and test[:1] == ["NONE"]):
            return False
        if isinstance(test, Seq) and test:
            return True
    return None if service.get("image") or "build" in service else False


def _unhealthy(look: Look, *, known: bool | None, why: str, hint: str) -> Iterator[Found]:
    for name, other, entry, body, mark in _needs(look):
        if entry.get("condition") == "service_healthy" and checked(body) is known:
            yield Found(
                path=("services", name, "depends_on", other),
                mark=mark,
                message=f"{name} waits until {other} is healthy, but {why.format(other)}",
                hint=f"give {other} a `healthcheck:`, or {hint}",
            )


def missing_healthcheck(look: Look) -> Iterator[Found]:
    why = "only its image can say when that is"
    return _unhealthy(look, known=None, why=why, hint="make sure that its image has one")


def never_healthy(look: Look) -> Iterator[Found]:
    return _unhealthy(look, known=False, why="{} has no health check", hint="wait for service_started")


def unawaited(look: Look) -> Iterator[Found]:
    awaited = {
        other
        for _, other, entry, _, _ in _needs(look)
        if entry.get("condition") == "service_completed_successfully"
    }
    for name, other, entry, body, mark in _needs(look):
        if entry.get("condition") == "service_completed_successfully" or _restarts(body):
            continue
        if other in awaited or _ONE_SHOT.search(other):
            yield Found(
                path=("services", name, "depends_on", other),
                mark=mark,
                message=f"{name} starts while {other}, which looks like a job that ends, is still at work",
                hint="`condition: service_completed_successfully` waits for its end",
            )


def never_completes(look: Look) -> Iterator[Found]:
    for name, other, entry, body, mark in _needs(look):
        if entry.get("condition") == "service_completed_successfully" and _restarts(body):
            yield Found(
                path=("services", name, "depends_on", other),
                mark=mark,
                message=f"{name} waits for the end of {other}, which is started again whenever it ends",
                hint=f'{other} needs `restart: on-failure` or `restart: "no"`',
            )


def _restarts(service: Map) -> bool:
    return text(service, "restart") in ("always", "unless-stopped")


def killed(look: Look) -> Iterator[Found]:
    for name, service in look.services():
        if text(service, "stop_signal").upper().removeprefix("SIG") in ("KILL", "9"):
            yield Found(
                path=("services", name, "stop_signal"),
                mark=service.mark("stop_signal"),
                message=f"{name} is killed without a chance to finish its work",
            )


# --- commands --------------------------------------------------------------------------------------

_OPERATORS = frozenset(("&&", "||", "|", ";", ">", ">>", "<", "2>&1", "&"))
_BUILTINS = frozenset(("cd", "export", "source", ".", "set", "exec", "ulimit", "umask", "alias"))
_SHELLS = frozenset(("sh", "bash", "ash", "dash", "zsh", "ksh", "busybox", "env"))
_VARIABLE = re.compile(r"\$(\{\w+\}|[A-Za-z_]\w*)")


def _commands(look: Look) -> Iterator[tuple[str, Path, Mark | None, list[str]]]:
    """What is run without a shell: (service, path, place, words)."""
    for name, service in look.services():
        started = _words(service.get("entrypoint"))
        for key in ("entrypoint", "command"):
            found = _words(service.get(key))
            # a command is handed to the entrypoint, which may well be a shell
            if found and (key == "entrypoint" or not started):
                yield name, ("services", name, key), service.mark(key), found
        check = part(service, "healthcheck")
        test = _words(check.get("test"))
        if test[:1] == ["CMD"]:
            yield name, ("services", name, "healthcheck", "test"), check.mark("test"), test[1:]


def _words(node: Node) -> list[str]:
    return [word for word in node if isinstance(word, str)] if isinstance(node, Seq) else []


def shell_words(look: Look) -> Iterator[Found]:
    for name, path, mark, words in _commands(look):
        if words[:1] and words[0].rpartition("/")[2] in _SHELLS:
            continue
        operator = next((word for word in words if word in _OPERATORS), "")
        if operator:
            yield Found(
                path=path,
                mark=mark,
                message=f"no shell runs this command of {name}: {operator} is handed to {words[0]} as a word",
            )
        elif words[:1] and words[0] in _BUILTINS:
            yield Found(
                path=path,
                mark=mark,
                message=f"{words[0]} is part of a shell, and no shell runs this command of {name}",
            )


def shell_variable(look: Look) -> Iterator[Found]:
    for name, path, mark, words in _commands(look):
        if words[:1] and words[0].rpartition("/")[2] in _SHELLS:
            continue
        found = next((found for found in map(_VARIABLE.search, words) if found), None)
        if found is not None:
            yield Found(
                path=path,
                mark=mark,
                message=f"no shell runs this command of {name}: {found.group()} stays as it is written",
            )


# --- what nothing uses -----------------------------------------------------------------------------


def unused(look: Look) -> Iterator[Found]:
    for noun in ("networks", "volumes", "configs", "secrets", "models"):
        section = part(look.tree, noun)
        used = {key for _, service in look.services() for key in _named(noun, service)}
        for key in section:
            if key not in used and (noun, key) != ("networks", "default") and not key.startswith("x-"):
                yield Found(
                    path=(noun, key),
                    mark=section.key_mark(key),
                    message=f"no service uses the {noun[:-1]} {key}",
                )


def _named(noun: str, service: Map) -> Iterator[str]:
    """The keys of a top-level section that a service names."""
    for node in (service.get(noun), part(service, "build").get(noun)):
        if isinstance(node, Map):
            yield from node
        for _, entry, _ in items(node):
            source = entry.get("source") if isinstance(entry, Map) else entry
            if isinstance(source, str):
                yield source
