"""The verbs that run a program for a client: `exec` and `run`."""

from __future__ import annotations

import contextlib
import os
import signal as signals
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import trio

from orchestrator.api import orders
from orchestrator.api.converging import converge, demand_images
from orchestrator.api.follow import described, follow
from orchestrator.api.session import Gone, Session
from orchestrator.api.stacks import Stacks
from orchestrator.engines.local.bundle import exec_process
from orchestrator.engines.local.execs import Execution
from orchestrator.engines.local.table import Follower, Live
from orchestrator.kernel import syscalls
from orchestrator.model import codec
from orchestrator.model.desired import Desired, Wanted
from orchestrator.model.errors import UserError
from orchestrator.model.observation import State
from orchestrator.model.stack import Stack

READ_SECONDS = 10.0


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
    if execution.terminal is not None:
        try:
            await session.send({"event": "terminal"}, fds=[execution.terminal])
        except Gone:
            execution.kill()
            raise
        finally:
            os.close(execution.terminal)
    if request.get("detach"):
        await session.end()
        return
    await session.end(exit_code=await _attended(session, execution))


def _running(stacks: Stacks, request: dict[str, Any]) -> Live:
    name, service, index = request["stack"], request["service"], request.get("index")
    supervised = stacks.get(name)
    if supervised is None:
        raise UserError(f"no stack {name} is up")
    orders.demand(supervised.loop.desired.stack, [service])
    found = [
        live
        for live in stacks.machine.table.of_stack(name)
        if live.container.service == service and index in (None, live.container.slot)
    ]
    running = [live for live in found if live.container.state is State.RUNNING]
    if not running:
        which = f"service {service}" + (f" has no running container with index {index}" if index else "")
        raise UserError(which if index else f"{which} is not running")
    return min(running, key=lambda live: live.container.slot)


async def _attended(session: Session, execution: Execution) -> int:
    """The exit code; meanwhile signals are passed on, and a client that goes takes the process along."""

    async def listen() -> None:
        try:
            while True:
                execution.signal(_signal(await session.receive()))
        except Gone:
            execution.signal(signals.SIGHUP)
            await trio.sleep(1)
            execution.kill()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
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
    demand_images(stacks, stack, [service, *needs])
    channel = stacks.machine.table.feed.follow()
    stdin = session.take_fds()
    stacks.machine.give_stdin(stack.name, service, stdin)
    over = True
    try:
        verdict = await converge(
            session,
            stacks,
            stack.name,
            lambda previous: orders.run(previous, stack, service, no_deps=no_deps),
            [service],
            end=False,
        )
        live = _made(stacks, stack.name, service)
        if detach or live is None or live.container.run is None:
            over = verdict.exit_code != 0
            await session.end(exit_code=verdict.exit_code, error="\n".join(verdict.failures))
        else:
            await _follow_to_end(session, stacks, live, channel)
    finally:
        channel.close()
        stacks.machine.give_stdin(stack.name, service, [])
        for fd in stdin:
            os.close(fd)
        if request.get("remove"):
            if over:
                with trio.CancelScope(shield=True):
                    await _until_closed(session)
                    await _discard(stacks, stack.name, service)
            else:
                stacks.later(discard_ended, stacks, stack.name, service)


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


async def _follow_to_end(session: Session, stacks: Stacks, live: Live, channel: Follower) -> None:
    machine, stack, service = stacks.machine, live.container.stack, live.container.service
    await session.send(described(machine, live.container))
    if live.terminal is not None:
        await session.send({"event": "terminal"}, fds=[live.terminal])

    def pass_on(number: int) -> None:
        if live.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                syscalls.pidfd_send_signal(live.pidfd, number)

    async def listen(scope: trio.CancelScope) -> None:
        try:
            while True:
                pass_on(_signal(await session.receive()))
        except Gone:
            pass_on(signals.SIGHUP)
            scope.cancel()

    def desired() -> Desired | None:
        supervised = stacks.get(stack)
        return supervised.loop.desired if supervised else None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, nursery.cancel_scope)
        nursery.start_soon(
            follow, session, machine, stack, lambda one: one.service == service, desired, channel
        )
        await live.finished.wait()
        await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    ended = live.container.run
    if ended is None or ended.finished is None:
        raise Gone
    code = 255 if ended.exit_code is None else ended.exit_code
    await session.send({"event": "grown", "id": live.container.id})
    await session.end(exit_code=code, error=ended.error)


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
        await supervised.loop.until(
            lambda view: not any(c.service == service for c in view.observation.containers) or None,
            revision=revision,
        )
        await stacks.want(stack, lambda previous: orders.forget_service(_known(previous, stack), service))


def _known(previous: Desired | None, stack: str) -> Desired:
    if previous is None:
        raise UserError(f"no stack {stack} is up")
    return previous


def resume(stacks: Stacks) -> None:
    """After our own restart: one-offs that were to be removed at their end have lost who waited for it."""
    for live in stacks.machine.table.containers.values():
        container = live.container
        if container.definition.oneoff and container.definition.remove_on_exit:
            stacks.later(discard_ended, stacks, container.stack, container.service)
