"""Makes small faults in the planner and the effect model, one at a time, and asks the tests about each.

    python -m tests.mutation.run [--only NAME ...] [--share PART] [--seed N] [--verbose]

Prints the faults that no test has found, and of how many: the score. Everything is imported once; each
fault is made in a fork of its own, by giving one function other code, and only tests that reach its line
are run until one fails: first those that found other faults of that function, then the quick ones. A test
that takes ten times as long as it does otherwise never ends, and has found the fault as well. `--patience`
bounds the tests of one fault: it counts as not found when none of them has found it, though a later one might.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import hashlib
import importlib
import math
import os
import pickle
import random
import resource
import signal
import sys
import time
import types
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests.mutation.mutants import Mutant, mutants, mutated

ROOT = Path(__file__).parents[2]
TARGETS = (
    *sorted((ROOT / "orchestrator" / "planner").glob("*.py")),
    ROOT / "orchestrator" / "model" / "effects.py",
)
TESTS = (
    *("tests/unit/planner", "tests/unit/model", "tests/golden/planner"),
    *("tests/unit/test_semantics_page.py", "tests/unit/test_semantics_gates.py"),
    *("tests/unit/simulation", "tests/simulation"),
)
HISTORIES = "60"
LEFT_OUT = (
    "--ignore=tests/simulation/test_play.py",
    "--ignore=tests/simulation/test_scale.py",
    "--deselect=tests/unit/planner/test_plan.py::test_a_pass_over_a_hundred_running_services_is_short",
)
"""They measure, or bring broken planners of their own."""
CPU = 4.0
"""Seconds of processor time that a test may take beyond ten times its own, until it counts as one that never
ends."""
WALL = 120.0
"""The same by the clock, for tests that wait for ever."""
MEMORY = 4 << 30
FUTURE = annotations.compiler_flag
ALIKE = ROOT / "tests" / "mutation" / "alike.txt"
"""Faults that change nothing, each with its reason; they don't count."""


@dataclass(kw_only=True)
class Ground:
    """What was found when all was right, of each test by its name: its time, and the lines that it reaches."""

    stamp: str
    """Of what is tested; another one, and nothing of this is true any more."""
    stamps: dict[str, str] = field(default_factory=dict)
    """Of the file in which the test is."""
    times: dict[str, float] = field(default_factory=dict)
    lines: dict[str, frozenset[tuple[str, int]]] = field(default_factory=dict)


@dataclass(kw_only=True)
class Score:
    found: int = 0
    missed: int = 0
    alike: int = 0

    def __str__(self) -> str:
        total = self.found + self.missed
        without = f" ({self.alike} that change nothing are left out)" if self.alike else ""
        return f"{self.found} of {total} faults found: {self.percent:.1f} %{without}"

    @property
    def percent(self) -> float:
        return 100 * self.found / max(self.found + self.missed, 1)


class Runner:
    """pytest's own loop, in place of which faults are made."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.score = Score()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        began = time.monotonic()
        gc.collect()
        gc.freeze()  # what is shared with forks is not to be written to
        order = Order(session.items, _known(self.options.ground, session.items), self.options.patience)
        chosen = list(_chosen(self.options))
        took = time.monotonic() - began
        print(f"{len(chosen)} faults, {len(session.items)} tests, which took {took:.0f} s", flush=True)
        scores: dict[str, Score] = defaultdict(Score)
        alike = _alike()
        for path, mutant, title in chosen:
            score = scores[path.name]
            if title in alike:
                score.alike += 1
                continue
            tests = order.of(path, mutant)
            name = _ask(tests, path, mutant)
            order.learn(path, mutant, name)
            score.found += bool(name)
            score.missed += not name
            if self.options.verbose or not name:
                end = f"found by {name}" if name else f"NOT FOUND ({len(tests)} tests)"
                print(f"{path.relative_to(ROOT)}:{mutant.line}: {title}  {end}", flush=True)
        print()
        for file, score in scores.items():
            print(f"{file}: {score}")
        self.score = Score(
            found=sum(score.found for score in scores.values()),
            missed=sum(score.missed for score in scores.values()),
            alike=sum(score.alike for score in scores.values()),
        )
        print(f"\n{self.score}; {time.monotonic() - began:.0f} s")
        return True


class Order:
    """Which tests are asked of a fault, and in which order. Ten times the time each needs, and a bit, is in
    the row: who needs longer than that never ends."""

    def __init__(self, items: list[pytest.Item], ground: Ground, patience: float) -> None:
        self.items = {item.nodeid: item for item in items}
        self.times = ground.times
        self.patience = patience
        self.reach: dict[tuple[str, int], list[str]] = defaultdict(list)
        self.fame: dict[str, Counter[str]] = defaultdict(Counter)
        self.uses = _uses()
        for name, lines in ground.lines.items():
            for line in lines:
                self.reach[line].append(name)

    def of(self, path: Path, mutant: Mutant) -> list[tuple[pytest.Item, float]]:
        lines = {(str(path), line) for line in (mutant.line, mutant.statement)} if mutant.home else set()
        if not mutant.home:
            lines = self.uses[mutant.name]
        reached = {name for line in lines for name in self.reach[line]}
        fame = self.fame[_place(path, mutant)]
        sorted_names = sorted(reached, key=lambda name: (-min(fame[name], 3), self.times[name], name))
        left, tests = self.patience, []
        for name in sorted_names:
            if tests and self.times[name] > left:
                break
            left -= self.times[name]
            tests.append((self.items[name], CPU + 10 * self.times[name]))
        return tests

    def learn(self, path: Path, mutant: Mutant, name: str) -> None:
        self.fame[_place(path, mutant)][name] += 1


def _uses() -> dict[str, set[tuple[str, int]]]:
    """The lines in functions that a name of a module's own level is used in, itself or by way of others."""
    uses: dict[str, set[tuple[str, int]]] = defaultdict(set)
    others: dict[str, set[str]] = defaultdict(set)
    for path in TARGETS:
        for statement in ast.parse(path.read_text()).body:
            loaded = [one for one in ast.walk(statement) if isinstance(one, ast.Name | ast.Attribute)]
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement
            target = target.target if isinstance(target, ast.AnnAssign) else target
            for one in loaded:
                name = one.id if isinstance(one, ast.Name) else one.attr
                if isinstance(target, ast.Name):
                    others[name].add(target.id)
                else:
                    uses[name].add((str(path), one.lineno))
    for _ in others:
        for name, tables in others.items():
            uses[name] |= {line for table in tables for line in uses[table]}
    return uses


