"""The command `exec`: one more process in a running container, on our descriptors or its own terminal."""

from __future__ import annotations

import os
import select
import signal

from orchestrator.api import client
from orchestrator.cli import copy, say
from orchestrator.cli.wakeup import Wakeup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.api.wire import Message
    from orchestrator.cli.scope import Scope
    from orchestrator.cli.terminal import DetachKeys, Raw

STDIN = 0
IMPATIENCE = 3
"""So many Ctrl-C without an end mean that the user wants out."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def execute(
    scope: Scope,
    *,
    service: str,
    command: tuple[str, ...],
    detach: bool,
    env: tuple[str, ...],
    no_tty: bool,
    user: str | None,
    workdir: str | None,
    index: int | None,
    privileged: bool,
    interactive: bool,
    tty: bool,
) -> int:
    """Run a command in a running container; its exit code is ours."""
    del interactive  # the default; accepted for -it
    name = scope.name()
    terminal = wants_terminal(no_tty=no_tty, tty=tty, detach=detach)
    request: Message = {
        "verb": "exec",
        "stack": name,
        "service": service,
        "index": index,
        "command": command,
        "user": user,
        "workdir": workdir,
        "environment": environment(env, os.environ),
        "tty": terminal,
        "detach": detach,
        "privileged": privileged,
    }
    if terminal:
        from orchestrator.cli import terminal as terminals

        request["rows"], request["columns"] = terminals.size()
    stdio = Stdio() if not terminal and not detach else None
    try:
        connection = client.find(scope.paths, request, stdio.given if stdio else ())
        if connection is None:
            from orchestrator.model.errors import UserError

            raise UserError(f'service "{service}" is not running')
        if stdio:
            stdio.hand_over()
        with connection, Wakeup(*FORWARDED, signal.SIGWINCH) as wakeup:
            return (Piped(connection, wakeup, stdio) if stdio else OnTerminal(connection, wakeup)).run()
    finally:
        if stdio:
            stdio.close()


def wants_terminal(*, no_tty: bool, tty: bool, detach: bool) -> bool:
    """A terminal for the command: when ours is one, unless -T or -d. Raises UserError."""
    from orchestrator.cli.change import usage

    if tty and no_tty:
        raise usage("--tty and --no-tty cannot be combined")
    ours = say.is_terminal(STDIN) and say.is_terminal(say.STDOUT)
    if tty and not say.is_terminal(STDIN) and not detach:
        raise usage("--tty: standard input is not a terminal", "leave -t out, or use -T")
    return ours and not no_tty and not detach


def environment(pairs: tuple[str, ...], environ: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """{"A": "1"} of ("A=1",); a bare name takes our own value, if there is one. Pure."""
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if equals:
            values[name] = value
        elif name in environ:
            values[name] = environ[name]
    return values


class Stdio:
    """Descriptors for a process in a container: our own where they are harmless, else pipes."""

    __slots__ = ("_theirs", "given", "inputs", "outputs")

    def __init__(self, count: int = 3) -> None:
        self.given: list[int] = []
        self._theirs: list[int] = []
        self.inputs: list[copy.Flow] = []
        self.outputs: dict[int, int] = {}
        for fd in range(count):
            self.given.append(fd if copy.harmless(fd) else self._between(fd))

    def _between(self, fd: int) -> int:
        if not copy.is_open(fd):
            theirs = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        elif fd == STDIN:
            theirs, ours = os.pipe2(os.O_CLOEXEC)
            self.inputs.append(copy.Flow(fd, ours))
        else:
            ours, theirs = os.pipe2(os.O_CLOEXEC)
            self.outputs[ours] = fd
        self._theirs.append(theirs)
        return theirs

    def hand_over(self) -> None:
        """They have been sent: our copies would keep the pipes from ending."""
        for fd in self._theirs:
            os.close(fd)
        self._theirs = []

    def close(self) -> None:
        self.hand_over()
        for flow in self.inputs:
            flow.close()
        for fd in self.outputs:
            os.close(fd)
        self.outputs = {}


class Attended:
    """A process somewhere else while it runs: our signals go to it, its end is ours."""

    def __init__(self, connection: client.Connection, wakeup: Wakeup) -> None:
        self.connection = connection
        self.wakeup = wakeup
        self.inputs: list[copy.Flow] = []
        self.outputs: dict[int, int] = {}
        self.impatience = 0
        self.code: int | None = None

    def run(self) -> int:
        """The exit code. Raises PystackError."""
        while self.code is None:
            self.turn()
        return self.code

    def turn(self) -> None:
        """Wait for something to happen, and do it."""
        ready = self._wait()
        for fd in [fd for fd in self.outputs if fd in ready]:
            if not copy.take(fd, self.outputs[fd]):
                self.output_ended(fd)
        for flow in self.inputs:
            if flow.hungry and flow.source in ready:
                flow.pull()
            elif flow.loaded and flow.sink in ready:
                flow.push()
        for number in self.wakeup.take():
            self.signalled(number)
        if self.code is None and self.connection.fileno() in ready:
            self.hear(self.connection.receive())
        self.after_turn()

    def _wait(self) -> set[int]:
        """The descriptors that are ready."""
        waiting = select.poll()
        for fd in (self.connection.fileno(), self.wakeup.fileno(), *self.outputs):
            waiting.register(fd, select.POLLIN)
        for flow in self.inputs:
            if flow.hungry:
                waiting.register(flow.source, select.POLLIN)
            if flow.loaded and flow.sink not in self.outputs:
                waiting.register(flow.sink, select.POLLOUT)
            elif flow.loaded:
                waiting.register(flow.sink, select.POLLIN | select.POLLOUT)
        return {fd for fd, _ in waiting.poll(self.timeout())}

    def timeout(self) -> float | None:
        """Milliseconds."""
        return None

    def output_ended(self, fd: int) -> None:
        self.outputs.pop(fd)
        os.close(fd)

    def signalled(self, number: int) -> None:
        if number == signal.SIGWINCH:
            return
        self.impatience += number == signal.SIGINT
        if self.impatience >= IMPATIENCE:
            self.code = 128 + signal.SIGINT
        self.connection.send({"signal": number})

    def hear(self, messages: list[Message]) -> None:
        if not messages:
            raise client.lost()
        for message in messages:
            if "end" in message:
                self.ended(message["end"])
                return
            self.told(message)

    def told(self, message: Message) -> None:
        """Something other than the end."""

    def after_turn(self) -> None:
        """Once a turn."""

    def ended(self, end: Message) -> None:
        self.drain()
        client.outcome(end)
        self.code = int(end.get("exit_code") or 0)

    def drain(self) -> None:
        """What the process has written before it ended."""
        for fd, sink in self.outputs.items():
            copy.drain(fd, sink)


class Piped(Attended):
    """A process on pipes."""

    def __init__(self, connection: client.Connection, wakeup: Wakeup, stdio: Stdio) -> None:
        super().__init__(connection, wakeup)
        self.inputs = stdio.inputs
        self.outputs = stdio.outputs


class OnTerminal(Attended):
    """A process on a terminal of its own, whose master is handed to us by a message."""

    shows_output = True
    """Whether its output comes from the master; that of `run` comes from the log."""
    keys: DetachKeys | None = None

    def __init__(self, connection: client.Connection, wakeup: Wakeup) -> None:
        super().__init__(connection, wakeup)
        self.master = -1
        self.raw: Raw | None = None

    def run(self) -> int:
        try:
            return super().run()
        finally:
            if self.raw is not None:
                self.raw.__exit__()
            if self.detached():
                say.err("\nread escape sequence: it runs on\n")
            for fd in (self.master, *self.connection.received_fds):
                if fd >= 0:
                    os.close(fd)

    def told(self, message: Message) -> None:
        if message.get("event") != "terminal" or not self.connection.received_fds or self.master >= 0:
            return
        from orchestrator.cli import terminal

        self.master = self.connection.received_fds.pop(0)
        terminal.resize(self.master)
        self.raw = terminal.Raw()
        self.raw.__enter__()
        self.inputs.append(copy.Flow(STDIN, self.master, keep_sink=True, through=self.through()))
        if self.shows_output:
            self.outputs[self.master] = say.STDOUT

    def through(self) -> Callable[[bytes], bytes]:
        """What the user types goes through this."""
        from orchestrator.cli.terminal import DetachKeys

        self.keys = DetachKeys()
        return self.keys

    def detached(self) -> bool:
        """Ctrl-P Ctrl-Q: the user goes, the process stays."""
        return self.keys is not None and self.keys.pressed

    def after_turn(self) -> None:
        if self.code is None and self.detached():
            self.connection.send({"detach": True})
            self.code = 0

    def output_ended(self, fd: int) -> None:
        self.outputs.pop(fd)

    def signalled(self, number: int) -> None:
        if number == signal.SIGWINCH:
            if self.master >= 0:
                from orchestrator.cli import terminal

                terminal.resize(self.master)
        elif number in (signal.SIGTERM, signal.SIGHUP):
            # Our terminal goes; closing the connection ends the process.
            self.code = 128 + number
        else:
            super().signalled(number)
