"""The verbs that run a program for a client: `exec` and `run`."""

from __future__ import annotations

import contextlib
import os
import signal as signals
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import trio

from orchestrator.api import orders
from orchestrator.api.converging import conclude, converge, demand_images, demand_rights
from orchestrator.api.follow import described, follow
from orchestrator.api.session import Gone, Session
from orchestrator.api.stacks import Stacks
from orchestrator.engines.local.execs import Execution
from orchestrator.engines.local.program import exec_process
from orchestrator.engines.local.table import Follower, Live
from orchestrator.kernel import syscalls
from orchestrator.model import codec
from orchestrator.model.action import CreateContainer
from orchestrator.model.desired import Desired, Wanted
from orchestrator.model.errors import PystackError, UserError, no_containers
from orchestrator.model.observation import State
from orchestrator.model.stack import Stack
from orchestrator.reconciler.loop import View

READ_SECONDS = 10.0
CHUNK = 64 * 1024


async def execute(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    """One more process in a running container, on the client's own descriptors or on a new terminal."""
    live = _running(stacks, request)
    machine = stacks.machine
    image = machine.store.config(live.container.image_id) if live.container.image_id else None
    tty = bool(request.get("tty"))
    process = exec_process(
        live.container,
        image,
        argv=[str(word) for word in request["command"]],
        environment_more=request.get("environment") or {},
        user=request.get("user"),
        workdir=request.get("workdir"),
        tty=tty,
        privileged=bool(request.get("privileged")),
        host_name=os.uname().nodename,
    )
    if tty:
        size = {"height": int(request.get("rows") or 24), "width": int(request.get("columns") or 80)}
        process["consoleSize"] = size
    stdio = [] if tty else session.take_fds()
    if not tty and not stdio:
        stdio = [os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) for _ in range(3)]
    try:
        execution = await machine.execs.begin(live, process, stdio)
    finally:
        for fd in stdio:
            os.close(fd)
    # Our copy of the terminal keeps it alive when the client leaves the process to itself.
    kept = False
    try:
        if execution.terminal is not None:
            await _hand_over(session, execution, execution.terminal)
        if request.get("detach"):
            await session.end()
            return
        code = await _attended(session, execution)
        if code is None:
            kept = execution.terminal is not None
            stacks.later(_swallow, execution)
        else:
            await session.end(exit_code=code)
    finally:
        if execution.terminal is not None and not kept:
            os.close(execution.terminal)


async def _hand_over(session: Session, execution: Execution, terminal: int) -> None:
    try:
        await session.send({"event": "terminal"}, fds=[terminal])
    except Gone:
        execution.kill()
        raise


async def _swallow(execution: Execution) -> None:
    """What a process prints on a terminal that nobody looks at: taken away, so that it is not held up."""
    terminal = execution.terminal
    if terminal is None:
        return
    os.set_blocking(terminal, False)
    try:
        with contextlib.suppress(OSError):  # EIO: the last one that had it open has ended
            while True:
                await trio.lowlevel.wait_readable(terminal)
                with contextlib.suppress(BlockingIOError):
                    if not os.read(terminal, CHUNK):
                        return
    finally:
        trio.lowlevel.notify_closing(terminal)
        os.close(terminal)


def _running(stacks: Stacks, request: dict[str, Any]) -> Live:
    name, service, index = request["stack"], request["service"], request.get("index")
    supervised = stacks.get(name)
    if supervised is None:
        raise UserError(f'service "{service}" is not running')
    orders.demand(supervised.loop.desired.stack, [service])
    found = [
        live
        for live in stacks.machine.table.of_stack(name)
        if live.container.service == service and index in (None, live.container.slot)
    ]
    running = [live for live in found if live.container.state is State.RUNNING]
    if not running:
        which = f"has no running container with index {index}" if index else "is not running"
        raise UserError(f'service "{service}" {which}')
    return min(running, key=lambda live: live.container.slot)


async def _attended(session: Session, execution: Execution) -> int | None:
    """The exit code; meanwhile signals are passed on, and a client that goes takes the process along. None
    when the client has left it to itself.
    """
    code: int | None = None

    async def listen(scope: trio.CancelScope) -> None:
        try:
            while True:
                message = await session.receive()
                if message.get("detach"):
                    scope.cancel()
                    return
                execution.signal(_signal(message))
        except Gone:
            execution.signal(signals.SIGHUP)
            await trio.sleep(1)
            execution.kill()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, nursery.cancel_scope)
        code = await execution.wait()
        nursery.cancel_scope.cancel()
    return code


def _signal(message: Mapping[str, Any]) -> int:
    """The signal that a client passes on; 0, which does nothing, for anything else."""
    number = message.get("signal")
    return number if isinstance(number, int) and number in signals.valid_signals() else 0


