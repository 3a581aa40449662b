"""The command `logs`, and the sources that `up` and `run` follow as well."""

from __future__ import annotations

import heapq
import os
import time

from orchestrator.api import client
from orchestrator.cli import clock, prefix, record, say
from orchestrator.cli.follow import LogFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    from orchestrator.api.wire import Message
    from orchestrator.cli.record import Record
    from orchestrator.cli.scope import Scope

    T = TypeVar("T")


PAUSE = 0.1
"""Seconds in which a supervisor that was killed lets go of its socket."""


class Source:
    """The log of one container, as the supervisor has announced it."""

    __slots__ = ("_file", "_joiner", "attach", "name", "running", "service", "slot", "step", "tty")

    def __init__(self, event: Message, stack: str) -> None:
        self.name = prefix.short(str(event["name"]), stack)
        self.service = str(event["service"])
        self.slot = int(event.get("slot") or 0)
        self.step = bool(event.get("step"))
        self.tty = bool(event.get("tty"))
        self.attach = bool(event.get("attach", True))
        self.running = _runs(event)
        self._file = LogFile(os.path.abspath(str(event["log"])))
        self._joiner = record.Joiner()

    def history(self, tail: int | None, since: bytes, until: bytes) -> Iterator[Record]:
        """Whole lines of the past; what is unfinished waits for `added` or `rest`."""
        records = self._file.history() if tail is None else self._file.tail(tail)
        for whole in self._lines(records):
            if whole.time >= since and (not until or whole.time < until):
                yield whole

    def added(self, since: bytes = b"") -> list[Record]:
        """Whole lines that have come since the last look."""
        return [whole for whole in self._lines(self._file.added()) if whole.time >= since]

    def pieces(self, since: bytes = b"") -> list[Record]:
        """Records as they come, unfinished lines included: for the output of `run`."""
        return [piece for piece in self._file.added() if piece.time >= since]

    def rest(self, since: bytes = b"") -> list[Record]:
        """A last line without an end."""
        return [piece for piece in self._joiner.rest() if piece.time >= since]

    def close(self) -> None:
        self._file.close()

    def _lines(self, records: Iterable[Record]) -> Iterator[Record]:
        for piece in records:
            yield from self._joiner.take(piece)


def logs(
    scope: Scope,
    *,
    services: tuple[str, ...],
    follow: bool,
    tail: str | None,
    since: str | None,
    until: str | None,
    timestamps: bool,
    no_log_prefix: bool,
    no_color: bool,
    raw: bool,
    index: int | None,
) -> int:
    """Show what the containers of a stack have written, in order of time."""
    if raw and timestamps:
        from orchestrator.cli.change import usage

        raise usage("--raw and --timestamps cannot be combined")
    count = tail_count(tail)
    bounds = (moment("--since", since), moment("--until", until))
    name = scope.name()
    request: Message = {"verb": "logs", "stack": name, "services": services}
    sources: dict[str, Source] = {}

    def wanted(source: Source) -> bool:
        return (source.attach or bool(services)) and index in (None, source.slot)

    served = steadily(lambda: survey(scope, request, sources))
    if services and not sources:
        from orchestrator.cli.change import demand_services

        demand_services(scope, name, services, [])
    if not served:
        return 0
    view = prefix.View(
        (source.name for source in sources.values() if wanted(source)),
        prefix=not no_log_prefix and not raw,
        colour=not no_color and say.colourful(say.STDOUT, scope.ansi),
        timestamps=timestamps,
        raw=raw,
    )
    shown = [source for source in sources.values() if wanted(source)]
    _print_history(view, shown, count, *bounds, rest=not follow)
    tries = 0
    while follow and tries < client.ATTEMPTS:
        with client.summon(scope.paths, {**request, "follow": True}) as connection:
            heard, over = _follow(connection, sources, view, wanted, name, bounds[0])
        if over:
            return 0
        # The supervisor was lost, not the containers: the next one knows them, and their logs are files.
        tries = 0 if heard else tries + 1
        if not steadily(lambda: survey(scope, request, sources)):
            return 0
    if follow:
        raise client.lost()
    return 0