def _place(path: Path, mutant: Mutant) -> str:
    return f"{path.name} {mutant.home}"


def _known(kept: Path | None, items: list[pytest.Item]) -> Ground:
    """`kept`: where it is looked up, and written to."""
    ground = Ground(stamp=_stamp(*TARGETS, *sorted((ROOT / "tests" / "kit").glob("*.py"))))
    if kept is not None and kept.exists():
        before = pickle.loads(kept.read_bytes())
        ground = before if before.stamp == ground.stamp else ground
    files = {item.path for item in items}
    stamps = {path: _stamp(path) for path in files}
    fresh = [item for item in items if ground.stamps.get(item.nodeid) != stamps[item.path]]
    found = _in_a_fork(lambda: _walk_all(fresh))
    if not isinstance(found, dict):
        raise pytest.UsageError("the tests fail as it is")
    for item in fresh:
        ground.stamps[item.nodeid] = stamps[item.path]
        ground.times[item.nodeid], ground.lines[item.nodeid] = found[item.nodeid]
    for gone in ground.times.keys() - {item.nodeid for item in items}:
        del ground.stamps[gone], ground.times[gone], ground.lines[gone]
    if kept is not None:
        kept.write_bytes(pickle.dumps(ground))
    return ground


def _stamp(*paths: Path) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def _chosen(options: argparse.Namespace) -> Iterator[tuple[Path, Mutant, str]]:
    chance = random.Random(options.seed)
    before = options.again.read_text() if options.again is not None else ""
    for path in TARGETS:
        seen: Counter[str] = Counter()
        for mutant in mutants(path.read_text()):
            picked = chance.random() < options.share
            title = f"{path.name} {mutant.home or mutant.name}: {mutant.said}"
            seen[title] += 1
            if seen[title] > 1:
                title += f" ({seen[title]})"
            if options.again is not None:
                picked = f": {title}  NOT FOUND" in before
            if picked and (not options.only or path.stem in options.only):
                yield path, mutant, title


def _alike() -> set[str]:
    """Lines `FAULT  # REASON`."""
    if not ALIKE.exists():
        return set()
    rows = (
        row.partition("  # ") for row in ALIKE.read_text().splitlines() if row and not row.startswith("#")
    )
    return {fault for fault, _, reason in rows if reason}


# --- in forks --------------------------------------------------------------------------------------------


def _in_a_fork(work: Any) -> Any:
    """What `work` returns; None when it ended otherwise."""
    reading, writing = os.pipe()
    pid = os.fork()  # noqa: TID251 - no trio runs in this process
    if pid == 0:
        os.close(reading)
        code = 1
        try:
            _hush()
            data = pickle.dumps(work())
            with os.fdopen(writing, "wb") as out:
                out.write(data)
            code = 0
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        data = answer.read()
    _, status = os.waitpid(pid, 0)
    return pickle.loads(data) if status == 0 and data else _Ended(status)


@dataclass(frozen=True)
class _Ended:
    status: int


def _hush() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)


