"""Commands that look at the stack file and change nothing: config and plan. Rendering is pure."""

from __future__ import annotations

import os
from collections.abc import Mapping

from orchestrator.api import client
from orchestrator.cli import change, columns, say
from orchestrator.cli.arrange import arrange, demand
from orchestrator.cli.scope import Scope
from orchestrator.cli.up import conflict, scales
from orchestrator.model import codec, fingerprint
from orchestrator.model.errors import UserError
from orchestrator.model.stack import ImageRoot, Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.api.wire import Message
    from orchestrator.stackfile.load import Loaded


def config(
    scope: Scope,
    *,
    services: tuple[str, ...],
    format: str | None,  # noqa: A002 - the option's name
    names_only: bool,
    volumes: bool,
    networks: bool,
    images: bool,
    profiles: bool,
    hash: str | None,  # noqa: A002 - the option's name
    quiet: bool,
    output: str | None,
    environment: bool,
) -> int:
    """Check the stack file; print it resolved, or one aspect of it."""
    if environment:
        from orchestrator.cli.loading import UserFiles

        located = scope.located(UserFiles())
        return _put(_lines(f"{k}={v}" for k, v in sorted({**located.dotenv, **os.environ}.items())), output)
    loaded = scope.load(services)
    stack = loaded.stack
    demand(stack, services)
    if quiet:
        return 0
    if names_only:
        text = _lines(stack.services)
    elif volumes:
        text = _lines(sorted(stack.volumes))
    elif networks:
        text = _lines(sorted(stack.networks))
    elif images:
        roots = (service.root for service in stack.services.values())
        text = _lines(sorted({root.reference for root in roots if isinstance(root, ImageRoot)}))
    elif profiles:
        text = _lines(sorted(profile_names(scope)))
    elif hash is not None:
        text = hashes(stack, hash)
    else:
        text = canonical(narrowed(loaded, services), format or "yaml")
    return _put(text, output)


def _lines(words: Any) -> str:
    return "".join(f"{word}\n" for word in words)


def _put(text: str, output: str | None) -> int:
    if output is None:
        say.out(text)
        return 0
    try:
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"{output}: {error.strerror}") from None
    return 0


def narrowed(loaded: Loaded, services: tuple[str, ...]) -> dict[str, Any]:
    """The canonical form with the named services and what they need only (compose.md S11). Pure."""
    tree: dict[str, Any] = dict(loaded.canonical)
    if not services:
        return tree
    from orchestrator.cli.attach import involved
    from orchestrator.cli.wish import Wish

    wanted = involved(loaded.stack, Wish(services=services))
    tree["services"] = {name: body for name, body in tree.get("services", {}).items() if name in wanted}
    return tree


def canonical(tree: Mapping[str, Any], form: str) -> str:
    """The canonical form as text. Pure."""
    if form == "json":
        import json

        return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(
        tree, Dumper=dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=1000
    )
    return text


def hashes(stack: Stack, which: str) -> str:
    """`web 12ab...` lines: the fingerprints by which `up` sees that a service has changed. Pure."""
    names = sorted(stack.services) if which == "*" else [name for name in which.split(",") if name]
    demand(stack, names)
    return _lines(f"{name} {fingerprint.of_service(stack.services[name])}" for name in names)


def profile_names(scope: Scope) -> set[str]:
    """Every profile that a service of the stack names."""
    everything = Scope(
        file=scope.file,
        project_name=scope.project_name,
        project_directory=scope.project_directory,
        profile=("*",),
        env_file=scope.env_file,
    ).load()
    services: Any = everything.canonical.get("services") or {}
    return {profile for service in services.values() for profile in service.get("profiles") or ()}


def plan(
    scope: Scope,
    *,
    services: tuple[str, ...],
    down: bool,
    scale: tuple[str, ...],
    force_recreate: bool,
    no_recreate: bool,
    no_deps: bool,
    remove_orphans: bool,
    format: str | None,  # noqa: A002 - the option's name
) -> int:
    """Show what `up` (or `down`) would do, when, and why, and change nothing. 1: something cannot be done."""
    if force_recreate and no_recreate:
        raise conflict("--force-recreate", "--no-recreate")
    started = client.begin_supervisor(scope.paths)
    stack = arrange(scope.load(services).stack, scales(scale))
    demand(stack, services)
    if started is not None:
        started.wait()
    request: Message = {
        "verb": "plan",
        "stack": codec.encode(stack),
        "services": services,
        "wanted": "running",
        "down": down,
        "force_recreate": force_recreate,
        "no_recreate": no_recreate,
        "no_deps": no_deps,
        "remove_orphans": change.orphans_wanted(remove_orphans),
    }
    told = client.call(scope.paths, request)
    if format == "json":
        from orchestrator.api.wire import dumps

        say.out(dumps(told) + "\n")
    else:
        say.out(render(told))
    for warning in told.get("warnings") or ():
        say.warning(warning)
    return 1 if any(wait.get("failed") for wait in told.get("waits") or ()) else 0


def render(told: Message) -> str:
    """`0.22  container:db-1  start  missing` lines, in columns; then what can't be done. Pure."""
    lines = [
        (
            f"{line['at']:.2f}",
            say.printable(line["target"]),
            line["verb"],
            say.printable(line.get("because") or ""),
        )
        for line in told.get("lines") or ()
    ]
    widths = [max((columns.width(cell) for cell in column), default=0) for column in zip(*lines, strict=True)]
    text = "".join(
        f"{at:>{widths[0]}}  {target:<{widths[1]}}  {verb:<{widths[2]}}  {because}".rstrip() + "\n"
        for at, target, verb, because in lines
    )
    waits = "".join(
        f"{'cannot' if wait.get('failed') else 'waits'}  {say.printable(wait['target'])}  "
        f"{say.printable(wait.get('because') or '')}\n"
        for wait in told.get("waits") or ()
    )
    return text + waits or "Nothing to do.\n"
