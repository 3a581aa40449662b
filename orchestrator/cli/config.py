"""`config`: check the stack file and print it resolved, or one aspect of it. Rendering is pure."""

from __future__ import annotations

import os

from orchestrator.cli import say
from orchestrator.cli.scope import Scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from orchestrator.model.stack import Stack
    from orchestrator.stackfile.load import Loaded
    from orchestrator.stackfile.switches import Switches
    from orchestrator.stackfile.variables import Variable


def config(
    scope: Scope,
    *,
    services: tuple[str, ...],
    format: str | None,  # noqa: A002 - the option's name
    names_only: bool,
    volumes: bool,
    networks: bool,
    models: bool,
    images: bool,
    profiles: bool,
    hash: str | None,  # noqa: A002 - the option's name
    variables: bool,
    environment: bool,
    explain: str | None,
    no_interpolate: bool,
    no_normalize: bool,
    no_path_resolution: bool,
    no_consistency: bool,
    no_env_resolution: bool,
    resolve_image_digests: bool,
    lock_image_digests: bool,
    quiet: bool,
    output: str | None,
) -> int:
    """Check the stack file; print it resolved, or one aspect of it."""
    from orchestrator.stackfile.problem import StackfileError
    from orchestrator.stackfile.switches import Switches

    switches = Switches(
        interpolate=not no_interpolate,
        normalise=not no_normalize,
        paths=not no_path_resolution,
        consistency=not no_consistency,
        environment=not no_env_resolution,
    )
    noun = _first(services=names_only, volumes=volumes, networks=networks, models=models, images=images)
    pinned = resolve_image_digests or lock_image_digests
    try:
        if explain is not None:
            text = _explained(scope, services, explain, format, to_file=output is not None)
        elif environment:
            text = _lines(_environment(scope))
        elif variables:
            text = _variables(scope, format)
        elif hash is not None:
            text = hashes(_load(scope, services).stack, hash)
        elif profiles:
            text = _lines(sorted(profile_names(_load(scope, services).tree)))
        elif quiet and switches == Switches() and not pinned:
            _load(scope, services)
            text = ""
        elif noun:
            text = _lines(sorted(_named(_tree(scope, services, switches), noun)))
        else:
            tree = _tree(scope, services, switches)
            if pinned:
                tree = _pinned(scope, tree, only=lock_image_digests)
            text = "" if quiet else canonical(tree, format or "yaml", literal=no_interpolate)
    except StackfileError as error:
        if format != "json":
            raise
        from orchestrator.cli import diagnose

        say.err(diagnose.as_json(map(diagnose.of_problem, error.problems)))
        return error.exit_code
    return 0 if quiet else say.put(text, output)


def _first(**wanted: bool) -> str:
    return next((noun for noun, asked in wanted.items() if asked), "")


def _named(tree: dict[str, Any], noun: str) -> Iterable[str]:
    if noun == "models":
        return _values(tree, "models", "model")
    if noun == "images":
        return image_names(tree)
    names: Iterable[str] = tree.get(noun) or ()
    return names


def _load(scope: Scope, services: tuple[str, ...]) -> Loaded:
    """The stack, with its warnings told. Raises UserError."""
    loaded = scope.load(services)
    _told(loaded, services)
    return loaded


def _told(loaded: Loaded, services: tuple[str, ...]) -> None:
    if services:
        from orchestrator.cli.arrange import demand

        demand(loaded.stack, services)
    for refusal in loaded.refusals:
        warned = refusal.as_warning()
        say.warning(warned.message, warned.place)


def _tree(scope: Scope, services: tuple[str, ...], switches: Switches) -> dict[str, Any]:
    """What is to be printed. Raises UserError."""
    from orchestrator.stackfile.switches import ALL

    if switches == ALL:
        return narrowed(_load(scope, services), services)
    from orchestrator.cli import loading

    files = loading.UserFiles()
    located = scope.located(files)
    if switches.interpolate and switches.consistency:
        # what is left out must not hide what is wrong
        _told(loading.load(files, located, services, strict=switches.environment, warn=True), services)
    tree: dict[str, Any] = dict(loading.outline(files, located, services, switches))
    for name in services:
        if name not in tree["services"]:
            from orchestrator.cli.change import no_such_service

            raise no_such_service(name)
    return narrow(tree, services)


def _explained(scope: Scope, services: tuple[str, ...], path: str, form: str | None, *, to_file: bool) -> str:
    from orchestrator.cli import origin

    colour = not to_file and say.colourful(say.STDOUT, scope.ansi)
    return origin.told(scope, services, path, form, colour=colour)


def _environment(scope: Scope) -> list[str]:
    from orchestrator.cli.loading import UserFiles

    both = {**scope.located(UserFiles()).dotenv, **os.environ}
    return [f"{name}={both[name]}" for name in sorted(both)]


def _variables(scope: Scope, form: str | None) -> str:
    from orchestrator.cli import loading
    from orchestrator.stackfile import variables

    files = loading.UserFiles()
    return variable_table(variables.used(loading.literal(files, scope.located(files))), form)


