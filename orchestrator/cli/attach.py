"""One `up` from its request to its end: progress, the output of the containers, Ctrl-C.

One loop over three connections (the order itself, the logs, the stop that a signal asks for) and the
signals. What is to be done next is a stage:

    ordering   `up` is at work; logs are shown as soon as there is a container
    following  it is done; ends when every container has ended
    stopping   a signal came, or a container ended that takes all with it
    killing    a second signal came
    leaving    a signal came where nothing is attached
"""

from __future__ import annotations

import select
import signal
import time

from orchestrator.api import client
from orchestrator.cli import painter, prefix, say
from orchestrator.cli.logs import Source, steadily
from orchestrator.cli.wakeup import Wakeup
from orchestrator.model.errors import ExitCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.api.wire import Message
    from orchestrator.cli.record import Record
    from orchestrator.cli.scope import Scope
    from orchestrator.cli.wish import Wish
    from orchestrator.model.stack import Stack

SETTLE = 2.0
"""Seconds in which the last lines and exit codes may arrive after everything has stopped."""


def involved(stack: Stack, wish: Wish) -> set[str]:
    """The services that this `up` is about: those named and what they need, or all. Pure."""
    if not wish.services:
        return set(stack.services)
    found: set[str] = set()
    todo = [name for name in wish.services if name in stack.services]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        if not wish.no_deps:
            todo.extend(
                dependency.service
                for dependency in stack.services[name].depends_on
                if dependency.service in stack.services
            )
    return found


def attached(stack: Stack, wish: Wish) -> set[str]:
    """The services whose output is shown (compose.md P8, 2.1). Pure."""
    if wish.attach:
        chosen = set(wish.attach)
    elif wish.services and not wish.attach_dependencies:
        chosen = set(wish.services)
    else:
        chosen = {name for name in involved(stack, wish) if stack.services[name].attach}
    return chosen - set(wish.no_attach)


def expected_names(stack: Stack, services: set[str]) -> list[str]:
    """Short names of the containers that will be, sorted. Pure."""
    names: list[str] = []
    for key in services & set(stack.services):
        service = stack.services[key]
        if service.container_name:
            names.append(service.container_name)
        else:
            names.extend(f"{key}-{slot}" for slot in range(1, service.replicas + 1))
    return sorted(names)


