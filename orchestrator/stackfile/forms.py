"""The small rules of the long form: what a text, a number, a list or a mapping becomes.

A rule takes a checked node and the spot where it stands, and returns the canonical node. What the schemas
can't say (an open quote, a port above 65535) is reported at the spot.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Container, Mapping

from orchestrator.stackfile import problem, words
from orchestrator.stackfile.problem import Mark, Report
from orchestrator.stackfile.quantity import duration_text, nanoseconds, size_in_bytes
from orchestrator.stackfile.scalar import text_of
from orchestrator.stackfile.tree import Map, Node, Seq, dotted


class Spot:
    """Where a node stands, and who is told when it is wrong."""

    __slots__ = ("_above", "_step", "mark", "report")

    def __init__(
        self, report: Report, step: str | int = "", mark: Mark | None = None, above: Spot | None = None
    ) -> None:
        self.report = report
        self.mark = mark
        self._step = step
        self._above = above

    def inside(self, step: str | int, mark: Mark | None) -> Spot:
        return Spot(self.report, step, mark or self.mark, self)

    @property
    def path(self) -> tuple[str | int, ...]:
        """Built only when there is something to tell: nearly always there is not."""
        return (*self._above.path, self._step) if self._above is not None else ()

    def wrong(self, message: str, *, code: str = problem.WRONG_VALUE, hint: str = "") -> None:
        where = dotted(self.path)
        self.report.error(self.mark, code, f"{where}: {message}", hint=hint, path=where)

    def refuse(self, message: str, *, code: str = problem.WRONG_VALUE, hint: str = "") -> None:
        """As `wrong`, for what is well said and can't be run."""
        path = self.path
        where = dotted(path)
        service = str(path[1]) if path[:1] == ("services",) and len(path) > 1 else ""
        self.report.refuse(self.mark, code, f"{where}: {message}", hint=hint, path=where, service=service)

    def warn(self, message: str) -> None:
        self.report.warn(self.mark, f"{dotted(self.path)}: {message}")


Rule = Callable[[Node, Spot], Node]

_YES = frozenset(("y", "yes", "on"))
_NO = frozenset(("n", "no", "off"))


def fields(rules: Mapping[str, Rule]) -> Rule:
    """A rule for a mapping with known keys; keys without a rule (x-...) stay as they are."""

    def apply(node: Node, spot: Spot) -> Node:
        if not isinstance(node, Map):
            return node
        result = node.alike()
        for key, value in node.items():
            rule = rules.get(key)
            result[key] = value if rule is None else rule(value, spot.inside(key, node.mark(key)))
        return result

    return apply


def section(rules: Mapping[str, Rule], *, kept: Container[str] = ()) -> Rule:
    """As `fields`, without what says nothing (0, false, an empty text, list or mapping) except in `kept`."""
    long = fields(rules)

    # a text that looks like no time or no bytes is a text all the same
    amounts = {
        key: "0s" if rule is duration else "0" for key, rule in rules.items() if rule in (duration, size)
    }

    def apply(node: Node, spot: Spot) -> Node:
        result = long(node, spot)
        if isinstance(result, Map):
            for key, value in list(result.items()):
                nothing = not value or (key in amounts and value == amounts[key])
                if nothing and key not in kept and not key.startswith("x-"):
                    del result[key]
        return result

    return apply


def values(rule: Rule) -> Rule:
    """A rule for a mapping whose keys the user chose."""

    def apply(node: Node, spot: Spot) -> Node:
        if not isinstance(node, Map):
            return node
        result = node.alike()
        for key, value in node.items():
            result[key] = rule(value, spot.inside(key, node.mark(key)))
        return result

    return apply


def each(rule: Rule) -> Rule:
    """A rule for every entry of a list; a single value counts as a list of one."""

    def apply(node: Node, spot: Spot) -> Node:
        result = Seq()
        for index, value, mark in entries(node, spot.mark):
            result.add(rule(value, spot.inside(index, mark)), mark)
        return result

    return apply


def entries(node: Node, mark: Mark | None) -> list[tuple[int, Node, Mark | None]]:
    if isinstance(node, Seq):
        return [(index, value, node.mark(index)) for index, value in enumerate(node)]
    return [(0, node, mark)]


def text(node: Node, _spot: Spot) -> Node:
    return node if node is None or isinstance(node, str | Map | Seq) else text_of(node)


def boolean(node: Node, spot: Spot) -> Node:
    if not isinstance(node, str):
        return node
    word = node.lower()
    if word in _YES or word in _NO:
        spot.warn(f"{node!r} is a text in YAML 1.2; taken as {str(word in _YES).lower()}")
        return word in _YES
    if word in ("true", "false"):
        return word == "true"
    spot.wrong(f"expected true or false, found {node!r}")
    return node


def integer(node: Node, spot: Spot) -> Node:
    if isinstance(node, float) and node.is_integer():
        return int(node)
    if not isinstance(node, str):
        return node
    try:
        return int(node) if len(node) < 30 else _too_long(node)
    except ValueError:
        spot.wrong(f"expected a whole number, found {node!r}")
        return node


def number(node: Node, spot: Spot) -> Node:
    if not isinstance(node, str):
        return node
    try:
        return float(node) if len(node) < 30 else _too_long(node)
    except ValueError:
        spot.wrong(f"expected a number, found {node!r}")
        return node


def _too_long(node: str) -> int:
    raise ValueError(node)


