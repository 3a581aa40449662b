"""What a freshly forked child of the keeper does until it becomes the container's program.

`start` builds a container around itself from a bundle, `join` enters one that runs. Both end in execve, or
report what failed through `Report` and exit. From the fork on nothing is imported, and after the pivot no
name is looked up by the C library: a library found inside the container would run with our rights
(CVE-2019-14271).
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import resource
import stat
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from orchestrator.kernel import accounts, capabilities, packets, rootfs, steps, syscalls, terminal
from orchestrator.kernel.reading import Document, RefusedError, load

_NOT_FOUND = 127
_NOT_EXECUTABLE = 126
_UMASK = 0o022
_HIGH_FD = 64
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_READY = packets.pack({"ready": True})
_SECCOMP_LIMIT = 4096 * 8  # BPF_MAXINSNS instructions of 8 bytes
_JOINED = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWCGROUP
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWNET
)
_RLIMITS = {
    name: getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}


class Host(NamedTuple):
    """What the keeper opened on the host beforehand, and knows about this machine."""

    proc: int
    null: int
    boot_id: str
    held: int  # its capability bounding set


class Bundle(NamedTuple):
    """A container's two documents, understood before the fork: what is refused never becomes a process.

    It is also cheaper there: each page a child touches first has to be copied for it.
    """

    path: str
    config: Document
    launch: Document
    plan: steps.Steps


class Program(NamedTuple):
    """How a process is to run: OCI's `process` with the container's values where it says nothing."""

    process: Document
    fallback: Document
    user: str
    groups: list[str | int]
    seccomp: bytes
    privileged: bool


class ExecError(Exception):
    """The program can't be run; `exit_code` is what a shell would return: 126 or 127."""

    def __init__(self, number: int, message: str, exit_code: int | None) -> None:
        super().__init__(message)
        self.number = number
        self.exit_code = exit_code


class Report:
    """The child's one line to the keeper: a close-on-exec socket whose end means "the program runs".

    `ready` goes out right before execve: an end without it means that the child died before.
    """

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self.step = "fork"

    def fail(self, error: BaseException) -> NoReturn:
        """Tell the keeper and leave. Never formats a traceback: that would read source files."""
        number = error.errno if isinstance(error, OSError) else None
        exit_code = None
        if isinstance(error, ExecError):
            number, exit_code = error.number, error.exit_code
        elif not isinstance(error, OSError | ValueError):
            self.step += " " + _places(error)
        message = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.filename is not None:
            message = f"{os.fsdecode(error.filename)}: {error.strerror}"
        told = packets.failure(
            number or errno.EINVAL, message[:2000], step=self.step[:500], exit_code=exit_code
        )
        try:
            packets.send(self.sock, packets.pack({"error": told}))
        finally:
            os._exit(exit_code or 125)

    def ready(self, fds: tuple[int, ...] = ()) -> None:
        """The next call is execve. Raises BrokenPipeError when the keeper is gone: then nobody would wait."""
        packets.send(self.sock, _READY, fds)


def _places(error: BaseException) -> str:
    """Where it was raised: function:line, innermost last."""
    places: list[str] = []
    trace = error.__traceback__
    while trace:
        places.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"({type(error).__name__} at {' '.join(places[-6:])})"


def read(path: str) -> Bundle:
    """The bundle in a directory. Raises RefusedError for what we don't do, OSError when it can't be read."""
    config, launch = load(f"{path}/config.json"), load(f"{path}/launch.json")
    launch.only(
        "format",
        "stdin",
        "stdout",
        "stderr",
        "cgroups",
        "seccomp",
        "user",
        "groups",
        "root",
        "seed",
        "subpaths",
    )
    return Bundle(path, config, launch, steps.compile_steps(config, launch))


