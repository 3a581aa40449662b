"""A scenario file -> Scenario. What is wrong in it is told like what is wrong in a stack file.

    lasts: 6h
    services:
      db: {starts_in: 2s, healthy_after: 10s, crashes: {every: 1h, exit_code: 139}}
      job: {exits: {after: 30s, codes: [1, 0]}}
    faults: {retryable: 0.02, late: 0.01, delay: [1ms, 50ms]}
    events:
      - {at: 10m, kill: db}
      - {at: 15m, up: {file: next.yml}}
      - {at: 20m, kill_supervisor: {for: 5s}}

schemas/scenario.json says the same to editors; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from orchestrator.engines.simulated import Faults, Program, Pull
from orchestrator.model.frozen import replace
from orchestrator.model.stack import Stack
from orchestrator.model.steps import with_steps
from orchestrator.simulation.scenario import (
    DAY,
    HEALING,
    Event,
    Fail,
    Kill,
    KillSupervisor,
    Lose,
    NewImage,
    Order,
    PowerCut,
    Scale,
    Scenario,
)
from orchestrator.stackfile import problem, quantity
from orchestrator.stackfile.problem import Mark, Report
from orchestrator.stackfile.read import Source, read
from orchestrator.stackfile.tree import Map, Node, Seq

MOST_EVENTS = 10_000
LONGEST = 366 * DAY
MOST_REPLICAS = 1000

T = TypeVar("T")


Load = Callable[[str], Stack]
"""Reads another stack file of the same stack, by the path that the scenario has."""


def understand(
    source: Source, stack: Stack, *, lasts: float | None = None, load: Load | None = None
) -> Scenario:
    """The scenario that a text tells about `stack`; `lasts` (seconds) is used in place of what it says.

    Raises StackfileError with every mistake found, and what `load` raises.
    """
    report = Report()
    documents = read(source, report)
    report.settle()
    top = _Table(documents[0] if documents else Map(), report, (source.path, 1, 1, 0), "")
    if len(documents) > 1:
        top.wrong("a scenario is one document", problem.SYNTAX)
    top.only(TOP)
    whole = with_steps(stack)
    found = Scenario(
        lasts=lasts if lasts is not None else top.seconds("lasts", DAY, most=LONGEST),
        healing=top.seconds("healing", HEALING, most=DAY),
        programs={
            name: _program(table) for name, table in top.tables("services") if _known(table, whole, name)
        },
        faults=_faults(top.table("faults")),
        images={name: _pull(table) for name, table in top.tables("images")},
        cured=top.flag("cured"),
        events=tuple(sorted(_events(top, stack, load), key=lambda event: event.at)),
    )
    report.settle()
    return found


TOP = ("lasts", "healing", "cured", "services", "images", "faults", "events")
SERVICE = (
    *("starts_in", "stops_in", "healthy_after", "hangs_after", "probes", "probe_takes", "log_ready_after"),
    *("exits", "crashes", "refuses"),
)
FAULTS = ("retryable", "permanent", "late", "delay", "observe_delay")


class _Table:
    """A mapping of the file, with its place; every wrong value is reported, and read as its default."""

    def __init__(self, node: Node, report: Report, mark: Mark | None, path: str) -> None:
        self.report, self.mark, self.path = report, mark, path
        self.node = node if isinstance(node, Map) else Map()
        if node is not None and not isinstance(node, Map):
            self.wrong("must be a mapping", problem.WRONG_VALUE)

    def wrong(self, message: str, code: str = problem.WRONG_VALUE, *, key: str = "", hint: str = "") -> None:
        mark = (self.node.mark(key) if key else None) or self.mark
        path = ".".join(filter(None, (self.path, key)))
        self.report.error(mark, code, f"{path}: {message}" if path else message, hint=hint, path=path)

    def only(self, keys: tuple[str, ...]) -> None:
        for key in self.node:
            if key not in keys:
                mark = self.node.key_mark(key)
                where = f"{self.path}: " if self.path else ""
                hint = f"one of {', '.join(keys)}"
                self.report.error(mark, problem.UNKNOWN_KEY, f"{where}unknown key {key}", hint=hint)

    def table(self, key: str) -> _Table:
        path = ".".join(filter(None, (self.path, key)))
        return _Table(self.node.get(key), self.report, self.node.mark(key) or self.mark, path)

    def tables(self, key: str) -> list[tuple[str, _Table]]:
        above = self.table(key)
        return [(name, above.table(name)) for name in above.node]

    def _read(self, key: str, default: T, parse: Callable[[Node], T], right: str) -> T:
        value = self.node.get(key)
        if value is None:
            return default
        try:
            return parse(value)
        except (ValueError, TypeError):
            self.wrong(f"{value!r:.60} is not {right}", key=key)
            return default

    def seconds(self, key: str, default: float, *, most: float = DAY) -> float:
        def parse(value: Node) -> float:
            return _bounded(_seconds(value), 0.0, most)

        return self._read(key, default, parse, f"a time such as 500ms or 2h, at most {most:g} s")

    def perhaps_seconds(self, key: str) -> float | None:
        return self.seconds(key, 0.0) if self.node.get(key) is not None else None

    def share(self, key: str) -> float:
        def parse(value: Node) -> float:
            return _bounded(_number(value), 0.0, 1.0)

        return self._read(key, 0.0, parse, "a part between 0 and 1")

    def whole(self, key: str, default: int, least: int, most: int) -> int:
        def parse(value: Node) -> int:
            return int(_bounded(_whole(value), least, most))

        return self._read(key, default, parse, f"a whole number from {least} to {most}")

    def codes(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        def parse(value: Node) -> tuple[int, ...]:
            values = value if isinstance(value, Seq) else [value]
            if not 0 < len(values) <= 1000:
                raise ValueError
            return tuple(int(_bounded(_whole(one), 0, 255)) for one in values)

        return self._read(key, default, parse, "exit codes such as [1, 0]")

    def span(self, key: str, default: tuple[float, float]) -> tuple[float, float]:
        def parse(value: Node) -> tuple[float, float]:
            if not isinstance(value, Seq):
                return (_bounded(_seconds(value), 0.0, DAY),) * 2
            low, high = (_bounded(_seconds(one), 0.0, DAY) for one in value)
            if low > high:
                raise ValueError
            return low, high

        return self._read(key, default, parse, "a time, or [shortest, longest]")

    def flag(self, key: str) -> bool:
        def parse(value: Node) -> bool:
            if not isinstance(value, bool):
                raise TypeError
            return value

        return self._read(key, False, parse, "true or false")  # noqa: FBT003 - a default among defaults

    def text(self, key: str, default: str = "") -> str:
        def parse(value: Node) -> str:
            if not isinstance(value, str):
                raise TypeError
            return value

        return self._read(key, default, parse, "a text")


def _seconds(value: Node) -> float:
    return quantity.seconds(value) if isinstance(value, str) else _number(value)


def _number(value: Node) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _whole(value: Node) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _bounded(value: float, least: float, most: float) -> float:
    if not least <= value <= most:
        raise ValueError
    return value


# --- services ------------------------------------------------------------------------------------------


def _known(table: _Table, stack: Stack, name: str) -> bool:
    if name in stack.services:
        return True
    table.wrong(
        "no such service", problem.UNDEFINED, hint=f"the stack has {', '.join(stack.services) or 'none'}"
    )
    return False


def _program(table: _Table) -> Program:
    table.only(SERVICE)
    exits, crashes, refuses = table.table("exits"), table.table("crashes"), table.table("refuses")
    exits.only(("after", "codes"))
    crashes.only(("every", "exit_code"))
    refuses.only(("exit_code", "error"))
    found = Program(
        starts_in=table.seconds("starts_in", 0.0),
        ends_within=None if table.node.get("stops_in") == "never" else table.seconds("stops_in", 0.05),
        healthy_after=table.seconds("healthy_after", 0.0),
        hangs_after=table.perhaps_seconds("hangs_after"),
        probes=table.codes("probes", (0,)),
        probe_takes=table.seconds("probe_takes", 0.01),
    )
    if table.node.get("log_ready_after") is not None:
        never = table.node.get("log_ready_after") == "never"
        found = replace(found, log_ready_after=None if never else table.seconds("log_ready_after", 0.02))
    if table.node.get("exits") is not None:
        after = exits.seconds("after", 0.0)
        found = replace(found, exits_after=after, exit_codes=exits.codes("codes", (0,)))
    if table.node.get("crashes") is not None:
        every = crashes.seconds("every", 0.0)
        if every <= 0:
            crashes.wrong("every is missing", problem.MISSING_KEY, hint="crashes: {every: 1h}")
        code = crashes.whole("exit_code", 139, 0, 255)
        found = replace(found, crashes_every=every or 1.0, crash_code=code)
    if table.node.get("refuses") is not None:
        code = refuses.whole("exit_code", 127, 126, 127)
        found = replace(found, refuses=(code, refuses.text("error", "the command can't be executed")))
    return found


def _pull(table: _Table) -> Pull:
    table.only(("takes", "fails"))
    return Pull(takes=table.seconds("takes", 1.0), fails=table.whole("fails", 0, 0, 1000))


def _faults(table: _Table) -> Faults:
    table.only(FAULTS)
    usual = Faults()
    return Faults(
        retryable=table.share("retryable"),
        permanent=table.share("permanent"),
        late=table.share("late"),
        delay=table.span("delay", usual.delay),
        observe_delay=table.span("observe_delay", usual.observe_delay),
    )


# --- events --------------------------------------------------------------------------------------------


def _events(top: _Table, stack: Stack, load: Load | None) -> list[Event]:
    rows = top.node.get("events")
    if rows is None:
        return []
    if not isinstance(rows, Seq):
        top.wrong("must be a list", key="events")
        return []
    if len(rows) > MOST_EVENTS:
        top.wrong(f"more than {MOST_EVENTS} events", problem.LIMIT, key="events")
        return []
    found, known = [], stack
    for number, row in enumerate(rows):
        table = _Table(row, top.report, rows.mark(number) or top.node.mark("events"), f"events[{number}]")
        event = _event(table, known, load)
        if event is None:
            continue
        found.append(event)
        if isinstance(event, Order) and event.stack is not None:
            known = _together(known, event.stack)
    return found


def _together(known: Stack, then: Stack) -> Stack:
    """What the rows after a changed file may speak of."""
    return replace(
        then,
        services={**known.services, **then.services},
        networks={**known.networks, **then.networks},
        volumes={**known.volumes, **then.volumes},
    )


def _event(table: _Table, stack: Stack, load: Load | None) -> Event | None:
    words = [key for key in table.node if key != "at"]
    if "at" not in table.node:
        table.wrong("at is missing", problem.MISSING_KEY, hint="when it happens: {at: 10m, kill: db}")
        return None
    if len(words) != 1 or words[0] not in EVENTS:
        table.wrong("must say one thing beside at", hint=f"one of {', '.join(EVENTS)}")
        return None
    at = table.seconds("at", 0.0, most=LONGEST)
    if words[0] == "up":
        return _up(table, stack, at, load)
    return EVENTS[words[0]](table, stack, at)


def _kill(table: _Table, stack: Stack, at: float) -> Event | None:
    if isinstance(table.node.get("kill"), str):
        name = _service(table, "kill", stack)
        return Kill(at=at, service=name) if name else None
    said = table.table("kill")
    said.only(("service", "slot", "exit_code", "oom"))
    name = _service(said, "service", stack)
    slot = said.whole("slot", 1, 1, MOST_REPLICAS) if "slot" in said.node else None
    code = said.whole("exit_code", 137, 0, 255)
    return Kill(at=at, service=name, slot=slot, exit_code=code, oom=said.flag("oom")) if name else None


def _service(table: _Table, key: str, stack: Stack) -> str:
    name = table.text(key)
    if name in stack.services:
        return name
    hint = f"the stack has {', '.join(stack.services) or 'none'}"
    table.wrong(f"no such service: {name!r:.60}", problem.UNDEFINED, key=key, hint=hint)
    return ""


def _absence(table: _Table, key: str, usual: float) -> float:
    if table.node.get(key) in (True, None):
        return usual
    said = table.table(key)
    said.only(("for",))
    return said.seconds("for", usual)


def _kill_supervisor(table: _Table, _stack: Stack, at: float) -> Event | None:
    return KillSupervisor(at=at, absent=_absence(table, "kill_supervisor", 1.0))


def _power_cut(table: _Table, _stack: Stack, at: float) -> Event | None:
    return PowerCut(at=at, absent=_absence(table, "power_cut", 10.0))


def _remove(table: _Table, stack: Stack, at: float) -> Event | None:
    said = table.table("remove")
    said.only(("service", "network", "volume", "image"))
    if "network" in said.node:
        name = _one_of(said, "network", tuple(stack.networks))
        return Lose(at=at, network=name) if name else None
    if "volume" in said.node:
        name = _one_of(said, "volume", tuple(stack.volumes))
        return Lose(at=at, volume=name) if name else None
    if "image" in said.node:
        return Lose(at=at, image=said.text("image"))
    name = _service(said, "service", stack)
    return Lose(at=at, service=name) if name else None


def _one_of(said: _Table, key: str, names: tuple[str, ...]) -> str:
    name = said.text(key)
    if name in names:
        return name
    hint = f"the stack has {', '.join(names) or 'none'}"
    said.wrong(f"no such {key}: {name!r:.60}", problem.UNDEFINED, key=key, hint=hint)
    return ""


def _new_image(table: _Table, _stack: Stack, at: float) -> Event | None:
    return NewImage(at=at, image=table.text("new_image"))


def _fail(table: _Table, _stack: Stack, at: float) -> Event | None:
    said = table.table("fail")
    said.only(("action", "for"))
    word = said.text("action")
    if word not in VERBS:
        said.wrong(f"{word!r:.60} is no action", key="action", hint=f"one of {', '.join(VERBS)}")
        return None
    return Fail(at=at, verb=word, lasts=said.seconds("for", 5.0))


def _names(table: _Table, command: str, value: Node, stack: Stack) -> tuple[str, ...] | None:
    """The services that an order is about, () for all; None when it names one that is not there."""
    names = value if isinstance(value, Seq) else [] if value in (True, None) else [value]
    unknown = [name for name in names if name not in stack.services]
    if unknown:
        hint = f"the stack has {', '.join(stack.services) or 'none'}"
        table.wrong(f"no such service: {unknown[0]!r:.60}", problem.UNDEFINED, key=command, hint=hint)
        return None
    return tuple(str(name) for name in names)


def _order(command: str, *options: str, word: str = "") -> Callable[[_Table, Stack, float], Event | None]:
    def read_order(table: _Table, stack: Stack, at: float) -> Event | None:
        key = word or command
        value = table.node.get(key)
        if not isinstance(value, Map):
            names = _names(table, key, value, stack)
            return Order(at=at, command=command, services=names) if names is not None else None
        return _ordered(table.table(key), command, options, stack, at)

    return read_order


def _ordered(said: _Table, command: str, options: tuple[str, ...], stack: Stack, at: float) -> Order | None:
    said.only(options)
    names = _names(said, "services", said.node.get("services"), stack) if "services" in options else ()
    if names is None:
        return None
    return Order(
        at=at,
        command=command,
        services=names,
        timeout=said.perhaps_seconds("timeout"),
        volumes=said.flag("volumes"),
        force_recreate=said.flag("force_recreate"),
        no_recreate=said.flag("no_recreate"),
        no_deps=said.flag("no_deps"),
        remove_orphans=said.flag("remove_orphans"),
    )


def _up(table: _Table, stack: Stack, at: float, load: Load | None) -> Event | None:
    said = table.table("up") if isinstance(table.node.get("up"), Map) else None
    if said is None or "file" not in said.node:
        return _order("up", *UP)(table, stack, at)
    if load is None:
        said.wrong("no other file can be read here", key="file")
        return None
    then = load(said.text("file"))
    order = _ordered(said, "up", UP, then, at)
    return replace(order, stack=then) if order is not None else None


def _scale(table: _Table, stack: Stack, at: float) -> Event | None:
    said = table.table("scale")
    counts = {name: said.whole(name, 1, 0, MOST_REPLICAS) for name in said.node if _known(said, stack, name)}
    return Scale(at=at, replicas=counts) if counts else None


VERBS = ("create", "start", "stop", "kill", "remove", "pull", "probe")
UP = ("services", "file", "force_recreate", "no_recreate", "no_deps", "remove_orphans", "timeout")

EVENTS: Mapping[str, Callable[[_Table, Stack, float], Event | None]] = {
    "kill": _kill,
    "kill_supervisor": _kill_supervisor,
    "power_cut": _power_cut,
    "remove": _remove,
    "new_image": _new_image,
    "fail": _fail,
    "up": _order("up", *UP),
    "down": _order("down", "volumes", "timeout"),
    "stop": _order("stop", "services", "timeout"),
    "start": _order("start"),
    "restart": _order("restart", "services", "timeout", "no_deps"),
    "rm": _order("rm", "services", "volumes"),
    "user_kill": _order("kill", word="user_kill"),
    "scale": _scale,
}