class Session:
    """One `up`."""

    def __init__(self, scope: Scope, stack: Stack, request: Message, wish: Wish) -> None:
        self._scope = scope
        self._stack = stack
        self._wish = wish
        self._request = request
        self._involved = involved(stack, wish)
        self._attached = attached(stack, wish)
        self._stage = "ordering"
        self._shown = painter.Progress(scope, "Running")
        self._order: client.Connection | None = None
        self._logs: client.Connection | None = None
        self._stop: client.Connection | None = None
        self._kill: client.Connection | None = None
        self._accepted = False
        self._announced = False
        self._attempts = 0
        self._sources: dict[str, Source] = {}
        self._code = 0
        self._deadline: float | None = None
        self._view = prefix.View(
            expected_names(stack, self._attached),
            prefix=wish.prefix,
            colour=wish.colour and say.colourful(say.STDOUT, scope.ansi),
            timestamps=wish.timestamps,
        )
        self._since = b""

    def run(self) -> int:
        """The exit code. Raises PystackError."""
        from orchestrator.cli import clock

        with Wakeup(signal.SIGINT, signal.SIGTERM) as wakeup:
            self._since = clock.show(time.time_ns()).encode()
            try:
                self._order = client.summon(self._scope.paths, self._request)
                self._open_logs()
                while True:
                    self._turn(wakeup)
                    code = self._finished()
                    if code is not None:
                        return code
            finally:
                self._shown.stop()
                for connection in (self._order, self._logs, self._stop, self._kill):
                    if connection is not None:
                        connection.close()

    def _turn(self, wakeup: Wakeup) -> None:
        waiting = select.poll()
        waiting.register(wakeup.fileno(), select.POLLIN)
        named = {"_order": self._order, "_logs": self._logs, "_stop": self._stop, "_kill": self._kill}
        by_fd: dict[int, tuple[str, client.Connection]] = {}
        for name, connection in named.items():
            if connection is not None:
                by_fd[connection.fileno()] = (name, connection)
                waiting.register(connection.fileno(), select.POLLIN)
        ready = {fd for fd, _ in waiting.poll(self._timeout())}
        self._shown.tick()
        for fd, (name, connection) in by_fd.items():
            if fd in ready and getattr(self, name) is connection:
                self._hear(name, connection)
        if wakeup.fileno() in ready:
            for _ in wakeup.take():
                self._interrupt()

    def _timeout(self) -> float | None:
        """Milliseconds."""
        times = [] if (tick := self._shown.timeout()) is None else [tick]
        if self._deadline is not None:
            times.append(max(self._deadline - time.monotonic(), 0.0))
        return min(times) * 1000 + 1 if times else None

    def _hear(self, name: str, connection: client.Connection) -> None:
        messages = connection.receive()
        if name == "_logs":
            if self._hear_logs(messages):
                connection.close()
                self._logs = None
                self._resume_logs(heard=bool(messages))
            return
        for message in messages:
            if name == "_order":
                self._accepted = True
            if "end" in message:
                connection.close()
                setattr(self, name, None)
                getattr(self, f"_ended{name}")(message["end"])
                return
            self._shown.take(message)
            if name == "_order" and str(message.get("target", "")).startswith("container:"):
                self._announce()
        if not messages:
            self._lost(name, connection)
        if name == "_order" and self._stage != "ordering":
            self._send_stop()

    # --- the order ------------------------------------------------------------------------------

    def _ended_order(self, end: Message) -> None:
        if self._stage != "ordering":
            self._send_stop()
            return
        if end.get("error"):
            self._shown.stop()
            if self._logs is not None:
                self._print_logs([])
            client.outcome(end)
        self._shown.finish()
        self._code = int(end.get("exit_code") or 0)
        self._stage = "following"
        self._announce()
        self._open_logs()

    def _lost(self, name: str, connection: client.Connection) -> None:
        """A supervisor that leaves with its last stack does not hear who comes in the same moment."""
        connection.close()
        setattr(self, name, None)
        self._attempts += 1
        if name != "_order" or self._accepted or self._attempts > client.ATTEMPTS:
            raise client.lost()
        self._order = client.summon(self._scope.paths, self._request)

    def _open_logs(self) -> None:
        if self._logs is None and not self._wish.detach:
            request: Message = {"verb": "logs", "stack": self._stack.name, "services": [], "follow": True}
            self._logs = client.summon(self._scope.paths, request)

    def _resume_logs(self, *, heard: bool) -> None:
        """The stream broke off. If containers run, it was the supervisor that went: the next one knows them,
        and their logs are files.
        """
        if heard or self._stage != "following" or not any(one.running for one in self._sources.values()):
            return
        self._attempts += 1
        if self._attempts > client.ATTEMPTS:
            raise client.lost()
        request: Message = {"verb": "ps", "stack": self._stack.name, "all": True}
        rows = steadily(lambda: client.ask(self._scope.paths, request)) or []
        states = {row["id"]: row["state"] for row in rows}
        for id_, source in self._sources.items():
            source.running = source.running and states.get(id_) in ("running", "created", "restarting")
        self._open_logs()

    def _announce(self) -> None:
        if not self._announced and not self._wish.detach:
            self._announced = True
            names = ", ".join(expected_names(self._stack, self._attached))
            self._shown.above(lambda: say.out(f"Attaching to {names}\n"))

    # --- the logs -------------------------------------------------------------------------------

    def _hear_logs(self, messages: list[Message]) -> bool:
        """Show what they bring; whether the stream has ended."""
        after: list[str] = []
        gone: list[str] = []
        for message in messages:
            id_, kind = str(message.get("id")), message.get("event")
            if "end" in message:
                return True
            if kind == "container" and message.get("service") in self._involved:
                source = self._sources.setdefault(id_, Source(message, self._stack.name))
                source.running = message.get("state") in ("running", "created")
            elif id_ in self._sources and kind == "exited":
                after.append(self._exited(self._sources[id_], message))
            elif id_ in self._sources and kind == "removed":
                self._sources[id_].running = False
                gone.append(id_)
        self._print_logs(after)
        for id_ in gone:
            self._sources.pop(id_).close()
        return not messages

    def _exited(self, source: Source, message: Message) -> str:
        code = message.get("exit_code")
        restarting = bool(message.get("restarting"))
        source.running = restarting
        if source.step:  # it is meant to end, and who waits for it is told how
            return (
                prefix.exit_line(source.name, code, restarting=False)
                if source.service in self._attached
                else ""
            )
        if source.service == self._wish.exit_code_from:
            self._code = int(code or 0)
        takes_all = self._wish.abort_on_exit or (self._wish.abort_on_failure and code)
        if takes_all and not restarting and self._stage in ("ordering", "following"):
            if not self._wish.exit_code_from:
                self._code = int(code or 0)
            self._begin_stop("Aborting on container exit...")
        if source.service not in self._attached:
            return ""
        return prefix.exit_line(source.name, code, restarting=restarting)

    def _print_logs(self, after: list[str]) -> None:
        sources = [source for source in self._sources.values() if source.service in self._attached]
        batch: list[tuple[str, Record]] = [
            (source.name, line) for source in sources for line in source.added(self._since)
        ]
        for source in sources:
            if not source.running:
                batch.extend((source.name, line) for line in source.rest(self._since))
        batch.sort(key=lambda item: item[1].time)
        text = "".join(after)
        if not batch and not text:
            return

        def write() -> None:
            for fd, data in self._view.lines(batch):
                say.write(fd, data)
            say.out(text)

        self._shown.above(write)

    # --- stopping -------------------------------------------------------------------------------

    def _interrupt(self) -> None:
        if self._wish.detach:
            # As docker compose: nobody looks on any more, and what runs (perhaps for days) stays.
            self._code = ExitCode.INTERRUPTED
            self._stage = "leaving"
            self._deadline = 0.0
            self._shown.stop()
            say.err("\nNot waited for the rest, which goes on; `pystack down` takes it back\n")
        elif self._stage in ("ordering", "following"):
            self._code = ExitCode.INTERRUPTED
            self._begin_stop("Gracefully stopping... (press Ctrl+C again to force)")
        elif self._stage == "stopping":
            self._code = ExitCode.INTERRUPTED
            self._stage = "killing"
            self._shown.above(lambda: say.err("\nKilling...\n"))
            self._send_kill()
        else:
            self._deadline = 0.0

    def _begin_stop(self, sentence: str) -> None:
        ordering = self._stage == "ordering"
        self._stage = "stopping"
        self._shown.stop()
        self._shown.above(lambda: say.err(f"\n{sentence}\n"))
        # Before the supervisor has said a word it may not know the stack yet, and a stop would be lost.
        if not ordering or self._accepted:
            self._send_stop()

    def _send_stop(self) -> None:
        if self._stop is not None or self._deadline is not None:
            return
        if self._order is not None:
            self._order.close()
            self._order = None
        self._shown = painter.Progress(self._scope, "Stopping")
        self._stop = self._ask("stop", {"timeout": self._request.get("timeout")})
        if self._stage == "killing":
            self._send_kill()

    def _send_kill(self) -> None:
        if self._stop is not None and self._kill is None:
            self._kill = self._ask("kill", {"signal": "SIGKILL"})

    def _ask(self, verb: str, more: Message) -> client.Connection:
        services = sorted(self._involved) if self._wish.services else []
        request: Message = {"verb": verb, "stack": self._stack.name, "services": services, **more}
        return client.reach(self._scope.paths, request)

    def _ended_stop(self, end: Message) -> None:
        painter.settle(end, self._shown)
        self._deadline = time.monotonic() + SETTLE

    def _ended_kill(self, end: Message) -> None:
        """That there was nothing left to kill is no failure."""

    # --- the end --------------------------------------------------------------------------------

    def _finished(self) -> int | None:
        """The exit code when there is nothing left to do."""
        running = any(source.running for source in self._sources.values())
        if self._stage == "ordering":
            return None
        if self._stage == "following":
            if self._wish.detach:
                return self._code
            seen = self._sources or not self._expected() or self._logs is None
            return self._code if seen and not running else None
        if self._deadline is None:
            return None
        late = time.monotonic() >= self._deadline
        return int(self._code) if late or self._logs is None or not running else None

    def _expected(self) -> int:
        return sum(self._stack.services[name].replicas for name in self._involved)
