"""From inside a container to the user's program: who it is, what it may, what it has open, execve.

The caller has entered the container's root. Names are resolved by our own parsers, nothing is imported, and
privileges go in an order that leaves each step the ones it needs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, NoReturn

from orchestrator.kernel import accounts, capabilities, syscalls, terminal, userns
from orchestrator.kernel.reading import Document, RefusedError
from orchestrator.kernel.report import ExecError, Report

_NOT_FOUND = 127
_NOT_EXECUTABLE = 126
_UMASK = 0o022
_HIGH_FD = 64
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
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


def open_host() -> Host:
    """Look at this machine, before any namespace is entered. SystemExit when /dev/null is a trap."""
    null = _open_null()
    if not is_null(null):
        raise SystemExit("/dev/null of this host is not the null device")
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    userns.is_single()  # looked up once, and remembered by every child
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot_id = file.read().strip()
    return Host(proc=proc, null=null, boot_id=boot_id, held=capabilities.held())


def _open_null() -> int:
    """The host's null device, through a read-only mount of its own where we may make one.

    It can be written to, but whoever has it can't change the mode and owner that it has on the host.
    """
    plain = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        view = syscalls.open_tree(syscalls.AT_FDCWD, "/dev/null", syscalls.OPEN_TREE_CLONE)
    except OSError:
        return plain
    try:
        syscalls.mount_setattr(view, add=syscalls.MOUNT_ATTR_RDONLY)
        safe = os.open(f"/proc/self/fd/{view}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return plain
    finally:
        os.close(view)
    os.close(plain)
    return safe


def is_null(fd: int) -> bool:
    """Whether this is a null device, of whichever filesystem."""
    found = os.fstat(fd)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)


class Program(NamedTuple):
    """How a process is to run: OCI's `process` with the container's values where it says nothing."""

    process: Document
    fallback: Document
    user: str
    groups: list[str | int]
    seccomp: bytes
    privileged: bool
    seccomp_flags: int = 0
    preserve: int = 0  # descriptors from 3 on that the program gets too
    exact: bool = False  # uid and gid are just these numbers, and nothing is looked up for them
    load: Callable[[bytes, int], object] = syscalls.load_seccomp
    sets: capabilities.Sets | None = None  # what `capabilities` comes to, where that was understood before


Gate = Callable[[Report, int], Report]
"""The last thing that root does in a container: waits. (report, pty master) -> whom to report to next."""


def run(
    report: Report,
    host: Host,
    program: Program,
    stdio: list[int],
    root: int,
    pair: tuple[int, int],
    gate: Gate | None = None,
) -> NoReturn:
    """From inside the container to the user's program."""
    process, own = program.process, program.fallback
    report.step = "user"
    account = _account(program, root)
    if not program.exact:  # an OCI container has maps of its own, and perhaps no /proc to read them in
        _check_room(account)
    environment = _environment(process if "env" in process else own, account)
    report.step = "stdio"
    master, slave = pair
    _settle_stdio(stdio, slave, root, host.null, account)
    report.step = "cwd"
    cwd = process.text("cwd") or own.text("cwd") or "/"
    os.close(root)
    if not gate:
        report.step = "rlimits"
        _limit(process if "rlimits" in process else own)
    report.step = "capabilities"
    if userns.is_single() and (account.uid or account.gid):
        # Root is the only user there is; another one is root by another name: what is root's is theirs.
        userns.rename(host.proc, account.uid, account.gid)
    if program.privileged:
        sets = capabilities.every(host.held)
    elif program.sets is not None:
        sets = program.sets
    else:
        asked = process if "capabilities" in process else own
        sets = capabilities.wanted(_sets(asked.table("capabilities")), host.held)
    capabilities.limit(sets.bounding, host.held)
    report.step = "cwd"
    arrived = _arrive(cwd)
    last = _Last(program, process if "rlimits" in process else own, account, sets, environment, cwd, arrived)
    if not gate:
        _become_program(report, last, master)
    report.step = "exec"
    if process.texts("args"):  # OCI wants them at the start, not before: config, "process"
        _check_there(process.texts("args"), environment)
    report = gate(report, master)
    try:
        report.step = "rlimits"
        _limit(last.limits)
        _become_program(report, last, -1)
    except BaseException as error:
        report.fail(error)


class _Last(NamedTuple):
    """What the last steps need."""

    program: Program
    limits: Document
    account: accounts.Account
    sets: capabilities.Sets
    environment: dict[bytes, bytes]
    cwd: str
    arrived: bool


def _become_program(report: Report, last: _Last, master: int) -> NoReturn:
    """From root in the container to its user, and execve."""
    program, cwd = last.program, last.cwd
    report.step = "user"
    _become(last.account)
    if not last.arrived:
        report.step = "cwd"
        os.chdir(cwd)
    _check_inside(cwd)
    os.umask(program.process.table("user").number("umask", default=_UMASK) & 0o777)
    report.step = "exec"
    arguments = program.process.texts("args")
    if not arguments:
        raise ExecError(errno.EINVAL, "no command", _NOT_FOUND)
    # As much as can be before the filter: a profile written for the program may refuse us all but execve.
    syscalls.close_range(3 + program.preserve, flags=syscalls.CLOSE_RANGE_CLOEXEC)
    report.step = "seccomp"
    _seal(program, last.sets)
    report.step = "exec"
    report.ready((master,) if master >= 0 else ())
    _execute(arguments, last.environment)


def _account(program: Program, root: int) -> accounts.Account:
    user = program.process.table("user") if "user" in program.process else program.fallback.table("user")
    user.only("uid", "gid", "umask", "additionalGids")
    if program.exact:
        return _exact(user, root)
    spec = program.user
    if not spec:
        uid, gid = user.number("uid"), user.number("gid")
        spec = f"{uid}:{gid}" if gid else str(uid)
    passwd, group = accounts.read(root, "/etc/passwd"), accounts.read(root, "/etc/group")
    return accounts.resolve(spec, [*user.members("additionalGids"), *program.groups], passwd, group)


