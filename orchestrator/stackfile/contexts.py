"""The build and develop sections of a service in a complete tree: defaults, and where paths count from."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.stackfile import problem
from orchestrator.stackfile.paths import is_local
from orchestrator.stackfile.problem import Report
from orchestrator.stackfile.tree import Map, Node, Seq

Absolute = Callable[[Node], Node]


def built(build: Map, variables: Callable[[str], str | None], absolute: Absolute) -> Map:
    """The section with its context, its Dockerfile and the arguments that have a value."""
    fresh = build.copy()
    if fresh.get("context") == "":
        del fresh["context"]
    else:
        fresh["context"] = _place(fresh.get("context", "."), absolute)
    if "dockerfile" not in fresh and "dockerfile_inline" not in fresh:
        fresh["dockerfile"] = "Dockerfile"
    for key in ("dockerfile", "dockerfile_inline"):
        if not fresh.get(key):
            fresh.pop(key, None)
    contexts = fresh.get("additional_contexts")
    if isinstance(contexts, Map):
        fresh["additional_contexts"] = _each(contexts, lambda place: _place(place, absolute))
    keys = fresh.get("ssh")
    if isinstance(keys, Seq):
        fresh["ssh"] = _keys(keys, absolute)
    arguments = fresh.get("args")
    if isinstance(arguments, Map):
        known = Map()
        for key, value in arguments.items():
            given = variables(key) if value is None else value
            if given is not None:
                known.take(key, arguments)
                known[key] = given
        fresh["args"] = known
        if not known:
            del fresh["args"]
    return fresh


def _each(node: Map, rule: Callable[[Node], Node]) -> Map:
    fresh = node.copy()
    for key, value in node.items():
        fresh[key] = rule(value)
    return fresh


def _place(place: Node, absolute: Absolute) -> Node:
    """A directory from the project directory on; an address of somewhere else as it is."""
    return absolute(place) if isinstance(place, str) and is_local(place) else place


def _keys(keys: Seq, absolute: Absolute) -> Seq:
    fresh = Seq()
    for index, key in enumerate(keys):
        name, equals, path = key.partition("=") if isinstance(key, str) else ("", "", "")
        fresh.add(f"{name}={absolute(path)}" if equals else key, keys.mark(index))
    return fresh


def check_build(name: str, service: Map, buildable: dict[str, bool], report: Report) -> None:
    """What contradicts itself. `buildable` says of each service that is on whether it has a build section."""
    build = service.get("build")
    if not isinstance(build, Map):
        return
    path = f"services.{name}.build"
    if build.get("dockerfile") and build.get("dockerfile_inline"):
        report.error(
            build.key_mark("dockerfile_inline"),
            problem.CONFLICT,
            f"{path}: dockerfile and dockerfile_inline exclude each other",
            path=path,
        )
    platform, platforms = service.get("platform"), build.get("platforms")
    if isinstance(platforms, Seq) and platforms and platform and platform not in platforms:
        report.error(
            build.mark("platforms"),
            problem.CONFLICT,
            f"{path}.platforms must have the service's platform {platform!r} among them",
            path=f"{path}.platforms",
        )
    contexts = build.get("additional_contexts")
    for key, value in contexts.items() if isinstance(contexts, Map) else ():
        if not isinstance(value, str) or not value.startswith("service:"):
            continue
        other = value.removeprefix("service:")
        if not buildable.get(other):
            wrong = "has nothing to build" if other in buildable else "is not a service of this stack"
            report.error(
                contexts.mark(key) if isinstance(contexts, Map) else None,
                problem.UNDEFINED,
                f"{path}.additional_contexts.{key}: {other!r} {wrong}",
                path=f"{path}.additional_contexts.{key}",
            )


def watched(develop: Map, absolute: Absolute) -> Map:
    """The section with absolute paths."""
    triggers = develop.get("watch")
    if not isinstance(triggers, Seq):
        return develop
    fresh = Seq()
    for index, trigger in enumerate(triggers):
        if isinstance(trigger, Map):
            trigger = trigger.copy()  # noqa: PLW2901
            trigger["path"] = absolute(trigger.get("path"))
        fresh.add(trigger, triggers.mark(index))
    result = develop.copy()
    result["watch"] = fresh
    return result
