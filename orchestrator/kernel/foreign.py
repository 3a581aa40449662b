"""A bundle run by another OCI runtime of this machine: runc, crun, runsc.

The keeper's child makes what the bundle names and the runtime is to find: the root's overlays and the
namespaces to join, in a mount namespace of its own that goes with it, so that nothing is left on the host. It
has the runtime `create` the container, tells the keeper whose child the first process has become (the keeper
is the subreaper, and of the runtime no process remains), has it `start` the program, and leaves.

Source of the command line: the OCI runtime command line interface, as runc, crun and runsc share it.
"""

from __future__ import annotations

import _socket
import errno
import json
import os
import select
import signal
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from orchestrator.kernel import (
    accounts,
    capabilities,
    command,
    launch,
    mounting,
    mounts,
    rootfs,
    syscalls,
    terminal,
)
from orchestrator.kernel import world as places
from orchestrator.kernel.command import Calls, Runtime
from orchestrator.kernel.program import Host
from orchestrator.kernel.reading import Document, RefusedError
from orchestrator.kernel.report import Report

_OPTIONS = ("terminal", "cwd", "args", "env", "capabilities", "rlimits", "noNewPrivileges", "oomScoreAdj")
_EXECVE_SECONDS = 1.0
_NAMES = {"network": "net", "mount": "mnt"}


# --- start -------------------------------------------------------------------------------------------


def start(
    report: Report,
    host: Host,
    bundle: launch.Bundle,
    runtime: Runtime,
    namespaces: Mapping[str, int],
    stdin: int = -1,
) -> NoReturn:
    """Have `runtime` run the container of `bundle`; `namespaces` and `stdin` as for our own start.

    Reports the first process before its program runs, then that it does. Never returns.
    """
    try:
        report.step = "process"
        _set_apart(report, [host.proc, host.null, stdin, *namespaces.values()])
        name = os.path.basename(bundle.path)
        calls = Calls(runtime, bundle.path)
        report.step = "mount namespace"
        groups = _take_view(runtime)
        _lay_out(report, host, bundle, namespaces)
        process = bundle.config.table("process")
        report.step = "stdio"
        stdio, console = [host.null] * 3, -1
        options: list[str] = []
        if process.flag("terminal"):
            console, options = _listen(bundle.path), ["--console-socket", _CONSOLE]
        else:
            stdio = [host.null if fd < 0 else fd for fd in launch.open_stdio(bundle.launch, stdin)]
        report.step = f"{calls.name} create"
        with suppress(FileNotFoundError):
            os.unlink(f"{bundle.path}/{_PID_FILE}")
        create = [
            "create",
            "--bundle",
            bundle.path,
            "--pid-file",
            f"{bundle.path}/{_PID_FILE}",
            *options,
            name,
        ]
        master = calls.run(create, stdio, groups, console)
        _bear(report, host, bundle, calls, name, master)
    except BaseException as error:
        report.fail(error)


_PID_FILE = "init.pid"
_CONSOLE = "console.sock"  # relative to the bundle: an absolute path may be longer than a socket's address


