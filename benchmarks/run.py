"""pystack beside docker compose, on this machine, in one run, with the same root filesystem.

    python benchmarks/run.py              everything (some minutes)
    python benchmarks/run.py --quick      less than a minute, judged by budgets.json; for CI
    python benchmarks/run.py --json FILE  write the figures down as well
    python benchmarks/run.py --write docs/benchmarks.md    and the table into a page

Both sides do the same in turn, so that what else the machine does falls on both. dockerd is private to the
run (see docker.py) and already runs when it is measured; pystack starts its supervisor within what is
measured, except where a line says "warm". After every `up` the containers are counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks import docker, launch, measure, pull  # noqa: E402
from benchmarks.measure import Series  # noqa: E402
from tests.kit import images  # noqa: E402
from tests.kit.programs import Pystack, program  # noqa: E402

_IMAGE = "busybox:1"
CALM = 0.1
"""CPUs that are busy on a machine that has come to rest."""
SETTLE = 10.0
"""Seconds after which a machine that does not is measured all the same."""
_WHOLE_SERVICE = """\
  s{number}:
    image: busybox:1
    command: [sleep, infinity]
    restart: unless-stopped
    environment: {{NUMBER: "{number}", URL: "http://s{number}:80", EMPTY: ""}}
    labels: [tier=web, "number={number}"]
    ports: ["{port}:80"]
    volumes: ["data:/data", "./conf:/etc/conf:ro"]
    networks: [front, back]
    healthcheck: {{test: [CMD, "true"], interval: 10s}}
    mem_limit: 64m
    depends_on: {{s{before}: {{condition: service_healthy}}}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. `repeats`: (services, how often), `idle` seconds of watching."""

    repeats: tuple[tuple[int, int], ...]
    most: int
    idle: float
    exec_repeats: int
    compare_most: bool
    configs: tuple[tuple[int, int, int], ...]
    """Services in a file that is only checked, how often, and how often by docker compose."""
    launches: int
    """Turns of starting a container beside runc."""


FULL = Size(
    repeats=((1, 5), (10, 3), (50, 2), (100, 2)),
    most=100,
    idle=20.0,
    exec_repeats=5,
    compare_most=True,
    configs=((10, 10, 10), (1000, 5, 3), (10000, 2, 0)),
    launches=40,
)
QUICK = Size(
    repeats=((1, 3), (20, 2)),
    most=100,
    idle=5.0,
    exec_repeats=3,
    compare_most=False,
    configs=((10, 5, 5), (1000, 2, 1)),
    launches=10,
)


@dataclass(slots=True, kw_only=True)
class Bench:
    """The two sides and all that was measured."""

    folder: Path
    ours: Pystack
    theirs: docker.Docker | None
    series: dict[str, Series] = field(default_factory=dict)

    def add(
        self, key: str, title: str, *, ours: float | None = None, theirs: float | None = None, unit: str = "s"
    ) -> None:
        row = self.series.setdefault(key, Series(title=title, unit=unit))
        row.ours += [] if ours is None else [ours]
        row.theirs += [] if theirs is None else [theirs]

    def pystack(self, stack: Path, *words: str) -> float:
        return measure.timed([*program(), "-f", str(stack), *words], self.ours.environ, self.folder)

    def compose(self, stack: Path, *words: str) -> float:
        assert self.theirs is not None
        command = [str(self.theirs.compose), "-f", str(stack), *words]
        return measure.timed(command, self.theirs.environ, self.folder)

    def stack(self, services: int, name: str = "") -> Path:
        """A stack file of so many services that sleep."""
        name = name or f"bench{services}"
        path = self.folder / f"{name}.yml"
        rows = "".join(
            f"  s{number}:\n    image: {_IMAGE}\n    command: [sleep, infinity]\n"
            for number in range(services)
        )
        path.write_text(f"name: {name}\nservices:\n{rows}")
        return path

    def whole_stack(self, services: int) -> Path:
        """A stack file of so many services with all that services commonly have; it is only read."""
        path = self.folder / f"whole{services}.yml"
        rows = "".join(
            _WHOLE_SERVICE.format(number=n, port=1024 + n, before=max(n - 1, 0)) for n in range(services)
        )
        first = "\n    depends_on: {s0: {condition: service_healthy}}\n"
        text = rows.replace(first, "\n", 1)
        path.write_text(f"services:\n{text}networks: {{front: {{}}, back: {{}}}}\nvolumes: {{data: {{}}}}\n")
        return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="pystack beside docker compose")
    parser.add_argument("--quick", action="store_true", help="less than a minute, judged by budgets.json")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures down as well")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="put the table between the marks <!-- benchmark --> and <!-- /benchmark --> of a file",
    )
    parser.add_argument("--alone", action="store_true", help="only pystack")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else FULL
    why_alone = "as asked" if options.alone else docker.missing()
    begun = time.monotonic()
    with bench(alone=bool(why_alone)) as both:
        measure_all(both, size)
        series, versions = both.series, _versions(both)
    text = f"{table(series)}\n\n{_where({**measure.machine(), **versions})}"
    print(text)
    print(f"\nMeasured in {time.monotonic() - begun:.0f} s" + (f"; alone: {why_alone}" if why_alone else ""))
    for path in options.write:
        path.write_text(between_marks(path.read_text(), text))
    if options.json:
        options.json.write_text(json.dumps(figures(series, versions), indent=2) + "\n")
    failures = over_budget(series, "quick" if options.quick else "full")
    for failure in failures:
        print(f"OVER BUDGET: {failure}", file=sys.stderr)
    return 1 if failures else 0


@contextlib.contextmanager
def bench(*, alone: bool) -> Iterator[Bench]:
    """Both sides ready, with the image; all gone afterwards."""
    rootfs = images.rootfs("busybox")
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="pystack-bench-", dir="/var/tmp"))
        )
        ours = Pystack(root=folder / "pystack", directory=folder)
        stack.enter_context(in_memory(ours.root / "run"))
        stack.callback(ours.abandon)
        images.install("busybox", root=ours.root)
        theirs = None
        if not alone:
            (folder / "docker").mkdir()
            theirs = stack.enter_context(docker.running(folder / "docker"))
            repository, _, tag = _IMAGE.partition(":")
            docker.import_rootfs(theirs, rootfs, repository, tag)
        yield Bench(folder=folder, ours=ours, theirs=theirs)
        shutil.rmtree(folder / "docker", ignore_errors=True)


@contextlib.contextmanager
def in_memory(directory: Path) -> Iterator[None]:
    """A tmpfs, such as /run is on any installed system; dockerd's is made in docker.py."""
    directory.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "pystack-run", str(directory)], check=True)
    try:
        yield
    finally:
        if os.path.ismount(directory):
            subprocess.run(["umount", "-l", str(directory)], check=True)


