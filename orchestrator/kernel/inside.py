"""The two processes that make a container of any OCI bundle from within; `kernel.create` is their parent.

`enter` is the first: it takes on the container's namespaces and forks the second into the pid (and time)
namespace, for those count for children alone. `_build` is the second: it builds the world, waits for its
start and becomes the program. Both talk to the parent through a `Report`. As in `kernel.launch`, nothing is
imported after the fork and no name is looked up by the C library.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import json
import os
import select
import signal
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from orchestrator.kernel import (
    capabilities,
    hooks,
    launch,
    manner,
    mounting,
    notify,
    packets,
    rootfs,
    steps,
    syscalls,
    terminal,
)
from orchestrator.kernel import program as program_
from orchestrator.kernel import world as places
from orchestrator.kernel.manner import Manner
from orchestrator.kernel.program import Host, Program, run
from orchestrator.kernel.reading import Document, RefusedError
from orchestrator.kernel.report import ExecError, Report, explain

_SIOCSIFFLAGS = 0x8914  # include/uapi/linux/sockios.h
_IFF_UP = 1


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
    idmaps: Mapping[steps.Idmap, int]
    offsets: str  # of the clocks, as timens_offsets takes them
    manner: Manner
    agent: _socket.socket | None
    pivot: bool
    keyring: bool


class Visit(NamedTuple):
    """The same for one more process in a container that runs."""

    init: int
    pid: int
    namespaces: int
    program: Program
    cgroups: tuple[str, ...]
    stdio: tuple[int, ...]
    manner: Manner
    agent: _socket.socket | None
    state: hooks.State
    linux: Document


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
        keep = (*order.stdio, *order.joined.values(), *order.idmaps.values(), _number(order.agent))
        close_others(report, host, order.program.preserve, keep)
        report.step = "start"
        fifo, errors = _open_gate(order.fifo)
        process = order.program.process
        if "oomScoreAdj" in process:
            launch.score(host, process)
        report.step = "rlimits"
        program_.raise_limits(process)
        report.step = "cgroups"
        launch.join_cgroups(order.cgroups)
        world = places.World(mountpoint=order.root, proc=host.proc)
        world.guest = "user" in order.made or "user" in order.joined
        world.idmaps = dict(order.idmaps)
        _prepare(report, order, world)
        report.step = "namespaces"
        _move(report, host, order)
        if not order.made & {"user"}:
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        # Opened with the host's rights: in a user namespace we may not be let through its directories.
        world.place = os.open(order.root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if world.guest:
            report.step = "user namespace"
            _become_root()
            host = host._replace(held=capabilities.held())
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        fork_second(report)
        _build(report, host, order, world, fifo, errors)
    except BaseException as error:
        report.fail(error)


def _prepare(report: Report, order: Order, world: places.World) -> None:
    """Clone what is the host's while we are the host's: later neither paths nor rights may suffice.

    A user who isn't root can't yet, and does it when it is in its own namespaces. Where nothing changes but
    that the mounts are a copy, binds wait for their turn: mountinfo is in the order of making (Linux 6.8).
    """
    early = world.guest or "mount" in order.joined
    for step in order.plan.steps:
        report.step = step.describe()
        try:
            if isinstance(step, steps.Rootfs):
                world.trees[step] = rootfs.clone_root(step)
            elif isinstance(step, steps.Bind) and early:
                world.trees[step] = mounting.prepared(step, world)
            elif isinstance(step, steps.Node) and world.guest and step.kind != "p":
                world.trees[step] = rootfs.clone_device(step)
        except PermissionError:
            if not world.guest:
                raise
            return


def _move(report: Report, host: Host, order: Order) -> None:
    """Take on the namespaces: join what can be joined, become the guest, join the rest, make the new ones.

    Who owns a namespace decides when it can be joined: one of the host's before the user namespace is left,
    one of the other user namespace's after it was entered.
    """
    later = _join_what_can_be(order)
    if "user" in order.joined:
        syscalls.setns(order.joined["user"], syscalls.CLONE_NEWUSER)
    elif "user" in order.made:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        _pause(report, "map")
    for kind in later:
        syscalls.setns(order.joined[kind], steps.OCI_NAMESPACES[kind])
    flags = 0
    for kind in order.made - {"user"}:
        flags |= steps.OCI_NAMESPACES[kind]
    syscalls.unshare(flags)
    if order.offsets:
        _set_clocks(host, order.offsets)
    if "network" in order.made:
        _raise_loopback()
    for fd in order.joined.values():
        os.close(fd)


def _join_what_can_be(order: Order) -> list[str]:
    """Join; returns what has to wait for the user namespace."""
    later: list[str] = []
    for kind, fd in order.joined.items():
        if kind == "user":
            continue
        try:
            syscalls.setns(fd, steps.OCI_NAMESPACES[kind])
        except PermissionError:
            if "user" not in order.made and "user" not in order.joined:
                raise
            later.append(kind)
    return later


def _set_clocks(host: Host, offsets: str) -> None:
    """Before anybody is in the time namespace (time_namespaces(7))."""
    fd = os.open("self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC, dir_fd=host.proc)
    try:
        os.write(fd, offsets.encode())
    except OSError as error:
        raise OSError(error.errno, f"linux.timeOffsets: {error.strerror}") from None
    finally:
        os.close(fd)


def _raise_loopback() -> None:
    """A new network namespace has its loopback down, and nobody means that."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        fcntl.ioctl(sock.fileno(), _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
    finally:
        sock.close()


