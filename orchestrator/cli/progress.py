"""Action events -> what the user sees of them. Pure: words, plain lines, JSON objects, frames."""

from __future__ import annotations

from orchestrator.cli import columns
from orchestrator.cli.say import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Event = dict[str, Any]

_KINDS = {"container": "Container", "network": "Network", "volume": "Volume", "image": "Image"}
_WORDS = {
    "create": ("Creating", "Created"),
    "pull": ("Pulling", "Pulled"),
    "start": ("Starting", "Started"),
    "stop": ("Stopping", "Stopping"),
    "kill": ("Killing", "Killing"),
    "signal": ("Signalling", "Signalled"),
    "swap": ("Swapping files", "Swapped files"),
    "pause": ("Pausing", "Paused"),
    "unpause": ("Unpausing", "Unpaused"),
    "remove": ("Removing", "Removed"),
    "route": ("Routing", "Routed"),
    "update": ("Updating", "Updated"),
    "rollback": ("Rolling back", "Rolled back"),
}
_ENDED = {"Stopping": "Stopped", "Killing": "Killed"}
"""A stop that has been asked for; that it has happened shows by what comes after."""
_UNDER_WAY = (
    *("Creating", "Starting", "Stopping", "Killing", "Signalling", "Removing", "Waiting", "Pulling"),
    *("Updating", "Rolling back", "Routing", "Swapping files"),
)


class Row:
    """Where one target stands."""

    __slots__ = ("because", "begun", "changed", "error", "figures", "target", "word")

    def __init__(self, target: str, word: str, at: float, because: str = "", error: str = "") -> None:
        self.target = target
        self.word = word
        self.begun = at
        self.changed = at
        self.because = because
        self.error = error
        self.figures = ""
        """How far it is, for the live table only."""

    @property
    def title(self) -> str:
        kind, _, name = self.target.partition(":")
        return f"{_KINDS.get(kind, kind.capitalize())} {printable(name)}"

    @property
    def done(self) -> bool:
        return self.word not in _UNDER_WAY


class Board:
    """All rows, in order of appearance. `take` returns the rows that an event has changed."""

    __slots__ = ("acted", "rows")

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.acted = False
        """Something has been done, or tried."""

    def take(self, event: Event) -> list[Row]:
        kind, target = event.get("event"), str(event.get("target", ""))
        at = float(event.get("at") or 0.0)
        because = str(event.get("because") or "")
        if kind == "progress":
            self._measure(target, event)
            return []
        if kind == "wait" and target:
            return self._put(target, "Failed" if event.get("failed") else "Waiting", at, because)
        if kind != "action" or target.startswith("probe:"):
            return []
        self.acted = True
        begins, ends = _WORDS.get(str(event.get("verb")), (str(event.get("verb")), str(event.get("verb"))))
        match event.get("outcome"):
            case "begun":
                return self._ended(target, begins, at) + self._put(target, begins, at, because)
            case "done":
                return self._ended(target, begins, at) + self._put(target, ends, at, because)
            case _:
                return self._put(target, "Error", at, because, str(event.get("error") or ""))

    def _measure(self, target: str, event: Event) -> None:
        row = self.rows.get(target)
        if row is not None:
            here, size = int(event.get("here") or 0), int(event.get("size") or 0)
            row.figures = f"{columns.size(here)}/{columns.size(size)}" if size else ""
            if event.get("extracting"):
                row.figures += " extracting"

    def _ended(self, target: str, next_word: str, at: float) -> list[Row]:
        """What was asked to stop has stopped when something else is done with it."""
        earlier = self.rows.get(target)
        if earlier is None or earlier.word not in _ENDED or next_word in _ENDED:
            return []
        return self._put(target, _ENDED[earlier.word], at, "")

    def finish(self, at: float) -> list[Row]:
        """The command ended well: what was asked to stop has stopped, nobody waits."""
        changed: list[Row] = []
        for row in list(self.rows.values()):
            if row.word == "Removing":
                # What takes its last thing away may be gone before it has said so.
                changed += self._put(row.target, "Removed", at, "")
            elif row.word in _ENDED:
                changed += self._put(row.target, _ENDED[row.word], at, "")
            elif row.word == "Waiting":
                del self.rows[row.target]
        return changed

    def _put(self, target: str, word: str, at: float, because: str, error: str = "") -> list[Row]:
        row = self.rows.get(target)
        if row is None:
            row = self.rows[target] = Row(target, "", at)
        elif {row.word, word} == {"Error", "Failed"} and (row.error or row.because) == (error or because):
            return []  # the same, once as an event and once as a verdict
        elif (row.word, row.error) == (word, error) and (word != "Waiting" or row.because == because):
            return []
        # A copy for the caller: rows go on changing.
        row.word, row.because, row.error, row.changed = word, because, error, at
        shown = Row(target, word, row.begun, because, error)
        shown.changed = at
        return [shown]


