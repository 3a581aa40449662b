"""How far it scales: the planner and the loop on a machine in memory, and 500 real containers.

    python benchmarks/scale.py                     in memory: 100, 1,000 and 10,000 containers
    python benchmarks/scale.py --real 500          on this kernel; needs root, two minutes
    python benchmarks/scale.py --real 500 --tcp    the same with `x-tcp` in place of a command as the check

In memory: processor time of one process; the clock jumps, the laws of the simulation watch all along. Real:
one stack, a health check in each container every 30 seconds; what is measured at rest begins when the first
round of checks is over.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks import measure  # noqa: E402
from benchmarks.run import in_memory  # noqa: E402
from tests.kit import images, wide  # noqa: E402
from tests.kit.programs import Pystack  # noqa: E402

SIZES = (100, 1_000, 10_000)
SERVICES = 10
"""Of the real stack; its containers are spread over them."""
INTERVAL = 30.0
MOST_EACH = 0.5
"""Milliseconds, of the most containers, on a quiet machine."""
MOST_NOTHING = 0.05
Row = tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="how far pystack scales")
    parser.add_argument("--real", type=int, metavar="N", help="so many real containers as well")
    parser.add_argument("--watch", type=float, default=60.0, metavar="SECONDS", help="at rest")
    parser.add_argument("--tcp", action="store_true", help="health checks that need no process")
    options = parser.parse_args(arguments)
    check = "x-tcp: {port: 80}" if options.tcp else "test: [CMD, 'true']"
    over: list[str] = []
    print(_real(options.real, options.watch, check) if options.real else _in_memory(over))
    facts = ", ".join(f"{name} {text}" for name, text in measure.machine().items())
    print(f"\nMeasured on: {facts}.")
    for failure in over:
        print(f"OVER BUDGET: {failure}", file=sys.stderr)
    return 1 if over else 0


def _table(rows: Sequence[Row]) -> str:
    head, *body = rows
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)])


def _in_memory(over: list[str]) -> str:
    """What is over its budget is added to `over`."""
    rows: list[Row] = [("simulated", "`up`", "each", "a pass with nothing to do")]
    for size in SIZES:
        _note(f"{size} in memory")
        found = wide.measure(size)
        each = found.up / size * 1000
        rows.append((f"{size:,}", f"{found.up:.2f} s", f"{each:.2f} ms", f"{found.nothing * 1000:.1f} ms"))
        if size == SIZES[-1] and each > MOST_EACH:
            over.append(f"{each:.2f} ms for each of {size:,} containers, at most {MOST_EACH} ms")
        if found.nothing > MOST_NOTHING:
            over.append(f"{found.nothing:.3f} s for a pass with nothing to do, at most {MOST_NOTHING} s")
    return _table(rows)


def _real(count: int, watch: float, check: str) -> str:
    rows: list[Row] = [(f"{count} containers on this kernel", "")]
    with tempfile.TemporaryDirectory(prefix="pystack-scale-", dir="/var/tmp") as text:
        folder = Path(text)
        pystack = Pystack(root=folder / "pystack", directory=folder)
        stack = _stack(folder, count, check)
        with in_memory(pystack.root / "run"), _cleared(pystack):
            images.install("busybox", root=pystack.root)
            _note(f"up of {count}")
            begun = time.monotonic()
            up = pystack.run("-f", str(stack), "up", "-d", limit=170.0).seconds
            rows.append(("`up -d`", f"{up:.1f} s"))
            servers = _servers(pystack)
            _expect(pystack, stack, count)
            rows.append(("`up -d`, nothing to do", f"{_run(pystack, stack, 'up', '-d'):.2f} s"))
            rows.append(("`ps`", f"{_run(pystack, stack, 'ps'):.2f} s"))
            rows.append(("memory of supervisor and keeper", f"{measure.memory(servers):.0f} MiB"))
            time.sleep(max(0.0, begun + up + INTERVAL + 2.0 - time.monotonic()))
            _note("at rest")
            for name, pid in zip(("supervisor", "keeper"), servers, strict=True):
                _note(f"{name} is {pid}")
            before = [measure.cpu_seconds([pid]) for pid in servers]
            time.sleep(watch)
            spent = [measure.cpu_seconds([pid]) - then for pid, then in zip(servers, before, strict=True)]
            probes = count * watch / INTERVAL
            rows.append((f"health checks in {watch:.0f} s", f"{probes:.0f}"))
            for name, seconds in zip(("supervisor", "keeper"), spent, strict=True):
                each = f"{seconds / probes * 1000:.2f} ms a check"
                rows.append((f"CPU of the {name} meanwhile, of one core", f"{seconds / watch:.2%} ({each})"))
            _expect(pystack, stack, count)
            rows.append(("`down -t 0`", f"{_run(pystack, stack, 'down', '-t', '0'):.1f} s"))
    return _table(rows)


@contextlib.contextmanager
def _cleared(pystack: Pystack) -> Iterator[None]:
    try:
        yield
    except BaseException:
        pystack.abandon()
        raise


def _run(pystack: Pystack, stack: Path, *words: str) -> float:
    return pystack.run("-f", str(stack), *words, limit=170.0).seconds


def _stack(folder: Path, count: int, check: str) -> Path:
    path = folder / "wide.yml"
    rows = "".join(
        f"  s{number}:\n    image: busybox:1\n    command: [httpd, -f, -p, '80']\n"
        f"    scale: {count // SERVICES}\n    healthcheck: {{{check}, interval: {INTERVAL:.0f}s}}\n"
        for number in range(SERVICES)
    )
    path.write_text(f"name: wide\nservices:\n{rows}")
    return path


def _servers(pystack: Pystack) -> list[int]:
    """Supervisor and keeper."""
    found: dict[str, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if str(pystack.root / "run").encode() in words:
                name = "keeper" if any(b"keeper" in word for word in words[:4]) else "daemon"
                found[name] = int(folder.name)
    if found.keys() != {"keeper", "daemon"}:
        raise RuntimeError(f"supervisor and keeper are {found}")
    return [found["daemon"], found["keeper"]]


def _expect(pystack: Pystack, stack: Path, count: int) -> None:
    rows = pystack.run("-f", str(stack), "ps", "--format", "json").stdout.splitlines()
    pids = [int(json.loads(row)["Pid"]) for row in rows]
    there = sum(pid > 1 and b"httpd" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
    if there != count:
        raise RuntimeError(f"{there} containers run, not {count}: nothing measured here counts")


def _note(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
