"""The command `run`: a new container of a service for one command."""

from __future__ import annotations

import os

from orchestrator.api import client
from orchestrator.cli import change, execute, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.api.wire import Message
    from orchestrator.cli.scope import Scope
    from orchestrator.model.stack import Service, Stack


def run(
    scope: Scope,
    *,
    service: str,
    command: tuple[str, ...],
    rm: bool,
    detach: bool,
    env: tuple[str, ...],
    entrypoint: str | None,
    no_tty: bool,
    interactive: bool,
    tty: bool,
    user: str | None,
    workdir: str | None,
    volume: tuple[str, ...],
    service_ports: bool,
    publish: tuple[str, ...],
    name: str | None,
    no_deps: bool,
    strict: bool,
    label: tuple[str, ...],
    runtime: str | None,
    pull: str | None,
    quiet_pull: bool,
) -> int:
    """Run a command in a new container of a service; its exit code is ours."""
    del interactive  # the default; accepted for -it
    if service_ports and publish:
        raise change.usage("--service-ports and --publish cannot be combined")
    terminal = execute.wants_terminal(no_tty=no_tty, tty=tty, detach=detach)
    started = client.begin_supervisor(scope.paths)
    # What follows imports for 100 ms, in which the supervisor gets ready.
    from orchestrator.cli import oneoff
    from orchestrator.cli.arrange import pulled
    from orchestrator.model import codec
    from orchestrator.model.frozen import replace
    from orchestrator.model.images import kept

    stack = _runnable(scope, service, no_deps=no_deps, runtime=runtime, strict=strict)
    recipe = oneoff.recipe(
        stack,
        service,
        os.urandom(6).hex(),
        command=command,
        entrypoint=entrypoint,
        environment=execute.environment(env, os.environ),
        labels=execute.environment(label, {}),
        user=user,
        workdir=workdir,
        volumes=volume,
        publish=oneoff.published(publish),
        service_ports=service_ports,
        name=name,
        tty=terminal,
        stdin=not detach,
        remove=rm,
        base=os.getcwd(),
    )
    stack = pulled(replace(stack, services={**stack.services, recipe.name: recipe}), pull)
    stack = _fetched(scope, stack, recipe, no_deps=no_deps, quiet=quiet_pull)
    request: Message = {"verb": "run", "stack": codec.encode(stack), "service": recipe.name, "remove": rm}
    request |= {"detach": detach, "no_deps": no_deps}
    request |= {"environment": kept(os.environ), "quiet_pull": quiet_pull}
    if started is not None:
        started.wait()
    if detach:
        change.order(scope, request)
        say.out(f"{recipe.container_name}\n")
        return 0
    return oneoff.attended(scope, stack, request, terminal=terminal)


def _fetched(scope: Scope, stack: Stack, recipe: Service, *, no_deps: bool, quiet: bool) -> Stack:
    """With the images that an ordinary user's supervisor could not fetch: it has a network of its own."""
    if os.geteuid() == 0:
        return stack
    from orchestrator.api import orders
    from orchestrator.cli.ahead import fetch

    needed = () if no_deps else orders.with_dependencies(stack, orders.needed(recipe))
    return fetch(scope, stack, {recipe.name, *needed}, quiet=quiet)


def _runnable(scope: Scope, service: str, *, no_deps: bool, runtime: str | None, strict: bool) -> Stack:
    """The stack, in which the service and what it needs can be run. Raises UserError."""
    from orchestrator.cli.arrange import demand, tighten
    from orchestrator.cli.attach import involved
    from orchestrator.cli.runtimes import settle
    from orchestrator.cli.wish import Wish
    from orchestrator.stackfile.load import demand_runnable

    loaded = scope.load((service,))
    demand(loaded.stack, (service,))
    about = involved(loaded.stack, Wish(services=(service,), no_deps=no_deps))
    demand_runnable(loaded, about)
    stack = settle(loaded, loaded.stack, about, runtime)
    return tighten(stack) if strict else stack
