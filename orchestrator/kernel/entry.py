"""What a freshly forked child of the keeper does to become one more process of a container that runs.

As in `kernel.launch`, nothing is imported after the fork and no name is looked up by the C library.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from orchestrator.kernel import capabilities, launch, syscalls, terminal
from orchestrator.kernel.program import Host, Program, run
from orchestrator.kernel.reading import Document
from orchestrator.kernel.report import Report

_JOINED = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWCGROUP
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWNET
)


class Entry(NamedTuple):
    """What has to be known of a container to enter it, understood before the fork."""

    bundle: launch.Bundle
    """Its `process`, and the little of launch.json that matters to one more."""
    sets: capabilities.Sets
    seccomp: bytes
    """Its compiled filter."""


def enter(
    report: Report, host: Host, entry: Entry, init: int, process: Document, stdio: Sequence[int]
) -> NoReturn:
    """Enter the container whose first process is behind the pidfd `init`, and run `process` there."""
    try:
        report.step = "process"
        launch.become_leader()
        launch.close_others([report.sock.fileno(), host.proc, host.null, init, *stdio])
        report.step = "exec"
        told, own = entry.bundle.launch, entry.bundle.config.table("process")
        privileged = process.flag("privileged")
        named = "user" in process or "user_name" in process
        program = Program(
            process=process,
            fallback=own,
            user=process.text("user_name") if named else told.text("user"),
            groups=told.members("groups"),
            seccomp=b"" if privileged else entry.seccomp,
            privileged=privileged,
            sets=None if "capabilities" in process else entry.sets,
        )
        launch.score(host, process if "oomScoreAdj" in process else own)
        report.step = "cgroups"
        launch.join_cgroups(told.texts("cgroups"), born=report.group, present="runtime" in told)
        report.step = "namespaces"
        # All: to join one that is the host's anyway changes nothing. The pid namespace was joined before.
        syscalls.setns(init, _JOINED)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        pair = (-1, -1)
        if process.flag("terminal"):
            report.step = "terminal"
            size = process.table("consoleSize")
            pair = terminal.open_pair(root, size.number("height"), size.number("width"))
        run(report, host, program, list(stdio) or [-1, -1, -1], root, pair)
    except BaseException as error:
        report.fail(error)
