"""The container of a `run`: its recipe, and its life in front of the user."""

from __future__ import annotations

import os
import posixpath
import signal

from orchestrator.api import client
from orchestrator.cli import change, execute, painter, say
from orchestrator.cli.logs import Source
from orchestrator.cli.scope import Scope
from orchestrator.cli.wakeup import Wakeup
from orchestrator.model.frozen import replace
from orchestrator.model.names import oneoff_name
from orchestrator.model.stack import (
    BindMount,
    Mount,
    Port,
    RestartPolicy,
    Service,
    Stack,
    VolumeMount,
)
from orchestrator.stackfile import mounts, ports, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.api.wire import Message


def attended(scope: Scope, stack: Stack, request: Message, *, terminal: bool) -> int:
    stdio = None if terminal else execute.Stdio(1)
    try:
        connection = client.summon(scope.paths, request, stdio.given if stdio else ())
        if stdio:
            stdio.hand_over()
        with connection, Wakeup(*execute.FORWARDED, signal.SIGWINCH) as wakeup:
            one = OneOff(connection, wakeup, scope, stack.name, str(request["service"]))
            one.awaits_terminal = terminal
            if stdio:
                one.inputs = stdio.inputs
            return one.run()
    finally:
        if stdio:
            stdio.close()


class OneOff(execute.OnTerminal):
    """The container of a `run`: progress until it starts, then its log, byte by byte."""

    shows_output = False

    def __init__(
        self, connection: client.Connection, wakeup: Wakeup, scope: Scope, stack: str, service: str
    ) -> None:
        super().__init__(connection, wakeup)
        self._shown = painter.Progress(scope, "Running")
        self._stack = stack
        self._service = service
        self._source: Source | None = None
        self.awaits_terminal = False
        """Output must not come before our terminal is raw, or its line ends would be changed."""

    def run(self) -> int:
        try:
            return super().run()
        finally:
            self._shown.stop()
            if self._source is not None:
                self._source.close()

    def timeout(self) -> float | None:
        tick = self._shown.timeout() if self._source is None else None
        return None if tick is None else tick * 1000 + 1

    def told(self, message: Message) -> None:
        super().told(message)
        self.awaits_terminal = self.awaits_terminal and self.master < 0
        if message.get("event") == "container" and message.get("service") == self._service:
            if self._source is None:
                self._shown.finish()
                self._source = Source(message, self._stack)
            self._copy()
        elif self._source is None:
            self._shown.take(message)

    def after_turn(self) -> None:
        if self._source is None:
            self._shown.tick()
        else:
            self._copy()
        super().after_turn()

    def drain(self) -> None:
        self.awaits_terminal = False
        self._copy()

    def signalled(self, number: int) -> None:
        if self._source is None and number in (signal.SIGINT, signal.SIGTERM):
            # Nothing runs yet: going away ends it.
            self.code = 128 + number
            return
        super().signalled(number)

    def _copy(self) -> None:
        if self._source is None or self.awaits_terminal:
            return
        for piece in self._source.pieces():
            text = piece.text + b"\n" if piece.ends else piece.text
            say.write(say.STDERR if piece.error else say.STDOUT, text)


def recipe(
    stack: Stack,
    service: str,
    token: str,
    *,
    command: tuple[str, ...],
    entrypoint: str | None,
    environment: dict[str, str],
    labels: dict[str, str],
    user: str | None,
    workdir: str | None,
    volumes: tuple[str, ...],
    publish: tuple[Port, ...],
    service_ports: bool,
    name: str | None,
    tty: bool,
    stdin: bool,
    remove: bool,
    base: str,
) -> Service:
    """The recipe of the one-off container. Pure. Raises UserError for a mount that can't be.

    It has no name of its service on the networks and none of its fixed addresses, which the service's own
    container may hold (compose.md R4).
    """
    model = stack.services[service]
    # As docker: another entrypoint does not get the command that was meant for the old one.
    own_command = model.command if entrypoint is None else ()
    added = tuple(mount(text, stack, base) for text in volumes)
    targets = {one.target for one in added}
    return replace(
        model,
        name=f"{service}-run-{token}",
        container_name=name or oneoff_name(stack.name, service, token),
        oneoff=True,
        remove_on_exit=remove,
        replicas=1,
        restart=RestartPolicy(),
        tty=tty,
        stdin_open=stdin,
        environment={**model.environment, **environment},
        labels={**model.labels, **labels},
        ports=(model.ports if service_ports else ()) + publish,
        mounts=tuple(one for one in model.mounts if one.target not in targets) + added,
        networks=tuple(
            replace(network, aliases=(), ipv4_address=None, mac_address=None) for network in model.networks
        ),
        entrypoint=model.entrypoint if entrypoint is None else tuple(words.split(entrypoint)),
        command=command or own_command,
        user=model.user if user is None else user,
        working_dir=model.working_dir if workdir is None else workdir,
    )


def mount(text: str, stack: Stack, base: str) -> Mount:
    """-v SOURCE:TARGET[:ro]. Raises UserError."""
    try:
        short = mounts.parse(text)
    except ValueError as error:
        raise change.usage(f"--volume {text}: {error}") from None
    if not short.bind:
        source = short.source or None
        if source is not None and source not in stack.volumes:
            raise change.usage(
                f"--volume {text}: the stack has no volume {source!r}", "a path begins with / or ."
            )
        return VolumeMount(
            source=source,
            target=short.target,
            read_only=short.read_only,
            nocopy=short.nocopy,
            subpath=short.subpath,
        )
    source = posixpath.normpath(posixpath.join(base, os.path.expanduser(short.source)))
    return BindMount(
        source=source,
        target=short.target,
        read_only=short.read_only,
        propagation=short.propagation or "rprivate",
    )


def published(texts: tuple[str, ...]) -> tuple[Port, ...]:
    """-p [HOST:]CONTAINER. Raises UserError."""
    found: list[Port] = []
    for text in texts:
        try:
            for short in ports.parse(text):
                host = ports.port_range(short.published, "host") if short.published else (0, 0)
                if short.protocol not in ("tcp", "udp"):
                    raise ValueError(f"{short.protocol} ports cannot be published")
                found.append(
                    Port(
                        target=short.target,
                        published=host,
                        host_ip=short.host_ip,
                        protocol="udp" if short.protocol == "udp" else "tcp",
                    )
                )
        except ValueError as error:
            raise change.usage(f"--publish {text}: {error}") from None
    return tuple(found)
