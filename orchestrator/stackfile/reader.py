"""Typed looks into a canonical tree. Its shape was checked; this is where `Any` would otherwise come in."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.model.errors import Place
from orchestrator.stackfile import problem
from orchestrator.stackfile.problem import Mark, Report, place_of
from orchestrator.stackfile.quantity import seconds
from orchestrator.stackfile.tree import Map, Node, Seq, dotted

_NOTHING = Map()


class Reader:
    """One mapping of the tree, with its path and place."""

    __slots__ = ("_above", "_mark", "_step", "node", "report", "said")

    def __init__(
        self,
        node: Node,
        report: Report,
        step: str | int = "",
        mark: Mark | None = None,
        above: Reader | None = None,
    ) -> None:
        if isinstance(node, Map):
            self.said = True
            self.node = node
        else:
            self.said = False
            """Is there such a mapping, though it may be empty?"""
            self.node = _NOTHING
        self.report = report
        self._mark = mark
        self._step = step
        self._above = above

    @property
    def mark(self) -> Mark | None:
        """Where it stands; where what it would be in stands, if it isn't there."""
        if self._mark is None and self._above is not None and isinstance(self._step, str):
            self._mark = self._above.node.mark(self._step) or self._above.mark
        return self._mark

    @property
    def steps(self) -> tuple[str | int, ...]:
        return (*self._above.steps, self._step) if self._above is not None else ()

    @property
    def path(self) -> str:
        return dotted(self.steps)

    @property
    def place(self) -> Place | None:
        return place_of(self.mark)

    def has(self, key: str) -> bool:
        return self.node.get(key) is not None

    def text(self, key: str) -> str | None:
        value = self.node.get(key)
        return value if isinstance(value, str) and value else None

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.node.get(key)
        return value if isinstance(value, bool) else default

    def whole(self, key: str) -> int | None:
        value = self.node.get(key)
        return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def number(self, key: str) -> float | None:
        value = self.node.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def seconds(self, key: str) -> float | None:
        value = self.node.get(key)
        return seconds(value) if isinstance(value, str) else None

    def bytes(self, key: str) -> int | None:
        value = self.node.get(key)
        return int(value) if isinstance(value, str) else None

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.node.get(key)
        return tuple(entry for entry in value if isinstance(entry, str)) if isinstance(value, Seq) else ()

    def words(self, key: str) -> tuple[str, ...] | None:
        """None when nothing is said, which is not the same as an empty list."""
        return self.texts(key) if isinstance(self.node.get(key), Seq) else None

    def pairs(self, key: str) -> dict[str, str]:
        value = self.node.get(key)
        if not isinstance(value, Map):
            return {}
        return {name: entry for name, entry in value.items() if isinstance(entry, str)}

    def part(self, key: str) -> Reader:
        return Reader(self.node.get(key), self.report, key, None, self)

    def listed(self, key: str) -> Iterator[Reader]:
        """The mappings of a list."""
        value = self.node.get(key)
        if isinstance(value, Seq):
            above = self.part(key)
            for index, entry in enumerate(value):
                yield Reader(entry, self.report, index, value.mark(index), above)

    def each(self, key: str) -> Iterator[tuple[str, Reader]]:
        """The texts of a list, each with a reader that knows its place."""
        value = self.node.get(key)
        if isinstance(value, Seq):
            above = self.part(key)
            for index, entry in enumerate(value):
                if isinstance(entry, str):
                    yield entry, Reader(None, self.report, index, value.mark(index) or above.mark, above)

    def named(self, key: str) -> Iterator[tuple[str, Reader]]:
        """The entries of a mapping whose keys the user chose."""
        value = self.node.get(key)
        if isinstance(value, Map):
            above = self.part(key)
            for name, entry in value.items():
                yield name, Reader(entry, self.report, name, value.key_mark(name), above)

    def wrong(self, message: str, *, key: str = "", code: str = problem.CONFLICT, hint: str = "") -> None:
        mark = self.node.mark(key) if key else None
        path = dotted((*self.steps, key) if key else self.steps)
        self.report.error(mark or self.mark, code, f"{path}: {message}", hint=hint, path=path)

    def refuse(self, message: str, *, key: str = "", code: str = problem.WRONG_VALUE, hint: str = "") -> None:
        """As `wrong`, for what is well said and can't be run."""
        steps = (*self.steps, key) if key else self.steps
        mark = (self.node.mark(key) if key else None) or self.mark
        path = dotted(steps)
        service = str(steps[1]) if steps[:1] == ("services",) and len(steps) > 1 else ""
        self.report.refuse(mark, code, f"{path}: {message}", hint=hint, path=path, service=service)

    def warn(self, message: str, *, key: str = "") -> None:
        mark = self.node.key_mark(key) if key else None
        path = dotted((*self.steps, key) if key else self.steps)
        self.report.warn(mark or self.mark, f"{path}: {message}")