def _pinned(scope: Scope, tree: dict[str, Any], *, only: bool) -> dict[str, Any]:
    from orchestrator.cli import pin

    found = pin.resolved(scope, tree)
    return pin.images_only(found) if only else found


def variable_table(found: Mapping[str, Variable], form: str | None) -> str:
    """The variables, as docker compose shows them. Pure."""
    if form is None:
        from orchestrator.cli import columns

        head = ("NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE")
        rows = [(one.name, str(one.required).lower(), one.default, one.alternate) for one in found.values()]
        return columns.table(head, [tuple(map(say.printable, row)) for row in rows])
    fields: dict[str, Any] = {
        name: {
            "Name": name,
            "DefaultValue": one.default,
            "PresenceValue": one.alternate,
            "Required": one.required,
        }
        for name, one in found.items()
    }
    if form == "json":
        import json

        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
    from orchestrator.stackfile.write import write

    return write({name: {key.lower(): value for key, value in row.items()} for name, row in fields.items()})


def _lines(words: Iterable[str]) -> str:
    return "".join(f"{word}\n" for word in words)


def _values(tree: Mapping[str, Any], noun: str, key: str) -> set[str]:
    return {body[key] for body in (tree.get(noun) or {}).values() if isinstance(body, dict) and key in body}


def image_names(tree: Mapping[str, Any]) -> set[str]:
    """The images of the services; what is built without a name is called after the stack and the service
    (compose.md T5). Pure.
    """
    services: Mapping[str, Any] = tree.get("services") or {}
    built = {
        f"{tree['name']}-{name}"
        for name, body in services.items()
        if "build" in body and not body.get("image")
    }
    return _values(tree, "services", "image") | built


def narrowed(loaded: Loaded, services: tuple[str, ...]) -> dict[str, Any]:
    """The canonical form with the named services and what they need only (compose.md S11). Pure."""
    return narrow(loaded.canonical, services)


def narrow(tree: Mapping[str, Any], services: tuple[str, ...]) -> dict[str, Any]:
    """A tree with the named services and what they need only; all when none is named. Pure."""
    result = dict(tree)
    if not services:
        return result
    everything: Mapping[str, Any] = tree["services"]
    wanted: set[str] = set()
    todo = list(services)
    while todo:
        name = todo.pop()
        if name in everything and name not in wanted:
            wanted.add(name)
            todo.extend(everything[name].get("depends_on") or ())
    result["services"] = {name: body for name, body in everything.items() if name in wanted}
    for noun in ("networks", "volumes", "configs", "secrets", "models"):
        used = _used(noun, result["services"].values()) if noun in result else set()
        kept = {name: body for name, body in result.pop(noun, {}).items() if name in used}
        if kept:
            result[noun] = kept
    return result


def _used(noun: str, services: Iterable[Mapping[str, Any]]) -> set[str]:
    """The keys of a top-level section that these services name, in their long forms."""
    used: set[str] = set()
    for service in services:
        part = service.get(noun) or ()
        if isinstance(part, dict):
            used.update(part)
        else:
            named = [entry for entry in part if isinstance(entry, dict) and _names_one(noun, entry)]
            used.update(entry["source"] for entry in named if entry.get("source"))
        if noun == "secrets":
            used.update(entry["source"] for entry in (service.get("build") or {}).get("secrets") or ())
    return used


def _names_one(noun: str, entry: Mapping[str, Any]) -> bool:
    return noun != "volumes" or entry.get("type") == "volume"


def canonical(tree: Mapping[str, Any], form: str, *, literal: bool = False) -> str:
    """The canonical form as text; `literal` when it still has its variables. Pure."""
    first = {key: tree[key] for key in _ORDER if key in tree}
    tree = {**first, **tree}
    if form == "json":
        import json

        from orchestrator.cli.encode import encoded

        return json.dumps(tree if literal else encoded(tree), indent=2, ensure_ascii=False) + "\n"
    from orchestrator.stackfile.write import write

    return write(tree)


_ORDER = ("name", "services", "networks", "volumes", "configs", "secrets", "models")


def hashes(stack: Stack, which: str) -> str:
    """`web 12ab...` lines: the fingerprints by which `up` sees that a service has changed, of one service,
    of several (web,db) or of all (*). Pure. Raises UserError.
    """
    from orchestrator.model import fingerprint

    names = sorted(stack.services if which == "*" else {name for name in which.split(",") if name})
    from orchestrator.cli.arrange import demand

    demand(stack, names)
    return _lines(f"{name} {fingerprint.of_service(stack.services[name])}" for name in names)


def profile_names(tree: Mapping[str, Any]) -> set[str]:
    """Every profile that a service of the stack names, switched on or not. Pure."""
    services: Mapping[str, Any] = tree.get("services") or {}
    return {profile for body in services.values() for profile in body.get("profiles") or ()}