def _walk_all(items: list[pytest.Item]) -> dict[str, tuple[float, frozenset[tuple[str, int]]]]:
    """Run everything once, and note how long each test takes, and which lines of the targets it reaches."""
    files = {str(path) for path in TARGETS}
    left: dict[types.CodeType, set[int]] = {}
    """Of each code that was entered, the lines that were not reached yet: nobody looks at it when all were."""
    found = {}

    def outer(frame: types.FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if code.co_filename not in files:
            return None
        if code not in left:
            left[code] = _lines(code)
        left[code].discard(code.co_firstlineno)
        return inner if left[code] else None

    def inner(frame: types.FrameType, event: str, _: object) -> Any:
        left[frame.f_code].discard(frame.f_lineno)
        return inner

    for number, item in enumerate(items):
        left.clear()
        began = time.process_time()
        sys.settrace(outer)
        try:
            failed = _fails(item, items[number + 1] if number + 1 < len(items) else None)
        finally:
            sys.settrace(None)
        if failed:
            raise AssertionError(f"{item.nodeid} fails as it is")
        lines = ((code.co_filename, line) for code, rest in left.items() for line in _lines(code) - rest)
        found[item.nodeid] = (time.process_time() - began, frozenset(lines))
    return found


def _lines(code: types.CodeType) -> set[int]:
    return {line for _, _, line in code.co_lines() if line is not None} | {code.co_firstlineno}


def _fails(item: pytest.Item, following: pytest.Item | None) -> bool:
    return any(report.failed for report in runtestprotocol(item, nextitem=following, log=False))


def _ask(tests: list[tuple[pytest.Item, float]], path: Path, mutant: Mutant) -> str:
    """The test that finds the fault; "" when none does."""

    def work() -> str:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.dup2(1, 2)
        _make(path, mutant)
        for place, (item, seconds) in enumerate(tests):
            signal.setitimer(signal.ITIMER_PROF, seconds)
            signal.setitimer(signal.ITIMER_REAL, WALL)
            following = tests[place + 1][0] if place + 1 < len(tests) else None
            if _fails(item, following):
                return item.nodeid
        return ""

    answer = _in_a_fork(work) if tests else ""
    return answer if isinstance(answer, str) else "its never ending, or its exception"


# --- the fault is made -----------------------------------------------------------------------------------


def _make(path: Path, mutant: Mutant) -> None:
    module = sys.modules[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")]
    tree = mutated(path.read_text(), mutant.number)
    if not mutant.home:
        _assign(module, tree, mutant.name)
        return
    outermost, *inner = mutant.home.split(".")
    body = [one for one in tree.body if getattr(one, "name", "") == outermost]
    code = compile(ast.Module(body=body, type_ignores=[]), str(path), "exec", flags=FUTURE, dont_inherit=True)
    for name in (outermost, *inner):
        code = next(one for one in code.co_consts if isinstance(one, types.CodeType) and one.co_name == name)
    _function(module, mutant.home).__code__ = code


def _function(module: types.ModuleType, home: str) -> types.FunctionType:
    owner: Any = module
    for name in home.split("."):
        owner = vars(owner)[name]
    if isinstance(owner, property):
        owner = owner.fget
    owner = getattr(owner, "__wrapped__", owner)
    return owner if isinstance(owner, types.FunctionType) else owner.__func__


def _assign(module: types.ModuleType, tree: ast.Module, name: str) -> None:
    """A table or a number of the module, and those that are made of it: with their new values wherever they
    have been imported by name."""
    changed: set[str] = set()
    for statement in tree.body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        used = {one.id for one in ast.walk(statement.value) if isinstance(one, ast.Name)}
        if isinstance(target, ast.Name) and (target.id == name or used & changed):
            made = eval(compile(ast.Expression(statement.value), "mutant", "eval"), vars(module))
            _put_everywhere(target.id, vars(module)[target.id], made)
            changed.add(target.id)
    if not changed:
        raise ValueError(f"{module.__name__} has no {name}")


def _put_everywhere(name: str, before: object, made: object) -> None:
    for other in [*sys.modules.values()]:
        if getattr(other, "__name__", "").startswith("orchestrator") and vars(other).get(name) is before:
            setattr(other, name, made)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--only", nargs="*", default=[], help="of these files, such as gates or effects")
    parser.add_argument("--share", type=float, default=1.0, help="of all faults, so many, by chance")
    parser.add_argument("--seed", type=int, default=1, help="of that chance")
    parser.add_argument("--at-least", type=float, default=0.0, help="exit code 1 below this score")
    parser.add_argument("--ground", type=Path, help="keep in this file which tests reach which line")
    parser.add_argument("--again", type=Path, help="those that this earlier output says were not found")
    parser.add_argument("--patience", type=float, default=math.inf, help="seconds of tests for one fault")
    parser.add_argument("--verbose", action="store_true", help="faults that were found, too")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ.setdefault("PYSTACK_HISTORIES", HISTORIES)
    for path in TARGETS:
        importlib.import_module(
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        )
    runner = Runner(options)
    words = [
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
        "--no-header",
        "--assert=plain",
        "--tb=line",
        *LEFT_OUT,
        *TESTS,
    ]
    code = pytest.main(words, plugins=[runner])
    if code or not runner.score.found:
        return int(code) or 1
    return int(runner.score.percent < options.at_least)


if __name__ == "__main__":
    sys.exit(main())