def start(
    report: Report, host: Host, bundle: Bundle, namespaces: Mapping[str, int], stdin: int = -1
) -> NoReturn:
    """Build the container of `bundle` around this process and run its program.

    `namespaces` are descriptors to join; a new pid namespace was already made by the keeper. `stdin`, where
    given, is what the program reads: the thing itself, so that its end reaches it. A terminal has its own.
    """
    try:
        report.step = "process"
        _become_leader()
        _close_others([report.sock.fileno(), host.proc, host.null, stdin, *namespaces.values()])
        _, config, launch, plan = bundle
        process = config.table("process")
        program = Program(
            process=process,
            fallback=process,
            user=launch.text("user"),
            groups=launch.members("groups"),
            seccomp=_read_filter(launch.text("seccomp")),
            privileged=False,
        )
        report.step = "pid.json"
        _write_birth(bundle.path, host)
        report.step = "stdio"
        stdio = [-1, -1, -1] if process.flag("terminal") else _open_stdio(launch, stdin)
        _score(host, process)
        report.step = "cgroups"
        _join_cgroups(launch.texts("cgroups"))
        report.step = "namespaces"
        _enter(steps.namespaces(config.table("linux")), namespaces)
        world = rootfs.World(mountpoint=f"{bundle.path}/rootfs", proc=host.proc)
        report.step = "mount propagation"
        rootfs.detach_from_host(plan, world)
        for step in plan.steps:
            report.step = step.describe()
            rootfs.perform(step, world)
        report.step = "pivot"
        rootfs.pivot(plan, world)
        _run(report, host, program, stdio, world.root, (world.master, world.slave))
    except BaseException as error:
        report.fail(error)


def join(
    report: Report, host: Host, bundle: Bundle, init: int, process: Document, stdio: Sequence[int]
) -> NoReturn:
    """Enter the container of `bundle` whose first process is behind the pidfd `init`, and run `process`."""
    try:
        report.step = "process"
        _become_leader()
        _close_others([report.sock.fileno(), host.proc, host.null, init, *stdio])
        report.step = "exec"
        launch, own = bundle.launch, bundle.config.table("process")
        privileged = process.flag("privileged")
        named = "user" in process or "user_name" in process
        program = Program(
            process=process,
            fallback=own,
            user=process.text("user_name") if named else launch.text("user"),
            groups=launch.members("groups"),
            seccomp=b"" if privileged else _read_filter(launch.text("seccomp")),
            privileged=privileged,
        )
        _score(host, process if "oomScoreAdj" in process else own)
        report.step = "cgroups"
        _join_cgroups(launch.texts("cgroups"))
        report.step = "namespaces"
        # All: to join one that is the host's anyway changes nothing. The pid namespace was joined before.
        syscalls.setns(init, _JOINED)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        pair = (-1, -1)
        if process.flag("terminal"):
            report.step = "terminal"
            size = process.table("consoleSize")
            pair = terminal.open_pair(root, size.number("height"), size.number("width"))
        _run(report, host, program, list(stdio) or [-1, -1, -1], root, pair)
    except BaseException as error:
        report.fail(error)


def _become_leader() -> None:
    """A session of our own (TIOCSTI into the caller's terminal: CVE-2017-5226) and a keyring of our own."""
    os.setsid()
    os.umask(0)
    try:
        syscalls.join_session_keyring()
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EDQUOT):
            raise


def _close_others(keep: Sequence[int]) -> None:
    """Drop every descriptor of the keeper's but stdio and these."""
    first = 3
    for fd in sorted(set(keep)):
        if fd >= first:
            if fd > first:
                syscalls.close_range(first, fd - 1)
            first = fd + 1
    syscalls.close_range(first)


def _read_filter(path: str) -> bytes:
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


