"""Makes small faults in the planner and the effect model, one at a time, and asks the tests about each.

    python -m tests.mutation.run [--only NAME ...] [--share PART] [--seed N] [--verbose]

Prints the faults that no test has found, and of how many: the score. Everything is imported once; each
fault is made in a fork of its own, by giving one function other code, and only tests that reach its line
are run, the quick ones first, until one fails. A fault that makes tests run for ever is found as well.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib
import os
import pickle
import random
import resource
import signal
import sys
import time
import types
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
    *("tests/unit/planner", "tests/unit/model", "tests/golden/planner", "tests/unit/test_semantics_page.py"),
    *("tests/unit/simulation", "tests/simulation"),
)
HISTORIES = "60"
LEFT_OUT = "test_play or test_cost or command or is_short or scale"
CPU = 20.0
"""Seconds of processor time that the tests of one fault may take, until it counts as one that never ends."""
WALL = 240
MEMORY = 4 << 30
ALIKE = ROOT / "tests" / "mutation" / "alike.txt"
"""Faults that change nothing, each with its reason; they don't count."""


@dataclass(kw_only=True)
class Ground:
    """What was found when all was right: the time of each test, and which reach a line."""

    times: list[float] = field(default_factory=list)
    reach: dict[tuple[str, int], list[int]] = field(default_factory=dict)


