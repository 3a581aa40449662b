"""What a freshly forked child of the keeper does until it becomes the container's program.

`start` builds a container around itself from a bundle (`kernel.enter` goes into one that runs). It ends in
execve, or reports what failed through `Report` and exits. From the fork on nothing is imported, and after
the pivot no name is looked up by the C library: a library found inside the container would run with our
rights (CVE-2019-14271).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from orchestrator.kernel import layout, rootfs, steps, syscalls, userns
from orchestrator.kernel import world as places
from orchestrator.kernel.program import Host, Program, run
from orchestrator.kernel.reading import Document, RefusedError, load
from orchestrator.kernel.report import Report

_SECCOMP_LIMIT = 4096 * 8  # BPF_MAXINSNS instructions of 8 bytes


class Bundle(NamedTuple):
    """A container's two documents, understood before the fork: what is refused never becomes a process.

    It is also cheaper there: each page a child touches first has to be copied for it.
    """

    path: str
    config: Document
    launch: Document
    plan: steps.Steps


def read(path: str) -> Bundle:
    """The bundle in a directory. Raises RefusedError for what we don't do, OSError when it can't be read."""
    launch = load(f"{path}/launch.json")
    # The filter is there compiled; its policy would take longer to parse than all the rest.
    policy = launch.table("policy")
    config = load(f"{path}/config.json", (policy.number("start"), policy.number("end")))
    launch.only(
        "format",
        "stdin",
        "stdout",
        "stderr",
        "cgroups",
        "seccomp",
        "policy",
        "user",
        "groups",
        "root",
        "seed",
        "subpaths",
        "sources",
        "runtime",
    )
    compiled = layout.ground_steps if "runtime" in launch else layout.compile_steps
    return Bundle(path, config, launch, compiled(config, launch))


def start(
    report: Report, host: Host, bundle: Bundle, namespaces: Mapping[str, int], stdin: int = -1
) -> NoReturn:
    """Build the container of `bundle` around this process and run its program.

    `namespaces` are descriptors to join; a new pid namespace was already made by the keeper. `stdin`, where
    given, is what the program reads: the thing itself, so that its end reaches it. A terminal has its own.
    """
    try:
        report.step = "process"
        become_leader()
        close_others([report.sock.fileno(), host.proc, host.null, stdin, *namespaces.values()])
        _, config, launch, plan = bundle
        process = config.table("process")
        program = Program(
            process=process,
            fallback=process,
            user=launch.text("user"),
            groups=launch.members("groups"),
            seccomp=read_filter(launch.text("seccomp")),
            privileged=False,
        )
        report.step = "pid.json"
        write_birth(bundle.path, host)
        report.step = "stdio"
        stdio = [-1, -1, -1] if process.flag("terminal") else open_stdio(launch, stdin)
        score(host, process)
        report.step = "cgroups"
        join_cgroups(launch.texts("cgroups"), born=report.group)
        report.step = "namespaces"
        _enter(layout.namespaces(config.table("linux")), namespaces)
        world = places.World(mountpoint=f"{bundle.path}/rootfs", proc=host.proc)
        report.step = "mount propagation"
        rootfs.detach_from_host(plan, world)
        for step in plan.steps:
            report.step = step.describe()
            rootfs.perform(step, world)
        report.step = "pivot"
        rootfs.pivot(plan, world)
        run(report, host, program, stdio, world.root, (world.master, world.slave))
    except BaseException as error:
        report.fail(error)


def become_leader(*, keyring: bool = True) -> None:
    """A session of our own (TIOCSTI into the caller's terminal: CVE-2017-5226) and a keyring of our own."""
    os.setsid()
    os.umask(0)
    if not keyring:
        return
    try:
        syscalls.join_session_keyring()
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EDQUOT):
            raise


def close_others(keep: Sequence[int]) -> None:
    """Drop every descriptor of the keeper's but stdio and these."""
    first = 3
    for fd in sorted(set(keep)):
        if fd >= first:
            if fd > first:
                syscalls.close_range(first, fd - 1)
            first = fd + 1
    syscalls.close_range(first)


def read_filter(path: str) -> bytes:
    """A compiled seccomp filter; none for "". Raises RefusedError for what is no filter."""
    if not path:
        return b""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        program = os.read(fd, _SECCOMP_LIMIT + 1)
    finally:
        os.close(fd)
    if not program or len(program) > _SECCOMP_LIMIT or len(program) % 8:
        raise RefusedError(f"{path}: not a compiled seccomp filter")
    return program


def write_birth(bundle: str, host: Host) -> None:
    replace_file(f"{bundle}/pid.json", birth(host))


def birth(host: Host, process: int | str = "self") -> bytes:
    """pid.json: which process this is. A pid alone is never trusted, its start time goes with it."""
    # Read through the host's /proc, so the number is the host's even in a new pid namespace.
    fd = os.open(f"{process}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=host.proc)
    text = os.read(fd, 4096)
    os.close(fd)
    pid, start_time = int(text.split(b" ", 1)[0]), int(text.rpartition(b") ")[2].split()[19])
    # By hand: the JSON encoder's pages would have to be copied for it.
    born = f'{{"format": 1, "pid": {pid}, "start_time": {start_time}, "boot_id": "{host.boot_id}"}}'
    return born.encode()


def replace_file(path: str, data: bytes) -> None:
    """Write by temporary name and rename: a reader sees the old or the new whole.

    Not synced: these records mean nothing after a reboot (boot id), and a sync would stall the keeper.
    """
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    os.rename(f"{path}.new", path)


def open_stdio(launch: Document, stdin: int) -> list[int]:
    """The FIFOs, opened for both ways: a dead reader then means neither EPIPE nor an end (fifo(7))."""
    opened: list[int] = [] if stdin < 0 else [stdin]
    for name in ("stdin", "stdout", "stderr")[len(opened) :]:
        path = launch.text(name)
        if not path:
            opened.append(-1)
            continue
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise RefusedError(f"{name}: {path} is not a FIFO")
        os.set_blocking(fd, True)
        opened.append(fd)
    return opened


def score(host: Host, process: Document) -> None:
    if "oomScoreAdj" not in process and not userns.is_initial():
        return  # the user's own: less than that is not theirs to give
    score = process.number("oomScoreAdj")
    fd = os.open("self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC, dir_fd=host.proc)
    try:
        os.write(fd, str(score).encode())
    except OSError as error:
        raise OSError(error.errno, f"oom_score_adj {score}: {error.strerror}") from None
    finally:
        os.close(fd)


def join_cgroups(directories: Sequence[str], *, born: str = "", present: bool = False) -> None:
    """All but the one that this process was `born` in (see `kernel.clone`).

    `present`: only those that are there; another runtime decides itself which it makes.
    """
    for directory in directories:
        if directory == born or (present and not os.path.isdir(directory)):
            continue
        fd = os.open(f"{directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"0")
        except OSError as error:
            raise OSError(error.errno, f"{directory}/cgroup.procs: {error.strerror}") from None
        finally:
            os.close(fd)


def _enter(new: set[str], joined: Mapping[str, int]) -> None:
    """Join what was given, make the rest. A cgroup namespace's root is where we are: cgroups first."""
    for kind, fd in joined.items():
        if kind != "pid":
            syscalls.setns(fd, steps.NAMESPACES[kind])
        os.close(fd)
    flags = 0
    for kind in new - set(joined) - {"pid"}:
        flags |= steps.NAMESPACES[kind]
    syscalls.unshare(flags)
