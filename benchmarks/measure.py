"""What is measured, and how: wall time of commands, memory and CPU time of processes."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LIMIT = 180.0


@dataclass(slots=True, kw_only=True)
class Series:
    """Repeated measurements of one thing on both sides. `unit` is "s", "ms", "MiB", "%" or "times"."""

    title: str
    unit: str = "s"
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def our_median(self) -> float | None:
        return statistics.median(self.ours) if self.ours else None

    @property
    def their_median(self) -> float | None:
        return statistics.median(self.theirs) if self.theirs else None

    @property
    def ratio(self) -> float | None:
        """How many times less ours is."""
        if not self.our_median or self.their_median is None:
            return None
        return self.their_median / self.our_median


def timed(command: Sequence[str], environ: Mapping[str, str], folder: Path) -> float:
    """Seconds that the command takes from fork to exit. Raises RuntimeError when it fails."""
    begun = time.perf_counter()
    done = subprocess.run(
        command,
        env=environ,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    seconds = time.perf_counter() - begun
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed ({done.returncode}): {done.stderr.decode()[-2000:]}")
    return seconds


def busy() -> float:
    """CPU seconds that all processors together have worked since boot (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _wait, irq, softirq, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def memory(pids: Iterable[int]) -> float:
    """Proportional set size in MiB: shared pages are counted once (proc_pid_smaps(5))."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def cpu_percent(pids: Sequence[int], seconds: float) -> float:
    """CPU time that the processes use in the next seconds, in percent of one core."""
    before = cpu_seconds(pids)
    time.sleep(seconds)
    return (cpu_seconds(pids) - before) / seconds * 100


def cpu_seconds(pids: Sequence[int]) -> float:
    """In clock ticks (10 ms), threads that have ended included (proc_pid_stat(5): utime, stime)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            fields = stat[stat.rindex(")") + 2 :].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, str]:
    """What it was measured on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "memory": f"{pages / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