def _write_birth(bundle: str, host: Host) -> None:
    """pid.json: which process this is. A pid alone is never trusted, its start time goes with it."""
    # Read through the host's /proc, so the number is the host's even in a new pid namespace.
    fd = os.open("self/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=host.proc)
    text = os.read(fd, 4096)
    os.close(fd)
    pid, start_time = int(text.split(b" ", 1)[0]), int(text.rpartition(b") ")[2].split()[19])
    # By hand: the JSON encoder's pages would have to be copied for it.
    born = f'{{"format": 1, "pid": {pid}, "start_time": {start_time}, "boot_id": "{host.boot_id}"}}'
    replace_file(f"{bundle}/pid.json", born.encode())


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


def _open_stdio(launch: Document, stdin: int) -> list[int]:
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


def _score(host: Host, process: Document) -> None:
    score = process.number("oomScoreAdj")
    fd = os.open("self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC, dir_fd=host.proc)
    try:
        os.write(fd, str(score).encode())
    except OSError as error:
        raise OSError(error.errno, f"oom_score_adj {score}: {error.strerror}") from None
    finally:
        os.close(fd)


def _join_cgroups(directories: Sequence[str]) -> None:
    for directory in directories:
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


def _run(
    report: Report, host: Host, program: Program, stdio: list[int], root: int, pair: tuple[int, int]
) -> NoReturn:
    """From inside the container to the user's program."""
    process, own = program.process, program.fallback
    report.step = "user"
    account = _account(program, root)
    environment = _environment(process if "env" in process else own, account)
    report.step = "stdio"
    master, slave = pair
    _settle_stdio(stdio, slave, root, host.null, account)
    report.step = "cwd"
    cwd = process.text("cwd") or own.text("cwd") or "/"
    os.close(root)
    report.step = "rlimits"
    _limit(process if "rlimits" in process else own)
    report.step = "capabilities"
    if program.privileged:
        sets = capabilities.every(host.held)
    else:
        asked = process if "capabilities" in process else own
        sets = capabilities.wanted(_sets(asked.table("capabilities")), host.held)
    capabilities.limit(sets.bounding, host.held)
    report.step = "cwd"
    arrived = _arrive(cwd)
    report.step = "user"
    _become(account)
    if not arrived:
        report.step = "cwd"
        os.chdir(cwd)
    _check_inside(cwd)
    report.step = "seccomp"
    _seal(program, sets)
    os.umask(process.table("user").number("umask", default=_UMASK) & 0o777)
    report.step = "exec"
    syscalls.close_range(3, flags=syscalls.CLOSE_RANGE_CLOEXEC)
    arguments = process.texts("args")
    if not arguments:
        raise ExecError(errno.EINVAL, "no command", _NOT_FOUND)
    report.ready((master,) if master >= 0 else ())
    _execute(arguments, environment)


def _account(program: Program, root: int) -> accounts.Account:
    user = program.process.table("user") if "user" in program.process else program.fallback.table("user")
    user.only("uid", "gid", "umask", "additionalGids")
    spec = program.user
    if not spec:
        uid, gid = user.number("uid"), user.number("gid")
        spec = f"{uid}:{gid}" if gid else str(uid)
    passwd, group = accounts.read(root, "/etc/passwd"), accounts.read(root, "/etc/group")
    return accounts.resolve(spec, [*user.members("additionalGids"), *program.groups], passwd, group)


def _environment(process: Document, account: accounts.Account) -> dict[bytes, bytes]:
    """Name -> value, a later one wins. Errors name the variable, never its value, which may be a secret."""
    found: dict[bytes, bytes] = {}
    for index, entry in enumerate(process.texts("env")):
        name, equals, value = entry.partition("=")
        if not name or not equals:
            raise RefusedError(f"process.env[{index}] is not of the form NAME=VALUE")
        found[os.fsencode(name)] = os.fsencode(value)
    if not found.get(b"HOME"):
        found[b"HOME"] = os.fsencode(account.home)
    return found


def _settle_stdio(stdio: list[int], slave: int, root: int, null: int, account: accounts.Account) -> None:
    """Place descriptors 0, 1 and 2: the terminal, what was given, or the container's own /dev/null."""
    if slave >= 0:
        terminal.take(slave)
        os.fchown(slave, account.uid, -1)
        stdio = [slave, slave, slave]
    for fd in stdio:
        # Else /dev/stdout couldn't be opened again by a program that isn't root.
        if fd >= 0 and stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, account.uid, account.gid)
    if -1 in stdio:
        nothing = _null(root, null)
        stdio = [nothing if fd < 0 else fd for fd in stdio]
    # Out of the way first: one of them could itself be 0, 1 or 2.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD) for fd in stdio]
    for place, fd in enumerate(high):
        os.dup2(fd, place)
        os.close(fd)
    for fd in set(stdio) - {0, 1, 2}:
        os.close(fd)


def _null(root: int, null: int) -> int:
    """/dev/null of the container, if it is the real one; else the host's."""
    try:
        fd = syscalls.openat2(root, "/dev/null", os.O_PATH)
    except OSError:
        return os.dup(null)
    found = os.fstat(fd)
    os.close(fd)
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3):
        return syscalls.openat2(root, "/dev/null", os.O_RDWR)
    raise RefusedError("/dev/null of the container is not the null device")


