"""The command `exec`."""

from __future__ import annotations

import _socket
import json
import os
from collections.abc import Mapping

from orchestrator.kernel import capabilities
from orchestrator.kernel import create as launcher
from orchestrator.kernel.reading import Document
from orchestrator.oci import (
    bundle,
    create,
    descriptors,
    foreground,
    record,
    seccomp,
    signals,
    status,
    validate,
)
from orchestrator.oci.arguments import Call, Value
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.record import Record
from orchestrator.oci.scope import Scope

_FAILED = 255  # runc's: 1 could be the program's own


def execute(scope: Scope, call: Call) -> int:
    """Run a program in a container; its exit code, or 0 at once with --detach."""
    try:
        return _execute(scope, call)
    except Complaint as error:
        raise Complaint(f"exec failed: {error}", _FAILED) from None
    except OSError as error:
        raise Complaint(f"exec failed: {error}", _FAILED) from None


def _execute(scope: Scope, call: Call) -> int:
    name, *command = call.words
    preserve, environment = descriptors.preserved(int(str(call.options.get("preserve-fds", 0))))
    pid_file = os.path.abspath(str(call.options["pid-file"])) if call.options.get("pid-file") else ""
    path = record.place(scope.root, name)
    found = record.read(path)
    _check_status(status.look(path, found), ignore_paused=bool(call.options.get("ignore-paused")))
    config = record.config(path)
    process = _process(scope, config, call.options, command)
    process["env"] = [*_texts(process.get("env")), *environment]
    detached, terminal = bool(call.options.get("detach")), bool(process.get("terminal"))
    socket_path = str(call.options.get("console-socket") or "")
    descriptors.check_console(terminal=terminal, path=socket_path, detached=detached)
    front = None if detached else foreground.Foreground(terminal=terminal)
    console = descriptors.connect(socket_path) if socket_path else None
    try:
        fd = front.console if front else console.fileno() if console else -1
        pid = _start(scope, found, Document(config), process, _groups(found, call.options), fd, preserve)
        if pid_file:
            descriptors.write_pid(pid_file, pid)
        return front.follow(pid) if front else 0
    finally:
        _close(console, front)


def _close(console: _socket.socket | None, front: foreground.Foreground | None) -> None:
    if console:
        console.close()
    if front:
        front.close()


def _check_status(what: str, *, ignore_paused: bool) -> None:
    if what == "paused" and not ignore_paused:
        raise Complaint("cannot exec in a paused container (use --ignore-paused to override)")
    if what == "stopped":
        raise Complaint("cannot exec in a stopped container")
    if what == "creating":
        raise Complaint("cannot exec in a container that is still being created")


def _start(
    scope: Scope,
    found: Record,
    config: Document,
    process: Mapping[str, object],
    groups: tuple[str, ...],
    console: int,
    preserve: int,
) -> int:
    program, flags = seccomp.compiled(config, scope.root)
    init = signals.pin(found)
    try:
        return launcher.execute(
            launcher.open_host(),
            launcher.Entry(
                init=init,
                config=config,
                process=Document(process, "process"),
                cgroups=groups,
                seccomp=program,
                seccomp_flags=flags,
                stdio=(0, 1, 2),
                console=console,
                preserve=preserve,
                state=lambda what, pid: json.dumps(status.describe(found, what, pid=pid)).encode(),
                warn=scope.journal.warning,
            ),
        )
    except BaseException as error:
        raise create.complaint(error) from None
    finally:
        os.close(init)


def _process(
    scope: Scope, config: Mapping[str, object], options: Mapping[str, Value], command: list[str]
) -> dict[str, object]:
    """OCI's `process` from a file, or the container's own with what the options say."""
    if options.get("process"):
        process, unknown = validate.process(bundle.parse(str(options["process"])))
        for name in unknown:
            scope.journal.warning(f"{name}: unknown, ignored")
        return process
    if not command:
        raise Complaint("needs a command, or --process")
    own = config.get("process")
    process = dict(own) if isinstance(own, dict) else {"cwd": "/"}
    process |= {"args": command, "terminal": bool(options.get("tty"))}
    process.pop("consoleSize", None)
    if options.get("cwd"):
        process["cwd"] = str(options["cwd"])
    process["env"] = [*_texts(process.get("env")), *_texts(options.get("env"))]
    if "no-new-privs" in options:
        process["noNewPrivileges"] = bool(options["no-new-privs"])
    for option, key in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if options.get(option):
            process[key] = str(options[option])
    _set_user(process, str(options.get("user") or ""), _texts(options.get("additional-gids")))
    _add_capabilities(process, _texts(options.get("cap")))
    checked, _ = validate.process(process)
    return checked


def _set_user(process: dict[str, object], text: str, groups: list[str]) -> None:
    own = process.get("user")
    user: dict[str, object] = dict(own) if isinstance(own, dict) else {}
    if text:
        uid, colon, gid = text.partition(":")
        user["uid"] = _number(uid, f"--user {text}")
        if colon:
            user["gid"] = _number(gid, f"--user {text}")
    if groups:
        earlier = user.get("additionalGids")
        numbers = [_number(group, f"--additional-gids {group}") for group in groups]
        user["additionalGids"] = [*(earlier if isinstance(earlier, list) else ()), *numbers]
    process["user"] = user


def _number(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) >= 2**32 - 1:
        raise Complaint(f"{where}: {text!r} is not an id")
    return int(text)


def _add_capabilities(process: dict[str, object], names: list[str]) -> None:
    """--cap: bounding, effective and permitted, and with an inheritable set also ambient, as runc does."""
    for name in names:
        if name not in capabilities.NAMES:
            raise Complaint(f"--cap: unknown capability {name!r}")
    if not names:
        return
    own = process.get("capabilities")
    sets: dict[str, object] = dict(own) if isinstance(own, dict) else {}
    kinds = ["bounding", "effective", "permitted"]
    kinds += ["ambient"] if sets.get("inheritable") else []
    for kind in kinds:
        sets[kind] = [*dict.fromkeys([*_texts(sets.get(kind)), *names])]
    process["capabilities"] = sets


def _groups(found: Record, options: Mapping[str, Value]) -> tuple[str, ...]:
    """The control groups to join: the container's, or with --cgroup [CONTROLLERS:]PATH one below them."""
    groups = found.groups
    for text in _texts(options.get("cgroup")):
        controllers, colon, below = text.rpartition(":")
        parts = [part for part in below.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise Complaint(f"--cgroup {text}: leads out of the container's group")
        names = set(controllers.split(",")) if colon else set()
        moved = []
        for group in groups:
            mount = group.removesuffix(f"/{found.cgroup}")
            chosen = not names or names & set(os.path.basename(mount).split(","))
            moved.append("/".join([group, *parts]) if chosen else group)
        groups = tuple(moved)
    for group in groups:
        if not os.path.isdir(group):
            raise Complaint(f"--cgroup: {group} does not exist")
    return groups


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else []