def settle() -> None:
    """Wait until the machine has put away what was measured before: namespaces go in the background."""
    until = time.monotonic() + SETTLE
    while time.monotonic() < until:
        before, begun = measure.busy(), time.monotonic()
        time.sleep(0.25)
        if (measure.busy() - before) / (time.monotonic() - begun) < CALM:
            return


def measure_all(both: Bench, size: Size) -> None:
    _configs(both, size)
    _note("launching")
    both.series.update(launch.series(size.launches))
    for services, repeats in size.repeats:
        for repeat in range(repeats):
            _note(f"{services} services, {repeat + 1} of {repeats}")
            # Who goes first changes, so that neither profits from the other's warm caches.
            sides = (
                [_round_of_ours, _round_of_theirs] if repeat % 2 == 0 else [_round_of_theirs, _round_of_ours]
            )
            for side in sides:
                if side is _round_of_ours or both.theirs is not None:
                    settle()
                    side(both, services, size)
    _note("warm")
    _warm(both, size)
    _note("pulls")
    both.series.update(pull.measure_pulls(quick=size is QUICK).series)
    _note("memory and idle time")
    _at_rest_ours(both, size)
    if both.theirs is not None and size.compare_most:
        _at_rest_theirs(both, size)


def _configs(both: Bench, size: Size) -> None:
    """Reading a stack file and finding it right. Docker Compose needs no dockerd for that."""
    compose = docker.program()
    for services, repeats, theirs in size.configs:
        _note(f"config of {services} services")
        stack, key = both.whole_stack(services), f"config_{services}"
        title = f"`config -q` of {services:,} services"
        for repeat in range(repeats):
            both.add(key, title, ours=both.pystack(stack, "config", "-q"))
            if compose and repeat < theirs:
                command = [str(compose), "-f", str(stack), "config", "-q"]
                both.add(key, title, theirs=measure.timed(command, os.environ, both.folder))
    sizes = [both.series.get(f"config_{services}") for services in (1000, 10000)]
    medians = [row.our_median for row in sizes if row]
    if len(medians) == 2 and medians[0] and medians[1]:
        title = "`config -q` of 10,000 services over ten times that of 1,000"
        both.add("config_growth", title, ours=medians[1] / medians[0] / 10, unit="times")


