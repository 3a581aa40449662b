"""The commands `up` and `create`: check the line, load the stack while a supervisor starts, hand over."""

from __future__ import annotations

import os

from orchestrator.api import client
from orchestrator.cli import change
from orchestrator.cli.wish import Wish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.api.wire import Message
    from orchestrator.cli.scope import Scope


def up(
    scope: Scope,
    *,
    services: tuple[str, ...],
    detach: bool,
    wait: bool,
    wait_timeout: float | None,
    scale: tuple[str, ...],
    force_recreate: bool,
    no_recreate: bool,
    no_deps: bool,
    remove_orphans: bool,
    timeout: float | None,
    no_start: bool,
    abort_on_container_exit: bool,
    abort_on_container_failure: bool,
    exit_code_from: str | None,
    no_log_prefix: bool,
    no_color: bool,
    timestamps: bool,
    attach: tuple[str, ...],
    no_attach: tuple[str, ...],
    attach_dependencies: bool,
    runtime: str | None,
    strict: bool,
    pull: str | None,
    quiet_pull: bool,
    no_repair: bool,
    plan: str | None,
) -> int:
    """Make the machine agree with the stack file; without -d stay and show what the containers write."""
    abort = abort_on_container_exit or exit_code_from is not None
    check(
        detach=detach,
        wait=wait,
        attaching=bool(attach or no_attach or attach_dependencies),
        abort_on_exit=abort,
        abort_on_failure=abort_on_container_failure,
        both_attach=bool(attach and attach_dependencies),
        force_recreate=force_recreate,
        no_recreate=no_recreate,
    )
    wish = Wish(
        services=services,
        detach=detach or wait or no_start,
        attach=attach,
        no_attach=no_attach,
        attach_dependencies=attach_dependencies,
        no_deps=no_deps,
        prefix=not no_log_prefix,
        colour=not no_color,
        timestamps=timestamps,
        abort_on_exit=abort,
        abort_on_failure=abort_on_container_failure,
        exit_code_from=exit_code_from,
    )
    request: Message = {
        "verb": "up",
        "services": services,
        "wanted": "created" if no_start else "running",
        "detach": wish.detach,
        "remove_orphans": change.orphans_wanted(remove_orphans),
        "repair": not no_repair,
    }
    request |= {"force_recreate": force_recreate, "no_recreate": no_recreate, "no_deps": no_deps}
    request |= {"wait": wait, "wait_timeout": wait_timeout, "timeout": timeout, "quiet_pull": quiet_pull}
    if plan is not None:
        return _follow(scope, plan, request, wish, (scale, runtime, strict, pull, no_repair, no_start))
    return send(scope, request, wish, scale, runtime, strict=strict, pull=pull)


def _follow(scope: Scope, plan: str, request: Message, wish: Wish, others: tuple[object, ...]) -> int:
    from orchestrator.cli.saved import follow

    return follow(scope, plan, request, wish, others)


def create(
    scope: Scope,
    *,
    services: tuple[str, ...],
    force_recreate: bool,
    no_recreate: bool,
    remove_orphans: bool,
    scale: tuple[str, ...],
    runtime: str | None,
    strict: bool,
    pull: str | None,
    quiet_pull: bool,
) -> int:
    """Make the containers, start none."""
    if force_recreate and no_recreate:
        raise conflict("--force-recreate", "--no-recreate")
    request: Message = {
        "verb": "up",
        "services": services,
        "wanted": "created",
        "detach": True,
        "force_recreate": force_recreate,
        "no_recreate": no_recreate,
        "no_deps": False,
        "quiet_pull": quiet_pull,
        "remove_orphans": change.orphans_wanted(remove_orphans),
        "timeout": None,
        "wait": False,
        "wait_timeout": None,
    }
    wish = Wish(services=services, detach=True)
    return send(scope, request, wish, scale, runtime, strict=strict, pull=pull)


def scale(scope: Scope, *, counts: tuple[str, ...], no_deps: bool, strict: bool) -> int:
    """Run other numbers of containers of the named services."""
    services = tuple(scales(counts, "scale"))
    request: Message = {
        "verb": "up",
        "services": services,
        "wanted": "running",
        "detach": True,
        "force_recreate": False,
        "no_recreate": False,
        "no_deps": no_deps,
        "remove_orphans": False,
        "timeout": None,
        "wait": False,
        "wait_timeout": None,
    }
    return send(scope, request, Wish(services=services, detach=True, no_deps=no_deps), counts, strict=strict)


def send(
    scope: Scope,
    request: Message,
    wish: Wish,
    scale: tuple[str, ...],
    runtime: str | None = None,
    *,
    strict: bool = False,
    pull: str | None = None,
) -> int:
    """The supervisor starts while the stack file is loaded; then the session takes over."""
    counts = scales(scale)
    started = client.begin_supervisor(scope.paths)
    # What follows imports for 100 ms, in which the supervisor gets ready.
    from orchestrator.cli.arrange import arrange, demand, demand_ports, pulled, tighten
    from orchestrator.cli.attach import Session, involved
    from orchestrator.cli.runtimes import settle
    from orchestrator.model import codec
    from orchestrator.model.images import kept
    from orchestrator.stackfile.load import demand_runnable

    loaded = scope.load(wish.services)
    stack = arrange(tighten(loaded.stack) if strict else loaded.stack, counts)
    demand(stack, (*wish.services, *wish.attach, *wish.no_attach))
    if wish.exit_code_from:
        demand(stack, (wish.exit_code_from,))
    about = involved(stack, wish)
    demand_runnable(loaded, about)
    stack = settle(loaded, stack, about, runtime)
    demand_ports(stack, about)
    ready = pulled(stack, pull)
    if os.geteuid() != 0:
        from orchestrator.cli.ahead import fetch

        ready = fetch(scope, ready, about, quiet=bool(request.get("quiet_pull")))
    request["stack"] = codec.encode(ready)
    request["environment"] = kept(os.environ)
    if started is not None:
        started.wait()
    return Session(scope, stack, request, wish).run()


def check(
    *,
    detach: bool,
    wait: bool,
    attaching: bool,
    abort_on_exit: bool,
    abort_on_failure: bool,
    both_attach: bool,
    force_recreate: bool,
    no_recreate: bool,
) -> None:
    """Raises UserError for options that contradict each other (compose.md 2.1)."""
    abort = abort_on_exit or abort_on_failure
    if force_recreate and no_recreate:
        raise conflict("--force-recreate", "--no-recreate")
    if abort_on_exit and abort_on_failure:
        raise conflict("--abort-on-container-exit", "--abort-on-container-failure")
    if both_attach:
        raise conflict("--attach", "--attach-dependencies")
    if wait and (abort or attaching):
        raise conflict("--wait", "--abort-on-container-exit" if abort else "--attach")
    if detach and (abort or attaching):
        raise conflict("--detach", "--abort-on-container-exit" if abort else "--attach")


def conflict(one: str, other: str) -> Exception:
    return change.usage(f"{one} and {other} cannot be combined")


def scales(texts: Iterable[str], option: str = "--scale") -> dict[str, int]:
    """{"web": 3} of ("web=3",). Raises UserError."""
    counts: dict[str, int] = {}
    for text in texts:
        service, equals, number = text.partition("=")
        if not service or not equals or not number.isdigit():
            raise change.usage(f"{option}: {text!r} is not SERVICE=N")
        counts[service] = int(number)
    return counts
