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
from contextlib import contextmanager, suppress
from typing import NamedTuple, NoReturn

from orchestrator.kernel import hooks, inside, layout, maps, packets, runs, steps, syscalls
from orchestrator.kernel.hooks import run_hooks
from orchestrator.kernel.mounts import id_map
from orchestrator.kernel.program import Host, Program, open_host
from orchestrator.kernel.reading import Document, RefusedError
from orchestrator.kernel.report import ExecError, Report

__all__ = ["Entry", "Made", "Request", "create", "execute", "open_host", "run_hooks"]


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
    plan = layout.compile_steps(config, Document({}), request.bundle)
    hooks.check(config.table("hooks"))
    _check_preserved(request.preserve)
    process = config.table("process")
    program = Program(
        process=process,
        fallback=process,
        user="",
        groups=[],
        seccomp=request.seccomp,
        privileged=False,
        seccomp_flags=request.seccomp_flags,
        preserve=request.preserve,
        exact=True,
    )
    request.state("creating", 0)  # so that what it imports is there before the fork
    linux = config.table("linux")
    joined = _open_namespaces(linux)
    idmaps: dict[steps.Idmap, int] = {}
    try:
        idmaps.update(_open_idmaps(host, plan, linux))
        made = frozenset(layout.namespaces(linux, steps.OCI_NAMESPACES) - set(joined))
        _check_maps(linux, made)
        order = inside.Order(
            plan=plan,
            config=config,
            program=program,
            cgroups=request.cgroups,
            stdio=(-1, -1, -1) if process.flag("terminal") else request.stdio,
            made=made,
            joined=joined,
            root=next(step.path for step in plan.steps if isinstance(step, steps.Rootfs)),
            fifo=request.fifo,
            state=request.state,
            idmaps=idmaps,
            offsets=_clocks(linux, made),
        )
        with _birth(lambda report: inside.enter(report, host, order)) as birth:
            if "user" in made:
                birth.expect("map")
                maps.write(host, birth.first, id_map(linux, "uidMappings"), id_map(linux, "gidMappings"))
                birth.go()
            birth.expect("pid", "built")
            state = request.state("creating", birth.pid)
            run_hooks(config.table("hooks"), "prestart", state)
            run_hooks(config.table("hooks"), "createRuntime", state)
            birth.go()
            birth.expect("ready")
            if birth.master >= 0:
                _hand_over(request.console, birth.master)
            return Made(birth.pid, runs.start_time(host.proc, birth.pid) or 0)
    finally:
        for fd in (*joined.values(), *idmaps.values()):
            os.close(fd)


def execute(host: Host, entry: Entry) -> int:
    """Start a process in a container; its pid, a child of ours. Returns when the program runs.

    Raises as `create` does.
    """
    process = entry.process
    _check_preserved(entry.preserve)
    order = inside.Visit(
        init=entry.init,
        namespaces=_differing(host, entry.init),
        program=Program(
            process=process,
            fallback=entry.config.table("process"),
            user="",
            groups=[],
            seccomp=entry.seccomp,
            privileged=False,
            seccomp_flags=entry.seccomp_flags,
            preserve=entry.preserve,
            exact=True,
        ),
        cgroups=entry.cgroups,
        stdio=(-1, -1, -1) if process.flag("terminal") else entry.stdio,
    )
    with _birth(lambda report: inside.visit(report, host, order)) as birth:
        birth.expect("pid", "ready")
        if birth.master >= 0:
            _hand_over(entry.console, birth.master)
        birth.expect_end()
        return birth.pid


def _differing(host: Host, init: int) -> int:
    """The namespaces in which a process is and we aren't, as CLONE_NEW* bits: to join one's own can fail."""
    pid = syscalls.pidfd_pid(init)
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


def _open_namespaces(linux: Document) -> dict[str, int]:
    """Descriptors of the namespaces to join, each checked to be of its kind."""
    opened: dict[str, int] = {}
    try:
        for entry in linux.tables("namespaces"):
            kind, path = entry.text("type"), entry.text("path")
            if not path:
                continue
            if not path.startswith("/"):
                raise RefusedError(f"{entry.place}.path: {path!r} is not an absolute path")
            opened[kind] = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            if inside.type_of(opened[kind], path) != steps.OCI_NAMESPACES[kind]:
                raise RefusedError(f"{entry.place}.path: {path} is not a {kind} namespace")
    except BaseException:
        for fd in opened.values():
            os.close(fd)
        raise
    return opened


def _open_idmaps(host: Host, plan: steps.Steps, linux: Document) -> dict[steps.Idmap, int]:
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