def _round_of_ours(both: Bench, services: int, size: Size) -> None:
    stack = both.stack(services)
    both.add(f"up_{services}", f"`up -d` of {services}", ours=both.pystack(stack, "up", "-d"))
    _expect(len(_our_pids(both, stack)), services, "pystack")
    both.add(
        f"noop_{services}", f"`up -d` of {services}, nothing to do", ours=both.pystack(stack, "up", "-d")
    )
    both.add(f"ps_{services}", f"`ps` of {services}", ours=both.pystack(stack, "ps"))
    for _ in range(size.exec_repeats if services == 1 else 1):
        both.add("exec", "`exec SERVICE true`", ours=both.pystack(stack, "exec", "-T", "s0", "true"))
    both.add(f"down_{services}", f"`down -t 0` of {services}", ours=both.pystack(stack, "down", "-t", "0"))


def _round_of_theirs(both: Bench, services: int, size: Size) -> None:
    assert both.theirs is not None
    stack = both.stack(services)
    both.add(f"up_{services}", f"`up -d` of {services}", theirs=both.compose(stack, "up", "-d"))
    _expect(docker.running_containers(both.theirs), services, "docker")
    both.add(
        f"noop_{services}", f"`up -d` of {services}, nothing to do", theirs=both.compose(stack, "up", "-d")
    )
    both.add(f"ps_{services}", f"`ps` of {services}", theirs=both.compose(stack, "ps"))
    for _ in range(size.exec_repeats if services == 1 else 1):
        both.add("exec", "`exec SERVICE true`", theirs=both.compose(stack, "exec", "-T", "s0", "true"))
    if services == 100:
        both.add(
            "memory",
            "memory of its own for 100 containers",
            theirs=measure.memory(both.theirs.processes()),
            unit="MiB",
        )
    both.add(f"down_{services}", f"`down -t 0` of {services}", theirs=both.compose(stack, "down", "-t", "0"))
    _expect(docker.running_containers(both.theirs), 0, "docker")


def _warm(both: Bench, size: Size) -> None:
    """One more service while another stack keeps the supervisor (and dockerd: always) alive."""
    resident, stack = both.stack(1, "resident"), both.stack(1)
    both.pystack(resident, "up", "-d")
    for _ in range(size.exec_repeats):
        both.add("up_1_warm", "`up -d` of 1, warm", ours=both.pystack(stack, "up", "-d"))
        both.add("down_1_warm", "`down -t 0` of 1, warm", ours=both.pystack(stack, "down", "-t", "0"))
    both.pystack(resident, "down", "-t", "0")
    for cold, warm in (("up_1", "up_1_warm"), ("down_1", "down_1_warm")):
        both.series[warm].theirs += both.series[cold].theirs


def _at_rest_ours(both: Bench, size: Size) -> None:
    stack = both.stack(size.most)
    both.pystack(stack, "up", "-d")
    _expect(len(_our_pids(both, stack)), size.most, "pystack")
    time.sleep(1)
    servers = _servers(both)
    whole = measure.memory(servers)
    both.add("memory", f"memory of its own for {size.most} containers", ours=whole, unit="MiB")
    both.add(
        "idle",
        f"CPU of {size.most} idle containers, of one core",
        ours=measure.cpu_percent(servers, size.idle),
        unit="%",
    )
    further = [both.stack(1, f"further{number}") for number in range(5)]
    for path in further:
        both.pystack(path, "up", "-d")
    time.sleep(0.5)
    each = max(measure.memory(_servers(both)) - whole, 0.0) / len(further)
    both.add("memory_stack", "memory of its own for each further stack", ours=each, unit="MiB")
    for path in (*further, stack):
        both.pystack(path, "down", "-t", "0")