def steadily(look: Callable[[], T]) -> T:
    """Look again when the supervisor goes while we do: one that is killed still accepts for a moment, and
    looking twice does no harm. Raises PystackError.
    """
    for left in range(client.ATTEMPTS - 1, -1, -1):
        try:
            return look()
        except Exception as error:
            from orchestrator.model.errors import ExitCode, PystackError

            gone = isinstance(error, PystackError) and error.exit_code is ExitCode.SUPERVISOR
            if not gone or not left:
                raise
        time.sleep(PAUSE)
    raise AssertionError("the last look returns or raises")


def survey(scope: Scope, request: Message, sources: dict[str, Source]) -> bool:
    """Add the containers there are to `sources`, and see which of these run. False: there is no supervisor
    and nothing that one could be asked about. Raises PystackError.
    """
    connection = client.find(scope.paths, {**request, "follow": False})
    if connection is None:
        return False
    for source in sources.values():
        source.running = False
    with connection:
        for message in connection.lines():
            if message.get("event") == "container":
                source = sources.setdefault(message["id"], Source(message, str(request["stack"])))
                source.running = _runs(message)
            elif "end" in message:
                client.outcome(message["end"])
    return True


def _runs(message: Message) -> bool:
    return message.get("state") in ("running", "created")


def _print_history(
    view: prefix.View, sources: list[Source], count: int | None, since: bytes, until: bytes, *, rest: bool
) -> None:
    def lines(source: Source) -> Iterator[tuple[bytes, str, Record]]:
        for whole in source.history(count, since, until):
            yield whole.time, source.name, whole
        for whole in source.rest(since) if rest else ():
            yield whole.time, source.name, whole

    batch: list[tuple[str, Record]] = []
    for _, name, whole in heapq.merge(*map(lines, sources), key=lambda item: item[0]):
        batch.append((name, whole))
        if len(batch) >= 1000:
            _write(view, batch)
            batch = []
    _write(view, batch)


def _write(view: prefix.View, batch: Iterable[tuple[str, Record]]) -> None:
    for fd, data in view.lines(batch):
        say.write(fd, data)


def _follow(
    connection: client.Connection,
    sources: dict[str, Source],
    view: prefix.View,
    wanted: Callable[[Source], bool],
    stack: str,
    since: bytes,
) -> tuple[bool, bool]:
    """Show what is added until every container has ended, or the connection. (Was anything heard, have all
    ended.)
    """
    heard = False
    while messages := connection.receive():
        after: list[str] = []
        gone: list[str] = []
        looked: dict[str, Source] = {}
        for message in messages:
            if "end" in message:
                client.outcome(message["end"])
                return heard, False
            id_ = str(message.get("id"))
            kind = message.get("event")
            if kind == "container":
                source = sources.setdefault(id_, Source(message, stack))
                source.running = _runs(message)
                heard = True
            elif id_ not in sources:
                continue
            source = sources[id_]
            if wanted(source):
                looked[id_] = source
            if kind == "exited":
                source.running = bool(message.get("restarting"))
                if wanted(source):
                    after.append(
                        prefix.exit_line(
                            source.name, message.get("exit_code"), restarting=bool(message.get("restarting"))
                        )
                    )
            elif kind == "removed":
                source.running = False
                gone.append(id_)
        batch = [(source.name, line) for source in looked.values() for line in source.added(since)]
        batch.sort(key=lambda item: item[1].time)
        _write(view, batch)
        say.out("" if view.raw else "".join(after))
        if heard and not any(source.running for source in sources.values() if wanted(source)):
            rest = [(source.name, line) for source in sources.values() for line in source.rest(since)]
            _write(view, rest)
            return True, True
        for id_ in gone:
            sources.pop(id_).close()
    return heard, False


def tail_count(text: str | None) -> int | None:
    """Lines for --tail; None for all. Raises UserError."""
    if text is None or text == "all":
        return None
    if not text.isdigit():
        from orchestrator.cli.change import usage

        raise usage(f"--tail: {text!r} is neither a number nor all")
    return int(text)


def moment(option: str, text: str | None) -> bytes:
    if text is None:
        return b""
    try:
        return clock.moment(text, time.time_ns()).encode()
    except ValueError:
        from orchestrator.cli.change import usage

        raise usage(
            f"{option}: {text!r} is neither a time nor a duration", "2026-01-02T13:00:00Z, 10m"
        ) from None