def _bear(
    report: Report, host: Host, bundle: launch.Bundle, calls: Calls, name: str, master: int
) -> NoReturn:
    """The container is there and waits: tell whose it is, then let the program run."""
    try:
        with open(f"{bundle.path}/{_PID_FILE}", "rb") as file:
            pid = int(file.read(32))
    except (FileNotFoundError, ValueError):
        raise OSError(errno.ESRCH, f"{calls.name} has made no container") from None
    pidfd = syscalls.pidfd_open(pid)
    with open(os.open(f"{pid}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=host.proc), "rb") as file:
        parent = int(file.read().rpartition(b") ")[2].split()[1])
    if parent != os.getppid():
        raise OSError(errno.ECHILD, f"process {pid}, which it has named, is no child of the keeper's")
    try:
        domain = bundle.config.text("domainname")
        if domain:
            # Younger than 1.0.2 of the specification: not every runtime knows it.
            report.step = "domainname"
            syscalls.setns(pidfd, syscalls.CLONE_NEWUTS)
            syscalls.setdomainname(domain)
        record = launch.birth(host, pid)
        report.born(pid, (pidfd, master) if master >= 0 else (pidfd,))
        report.step = f"{calls.name} start"
        waiting = _program(host, pid)
        calls.run(["start", name], [host.null] * 3)
        if calls.runtime.enter:
            _await_program(host, pid, waiting)
        # Only now: by it a container is found again as one that runs. One that was left waiting is not.
        launch.replace_file(f"{bundle.path}/pid.json", record)
        report.ready()
    except BaseException:
        with suppress(ProcessLookupError):
            syscalls.pidfd_send_signal(pidfd, signal.SIGKILL)
        calls.forget(name)
        raise
    os._exit(0)


def _program(host: Host, pid: int) -> str:
    """What a process executes; "" when it has ended."""
    try:
        return os.readlink(f"{pid}/exe", dir_fd=host.proc)
    except OSError:
        return ""


def _await_program(host: Host, pid: int, waiting: str) -> None:
    """`start` returns when it has said so: a moment later the runtime's own program becomes the user's."""
    deadline = time.monotonic() + _EXECVE_SECONDS
    while waiting and _program(host, pid) == waiting and time.monotonic() < deadline:
        time.sleep(0.0005)


def _set_apart(report: Report, keep: Sequence[int]) -> None:
    """As any child of the keeper's; and it ends with the keeper, like what it starts."""
    command.die_with(os.getppid())
    # Our children's ends would be written into the keeper's own pipe.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    launch.become_leader()
    launch.close_others([report.sock.fileno(), *keep])
    os.umask(0o022)


def _take_view(runtime: Runtime) -> list[int]:
    """A mount namespace of our own, with what the runtime is to see; its groups' cgroup.procs, open."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    # What the host mounts and unmounts later is seen, and nothing of ours is seen there.
    syscalls.mount(None, "/", None, syscalls.MS_SLAVE | syscalls.MS_REC)
    groups = [os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for path in runtime.cgroups]
    if runtime.hidden:
        syscalls.umount(runtime.hidden, syscalls.MNT_DETACH)
    return groups


def _lay_out(report: Report, host: Host, bundle: launch.Bundle, namespaces: Mapping[str, int]) -> None:
    """Everything that the bundle names by path."""
    world = places.World(mountpoint=f"{bundle.path}/rootfs", proc=host.proc)
    for step in bundle.plan.steps:
        report.step = step.describe()
        rootfs.perform(step, world)
    report.step = "namespaces"
    for kind, fd in namespaces.items():
        _show_namespace(host, kind, fd, f"{bundle.path}/namespaces/{kind}")
    report.step = "subpaths"
    for entry in bundle.launch.tables("sources"):
        entry.only("at", "source", "beneath")
        _show_source(entry.text("at"), entry.text("source"), entry.text("beneath"))
    report.step = "user"
    settle_user(bundle, world.root)


def _show_namespace(host: Host, kind: str, fd: int, path: str) -> None:
    """Bind the namespace behind a descriptor, or that of the process behind a pidfd, to a file."""
    with open(os.open(f"self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=host.proc)) as file:
        owner = next((line.split()[1] for line in file if line.startswith("Pid:")), None)
    if owner is not None:
        name = _NAMES.get(kind, kind)
        found = os.open(f"{owner}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=host.proc)
        # Still there after it was opened, so the number was its own.
        if select.select([fd], [], [], 0)[0]:
            raise OSError(errno.ESRCH, f"the container whose {kind} namespace is to be shared has ended")
        fd = found
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    _attach(syscalls.open_tree(fd, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH), path)


def _show_source(path: str, source: str, beneath: str) -> None:
    """Part of a volume under a path of our own: the real one leads through what containers may write."""
    tree = mounting.clone_source(mounts.bind(source, path, 0)._replace(beneath=beneath, recursive=True))
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.makedirs(path, 0o700, exist_ok=True)
    else:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    _attach(tree, path)


def _attach(tree: int, path: str) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    syscalls.move_mount(tree, place)
    os.close(place)
    os.close(tree)


def settle_user(bundle: launch.Bundle, root: int) -> None:
    """Write the numbers for the user's name into config.json: other runtimes don't look names up.

    `root` is a descriptor of the container's root, whose files are hostile (see accounts).
    """
    process = bundle.config.table("process")
    user = process.table("user")
    spec = bundle.launch.text("user") or f"{user.number('uid')}:{user.number('gid')}"
    account = _account(root, spec, [*user.members("additionalGids"), *bundle.launch.members("groups")])
    kept = {"umask": user.number("umask")} if "umask" in user else {}
    groups = list(account.groups)
    process.raw["user"] = {"uid": account.uid, "gid": account.gid, "additionalGids": groups, **kept}
    environment = process.texts("env")
    if not any(entry.startswith("HOME=") and entry != "HOME=" for entry in environment):
        process.raw["env"] = [*environment, f"HOME={account.home}"]
    text = json.dumps(bundle.config.raw, separators=(",", ":"))
    launch.replace_file(f"{bundle.path}/config.json", text.encode())


def _account(root: int, spec: str, groups: Sequence[str | int]) -> accounts.Account:
    passwd, group = accounts.read(root, "/etc/passwd"), accounts.read(root, "/etc/group")
    return accounts.resolve(spec, groups, passwd, group)


def _listen(directory: str) -> int:
    """The socket on which the runtime hands over the terminal."""
    with suppress(FileNotFoundError):
        os.unlink(f"{directory}/{_CONSOLE}")
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    os.chdir(directory)
    try:
        sock.bind(_CONSOLE)
    finally:
        os.chdir("/")
    sock.listen(1)
    return sock.detach()


# --- exec --------------------------------------------------------------------------------------------


def execute(
    report: Report,
    host: Host,
    bundle: launch.Bundle,
    runtime: Runtime,
    process: Document,
    stdio: Sequence[int],
) -> NoReturn:
    """Become `RUNTIME exec`, which runs `process` in the container and ends as it does.

    For runtimes whose containers are not plain namespaces. Names of users other than the container's own
    can't be looked up then, and are refused.
    """
    try:
        report.step = "process"
        _set_apart(report, [host.proc, host.null, *stdio])
        # Kept apart from the keeper's life: what `exec` runs goes on like the container itself.
        syscalls.prctl(command.PR_SET_PDEATHSIG, 0)
        report.step = "exec"
        calls = Calls(runtime, bundle.path)
        document = exec_process(bundle, process, host.held)
        path = f"{bundle.path}/{_EXEC}{os.getpid()}.json"
        _sweep(bundle.path, host)
        launch.replace_file(path, json.dumps(document).encode())
        master = -1
        if process.flag("terminal"):
            root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            size = process.table("consoleSize")
            master, slave = terminal.open_pair(root, size.number("height"), size.number("width"))
            terminal.take(slave)
            stdio = [slave] * 3
        for place, fd in enumerate([os.dup(fd) for fd in stdio]):
            os.dup2(fd, place)
        syscalls.close_range(3, flags=syscalls.CLOSE_RANGE_CLOEXEC)
        report.ready((master,) if master >= 0 else ())
        argv = calls.argv("exec", "--process", path, os.path.basename(bundle.path))
        os.execve(runtime.path, argv, {"PATH": command.PATH})  # noqa: S606 (no shell)
    except BaseException as error:
        report.fail(error)


_EXEC = "exec-"


def _sweep(directory: str, host: Host) -> None:
    """Take away what earlier ones were told: nobody is left of them who could."""
    for name in os.listdir(directory):
        pid = name.removeprefix(_EXEC).partition(".")[0]
        if name.startswith(_EXEC) and not _lives(pid, host):
            os.unlink(f"{directory}/{name}")


def _lives(pid: str, host: Host) -> bool:
    try:
        os.stat(pid, dir_fd=host.proc)
    except FileNotFoundError:
        return False
    return True


def exec_process(bundle: launch.Bundle, process: Document, held: int) -> dict[str, object]:
    """The OCI process of an exec: the container's where the request says nothing. Raises RefusedError."""
    own = bundle.config.table("process")
    wanted = {key: own.raw[key] for key in _OPTIONS if key in own.raw and key != "terminal"}
    wanted |= {key: process.raw[key] for key in _OPTIONS if key in process.raw}
    wanted["user"] = own.raw.get("user")
    spec = process.text("user_name")
    if spec and spec != bundle.launch.text("user"):
        uid, _, gid = spec.partition(":")
        if not uid.isdecimal() or (gid and not gid.isdecimal()):
            raise RefusedError(f"user {spec!r}: with this runtime exec takes numbers, not names")
        wanted["user"] = {"uid": int(uid), "gid": int(gid or 0)}
    if process.flag("privileged"):
        every = [name for number, name in enumerate(capabilities.NAMES) if held >> number & 1]
        wanted["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), every)
    return wanted


# --- afterwards ---------------------------------------------------------------------------------------


def release(report: Report, host: Host, bundle: launch.Bundle, runtime: Runtime) -> NoReturn:
    """Have the runtime forget the container, which must not run any more. Reports ready when it is done.

    That takes the container's groups along: it has to come before they are made for another start.
    """
    try:
        report.step = "delete"
        _set_apart(report, [host.proc, host.null])
        _take_view(runtime._replace(cgroups=[]))
        Calls(runtime, bundle.path).forget(os.path.basename(bundle.path))
        report.ready()
    except BaseException as error:
        report.fail(error)
    os._exit(0)
