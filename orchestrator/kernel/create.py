"""Makes containers of OCI bundles that nobody prepared: the parent's side of OCI's `create` and `exec`.

The parent forks one process that takes on the namespaces, which forks a second that builds the world around
itself (`kernel.inside`); the second is ours from the moment that the first ends (PR_SET_CHILD_SUBREAPER). It
waits at a FIFO until it is started. Imported by `orchestrator.oci` alone, never by the keeper.
"""

from __future__ import annotations

import _socket
import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple, NoReturn

from orchestrator.kernel import (
    capabilities,
    hooks,
    inside,
    layout,
    manner,
    maps,
    notify,
    packets,
    runs,
    steps,
    syscalls,
)
from orchestrator.kernel.hooks import run_hooks
from orchestrator.kernel.mounts import id_map
from orchestrator.kernel.program import Host, Program, open_host
from orchestrator.kernel.reading import Document, RefusedError
from orchestrator.kernel.report import ExecError, Report

__all__ = ["Entry", "Made", "Request", "create", "execute", "open_host", "release", "run_hooks"]


_UMOUNT_NOFOLLOW = 8


class Request(NamedTuple):
    """What `create` was asked. Nothing here is opened or closed by us but what `config` names."""

    id: str
    bundle: str
    config: Document
    cgroups: tuple[str, ...]  # directories to join, made by the caller
    seccomp: bytes
    seccomp_flags: int
    stdio: tuple[int, int, int]  # not used with a terminal
    console: int  # connected socket that gets the pty's master, or -1
    preserve: int  # descriptors from 3 on that the program gets too
    fifo: str  # where the container waits for its start; FIFO.error tells what failed afterwards
    state: hooks.State  # (status, pid) -> what hooks get on standard input; called in the container too
    warn: Callable[[str], None] = lambda _: None  # what the specification wants to be told, not refused
    pivot: bool = True  # False: chroot(2) instead of pivot_root(2), which a root on an initramfs refuses
    keyring: bool = True  # False: the caller's session keyring


class Entry(NamedTuple):
    """What `exec` was asked: one more process in a container that runs."""

    init: int  # pidfd of the container's first process
    config: Document  # the container's
    process: Document  # what it says nothing about is as in `config`
    cgroups: tuple[str, ...]
    seccomp: bytes
    seccomp_flags: int
    stdio: tuple[int, int, int]
    console: int
    preserve: int
    state: hooks.State = lambda status, pid: b"{}"  # noqa: ARG005 (for the agent of a seccomp listener)
    warn: Callable[[str], None] = lambda _: None


class Made(NamedTuple):
    """The first process of a container that waits for its start."""

    pid: int
    start_time: int  # field 22 of proc_pid_stat(5)


def create(host: Host, request: Request) -> Made:
    """Build a container up to the point where its program could run, and leave it waiting at the FIFO.

    Raises RefusedError for what we don't do, ExecError for what failed, OSError; then nothing is left but
    the cgroups, which are the caller's.
    """
    config = request.config
    _check_preserved(request.preserve)
    hooks.check(config.table("hooks"))
    request.state("creating", 0)  # so that what it imports is there before the fork
    with ExitStack() as held:
        order = _order(host, request, held)
        try:
            return _build(host, request, order)
        except BaseException:
            release(config, request.bundle)
            raise


def _order(host: Host, request: Request, held: ExitStack) -> inside.Order:
    """All that can be known, checked and opened beforehand. What is opened goes with `held`."""
    config, linux = request.config, request.config.table("linux")
    plan = layout.compile_steps(config, Document({"cgroups": list(request.cgroups)}), request.bundle)
    process = _possible(config.table("process"), request.warn)
    own = layout.namespaces(linux, steps.OCI_NAMESPACES)
    if "netDevices" in linux:
        # Imported by who asks for it: with it come the whole of netlink, and a quarter of a command's time.
        from orchestrator.kernel import netdevices

        netdevices.check(linux.table("netDevices"), own="network" in own)
    joined = _open_namespaces(linux, held)
    made = frozenset(own - set(joined))
    _check_maps(linux, made)
    return inside.Order(
        plan=plan,
        config=config,
        program=_program(process, process, request),
        cgroups=request.cgroups,
        stdio=(-1, -1, -1) if process.flag("terminal") else request.stdio,
        made=made,
        joined=joined,
        root=next(step.path for step in plan.steps if isinstance(step, steps.Rootfs)),
        fifo=request.fifo,
        state=request.state,
        idmaps=_open_idmaps(host, plan, linux, held),
        offsets=_clocks(linux, made),
        # What is for `exec` alone is left to it.
        manner=manner.read(process, linux)._replace(first_cpus=None, cpus=None),
        agent=_call_agent(linux, request.seccomp, held),
        pivot=request.pivot,
        keyring=request.keyring,
    )


def _program(process: Document, own: Document, asked: Request | Entry) -> Program:
    return Program(
        process=process,
        fallback=own,
        user="",
        groups=[],
        seccomp=asked.seccomp,
        privileged=False,
        seccomp_flags=asked.seccomp_flags,
        preserve=asked.preserve,
        exact=True,
    )