def whole(node: Node, spot: Spot) -> Node:
    """As `integer`; a fraction is cut off."""
    return int(node) if isinstance(node, float) and math.isfinite(node) else integer(node, spot)


def between(least: int, most: int | None = None) -> Rule:
    """As `integer`, within bounds; the schemas hold only those to them that are written as numbers."""

    def apply(node: Node, spot: Spot) -> Node:
        value = integer(node, spot)
        if isinstance(value, int) and not isinstance(value, bool):
            if value < least:
                spot.wrong(f"must be at least {least}, not {value}")
            elif most is not None and value > most:
                spot.wrong(f"must be at most {most}, not {value}")
        return value

    return apply


def single(node: Node, spot: Spot) -> Node:
    """As `number`, to the precision of 32 bits, which is all that docker compose keeps of some."""
    value = number(node, spot)
    if not isinstance(value, float) or not math.isfinite(value) or len(repr(value)) < 8:
        return value
    try:
        (rounded,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        return value
    shortest = (float(f"{rounded:.{digits}g}") for digits in range(6, 10))
    return next((short for short in shortest if struct.pack("f", short) == struct.pack("f", rounded)), value)


def duration(node: Node, spot: Spot) -> Node:
    if not isinstance(node, str):
        return node
    try:
        return duration_text(nanoseconds(node))
    except ValueError:
        bare = node.strip().isdigit()
        spot.wrong(
            f"{node!r} is not a duration",
            hint=f"did you mean {node.strip()}s?" if bare else "durations look like 90s, 1m30s or 1.5h",
        )
        return node


def size(node: Node, spot: Spot) -> Node:
    """Bytes, as text (docker compose prints sizes so)."""
    if isinstance(node, int) and not isinstance(node, bool) and abs(node) < 2**63:
        return str(node)
    if isinstance(node, float):
        # docker compose takes it and says no more of it
        spot.refuse(f"{node} is not a whole number of bytes", hint='write 1.5 MiB as "1.5m"')
        return None
    try:
        if isinstance(node, str) and node.startswith("-"):
            raise ValueError(node)  # as docker compose: only a number can be -1
        return str(size_in_bytes(text_of(node) if isinstance(node, str | int | float) else ""))
    except ValueError:
        spot.wrong(
            f"{text_of(node) if not isinstance(node, Map | Seq) else ''!r} is not a size",
            hint="sizes look like 64m, 1.5g or 512k",
        )
        return node


def command(node: Node, spot: Spot) -> Node:
    """Words to run: a text is split as a shell would, without running one."""
    if not isinstance(node, str):
        return node
    result = Seq()
    hint = 'run it in a shell with a list: ["sh", "-c", "..."]'
    try:
        found, operator = words.leading(node)
    except ValueError as error:
        spot.wrong(f"the text can't be split into words: {error}", hint=hint)
        return result
    if operator:
        spot.refuse(f"{operator} works only in a shell, and what follows it is lost", hint=hint)
    for word in found:
        result.add(word, spot.mark)
    return result


def mapping(node: Node, _spot: Spot) -> Node:
    """A mapping of texts, from a mapping or from a list of key=value; an absent value is empty."""
    if isinstance(node, Map):
        texts = node.alike()
        for key, value in node.items():
            texts[key] = value if isinstance(value, str) else _bare(value)
        return texts
    result = Map()
    if isinstance(node, Seq):
        for index, entry in enumerate(node):
            key, _, given = _bare(entry).partition("=")
            result.put(key, given, node.mark(index))
    return result


def environment(node: Node, spot: Spot) -> Node:
    """As `mapping`, but a bare key stays without a value: it is looked up later."""
    if isinstance(node, Map):
        texts = node.alike()
        for key, value in node.items():
            texts[key] = value if value is None or isinstance(value, str) else _bare(value)
        return texts
    result = Map()
    if isinstance(node, Seq):
        for index, entry in enumerate(node):
            key, equals, given = _bare(entry).partition("=")
            if key != key.strip():
                spot.inside(index, node.mark(index)).wrong(f"the name {key!r} has a blank at its end")
            result.put(key, given if equals else None, node.mark(index))
    return result


def _bare(node: Node) -> str:
    return "" if isinstance(node, Map | Seq) else text_of(node)


class Keyed:
    """A list in the making in which a later entry with the same key takes the place of the earlier."""

    def __init__(self) -> None:
        self.listed = Seq()
        self._found: dict[object, int] = {}

    def put(self, key: object, entry: Node, mark: Mark | None) -> None:
        if key in self._found:
            self.listed[self._found[key]] = entry
            self.listed.at[self._found[key]] = mark
        else:
            self._found[key] = len(self.listed)
            self.listed.add(entry, mark)


def unique(rule: Rule = text, key: Callable[[str], str] = str) -> Rule:
    """A list without repetitions."""

    def apply(node: Node, spot: Spot) -> Node:
        result = Keyed()
        for index, value, mark in entries(node, spot.mark):
            entry = rule(value, spot.inside(index, mark))
            result.put(key(entry) if isinstance(entry, str) else repr(entry), entry, mark)
        return result.listed

    return apply


def named(node: Node, spot: Spot) -> Node:
    """A list in which an entry replaces one of the same name: what stands before its =."""
    return _NAMED(node, spot)


_NAMED = unique(key=lambda entry: entry.partition("=")[0])