def _at_rest_theirs(both: Bench, size: Size) -> None:
    assert both.theirs is not None
    stack = both.stack(size.most)
    both.compose(stack, "up", "-d")
    time.sleep(1)
    busy = measure.cpu_percent(both.theirs.processes(), size.idle)
    both.add("idle", f"CPU of {size.most} idle containers, of one core", theirs=busy, unit="%")
    both.compose(stack, "down", "-t", "0")


def _our_pids(both: Bench, stack: Path) -> list[int]:
    """Processes of the stack's containers that are really there."""
    rows = both.ours.run("-f", str(stack), "ps", "--format", "json").stdout.splitlines()
    pids = [int(json.loads(row)["Pid"]) for row in rows]
    return [pid for pid in pids if pid > 1 and b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _servers(both: Bench) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if str(both.ours.root / "run").encode() in words:
                found.append(int(folder.name))
    assert len(found) >= 2, f"supervisor and keeper are {found}"
    return found


def _expect(found: int, wanted: int, whose: str) -> None:
    if found != wanted:
        raise RuntimeError(f"{whose}: {found} containers run, not {wanted}: nothing measured here counts")


# --- results ----------------------------------------------------------------------------------------------


UNITS = ("s", "ms", "MiB", "%", "times", "requests")


def table(series: dict[str, Series]) -> str:
    """As Markdown."""
    lines = ["| | pystack | docker compose | times less |", "|---|---:|---:|---:|"]
    for row in sorted(
        series.values(), key=lambda row: ("s", "ms", "MiB", "%", "times", "requests").index(row.unit)
    ):
        ratio = f"**{row.ratio:.1f}**" if row.ratio else ""
        ours, theirs = _shown(row.our_median, row.unit), _shown(row.their_median, row.unit)
        lines.append(f"| {row.title} | {ours} | {theirs} | {ratio} |")
    return "\n".join(lines)


def between_marks(text: str, table: str) -> str:
    """The text with the table in place of what stands between the marks. Raises ValueError without marks."""
    head, mark, rest = text.partition("<!-- benchmark -->\n")
    _, end, tail = rest.partition("<!-- /benchmark -->")
    if not mark or not end:
        raise ValueError("there are no marks for the table")
    return f"{head}{mark}{table}\n{end}{tail}"


def _where(facts: dict[str, str]) -> str:
    return "Measured on: " + ", ".join(f"{name} {text}" for name, text in facts.items()) + "."


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return (
        f"{value:.2f} {unit}"
        if value < 10
        else f"{value:.1f} {unit}"
        if value < 100
        else f"{value:.0f} {unit}"
    )


def figures(series: dict[str, Series], versions: dict[str, str]) -> dict[str, object]:
    rows = {
        key: {
            "title": row.title,
            "unit": row.unit,
            "pystack": row.ours,
            "docker": row.theirs,
            "ratio": row.ratio,
        }
        for key, row in series.items()
    }
    return {"format": 1, "machine": measure.machine(), "versions": versions, "measured": rows}


def over_budget(series: dict[str, Series], kind: str) -> list[str]:
    """What is worse than budgets.json allows."""
    budgets = json.loads((Path(__file__).parent / "budgets.json").read_text())[kind]
    failures = []
    for key, budget in budgets.items():
        row = series[key]
        value, ratio = row.our_median, row.ratio
        most, least = budget.get("most"), budget.get("times_less")
        if most is not None and value is not None and value > most:
            failures.append(f"{row.title}: {_shown(value, row.unit)}, at most {_shown(most, row.unit)}")
        if least is not None and ratio is not None and ratio < least:
            failures.append(
                f"{row.title}: {ratio:.1f} times less than docker compose, at least {least} times"
            )
    return failures


def _versions(both: Bench) -> dict[str, str]:
    versions = {"pystack": both.ours.run("version", "--short").stdout.strip()}
    if both.theirs is not None:
        told = both.theirs.request("GET", "/version")
        assert isinstance(told, dict)
        versions["dockerd"] = str(told["Version"])
        versions["docker compose"] = docker.compose_version()
    return versions


def _note(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
