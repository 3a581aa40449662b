"""Boot time and the identity of this boot. Decisions and records never use the wall clock."""

from __future__ import annotations

import functools
import time
from pathlib import Path


def now() -> float:
    """Seconds of CLOCK_BOOTTIME: goes on during suspend, never jumps, the same for every process."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@functools.cache
def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def wall() -> str:
    """RFC 3339, for showing only."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def wall_offset() -> float:
    """What a boot time lacks to seconds since the epoch, by the wall clock as it goes now."""
    return time.time() - now()


def wall_at(boot_time: float) -> str:
    """RFC 3339 of a boot time, by the wall clock as it goes now; for showing only."""
    return rfc3339(boot_time + wall_offset())


def rfc3339(moment: float) -> str:
    """Of seconds since the epoch, with milliseconds."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
    return f"{text}.{int(moment % 1 * 1000):03d}Z"