def plain(row: Row) -> str:
    """` Container x-web-1  Started`, with the reason where somebody waits or something failed."""
    return f" {row.title}  {row.word}{_tail(row)}\n"


def _tail(row: Row) -> str:
    reason = row.error or (row.because if row.word in ("Waiting", "Failed") else "")
    if row.word == "Pulling":
        reason = row.figures
    return f"  {printable(reason)}" if reason else ""


def record(row: Row) -> Event:
    """The object of one line of `--progress json`; the names of its fields are stable."""
    kind, _, name = row.target.partition(":")
    out: Event = {"kind": kind, "name": name, "status": row.word.lower(), "at": round(row.changed, 3)}
    if row.because:
        out["because"] = row.because
    if row.error:
        out["error"] = row.error
    return out


def frame(rows: list[Row], *, now: float, width: int, height: int, title: str, colour: bool) -> list[str]:
    """The lines of a live table: a head with the count, then a line a target. When there are more
    targets than lines, those that are under way or failed stay visible.
    """
    done = sum(row.done for row in rows)
    lines = [f"[+] {title} {done}/{len(rows)}"]
    room = max(height - 3, 1)
    shown = rows
    if len(rows) > room:
        keep = [row for row in rows if not row.done or row.error][:room]
        filling = [row for row in rows if row not in keep][-(room - len(keep)) :] if len(keep) < room else []
        wanted = {id(row) for row in (*keep, *filling)}
        shown = [row for row in rows if id(row) in wanted]
    widest = max((columns.width(row.title) for row in shown), default=0)
    return lines + [_frame_line(row, now, width, widest, colour=colour) for row in shown]


def _frame_line(row: Row, now: float, width: int, widest: int, *, colour: bool) -> str:
    failed = row.word in ("Error", "Failed")
    mark, tone = ("✘", "31") if failed else ("✔", "32") if row.done else ("⠿", "33")
    seconds = f"{(row.changed if row.done else now) - row.begun:.1f}s"
    name = row.title + " " * (widest - columns.width(row.title))
    left = f"{name}  {row.word:<10}{_tail(row)}".replace("\n", " ")
    left = fit(left, width - len(seconds) - 5)
    line = f" {mark} {left} {seconds}"
    return f" \x1b[{tone}m{mark}\x1b[0m {left} \x1b[2m{seconds}\x1b[0m" if colour else line


def fit(text: str, limit: int) -> str:
    """Exactly `limit` columns: cut or padded."""
    limit = max(limit, 0)
    if columns.width(text) > limit:
        cut = 0
        used = 0
        for letter in text:
            used += columns.width(letter)
            if used > limit - 1:
                break
            cut += 1
        text = text[:cut] + "…" if limit else ""
    return text + " " * (limit - columns.width(text))


def repaint(before: int, lines: list[str]) -> str:
    """Control sequences that replace the `before` lines above the cursor by `lines`, in one go:
    synchronised output (mode 2026) keeps a terminal that knows it from showing half a frame.
    """
    up = f"\x1b[{before}A\r" if before else "\r"
    body = "".join(f"\x1b[2K{line}\n" for line in lines)
    return f"\x1b[?2026h\x1b[?25l{up}\x1b[0J{body}\x1b[?25h\x1b[?2026l"
