"""Progress on standard error: a live table on a terminal, else lines, JSON objects, or nothing."""

from __future__ import annotations

import os
import time

from orchestrator.cli import progress, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.api.client import Connection
    from orchestrator.cli.progress import Event, Row
    from orchestrator.cli.scope import Scope

FRAME = 0.1
"""Seconds between two frames of the live table."""


def mode(scope: Scope) -> str:
    """tty, plain, json or quiet: --progress, then COMPOSE_PROGRESS, then what standard error is."""
    wish = scope.progress or os.environ.get("COMPOSE_PROGRESS") or "auto"
    if wish in ("tty", "plain", "json", "quiet"):
        return wish
    dull = os.environ.get("TERM") in ("dumb", "") or (scope.ansi or os.environ.get("COMPOSE_ANSI")) == "never"
    return "tty" if say.is_terminal(say.STDERR) and not dull else "plain"


class Progress:
    """Shows the events of one command."""

    def __init__(self, scope: Scope, title: str) -> None:
        self.mode = mode(scope)
        self.board = progress.Board()
        self._title = title
        self._colour = say.colourful(say.STDERR, scope.ansi)
        self._began = time.monotonic()
        self._painted = 0
        self._last = 0.0
        self._dirty = False

    def take(self, event: Event) -> None:
        """Show what an event changes. A warning is printed in every mode but quiet."""
        if event.get("event") == "warning":
            self._warn(str(event.get("message", "")))
            return
        self._show(self.board.take(event))

    def finish(self) -> None:
        """The command has ended well."""
        self._show(self.board.finish(self._now()))
        self.stop()

    def stop(self) -> None:
        """Leave the table as it stands; what follows is printed below it."""
        if self._dirty:
            self._paint()
        self._painted = 0
        self._dirty = False

    def retitle(self, title: str) -> None:
        self._title = title

    def timeout(self) -> float | None:
        """Seconds until `tick` wants to be called; None: not before the next event."""
        if self.mode != "tty" or not self.board.rows or (not self._dirty and not self._live()):
            return None
        return max(FRAME - (time.monotonic() - self._last), 0.0)

    def tick(self) -> None:
        """Paint, if a frame is due."""
        due = self._dirty or self._live()
        if self.mode == "tty" and due and time.monotonic() - self._last >= FRAME:
            self._paint()

    def above(self, write: Callable[[], None]) -> None:
        """Let `write` print on the terminal above the live table."""
        if not self._painted:
            write()
            return
        say.err(progress.repaint(self._painted, []))
        self._painted = 0
        write()
        self._paint()

    def _live(self) -> bool:
        return any(not row.done for row in self.board.rows.values())

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _show(self, rows: list[Row]) -> None:
        if not rows:
            return
        if self.mode == "plain":
            say.err("".join(map(progress.plain, rows)))
        elif self.mode == "json":
            from orchestrator.api.wire import dumps

            say.err("".join(dumps(progress.record(row)) + "\n" for row in rows))
        elif self.mode == "tty":
            self._dirty = True
            self.tick()

    def _warn(self, message: str) -> None:
        if self.mode == "json":
            from orchestrator.api.wire import dumps

            say.err(dumps({"kind": "warning", "message": message}) + "\n")
        elif self.mode != "quiet":
            self.above(lambda: say.warning(message))

    def _paint(self) -> None:
        if self.mode != "tty" or not self.board.rows:
            return
        size = _terminal_size()
        lines = progress.frame(
            list(self.board.rows.values()),
            now=self._now(),
            width=size[0],
            height=size[1],
            title=self._title,
            colour=self._colour,
        )
        say.err(progress.repaint(self._painted, lines))
        self._painted = len(lines)
        self._last = time.monotonic()
        self._dirty = False


def _terminal_size() -> tuple[int, int]:
    try:
        columns, lines = os.get_terminal_size(say.STDERR)
    except OSError:
        return 80, 24
    return columns or 80, lines or 24


def watch(connection: Connection, shown: Progress) -> Event:
    """Show the events of a connection until its end, which is returned. Raises PystackError when the
    supervisor goes; KeyboardInterrupt leaves the supervisor at work.
    """
    import select

    from orchestrator.api import client

    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    try:
        while True:
            timeout = shown.timeout()
            ready = waiting.poll(None if timeout is None else timeout * 1000 + 1)
            shown.tick()
            if not ready:
                continue
            messages = connection.receive()
            if not messages:
                raise client.lost()
            for message in messages:
                if "end" in message:
                    end: Event = message["end"]
                    return end
                shown.take(message)
    except BaseException:
        shown.stop()
        raise


def settle(end: Event, shown: Progress) -> int:
    """Finish the progress of a command as its end says; the exit code. Raises PystackError."""
    from orchestrator.api import client

    if end.get("error"):
        shown.stop()
        client.outcome(end)
    shown.finish()
    return int(end.get("exit_code") or 0)