async def run(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
    """A one-off container: started after what it needs, followed to its end, and removed if asked."""
    stack = codec.decode(Stack, request["stack"])
    service, detach = request["service"], bool(request.get("detach"))
    no_deps = bool(request.get("no_deps"))
    needs = [] if no_deps else orders.with_dependencies(stack, [service])
    stacks.machine.pulls.remember(stack.name, request.get("environment") or {})
    demand_images(stacks, stack, [service, *needs])
    demand_rights(stacks, stack, [service, *needs])
    channel = stacks.machine.table.feed.follow()
    stdin = session.take_fds()
    stacks.machine.give_stdin(stack.name, service, stdin)
    wish = _Wish(stack=stack, service=service, needs=needs, no_deps=no_deps)
    live: Live | None = None
    left = False
    """It runs on without the client."""
    try:
        quiet = bool(request.get("quiet_pull"))
        verdict = await converge(
            session, stacks, stack.name, wish.order, [service], end=False, quiet_pull=quiet
        )
        live = _begun(stacks, stack.name, service)
        if live is None or detach:
            left = verdict.exit_code == 0
            await conclude(session, verdict)
        else:
            left = await _follow_to_end(session, stacks, live, channel)
    finally:
        channel.close()
        stacks.machine.give_stdin(stack.name, service, [])
        for fd in stdin:
            os.close(fd)
        if live is None:
            with trio.CancelScope(shield=True):
                await _withdraw(stacks, wish)
        elif request.get("remove"):
            if left:
                stacks.later(discard_ended, stacks, stack.name, service)
            else:
                with trio.CancelScope(shield=True):
                    await _until_closed(session)
                    await _discard(stacks, stack.name, service)


@dataclass(slots=True, kw_only=True)
class _Wish:
    """What a `run` asks of its stack, and how to take it back."""

    stack: Stack
    service: str
    needs: list[str]
    no_deps: bool
    before: Desired | None = None
    ours: Desired | None = None

    def order(self, previous: Desired | None) -> Desired:
        self.before = previous
        self.ours = orders.run(previous, self.stack, self.service, no_deps=self.no_deps)
        return self.ours


async def _withdraw(stacks: Stacks, wish: _Wish) -> None:
    """A one-off that has never run goes, and what was not started yet for its sake alone is not started any
    more: nobody waits for it (Ctrl-C while its dependencies start).
    """
    name, ours = wish.stack.name, wish.ours
    current = _desired(stacks, name)
    if ours is None or current is None or wish.service not in current.stack.services:
        return
    started = {live.container.service for live in stacks.machine.table.of_stack(name) if live.container.run}
    started.add(wish.service)
    with contextlib.suppress(PystackError):
        await stacks.want(
            name, lambda found: orders.withdraw(_known(found, name), wish.before, ours, wish.needs, started)
        )
    await _discard(stacks, name, wish.service)


async def _until_closed(session: Session) -> None:
    """The client reads the log to its end before it goes; only then may the log be taken away."""
    with trio.move_on_after(READ_SECONDS):
        try:
            while True:
                await session.receive()
        except Gone:
            return


def _made(stacks: Stacks, stack: str, service: str) -> Live | None:
    live = [one for one in stacks.machine.table.of_stack(stack) if one.container.service == service]
    return live[0] if live else None


def _begun(stacks: Stacks, stack: str, service: str) -> Live | None:
    """The container of a one-off, if its program was started, or tried."""
    live = _made(stacks, stack, service)
    return live if live is not None and live.container.run is not None else None


def _desired(stacks: Stacks, stack: str) -> Desired | None:
    supervised = stacks.get(stack)
    return supervised.loop.desired if supervised else None


async def _follow_to_end(session: Session, stacks: Stacks, live: Live, channel: Follower) -> bool:
    """Whether the client has left it to itself before its end."""
    machine, stack, service = stacks.machine, live.container.stack, live.container.service
    await session.send(described(machine, live.container))
    if live.terminal is not None:
        await session.send({"event": "terminal"}, fds=[live.terminal])

    def pass_on(number: int) -> None:
        if live.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                syscalls.pidfd_send_signal(live.pidfd, number)

    left = False

    async def listen(scope: trio.CancelScope) -> None:
        nonlocal left
        try:
            while not left:
                message = await session.receive()
                left = bool(message.get("detach"))
                pass_on(_signal(message))
        except Gone:
            pass_on(signals.SIGHUP)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, nursery.cancel_scope)
        nursery.start_soon(
            follow,
            session,
            machine,
            stack,
            lambda one: one.service == service,
            lambda: _desired(stacks, stack),
            channel,
        )
        await live.finished.wait()
        await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    if left:
        return True
    ended = live.container.run
    if ended is None or ended.finished is None:
        raise Gone
    code = 255 if ended.exit_code is None else ended.exit_code
    await session.send({"event": "grown", "id": live.container.id})
    await session.end(exit_code=code, error=ended.error)
    return False


async def discard_ended(stacks: Stacks, stack: str, service: str) -> None:
    """Take a one-off that nobody attends away when it has ended (`run -d --rm`)."""
    live = _made(stacks, stack, service)
    if live is not None:
        await live.finished.wait()
    await _discard(stacks, stack, service)


async def _discard(stacks: Stacks, stack: str, service: str) -> None:
    """Take a one-off away: its container, then the service itself. A stack that goes down does it, too."""
    supervised = stacks.get(stack)
    if supervised is None or service not in supervised.loop.desired.stack.services:
        return

    def absent(previous: Desired | None) -> Desired:
        found = _known(previous, stack)
        intents = dict(found.intents)
        if service in intents:
            intents[service] = replace(intents[service], wanted=Wanted.ABSENT, stop_timeout=1.0)
        return replace(found, intents=intents)

    with contextlib.suppress(UserError), trio.move_on_after(30):
        supervised, revision = await stacks.want(stack, absent)
        loop = supervised.loop

        def gone(view: View) -> bool:
            making = (action for action in loop.in_flight.values() if isinstance(action, CreateContainer))
            return not any(c.service == service for c in view.observation.containers) and not any(
                action.service.name == service for action in making
            )

        await loop.until(lambda view: gone(view) or None, revision=revision)
        await stacks.want(stack, lambda previous: orders.forget_service(_known(previous, stack), service))


def _known(previous: Desired | None, stack: str) -> Desired:
    if previous is None:
        raise no_containers(stack)
    return previous


def resume(stacks: Stacks) -> None:
    """After our own restart: one-offs that were to be removed at their end have lost who waited for it."""
    for live in stacks.machine.table.containers.values():
        container = live.container
        if container.definition.oneoff and container.definition.remove_on_exit:
            stacks.later(discard_ended, stacks, container.stack, container.service)
