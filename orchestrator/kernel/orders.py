"""What a request asks the keeper to fork: understood first, and refused here, then performed by the loop."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple, NoReturn

from orchestrator.kernel import command, foreign, launch, layout, runs
from orchestrator.kernel.entry import Entry, enter
from orchestrator.kernel.program import Host
from orchestrator.kernel.reading import Document
from orchestrator.kernel.report import Report

STDIN = "stdin"
"""Among the descriptors of a start: what its first process reads, no namespace."""
_JOINABLE = {"network", "pid", "ipc", "uts", "cgroup", STDIN}


class RequestError(Exception):
    """A request that is refused; becomes the `error` of its reply."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class Order(NamedTuple):
    """A process to fork. `bundle` is "" for one that leaves no record."""

    id: str
    child: runs.Child
    pids: runs.Pids
    bundle: str = ""
    group: str = ""
    fds: tuple[int, ...] = ()
    """To be closed when it is there."""


def demand_start(bundle: str, kinds: list[str], fds: list[int], key: str) -> None:
    """Refuse a start whose words and descriptors don't fit together. `key`: for those that are to be kept."""
    plain = len(set(kinds)) == len(kinds) and set(kinds) <= _JOINABLE
    if not plain or len(fds) < len(kinds) or (len(fds) > len(kinds)) != bool(key):
        raise RequestError(errno.EINVAL, f"namespaces {kinds} came with {len(fds)} descriptors")
    if not os.path.isabs(bundle):
        raise RequestError(errno.EINVAL, "bundle is not an absolute path")


def start(name: str, what: launch.Bundle, kinds: list[str], fds: list[int], host: Host, pids: int) -> Order:
    """A container of the bundle `what`; `pids` is the keeper's pid namespace. Raises RefusedError."""
    given = dict(zip(kinds, fds, strict=True))
    joined, stdin = given.get("pid", -1), given.pop(STDIN, -1)
    runtime = command.read(what.launch)

    def child(report: Report) -> NoReturn:
        if runtime:
            foreign.start(report, host, what, runtime, given, stdin)
        launch.start(report, host, what, given, stdin)

    if runtime:  # it makes and joins namespaces itself, and decides when it enters which group
        return Order(name, child, runs.Pids(own=pids), what.path, fds=tuple(fds))
    new = joined < 0 and "pid" in layout.namespaces(what.config.table("linux"))
    group = _first(what.launch.texts("cgroups"))
    return Order(name, child, runs.Pids(own=pids, new=new, joined=joined), what.path, group, tuple(fds))


def execute(
    name: str, entry: Entry, init: int, process: Document, stdio: tuple[int, ...], host: Host, pids: int
) -> Order:
    """One more process in the container whose first is behind the pidfd `init`. Raises RefusedError."""
    if len(stdio) != (0 if process.flag("terminal") else 3):
        raise RequestError(errno.EINVAL, "exec takes three descriptors, or none with a terminal")
    runtime = command.read(entry.bundle.launch)
    if runtime and not runtime.enter:
        other = runtime

        def ask(report: Report) -> NoReturn:
            foreign.execute(report, host, entry.bundle, other, process, stdio)

        return Order(name, ask, runs.Pids(own=pids))

    def child(report: Report) -> NoReturn:
        enter(report, host, entry, init, process, stdio)

    group = "" if runtime else _first(entry.bundle.launch.texts("cgroups"))
    return Order(name, child, runs.Pids(own=pids, joined=init), group=group)


def release(name: str, what: launch.Bundle, host: Host, pids: int) -> Order:
    """Have another runtime forget the container that it ran for us."""
    runtime = command.read(what.launch)
    if runtime is None:
        raise RequestError(errno.EINVAL, "that container is of no other runtime")

    def child(report: Report) -> NoReturn:
        foreign.release(report, host, what, runtime)

    return Order(name, child, runs.Pids(own=pids))


def _first(groups: list[str]) -> str:
    return groups[0] if groups else ""