def _become_root() -> None:
    """Root of the user namespace, or, where it has none, whoever we are there: all capabilities are ours."""
    for change, arguments in ((os.setresgid, (0, 0, 0)), (os.setgroups, ([],)), (os.setresuid, (0, 0, 0))):
        try:
            change(*arguments)
        except OSError as error:
            # Not mapped, or setgroups(2) denied with the map.
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise


def visit(report: Report, host: Host, order: Visit) -> NoReturn:
    """Enter a running container and run a program there."""
    try:
        report.step = "process"
        prepare_process()
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        close_others(report, host, order.program.preserve, (*order.stdio, order.init, _number(order.agent)))
        process, own = order.program.process, order.program.fallback
        if "oomScoreAdj" in process or "oomScoreAdj" in own:
            launch.score(host, process if "oomScoreAdj" in process else own)
        report.step = "rlimits"
        program_.raise_limits(process if "rlimits" in process else own)
        report.step = "process"
        manner.begin(order.manner)
        report.step = "cgroups"
        launch.join_cgroups(order.cgroups)
        report.step = "namespaces"
        # Its first process may have another root than its mount namespace has: one that isn't its own.
        root = os.open(f"{order.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=host.proc)
        if order.namespaces:  # none is EINVAL: setns(2)
            syscalls.setns(order.init, order.namespaces)
        os.fchdir(root)
        os.chroot(".")
        if order.namespaces & syscalls.CLONE_NEWUSER:
            _become_root()
            host = host._replace(held=capabilities.held())
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        fork_second(report)
        launch.become_leader()
        if order.manner.steers():
            _pause(report, "joined")
        program = _with_listener(host, order.program, order.agent, order.linux, order.state, "running")
        manner.adopt(order.manner)
        manner.put_label(manner.open_label(host.proc, order.manner), order.manner)
        pair = (-1, -1)
        if process.flag("terminal"):
            report.step = "terminal"
            size = process.table("consoleSize")
            pair = terminal.open_pair(root, size.number("height"), size.number("width"))
        run(report, host, program, list(order.stdio), root, pair)
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
    for reserved in (32, 33):  # of the C library: see reset_signal
        syscalls.reset_signal(reserved)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    sys.path.clear()
    sys.meta_path.clear()


def close_others(report: Report, host: Host, preserve: int, keep: Sequence[int]) -> None:
    """Drop every descriptor but stdio, those for the program, and these."""
    kept = [fd for fd in keep if fd > 2]
    launch.close_others([report.sock.fileno(), host.proc, host.null, *range(3, 3 + preserve), *kept])


def _open_gate(fifo: str) -> tuple[int, int]:
    """The FIFO to wait at, and the file to complain to afterwards; both of the host, close-on-exec."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | flags)
    return reader, os.open(f"{fifo}.error", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, 0o600)


def _build(report: Report, host: Host, order: Order, world: places.World, fifo: int, errors: int) -> NoReturn:
    """The second process: the world, the wait, the program."""
    report.step = "process"
    launch.become_leader(keyring=order.keyring)
    plan, wanted = order.plan, order.config.table("hooks")
    report.step = "mount propagation"
    if "mount" in order.made:
        rootfs.detach_from_host(plan, world)
    else:
        rootfs.open_null(world)
    for step in plan.steps:
        report.step = step.describe()
        rootfs.perform(step, world)
    report.step = "hooks"
    _pause(report, "built")
    hooks.run_hooks(wanted, "createContainer", order.state("creating", os.getpid()))
    report.step = "pivot"
    if "mount" not in order.made:
        rootfs.confine(world)
    elif order.pivot:
        rootfs.pivot(plan, world)
    else:
        rootfs.cover(plan, world)

    report.step = "process"
    program = _with_listener(
        host, order.program, order.agent, order.config.table("linux"), order.state, "creating"
    )
    manner.adopt(order.manner)
    label = manner.open_label(host.proc, order.manner)

    def gate(report: Report, master: int) -> Report:
        # Whoever may look at us while we wait finds no way to the host.
        kept = [fifo, errors, label, _number(order.agent), *range(3, 3 + program.preserve)]
        launch.close_others([*kept, report.sock.fileno(), master])
        report.ready((master,) if master >= 0 else ())
        launch.close_others(kept)
        _wait(fifo)
        later = Written(errors)
        later.step = "hooks"
        try:
            hooks.run_hooks(wanted, "startContainer", order.state("created", os.getpid()))
            manner.put_label(label, order.manner)
        except (ExecError, OSError) as error:
            later.fail(error)
        return later

    pair = (world.master, world.slave)
    run(report, host, program, list(order.stdio), world.root, pair, gate)


def _pause(report: Report, name: str) -> None:
    """Tell the parent how far we are, and wait until it has done its part."""
    packets.send(report.sock, packets.pack({name: True}))
    if packets.receive(report.sock) is None:
        raise ExecError(errno.EPIPE, "the runtime went away", None)


def _number(sock: _socket.socket | None) -> int:
    return sock.fileno() if sock else -1


def _with_listener(
    host: Host,
    program: Program,
    agent: _socket.socket | None,
    linux: Document,
    state: hooks.State,
    status: str,
) -> Program:
    """The program with a filter whose listener goes to the agent, if there is one."""
    if agent is None:
        return program
    pid = _own_pid(host)
    told = notify.told(state(status, pid), pid, linux.table("seccomp").text("listenerMetadata"))
    return program._replace(load=notify.loader(agent, told))


def _own_pid(host: Host) -> int:
    """As the host sees us."""
    fd = os.open("self/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=host.proc)
    try:
        return int(os.read(fd, 64).split(b" ", 1)[0])
    finally:
        os.close(fd)


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
