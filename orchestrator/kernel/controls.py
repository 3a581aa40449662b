"""The control files of a group: reading them, and writing settings in an order that the kernel takes."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import time
from collections.abc import Callable, Mapping

from orchestrator.kernel.limits import PARENT, CgroupError, Setting

_TRIES = 20


def read(directory: str, file: str, errors: str = "surrogateescape") -> str:
    fd = os.open(f"{directory}/{file}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts).decode(errors=errors)
    finally:
        os.close(fd)


def write(directory: str, file: str, value: str) -> None:
    fd = os.open(f"{directory}/{file}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        error.filename = f"{directory}/{file}"
        raise
    finally:
        os.close(fd)


def write_all(home: Mapping[str, str], wanted: tuple[Setting, ...], warn: Callable[[str], None]) -> None:
    for setting in _ordered(home, wanted):
        directory = home[setting.controller]
        file, value = setting.file, setting.value
        if setting.instead is not None and not os.path.exists(f"{directory}/{file}"):
            file, value = setting.instead
        if value == PARENT:
            value = _of_parent(directory, file)
        try:
            write(directory, file, value) if setting.without else _write_soon(directory, file, value)
        except FileNotFoundError as error:
            missing = f"{setting.file} nor {file}" if file != setting.file else file
            if not setting.without:
                raise CgroupError(f"this kernel has no {missing}") from error
            warn(f"this kernel has no {missing}: {setting.without}")
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP and setting.without:
                warn(f"this kernel no longer takes {file}: {setting.without}")
                continue
            raise CgroupError(f"cannot set {file} to {value}: {_reason(error, directory, file)}") from error


def _write_soon(directory: str, file: str, value: str) -> None:
    """A controller that somebody else has handed down this very moment is seen before its files are there."""
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            return write(directory, file, value)
        time.sleep(0.001)
    return write(directory, file, value)


def _of_parent(directory: str, file: str) -> str:
    """v2 would take an empty list for "as the parent", but until Linux 6.2 or so not from a group in use."""
    above = os.path.dirname(directory)
    try:
        return read(above, f"{file}.effective")
    except FileNotFoundError:
        return read(above, file)


def _reason(error: OSError, directory: str, file: str) -> str:
    if error.errno == errno.EBUSY:
        return "less than is in use"
    if file in ("cpuset.cpus", "cpuset.mems") and error.errno in (errno.ERANGE, errno.EINVAL, errno.EACCES):
        kind = file.partition(".")[2]
        for there in (f"cpuset.{kind}.effective", f"cpuset.effective_{kind}"):  # v2, v1
            with contextlib.suppress(OSError):
                return f"not available, there are {read(os.path.dirname(directory), there).strip()}"
    return error.strerror or str(error)


def _ordered(home: Mapping[str, str], wanted: tuple[Setting, ...]) -> list[Setting]:
    """v1 keeps limit <= memsw at every moment: a limit that rises above memsw must let memsw rise first."""
    order = list(wanted)
    limit = next((s for s in order if s.file == "memory.limit_in_bytes"), None)
    total = next((s for s in order if s.file == "memory.memsw.limit_in_bytes"), None)
    if limit is not None and total is not None:
        with contextlib.suppress(FileNotFoundError):
            wished = math.inf if limit.value == "-1" else int(limit.value)
            if wished > int(read(home["memory"], total.file)):
                order.remove(total)
                order.insert(order.index(limit), total)
    return order


def demand_room(where: Mapping[str, str], wanted: tuple[Setting, ...]) -> None:
    """v1 refuses a memory limit below what is in use (EBUSY); v2 takes it, and kills."""
    limit = next((s for s in wanted if s.file == "memory.max" and s.value != "max"), None)
    if limit is None:
        return
    with contextlib.suppress(FileNotFoundError):
        used = int(read(where["memory"], "memory.current"))
        stat = dict(line.split(" ") for line in read(where["memory"], "memory.stat").splitlines())
        cached = int(stat["inactive_file"]) + int(stat["active_file"])
        if used - cached > int(limit.value):
            raise CgroupError(f"cannot set memory.max to {limit.value}: less than is in use")
