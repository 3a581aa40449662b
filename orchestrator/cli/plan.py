"""`plan`: what `up` or `down` would do, when, and why. Rendering is pure."""

from __future__ import annotations

from orchestrator.api import client
from orchestrator.cli import change, columns, say, shape
from orchestrator.cli.arrange import arrange, demand, tighten
from orchestrator.cli.scope import Scope
from orchestrator.cli.up import conflict, scales
from orchestrator.cli.wish import Wish
from orchestrator.model import codec

CHANGES = 2
"""Exit code when `up` would change something."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.api.wire import Message


def plan(
    scope: Scope,
    *,
    services: tuple[str, ...],
    down: bool,
    scale: tuple[str, ...],
    runtime: str | None,
    force_recreate: bool,
    no_recreate: bool,
    no_deps: bool,
    remove_orphans: bool,
    strict: bool,
    format: str | None,  # noqa: A002 - the option's name
    out: str | None,
) -> int:
    """Show what `up` (or `down`) would do, when, and why, and change nothing. `out`: where to keep it.

    0: nothing is to be done. 2: something is. 1: something cannot be done.
    """
    if force_recreate and no_recreate:
        raise conflict("--force-recreate", "--no-recreate")
    if down and out is not None:
        raise conflict("--down", "--out")
    started = client.begin_supervisor(scope.paths)
    loaded = scope.load(services)
    stack = arrange(tighten(loaded.stack) if strict else loaded.stack, scales(scale))
    demand(stack, services)
    if not down:
        from orchestrator.cli.attach import involved
        from orchestrator.cli.runtimes import settle
        from orchestrator.stackfile.load import demand_runnable

        about = involved(stack, Wish(services=services, no_deps=no_deps))
        demand_runnable(loaded, about)
        stack = settle(loaded, stack, about, runtime)
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
    if out is not None:
        request["repair"] = True
    told = client.call(scope.paths, request)
    if out is not None:
        from orchestrator.cli.saved import save

        save(out, request, told)
    if format == "json":
        from orchestrator.api.wire import dumps

        say.out(dumps(told) + "\n")
    else:
        say.out(shape.rows(format, objects(told) if shape.told(format) else (), HEADS, lambda: render(told)))
    for warning in told.get("warnings") or ():
        say.warning(warning)
    if any(wait.get("failed") for wait in told.get("waits") or ()):
        return 1
    return CHANGES if told.get("lines") else 0


HEADS = {"At": "AT", "Because": "BECAUSE", "Target": "TARGET", "Verb": "VERB"}


def objects(told: Message) -> list[Message]:
    """What a template is filled with, a line at a time. Pure."""
    lines = [
        {"At": f"{line['at']:.2f}", "Target": line["target"], "Verb": line["verb"]}
        | {"Because": line.get("because") or ""}
        for line in told.get("lines") or ()
    ]
    waits = [
        {"At": "", "Target": wait["target"], "Verb": "cannot" if wait.get("failed") else "waits"}
        | {"Because": wait.get("because") or ""}
        for wait in told.get("waits") or ()
    ]
    return lines + waits


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