def _build(host: Host, request: Request, order: inside.Order) -> Made:
    config, linux = request.config, request.config.table("linux")
    with _birth(lambda report: inside.enter(report, host, order)) as birth:
        if "user" in order.made:
            birth.expect("map")
            maps.write(host, birth.first, id_map(linux, "uidMappings"), id_map(linux, "gidMappings"))
            birth.go()
        birth.expect("pid", "built")
        if "netDevices" in linux:
            _move_links(host, birth.pid, linux)
        state = request.state("creating", birth.pid)
        run_hooks(config.table("hooks"), "prestart", state)
        run_hooks(config.table("hooks"), "createRuntime", state)
        birth.go()
        birth.expect("ready")
        manner.steer(birth.pid, order.manner)
        if birth.master >= 0:
            _hand_over(request.console, birth.master)
        return Made(birth.pid, runs.start_time(host.proc, birth.pid) or 0)


def release(config: Document, bundle: str) -> None:
    """Take away what a container without a mount namespace of its own has left in the runtime's.

    To be called when it has ended. Nothing to do for any other.
    """
    linux = config.table("linux")
    if any(entry.text("type") == "mount" for entry in linux.tables("namespaces")):
        return
    root = config.table("root").text("path")
    with suppress(OSError):
        syscalls.umount(os.path.join(bundle, root), syscalls.MNT_DETACH | _UMOUNT_NOFOLLOW)


def execute(host: Host, entry: Entry) -> int:
    """Start a process in a container; its pid, a child of ours. Returns when the program runs.

    Raises as `create` does.
    """
    _check_preserved(entry.preserve)
    linux = entry.config.table("linux")
    process = _possible(entry.process, entry.warn)
    entry.state("running", 0)
    pid = syscalls.pidfd_pid(entry.init)
    with ExitStack() as held:
        order = inside.Visit(
            init=entry.init,
            pid=pid,
            namespaces=_differing(host, pid),
            program=_program(process, entry.config.table("process"), entry),
            cgroups=entry.cgroups,
            stdio=(-1, -1, -1) if process.flag("terminal") else entry.stdio,
            manner=manner.read(process, linux),
            agent=_call_agent(linux, entry.seccomp, held),
            state=entry.state,
            linux=linux,
        )
        with _birth(lambda report: inside.visit(report, host, order)) as birth:
            if order.manner.steers():
                birth.expect("pid", "joined")
                manner.steer(birth.pid, order.manner)
                birth.go()
            birth.expect("pid", "ready")
            if birth.master >= 0:
                _hand_over(entry.console, birth.master)
            birth.expect_end()
            return birth.pid


def _possible(process: Document, warn: Callable[[str], None]) -> Document:
    """The process with the capabilities that there are: of others the specification wants a warning."""
    sets = process.table("capabilities")
    if not sets.names():
        return process
    known: dict[str, object] = {}
    for kind in sets.names():
        names = sets.texts(kind)
        known[kind] = [name for name in names if name in capabilities.NAMES]
        for name in names:
            if name not in capabilities.NAMES:
                warn(f"process.capabilities.{kind}: unknown capability {name!r} is left out")
    return Document({**process.raw, "capabilities": known}, process.place)


def _call_agent(linux: Document, program: bytes, held: ExitStack) -> _socket.socket | None:
    """A connection to the agent of a seccomp listener, if there is to be one."""
    profile = linux.table("seccomp")
    if not program or not notify.wanted(profile):
        return None
    agent = notify.connect(profile.text("listenerPath"))
    held.callback(agent.close)
    return agent


def _move_links(host: Host, pid: int, linux: Document) -> None:
    from orchestrator.kernel import netdevices

    namespace = os.open(f"{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=host.proc)
    try:
        netdevices.move(namespace, linux.table("netDevices"))
    finally:
        os.close(namespace)


def _differing(host: Host, pid: int) -> int:
    """The namespaces in which a process is and we aren't, as CLONE_NEW* bits: to join one's own can fail."""
    flags = 0
    for kind, name in _LINKS.items():
        try:
            theirs = os.stat(f"{pid}/ns/{name}", dir_fd=host.proc)
        except FileNotFoundError:
            continue  # this kernel has none of these
        ours = os.stat(f"self/ns/{name}", dir_fd=host.proc)
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
            flags |= steps.OCI_NAMESPACES[kind]
    return flags


_LINKS = {
    "user": "user",
    "mount": "mnt",
    "cgroup": "cgroup",
    "uts": "uts",
    "ipc": "ipc",
    "pid": "pid",
    "network": "net",
    "time": "time",
}


class _Silence(ExecError):
    """The other side is gone."""


class _Birth:
    """The parent's view of the two processes."""

    def __init__(self, first: int, sock: _socket.socket) -> None:
        self.first = first
        self.sock = sock
        self.pid = -1
        self.master = -1
        self.heard: set[str] = set()

    def expect(self, *names: str) -> None:
        """Listen until each of these was told. Raises ExecError with what the child says failed."""
        while not self.heard.issuperset(names):
            received = packets.receive(self.sock)
            if received is None:
                raise _Silence(errno.ECHILD, "the container's process was killed while it was made", None)
            message, fds = received
            self.heard.update(message)
            if fds and self.master < 0:
                self.master = fds.pop()
            packets.close(fds)
            pid, told = message.get("pid"), message.get("error")
            if isinstance(pid, int):
                self.pid = pid
                os.waitpid(self.first, 0)
                self.first = -1
            if isinstance(told, dict):
                raise _error(Document(told))

    def expect_end(self) -> None:
        """Listen to the end: execve closes the other side. Raises ExecError with what failed."""
        with suppress(_Silence):
            self.expect("nothing more")

    def go(self) -> None:
        packets.send(self.sock, packets.pack({"go": True}))

    def end(self) -> None:
        """Leave nothing of it."""
        for pid in (self.first, self.pid):
            if pid > 0:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)