def _exact(user: Document, root: int) -> accounts.Account:
    """The very numbers, the primary group among them (CVE-2022-36109); passwd is asked for HOME alone."""
    uid, gid, extra = user.number("uid"), user.number("gid"), user.members("additionalGids")
    for number in (uid, gid, *extra):
        # 2**32-1 is "no change" to the kernel.
        if not isinstance(number, int) or not 0 <= number < 2**32 - 1:
            raise RefusedError(f"process.user: {number!r} is neither a uid nor a gid")
    home = "/"
    with suppress(OSError):  # not a file to read, so it says nothing of homes
        home = accounts.home(uid, accounts.read(root, "/etc/passwd"))
    groups = tuple(dict.fromkeys((gid, *(int(number) for number in extra))))
    return accounts.Account(uid, gid, groups, home)


def _check_room(account: accounts.Account) -> None:
    """In a user namespace not every id exists."""
    if userns.is_initial() or userns.is_single():
        return
    if not userns.has(account.uid) or not userns.has(account.gid, "gid"):
        raise RefusedError(
            f"user {account.uid}:{account.gid} is beyond the ids that /etc/subuid and /etc/subgid give"
        )


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
    """Place descriptors 0, 1 and 2: the terminal, what was given, or the container's own /dev/null.

    That also in place of the host's, whose mode and owner the container could change otherwise.
    """
    if slave >= 0:
        terminal.take(slave)
        if not userns.is_single():
            os.fchown(slave, account.uid, -1)
        stdio = [slave, slave, slave]
    for fd in stdio:
        # Else /dev/stdout couldn't be opened again by a program that isn't root.
        if fd >= 0 and stat.S_ISFIFO(os.fstat(fd).st_mode) and not userns.is_single():
            with suppress(PermissionError):  # a FIFO of the host's, and we are in a user namespace
                os.fchown(fd, account.uid, account.gid)
    stdio = [-1 if fd >= 0 and is_null(fd) else fd for fd in stdio]
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
    real = is_null(fd)
    os.close(fd)
    if real:
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


def raise_limits(process: Document) -> None:
    """Lift the hard limits that are to be higher, while we have the rights for it; `_limit` sets the rest."""
    for entry in process.tables("rlimits"):
        name, hard = entry.text("type"), _rlimit(entry.number("hard"))
        if name not in _RLIMITS:
            raise RefusedError(f"unknown limit {name!r}")
        soft, most = resource.getrlimit(_RLIMITS[name])
        if most != -1 and (hard == -1 or hard > most):
            try:
                resource.setrlimit(_RLIMITS[name], (soft, hard))
            except (OSError, ValueError) as error:
                raise OSError(
                    errno.EPERM, f"{name}: {entry.number('hard')}: {error} (the hard limit here is {most})"
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
    if not userns.is_single():
        try:
            os.setgroups(account.groups)
        except PermissionError:
            # Denied with the map of the user namespace (user_namespaces(7)): no harm when none are wanted.
            if account.groups != (account.gid,):
                raise
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
            program.load(program.seccomp, program.seccomp_flags)
        return
    if program.seccomp:
        if os.geteuid() != 0:
            # setresuid cleared the effective set; the permitted one is still there (PR_SET_KEEPCAPS).
            admin = capabilities.mask(["CAP_SYS_ADMIN"])
            syscalls.capset(effective=admin, permitted=sets.permitted | admin, inheritable=0)
        program.load(program.seccomp, program.seccomp_flags)
    capabilities.settle(sets)


def _candidates(name: str, environment: Mapping[bytes, bytes]) -> list[str]:
    """Where a program of that name is looked for, as a shell does it."""
    if "/" in name or not name:
        return [name] if name else []
    path = os.fsdecode(environment.get(b"PATH", _DEFAULT_PATH.encode()))
    return [f"{directory or '.'}/{name}" for directory in path.split(":")]


def _check_there(arguments: list[str], environment: Mapping[bytes, bytes]) -> None:
    """Whether there is such a program at all: what isn't there is better told when a container is made."""
    name, denied = arguments[0], False
    for candidate in _candidates(name, environment):
        try:
            found = os.stat(candidate)
        except OSError as error:
            if "/" in name:
                raise _refusal(name, error, environment) from None
            continue
        if stat.S_ISREG(found.st_mode) and found.st_mode & 0o111:
            return
        denied = True
    if denied:
        raise _refusal(name, PermissionError(errno.EACCES, os.strerror(errno.EACCES)), environment)
    raise _not_found(name)


def _not_found(name: str) -> ExecError:
    return ExecError(errno.ENOENT, f'exec: "{name}": executable file not found in $PATH', _NOT_FOUND)


def _execute(arguments: list[str], environment: dict[bytes, bytes]) -> NoReturn:
    """execve, with the container's PATH searched the way a shell does it."""
    name = arguments[0]
    denied: OSError | None = None
    for candidate in _candidates(name, environment):
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
    raise _not_found(name)


def _refusal(name: str, error: OSError, environment: Mapping[bytes, bytes]) -> ExecError:
    number = error.errno or 0
    message = f'exec: "{name}": {os.strerror(number).lower()}'
    if number == errno.E2BIG:
        largest = max(environment, key=lambda key: len(environment[key]))
        message += f" (largest variable: {os.fsdecode(largest)}, {len(environment[largest])} bytes)"
    return ExecError(number, message, _NOT_FOUND if number == errno.ENOENT else _NOT_EXECUTABLE)
