"""The command `spec`: a config.json to begin with."""

from __future__ import annotations

import json
import os

from orchestrator.oci.arguments import Call
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.scope import Scope

VERSION = "1.0.2"
"""What we write: the oldest that has all that is in it, so that every runtime takes it."""

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_MASKED = (
    "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug "
    "/proc/scsi /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware"
).split()
_READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger".split()


def spec(_: Scope, call: Call) -> int:
    """Write config.json into the bundle."""
    directory = os.path.abspath(str(call.options.get("bundle") or "."))
    path = f"{directory}/config.json"
    text = json.dumps(
        document(rootless=bool(call.options.get("rootless")), uid=os.geteuid(), gid=os.getegid()), indent="\t"
    )
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise Complaint(f"File {path} exists. Remove it first") from None
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    return 0


def document(*, rootless: bool, uid: int, gid: int) -> dict[str, object]:
    """A configuration that runs sh in `rootfs`; for an ordinary user one with a map of just that user."""
    namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    linux: dict[str, object] = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in namespaces],
        "maskedPaths": _MASKED,
        "readonlyPaths": _READ_ONLY,
    }
    if rootless:
        # Without a network namespace: whoever makes one needs somebody to set it up.
        kinds = [kind for kind in namespaces if kind != "network"]
        linux["namespaces"] = [{"type": kind} for kind in (*kinds, "user")]
        linux["uidMappings"] = [{"containerID": 0, "hostID": uid, "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": gid, "size": 1}]
        del linux["resources"]
    capabilities = {kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "permitted")}
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": capabilities,
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "pystack-oci",
        "mounts": _mounts(rootless=rootless),
        "linux": linux,
    }


def _mounts(*, rootless: bool) -> list[dict[str, object]]:
    quiet = ["nosuid", "noexec", "nodev"]
    # A group that isn't mapped can't own the terminals.
    owner = [] if rootless else ["gid=5"]
    rows: list[tuple[str, str, str, list[str]]] = [
        ("/proc", "proc", "proc", []),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *owner],
        ),
        ("/dev/shm", "tmpfs", "shm", [*quiet, "mode=1777", "size=65536k"]),  # noqa: S108 (the container's)
        ("/dev/mqueue", "mqueue", "mqueue", quiet),
        # sysfs belongs to a network namespace: without one of its own the host's is bound.
        ("/sys", "none", "/sys", ["rbind", *quiet, "ro"])
        if rootless
        else ("/sys", "sysfs", "sysfs", [*quiet, "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", [*quiet, "relatime", "ro"]),
    ]
    return [
        {"destination": target, "type": kind, "source": source, **({"options": options} if options else {})}
        for target, kind, source, options in rows
    ]
