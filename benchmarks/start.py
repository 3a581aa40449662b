"""Where the time of one `up` goes: interpreter, imports, supervisor, each action.

python benchmarks/start.py [--services N] [--repeats N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.kit import images  # noqa: E402
from tests.kit.programs import Pystack, program  # noqa: E402

Phases = dict[str, list[float]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="where the time of one `up` goes")
    parser.add_argument("--services", type=int, default=1, metavar="N")
    parser.add_argument("--repeats", type=int, default=5, metavar="N")
    options = parser.parse_args(arguments)
    phases: Phases = {}
    with tempfile.TemporaryDirectory(prefix="pystack-bench-", dir="/var/tmp") as folder:
        pystack = Pystack(root=Path(folder) / "pystack", directory=Path(folder))
        images.install("busybox", root=pystack.root)
        stack = _stack(Path(folder) / "stack.yml", options.services)
        resident = _stack(Path(folder) / "resident.yml", 1)
        try:
            for _ in range(options.repeats):
                _commands(phases, pystack, stack)
                _ups(phases, "cold", pystack, stack)
            pystack.run("-f", str(resident), "up", "-d")
            for _ in range(options.repeats):
                _ups(phases, "warm", pystack, stack)
            pystack.run("-f", str(resident), "down", "-t", "0")
        except BaseException:
            pystack.abandon()
            raise
    width = max(map(len, phases))
    for name, seconds in phases.items():
        print(f"{name:{width}}  {statistics.median(seconds) * 1000:8.1f} ms")
    return 0


def _commands(phases: Phases, pystack: Pystack, stack: Path) -> None:
    """What comes before any container: all of it is part of a cold `up`."""
    python = sys.executable
    for name, command in (
        ("an interpreter, bare (-I -S)", [python, "-I", "-S", "-c", "pass"]),
        ("an interpreter", [python, "-c", "pass"]),
        ("an interpreter that imports the supervisor", [python, "-c", "import orchestrator.daemon"]),
        ("pystack version", [*program(), "version"]),
        ("pystack config -q: read and check the stack", [*program(), "-f", str(stack), "config", "-q"]),
    ):
        _add(phases, name, lambda command=command: _quietly(command, pystack.environ))  # type: ignore[misc]


def _ups(phases: Phases, kind: str, pystack: Pystack, stack: Path) -> None:
    begun = time.perf_counter()
    ran = pystack.run("-f", str(stack), "--progress", "json", "up", "-d")
    phases.setdefault(f"up, {kind}", []).append(time.perf_counter() - begun)
    begun_at: dict[str, float] = {}
    for event in map(json.loads, ran.stderr.splitlines()):
        if event.get("status") in {"created", "started"} and event["name"] in begun_at:
            phase = f"  {event['kind']} {event['status']}, each, {kind}"
            phases.setdefault(phase, []).append(event["at"] - begun_at[event["name"]])
            phases[f"  last of it, after the supervisor has been asked, {kind}"] = [event["at"]]
        if "name" in event:
            begun_at[event["name"]] = event["at"]
    _add(phases, f"up, {kind}, nothing to do", lambda: pystack.run("-f", str(stack), "up", "-d"))
    _add(phases, f"exec true, {kind}", lambda: pystack.run("-f", str(stack), "exec", "-T", "s0", "true"))
    _add(phases, f"ps, {kind}", lambda: pystack.run("-f", str(stack), "ps"))
    _add(phases, f"down, {kind}", lambda: pystack.run("-f", str(stack), "down", "-t", "0"))


def _add(phases: Phases, name: str, work: Callable[[], object]) -> None:
    begun = time.perf_counter()
    work()
    phases.setdefault(name, []).append(time.perf_counter() - begun)


def _quietly(command: Sequence[str], environ: Mapping[str, str]) -> None:
    subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=True, cwd="/")


def _stack(path: Path, services: int) -> Path:
    rows = "".join(
        f"  s{number}:\n    image: busybox:1\n    command: [sleep, infinity]\n" for number in range(services)
    )
    path.write_text(f"name: {path.stem}\nservices:\n{rows}")
    return path


if __name__ == "__main__":
    sys.exit(main())