def _limit(process: Document) -> None:
    for entry in process.tables("rlimits"):
        name, soft, hard = entry.text("type"), entry.number("soft"), entry.number("hard")
        if name not in _RLIMITS:
            raise RefusedError(f"unknown limit {name!r}")
        try:
            resource.setrlimit(_RLIMITS[name], (_rlimit(soft), _rlimit(hard)))
        except (OSError, ValueError) as error:
            _, most = resource.getrlimit(_RLIMITS[name])
            raise OSError(
                errno.EPERM, f"{name} {soft}:{hard}: {error} (the hard limit here is {most})"
            ) from None


def _rlimit(value: int) -> int:
    """RLIM_INFINITY is 2**64-1 in OCI documents and -1 in Python."""
    return -1 if value < 0 or value >= 2**63 else value


def _sets(table: Document) -> dict[str, list[str]]:
    return {name: table.texts(name) for name in table.names()}


def _arrive(cwd: str) -> bool:
    """Change to the working directory as root; False when only the user may (NFS)."""
    try:
        os.chdir(cwd)
    except PermissionError:
        return False
    return True


def _check_inside(cwd: str) -> None:
    """A working directory outside the root would be a door to the host (CVE-2024-21626)."""
    if not syscalls.getcwd().startswith("/"):
        raise RefusedError(f"{cwd} leads out of the container")


def _become(account: accounts.Account) -> None:
    os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setresuid(account.uid, account.uid, account.uid)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)


def _seal(program: Program, sets: capabilities.Sets) -> None:
    """Filter system calls and take on the final capabilities, as near to execve as can be.

    With no_new_privs the filter comes last of all; without, loading it needs CAP_SYS_ADMIN, so it comes
    before the capabilities go, and has to allow capset and prctl (Docker's does).
    """
    process = program.process if "noNewPrivileges" in program.process else program.fallback
    if process.flag("noNewPrivileges") and not program.privileged:
        capabilities.settle(sets)
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        if program.seccomp:
            syscalls.load_seccomp(program.seccomp)
        return
    if program.seccomp:
        if os.geteuid() != 0:
            # setresuid cleared the effective set; the permitted one is still there (PR_SET_KEEPCAPS).
            admin = capabilities.mask(["CAP_SYS_ADMIN"])
            syscalls.capset(effective=admin, permitted=sets.permitted | admin, inheritable=0)
        syscalls.load_seccomp(program.seccomp)
    capabilities.settle(sets)


def _execute(arguments: list[str], environment: dict[bytes, bytes]) -> NoReturn:
    """execve, with the container's PATH searched the way a shell does it."""
    name = arguments[0]
    if "/" in name:
        candidates = [name]
    else:
        path = os.fsdecode(environment.get(b"PATH", _DEFAULT_PATH.encode()))
        candidates = [f"{directory or '.'}/{name}" for directory in path.split(":")] if name else []
    denied: OSError | None = None
    for candidate in candidates:
        try:
            os.execve(candidate, arguments, environment)  # noqa: S606 (no shell is the point)
        except (FileNotFoundError, NotADirectoryError) as error:
            if "/" in name:
                raise _refusal(name, error, environment) from None
        except PermissionError as error:
            denied = error
        except OSError as error:
            raise _refusal(name, error, environment) from None
    if denied:
        raise _refusal(name, denied, environment)
    raise ExecError(errno.ENOENT, f'exec: "{name}": executable file not found in $PATH', _NOT_FOUND)


def _refusal(name: str, error: OSError, environment: Mapping[bytes, bytes]) -> ExecError:
    number = error.errno or 0
    message = f'exec: "{name}": {os.strerror(number).lower()}'
    if number == errno.E2BIG:
        largest = max(environment, key=lambda key: len(environment[key]))
        message += f" (largest variable: {os.fsdecode(largest)}, {len(environment[largest])} bytes)"
    return ExecError(number, message, _NOT_FOUND if number == errno.ENOENT else _NOT_EXECUTABLE)