def _error(told: Document) -> ExecError:
    step, message = told.text("step"), told.text("message")
    code = told.number("exit_code") if "exit_code" in told else None
    shown = message if code is not None else f"{step}: {message}"
    return ExecError(told.number("errno"), shown, code)


@contextmanager
def _birth(child: Callable[[Report], NoReturn]) -> Iterator[_Birth]:
    """Fork the first process. The second becomes our child; if the block fails, both go."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    try:
        first = os.fork()  # noqa: TID251 (the command line is single-threaded, and this is its one purpose)
        if first == 0:
            try:
                child(Report(theirs))
            finally:
                os._exit(125)
        theirs.close()
        birth = _Birth(first, ours)
        try:
            yield birth
        except BaseException:
            birth.end()
            raise
        finally:
            if birth.master >= 0:
                os.close(birth.master)
    finally:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 0)
        ours.close()
        theirs.close()


def _open_namespaces(linux: Document, held: ExitStack) -> dict[str, int]:
    """Descriptors of the namespaces to join, each checked to be of its kind."""
    opened: dict[str, int] = {}
    for entry in linux.tables("namespaces"):
        kind, path = entry.text("type"), entry.text("path")
        if not path:
            continue
        if not path.startswith("/"):
            raise RefusedError(f"{entry.place}.path: {path!r} is not an absolute path")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        held.callback(os.close, fd)
        if inside.type_of(fd, path) != steps.OCI_NAMESPACES[kind]:
            raise RefusedError(f"{entry.place}.path: {path} is not a {kind} namespace")
        opened[kind] = fd
    return opened


def _open_idmaps(host: Host, plan: steps.Steps, linux: Document, held: ExitStack) -> dict[steps.Idmap, int]:
    """A user namespace for each id-mapped mount; without a map of its own it has the container's."""
    found: dict[steps.Idmap, int] = {}
    for step in plan.steps:
        if not isinstance(step, steps.Bind) or not step.idmap or step.idmap in found:
            continue
        uids = step.idmap.uids or id_map(linux, "uidMappings")
        gids = step.idmap.gids or id_map(linux, "gidMappings")
        if not uids or not gids:
            raise RefusedError(f"mounts: {step.target}: idmap: there are no id mappings")
        found[step.idmap] = maps.namespace(host, uids, gids)
        held.callback(os.close, found[step.idmap])
    return found


def _check_maps(linux: Document, made: frozenset[str]) -> None:
    mapped = "uidMappings" in linux or "gidMappings" in linux
    if mapped and "user" not in made:
        raise RefusedError("linux.uidMappings: only a new user namespace can have them")


def _clocks(linux: Document, made: frozenset[str]) -> str:
    """linux.timeOffsets as timens_offsets takes them (time_namespaces(7))."""
    offsets = linux.table("timeOffsets")
    offsets.only("monotonic", "boottime")
    if offsets.names() and "time" not in made:
        raise RefusedError("linux.timeOffsets: only a new time namespace can have them")
    lines = []
    for clock in offsets.names():
        offset = offsets.table(clock)
        offset.only("secs", "nanosecs")
        lines.append(f"{clock} {offset.number('secs')} {offset.number('nanosecs')}\n")
    return "".join(lines)


def _check_preserved(count: int) -> None:
    """Descriptors for the program must be inherited ones: ours are all close-on-exec."""
    for fd in range(3, 3 + count):
        try:
            inherited = os.get_inheritable(fd)
        except OSError:
            inherited = False
        if not inherited:
            raise RefusedError(f"--preserve-fds {count}: descriptor {fd} is not open")


def _hand_over(console: int, master: int) -> None:
    """The pty's master to whom asked for it; the name is what runc sends, and conmon reads."""
    if console < 0:
        raise RefusedError("process.terminal: there is no console socket to hand the terminal to")
    sock = _socket.socket(fileno=os.dup(console))
    try:
        packets.send(sock, b"/dev/ptmx", (master,))
    finally:
        sock.close()
