"""The command `create`, and how a container is made of a bundle."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import NamedTuple, Self

from orchestrator.kernel import cgroups
from orchestrator.kernel import create as launcher
from orchestrator.kernel.cgroups import CgroupError
from orchestrator.kernel.reading import Document, RefusedError
from orchestrator.kernel.report import ExecError
from orchestrator.oci import bundle, delete, descriptors, hierarchy, limits, record, seccomp, status
from orchestrator.oci.arguments import Call, Value
from orchestrator.oci.bundle import Bundle
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.record import Record
from orchestrator.oci.scope import Scope


class Asked(NamedTuple):
    """What `create` and `run` were asked."""

    name: str
    bundle: str
    config: str
    pid_file: str
    console_socket: str
    preserve: int
    environment: tuple[str, ...]
    pivot: bool
    keyring: bool

    @classmethod
    def of(cls, call: Call) -> Self:
        """The options of a call. To be asked before anything is opened. Raises Complaint."""
        options: Mapping[str, Value] = call.options
        preserve, environment = descriptors.preserved(int(str(options.get("preserve-fds", 0))))
        return cls(
            name=record.check_id(call.words[0]),
            bundle=os.path.abspath(str(options.get("bundle") or ".")),
            config=str(options.get("config") or ""),
            pid_file=os.path.abspath(str(options["pid-file"])) if options.get("pid-file") else "",
            console_socket=str(options.get("console-socket") or ""),
            preserve=preserve,
            environment=environment,
            pivot=not options.get("no-pivot"),
            keyring=not options.get("no-new-keyring"),
        )


def create(scope: Scope, call: Call) -> int:
    """Build a container whose program waits for `start`."""
    asked = Asked.of(call)
    made = bundle.read(asked.bundle, asked.config)
    descriptors.check_console(terminal=has_terminal(made), path=asked.console_socket, detached=True)
    console = descriptors.connect(asked.console_socket) if asked.console_socket else None
    try:
        build(scope, asked, made, console.fileno() if console else -1)
    finally:
        if console:
            console.close()
    return 0


def has_terminal(made: Bundle) -> bool:
    """Whether the bundle's process wants a terminal."""
    process = made.config.get("process")
    return isinstance(process, dict) and bool(process.get("terminal"))


def build(scope: Scope, asked: Asked, made: Bundle, console: int) -> Record:
    """Make the container, or leave nothing. `console` is a connected socket that gets the pty master, or -1.

    Raises Complaint.
    """
    for warning in (*made.warnings, *limits.warnings(made.config)):
        scope.journal.warning(warning)
    limits.check_capabilities(made.config)
    if scope.systemd:
        raise Complaint("control groups through systemd are not supported: use --cgroup-manager cgroupfs")
    path = record.make(scope.root, asked.name)
    # Until it is written down nothing was made.
    found = _draft(asked, made)
    try:
        with record.locked(path):
            return _build(scope, asked, made, console, path, found)
    except BaseException:
        if os.path.isdir(path) and not os.path.exists(f"{path}/state.json"):
            record.remove(path)
        raise


def _build(scope: Scope, asked: Asked, made: Bundle, console: int, path: str, found: Record) -> Record:
    config = dict(made.config)
    # Needed at start alone (config.md, "Process"): without one there is a container that can't be started.
    config.setdefault("process", {"cwd": "/", "args": []})
    if asked.environment:
        process = dict(config["process"])  # type: ignore[call-overload]
        config["process"] = {**process, "env": [*process.get("env", ()), *asked.environment]}
    document = Document(config)
    program, flags = seccomp.compiled(document, scope.root)
    hier = cgroups.detect() if scope.groups else None
    if hier:
        try:
            found = found._replace(made=hierarchy.missing(hier, found.cgroup))
        except OSError as error:
            raise Complaint(f"control groups: {error.strerror}") from None
    else:
        found = found._replace(cgroup="")
    record.replace(f"{path}/config.json", json.dumps(config))
    record.write(path, found)
    begun = False
    try:
        groups = limits.make(scope, hier, found.cgroup, document) if hier else ()
        found = found._replace(groups=groups, cgroup=found.cgroup if groups else "")
        record.write(path, found)
        os.mkfifo(f"{path}/{status.FIFO}", 0o600)
        begun = True
        process_made = launcher.create(
            launcher.open_host(),
            launcher.Request(
                id=found.id,
                bundle=found.bundle,
                config=document,
                cgroups=groups,
                seccomp=program,
                seccomp_flags=flags,
                stdio=(0, 1, 2),
                console=console,
                preserve=asked.preserve,
                fifo=f"{path}/{status.FIFO}",
                # All of it comes after step 2 of the lifecycle, where "created" begins (runtime.md).
                state=lambda _, pid: json.dumps(status.describe(found, "created", pid=pid)).encode(),
                warn=scope.journal.warning,
                pivot=asked.pivot,
                keyring=asked.keyring,
            ),
        )
        found = found._replace(pid=process_made.pid, start_time=process_made.start_time)
        record.write(path, found)
        if asked.pid_file:
            descriptors.write_pid(asked.pid_file, found.pid)
    except BaseException as error:
        delete.destroy(path, found)
        if begun and config.get("hooks"):
            from orchestrator.oci import hooks

            hooks.run(scope, config, "poststop", found, "stopped")
        raise complaint(error) from None
    return found


def complaint(error: BaseException) -> BaseException:
    """What the launcher says, as the sentence that a command ends with; anything else as it is."""
    if isinstance(error, ExecError):
        return Complaint(f"unable to start container process: {error}")
    if isinstance(error, RefusedError):
        return Complaint(f"config.json: {error}")
    if isinstance(error, CgroupError):
        return Complaint(f"control groups: {error}")
    return error


def _draft(asked: Asked, made: Bundle) -> Record:
    linux = made.config.get("linux")
    linux = linux if isinstance(linux, dict) else {}
    annotations = made.config.get("annotations")
    now = time.time_ns()
    return Record(
        id=asked.name,
        bundle=made.path,
        rootfs=made.rootfs,
        version=str(made.config["ociVersion"]),
        created=time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z",
        uid=os.geteuid(),
        annotations=annotations if isinstance(annotations, dict) else {},
        boot_id=status.boot_id(),
        cgroup=hierarchy.path_of(linux.get("cgroupsPath", ""), asked.name),
        shares_pids="pid" not in {entry["type"] for entry in linux.get("namespaces", ())},
        shares_mounts="mount" not in {entry["type"] for entry in linux.get("namespaces", ())},
    )