class Runner:
    """pytest's own loop, in place of which faults are made."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.survivors: list[str] = []
        self.found = 0
        self.alike = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        began = time.monotonic()
        gc.collect()
        gc.freeze()  # what is shared with forks is not to be written to
        ground = _known(self.options.ground, session.items)
        alike = _alike()
        chosen = list(_chosen(self.options))
        took = time.monotonic() - began
        print(f"{len(chosen)} faults, {len(session.items)} tests, which take {took:.0f} s", flush=True)
        for path, mutant in chosen:
            where = f"{path.relative_to(ROOT)}:{mutant.line}"
            title = _title(path, mutant)
            if title in alike:
                self.alike += 1
                continue
            tests = _tests(ground, path, mutant, len(session.items))
            name = _ask(session.items, tests, path, mutant)
            if name:
                self.found += 1
            else:
                self.survivors.append(f"{where}: {title}")
            if self.options.verbose or not name:
                print(
                    f"{where}: {title}  {'found by ' + name if name else f'NOT FOUND ({len(tests)} tests)'}",
                    flush=True,
                )
        total = self.found + len(self.survivors)
        print(
            f"\n{self.found} of {total} faults found: {100 * self.found / max(total, 1):.1f} % "
            f"({self.alike} that change nothing are left out; {time.monotonic() - began:.0f} s)"
        )
        return True


def _known(kept: Path | None, items: list[pytest.Item]) -> Ground:
    """`kept`: where it is looked up, or written to."""
    names = [item.nodeid for item in items]
    if kept is not None and kept.exists():
        before, ground = pickle.loads(kept.read_bytes())
        if before == names:
            return ground  # type: ignore[no-any-return]
    ground = _in_a_fork(lambda: _walk_all(items))
    if not isinstance(ground, Ground):
        raise pytest.UsageError("the tests fail as it is")
    if kept is not None:
        kept.write_bytes(pickle.dumps((names, ground)))
    return ground


def _chosen(options: argparse.Namespace) -> Iterator[tuple[Path, Mutant]]:
    chance = random.Random(options.seed)
    before = options.again.read_text() if options.again is not None else ""
    for path in TARGETS:
        for mutant in mutants(path.read_text()):
            picked = chance.random() < options.share
            if options.again is not None:
                picked = _title(path, mutant) in before
            if picked and (not options.only or path.stem in options.only):
                yield path, mutant


def _title(path: Path, mutant: Mutant) -> str:
    return f"{path.name} {mutant.home or mutant.name}: {mutant.said}"


def _alike() -> set[str]:
    """Lines `FAULT  # REASON`."""
    if not ALIKE.exists():
        return set()
    rows = (
        row.partition("  # ") for row in ALIKE.read_text().splitlines() if row and not row.startswith("#")
    )
    return {fault for fault, _, reason in rows if reason}


def _tests(ground: Ground, path: Path, mutant: Mutant, count: int) -> list[int]:
    reached = {
        test for line in (mutant.line, mutant.statement) for test in ground.reach.get((str(path), line), ())
    }
    return sorted(reached if mutant.home else range(count), key=lambda number: ground.times[number])


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


def _walk_all(items: list[pytest.Item]) -> Ground:
    """Run everything once, and note which lines of the targets each test reaches."""
    ground = Ground()
    files = {str(path) for path in TARGETS}
    lines: set[tuple[str, int]] = set()

    def outer(frame: types.FrameType, event: str, _: object) -> Any:
        if event == "call" and frame.f_code.co_filename in files:
            lines.add((frame.f_code.co_filename, frame.f_lineno))
            return inner
        return None

    def inner(frame: types.FrameType, event: str, _: object) -> Any:
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return inner

    for number, item in enumerate(items):
        lines.clear()
        began = time.process_time()
        sys.settrace(outer)
        try:
            failed = _fails(item, items[number + 1] if number + 1 < len(items) else None)
        finally:
            sys.settrace(None)
        if failed:
            raise AssertionError(f"{item.nodeid} fails as it is")
        ground.times.append(time.process_time() - began)
        for line in lines:
            ground.reach.setdefault(line, []).append(number)
    return ground


def _fails(item: pytest.Item, following: pytest.Item | None) -> bool:
    return any(report.failed for report in runtestprotocol(item, nextitem=following, log=False))


def _ask(items: list[pytest.Item], tests: list[int], path: Path, mutant: Mutant) -> str:
    """The test that finds the fault; "" when none does."""

    def work() -> str:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.setitimer(signal.ITIMER_PROF, CPU)
        signal.alarm(WALL)
        os.dup2(1, 2)
        _make(path, mutant)
        for place, number in enumerate(tests):
            following = items[tests[place + 1]] if place + 1 < len(tests) else None
            if _fails(items[number], following):
                return items[number].nodeid
        return ""

    answer = _in_a_fork(work)
    return answer if isinstance(answer, str) else "its never ending, or its exception"


# --- the fault is made -----------------------------------------------------------------------------------


def _make(path: Path, mutant: Mutant) -> None:
    module = sys.modules[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")]
    tree = mutated(path.read_text(), mutant.number)
    if not mutant.home:
        _assign(module, tree, mutant.name)
        return
    code = compile(tree, str(path), "exec", dont_inherit=True)
    for name in mutant.home.split("."):
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
    """A table or a number of the module: with its new value wherever it has been imported by name."""
    for statement in tree.body:
        targets = (
            statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = statement.value  # type: ignore[attr-defined]
            made = eval(compile(ast.Expression(value), "mutant", "eval"), vars(module))
            before = vars(module)[name]
            for other in [*sys.modules.values()]:
                if (
                    getattr(other, "__name__", "").startswith("orchestrator")
                    and vars(other).get(name) is before
                ):
                    setattr(other, name, made)
            return
    raise ValueError(f"{module.__name__} has no {name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--only", nargs="*", default=[], help="of these files, such as gates or effects")
    parser.add_argument("--share", type=float, default=1.0, help="of all faults, so many, by chance")
    parser.add_argument("--seed", type=int, default=1, help="of that chance")
    parser.add_argument("--at-least", type=float, default=0.0, help="exit code 1 below this score")
    parser.add_argument("--ground", type=Path, help="keep in this file which tests reach which line")
    parser.add_argument("--again", type=Path, help="those that this earlier output says were not found")
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
        "-k",
        f"not ({LEFT_OUT})",
        *TESTS,
    ]
    code = pytest.main(words, plugins=[runner])
    total = runner.found + len(runner.survivors)
    if code or not total:
        return int(code) or 1
    return int(100 * runner.found / total < options.at_least)


if __name__ == "__main__":
    sys.exit(main())
