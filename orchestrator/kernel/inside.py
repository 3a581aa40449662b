"""The two processes that make a container of any OCI bundle from within; `kernel.create` is their parent.

`enter` is the first: it takes on the container's namespaces and forks the second into the pid (and time)
namespace, for those count for children alone. `_build` is the second: it builds the world, waits for its
start and becomes the program. Both talk to the parent through a `Report`. As in `kernel.launch`, nothing is
imported after the fork and no name is looked up by the C library.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from orchestrator.kernel import hooks, launch, packets, rootfs, steps, syscalls, terminal
from orchestrator.kernel.program import Host, Program, run
from orchestrator.kernel.reading import Document, RefusedError
from orchestrator.kernel.report import ExecError, Report, explain


class Order(NamedTuple):
    """All that the two need to know, understood before the fork."""

    plan: steps.Steps
    config: Document
    program: Program
    cgroups: tuple[str, ...]
    stdio: tuple[int, ...]
    made: frozenset[str]  # namespaces to make
    joined: Mapping[str, int]  # namespaces to join
    root: str
    fifo: str
    state: hooks.State


class Visit(NamedTuple):
    """The same for one more process in a container that runs."""

    init: int
    namespaces: int
    program: Program
    cgroups: tuple[str, ...]
    stdio: tuple[int, ...]


class Written(Report):
    """After the start nobody listens to the socket: what fails is written to a file beside the FIFO."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.step = "start"

    def fail(self, error: BaseException) -> NoReturn:
        told = explain(error, self.step)
        try:
            os.write(self.file, json.dumps(told).encode())
        finally:
            code = told["exit_code"]
            os._exit(code if isinstance(code, int) else 125)

    def ready(self, fds: tuple[int, ...] = ()) -> None:
        """Nothing to tell: the FIFO's last reader goes with execve."""


def enter(report: Report, host: Host, order: Order) -> NoReturn:
    """The first process: join, unshare, fork. Ends when the second is there."""
    try:
        report.step = "process"
        prepare_process()
        close_others(report, host, order.program.preserve, (*order.stdio, *order.joined.values()))
        report.step = "start"
        fifo, errors = _open_gate(order.fifo)
        process = order.program.process
        if "oomScoreAdj" in process:
            launch.score(host, process)
        report.step = "cgroups"
        launch.join_cgroups(order.cgroups)
        report.step = "namespaces"
        for kind, fd in order.joined.items():
            syscalls.setns(fd, steps.OCI_NAMESPACES[kind])
            os.close(fd)
        flags = 0
        for kind in order.made:
            flags |= steps.OCI_NAMESPACES[kind]
        syscalls.unshare(flags)
        fork_second(report)
        _build(report, host, order, fifo, errors)
    except BaseException as error:
        report.fail(error)


def visit(report: Report, host: Host, order: Visit) -> NoReturn:
    """Enter a running container and run a program there."""
    try:
        report.step = "process"
        prepare_process()
        close_others(report, host, order.program.preserve, (*order.stdio, order.init))
        process, own = order.program.process, order.program.fallback
        if "oomScoreAdj" in process or "oomScoreAdj" in own:
            launch.score(host, process if "oomScoreAdj" in process else own)
        report.step = "cgroups"
        launch.join_cgroups(order.cgroups)
        report.step = "namespaces"
        syscalls.setns(order.init, order.namespaces)
        fork_second(report)
        launch.become_leader()
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        pair = (-1, -1)
        if process.flag("terminal"):
            report.step = "terminal"
            size = process.table("consoleSize")
            pair = terminal.open_pair(root, size.number("height"), size.number("width"))
        run(report, host, order.program, list(order.stdio), root, pair)
    except BaseException as error:
        report.fail(error)


def fork_second(report: Report) -> None:
    """Returns in the second process only; the first tells the parent its pid and ends."""
    pid = os.fork()  # noqa: TID251 (single-threaded, and right after a fork)
    if pid:
        packets.send(report.sock, packets.pack({"pid": pid}))
        os._exit(0)


def prepare_process() -> None:
    """What a new program expects of its signals, and no way to load code from now on (CVE-2019-14271)."""
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    sys.path.clear()
    sys.meta_path.clear()
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def close_others(report: Report, host: Host, preserve: int, keep: Sequence[int]) -> None:
    """Drop every descriptor but stdio, those for the program, and these."""
    kept = [fd for fd in keep if fd > 2]
    launch.close_others([report.sock.fileno(), host.proc, host.null, *range(3, 3 + preserve), *kept])


def _open_gate(fifo: str) -> tuple[int, int]:
    """The FIFO to wait at, and the file to complain to afterwards; both of the host, close-on-exec."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | flags)
    return reader, os.open(f"{fifo}.error", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, 0o600)


def _build(report: Report, host: Host, order: Order, fifo: int, errors: int) -> NoReturn:
    """The second process: the world, the wait, the program."""
    report.step = "process"
    launch.become_leader()
    plan, wanted = order.plan, order.config.table("hooks")
    world = rootfs.World(mountpoint=order.root, proc=host.proc)
    report.step = "mount propagation"
    rootfs.detach_from_host(plan, world)
    for step in plan.steps:
        report.step = step.describe()
        rootfs.perform(step, world)
    report.step = "hooks"
    packets.send(report.sock, packets.pack({"built": True}))
    if packets.receive(report.sock) is None:
        raise ExecError(errno.EPIPE, "the runtime went away", None)
    hooks.run_hooks(wanted, "createContainer", order.state("creating", os.getpid()))
    report.step = "pivot"
    rootfs.pivot(plan, world)

    def gate(report: Report, master: int) -> Report:
        report.ready((master,) if master >= 0 else ())
        report.sock.close()
        for fd in {host.proc, host.null, master} - {-1}:
            os.close(fd)
        _wait(fifo)
        later = Written(errors)
        later.step = "hooks"
        try:
            hooks.run_hooks(wanted, "startContainer", order.state("created", os.getpid()))
        except ExecError as error:
            later.fail(error)
        return later

    pair = (world.master, world.slave)
    run(report, host, order.program, list(order.stdio), world.root, pair, gate)


def _wait(fifo: int) -> None:
    """Until somebody has it open for writing, or had: pipe(7); there is nothing to see before."""
    poll = select.poll()
    poll.register(fifo, select.POLLIN)
    poll.poll()


def type_of(fd: int, path: str) -> int:
    """Which kind of namespace is behind a descriptor, as its CLONE_NEW* bit. RefusedError when it is none."""
    try:
        return syscalls.namespace_type(fd)
    except OSError:
        raise RefusedError(f"linux.namespaces: {path} is not a namespace") from None
