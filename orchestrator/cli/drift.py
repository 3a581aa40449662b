"""`drift`: what is wanted, as `up` last said, against what is there; `repair`. Rendering is pure."""

from __future__ import annotations

from orchestrator.api import client
from orchestrator.cli import columns, say, shape
from orchestrator.cli.scope import Scope

DRIFT = 2
"""Exit code when something is not as it should be."""
HEADS = {"Target": "TARGET", "What": "WHAT", "Wanted": "SHOULD BE", "Found": "IS", "Because": "BECAUSE"}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.api.wire import Message


def drift(
    scope: Scope,
    *,
    services: tuple[str, ...],
    format: str | None,  # noqa: A002 - the option's name
) -> int:
    """Show what is not as it should be, and change nothing.

    0: all is as `up` last wanted it. 2: something is not. Whatever keeps us from telling ends with 1.
    """
    from orchestrator.model.errors import UserError

    name = scope.name()
    request: Message = {"verb": "drift", "stack": name, "services": services, "file": _file(scope)}
    if client.idle(scope.paths):
        raise UserError(
            f"nothing is wanted of stack {name}, so there is nothing to compare with",
            hint="`pystack plan` shows what `up` would do",
        )
    told = client.call(scope.paths, request)
    if format == "json":
        from orchestrator.api.wire import dumps

        say.out(dumps(told) + "\n")
    else:
        say.out(shape.rows(format, objects(told) if shape.told(format) else (), HEADS, lambda: render(told)))
        for line in told["file"]:
            say.warning(f"the stack file has changed since the last up: {say.printable(line)}")
        if not told["repair"]:
            say.warning("nothing is repaired (--no-repair); `pystack repair` changes that")
    return DRIFT if told["differences"] else 0


def _file(scope: Scope) -> object:
    """The stack as its file says now; None when there is none to be found, or it is wrong."""
    from orchestrator.cli.arrange import arrange
    from orchestrator.model import codec
    from orchestrator.model.errors import UserError

    try:
        return codec.encode(arrange(scope.load(strict=False, warn=False).stack, {}))
    except UserError as error:
        if scope.said_name() is None:
            raise
        if scope.file:
            say.warning(f"the stack file is not compared: {error.message}")
        return None


def objects(told: Message) -> list[Message]:
    """What a template is filled with, a difference at a time. Pure."""
    keys = {"Target": "target", "What": "what", "Wanted": "wanted", "Found": "found", "Because": "because"}
    return [{head: one[key] for head, key in keys.items()} for one in told["differences"]]


def render(told: Message) -> str:
    """A table; one sentence when there is nothing to show. Pure."""
    rows = [
        [say.printable(one[key]) for key in ("target", "what", "wanted", "found", "because")]
        for one in told["differences"]
    ]
    if not rows:
        return "No drift.\n"
    return columns.ragged([list(HEADS.values()), *rows])


def repair(scope: Scope, *, off: bool) -> int:
    """From now on, put right what is changed behind our back, or only report it."""
    name = scope.name()
    if client.idle(scope.paths):
        from orchestrator.model.errors import no_containers

        raise no_containers(name)
    client.call(scope.paths, {"verb": "repair", "stack": name, "on": not off})
    return 0
