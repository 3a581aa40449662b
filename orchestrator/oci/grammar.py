"""The form of config.json as the runtime-spec has it (config.md, config-linux.md; up to 1.3), as data.

Whole numbers are the Go types of the spec's own sources, so that what fits elsewhere fits here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

NEWEST = "1.3.0"
"""The newest version whose properties are known here. Newer ones of the same major only add (semver.org)."""


class Text(NamedTuple):
    """A string; `absolute` for a path from the root on."""

    absolute: bool = False


class Whole(NamedTuple):
    """A whole number between two bounds."""

    least: int
    most: int


class Flag(NamedTuple):
    """true or false."""


class OneOf(NamedTuple):
    """One of some words."""

    words: tuple[str, ...]


class Many(NamedTuple):
    """A list."""

    of: Form
    least: int = 0


class Named(NamedTuple):
    """An object with names of the user's choice, or some of `names`."""

    of: Form
    names: tuple[str, ...] = ()


class Object(NamedTuple):
    """An object with known properties. Others are ignored: config.md, "Extensibility"."""

    fields: Mapping[str, Form]
    required: tuple[str, ...] = ()


Form = Text | Whole | Flag | OneOf | Many | Named | Object

TEXT, PATH, FLAG, TEXTS = Text(), Text(absolute=True), Flag(), Many(Text())
U16, U32, U64 = Whole(0, 2**16 - 1), Whole(0, 2**32 - 1), Whole(0, 2**64 - 1)
I32, I64 = Whole(-(2**31), 2**31 - 1), Whole(-(2**63), 2**63 - 1)

NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
ACTIONS = tuple(
    f"SCMP_ACT_{name}" for name in "KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY".split()
)
OPERATORS = tuple(f"SCMP_CMP_{name}" for name in "NE LT LE EQ GE GT MASKED_EQ".split())
ARCHITECTURES = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE "
        "S390 S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB"
    ).split()
)
SECCOMP_FLAGS = tuple(
    f"SECCOMP_FILTER_FLAG_{name}" for name in "TSYNC LOG SPEC_ALLOW WAIT_KILLABLE_RECV".split()
)
SCHEDULERS = tuple(f"SCHED_{name}" for name in "OTHER FIFO RR BATCH ISO IDLE DEADLINE".split())
SCHEDULER_FLAGS = tuple(
    f"SCHED_FLAG_{name}"
    for name in (
        "RESET_ON_FORK RECLAIM DL_OVERRUN KEEP_POLICY KEEP_PARAMS UTIL_CLAMP_MIN UTIL_CLAMP_MAX"
    ).split()
)
IO_CLASSES = ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")
PROPAGATIONS = ("shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable")

_ID_MAPS = Many(Object({"containerID": U32, "hostID": U32, "size": U32}, ("containerID", "hostID", "size")))
_HOOK = Object({"path": PATH, "args": TEXTS, "env": TEXTS, "timeout": Whole(1, 2**31 - 1)}, ("path",))
_RATE = Many(Object({"major": I64, "minor": I64, "rate": U64}, ("major", "minor", "rate")))

PROCESS = Object(
    {
        "terminal": FLAG,
        "consoleSize": Object({"height": U64, "width": U64}, ("height", "width")),
        "user": Object({"uid": U32, "gid": U32, "umask": U32, "additionalGids": Many(U32), "username": TEXT}),
        "args": Many(TEXT, least=1),
        "env": TEXTS,
        "cwd": PATH,
        "capabilities": Object(
            dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), TEXTS)
        ),
        "rlimits": Many(Object({"type": TEXT, "soft": U64, "hard": U64}, ("type", "soft", "hard"))),
        "noNewPrivileges": FLAG,
        "apparmorProfile": TEXT,
        "oomScoreAdj": Whole(-1000, 1000),
        "selinuxLabel": TEXT,
        "scheduler": Object(
            {
                "policy": OneOf(SCHEDULERS),
                "nice": I32,
                "priority": I32,
                "flags": Many(OneOf(SCHEDULER_FLAGS)),
                "runtime": U64,
                "deadline": U64,
                "period": U64,
            },
            ("policy",),
        ),
        "ioPriority": Object({"class": OneOf(IO_CLASSES), "priority": I32}, ("class",)),
        "execCPUAffinity": Object({"initial": TEXT, "final": TEXT}),
    },
    ("cwd", "args"),
)

RESOURCES = Object(
    {
        "devices": Many(
            Object(
                {"allow": FLAG, "type": OneOf(("a", "b", "c")), "major": I64, "minor": I64, "access": TEXT},
                ("allow",),
            )
        ),
        "memory": Object(
            {
                **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), I64),
                "swappiness": U64,
                **dict.fromkeys(("disableOOMKiller", "useHierarchy", "checkBeforeUpdate"), FLAG),
            }
        ),
        "cpu": Object(
            {
                **dict.fromkeys(("shares", "burst", "period", "realtimePeriod"), U64),
                **dict.fromkeys(("quota", "realtimeRuntime", "idle"), I64),
                **dict.fromkeys(("cpus", "mems"), TEXT),
            }
        ),
        "pids": Object({"limit": I64}),
        "blockIO": Object(
            {
                "weight": U16,
                "leafWeight": U16,
                "weightDevice": Many(
                    Object({"major": I64, "minor": I64, "weight": U16, "leafWeight": U16}, ("major", "minor"))
                ),
                **{
                    f"throttle{what}Device": _RATE
                    for what in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")
                },
            }
        ),
        "hugepageLimits": Many(Object({"pageSize": TEXT, "limit": U64}, ("pageSize", "limit"))),
        "network": Object(
            {
                "classID": U32,
                "priorities": Many(Object({"name": TEXT, "priority": U32}, ("name", "priority"))),
            }
        ),
        "rdma": Named(Object({"hcaHandles": U32, "hcaObjects": U32})),
        "unified": Named(TEXT),
    }
)

_SECCOMP = Object(
    {
        "defaultAction": OneOf(ACTIONS),
        "defaultErrnoRet": U32,
        "architectures": Many(OneOf(ARCHITECTURES)),
        "flags": Many(OneOf(SECCOMP_FLAGS)),
        "listenerPath": TEXT,
        "listenerMetadata": TEXT,
        "syscalls": Many(
            Object(
                {
                    "names": Many(TEXT, least=1),
                    "action": OneOf(ACTIONS),
                    "errnoRet": U32,
                    "args": Many(
                        Object(
                            {"index": Whole(0, 5), "value": U64, "valueTwo": U64, "op": OneOf(OPERATORS)},
                            ("index", "value", "op"),
                        )
                    ),
                },
                ("names", "action"),
            )
        ),
    },
    ("defaultAction",),
)

_LINUX = Object(
    {
        "namespaces": Many(Object({"type": OneOf(NAMESPACES), "path": PATH}, ("type",))),
        "uidMappings": _ID_MAPS,
        "gidMappings": _ID_MAPS,
        "timeOffsets": Named(Object({"secs": I64, "nanosecs": U32}), ("boottime", "monotonic")),
        "devices": Many(
            Object(
                {
                    "type": OneOf(("b", "c", "u", "p")),
                    "path": PATH,
                    "major": I64,
                    "minor": I64,
                    "fileMode": U32,
                    "uid": U32,
                    "gid": U32,
                },
                ("type", "path"),
            )
        ),
        "netDevices": Named(Object({"name": TEXT})),
        "cgroupsPath": TEXT,
        "resources": RESOURCES,
        "rootfsPropagation": OneOf(PROPAGATIONS),
        "seccomp": _SECCOMP,
        "sysctl": Named(TEXT),
        "maskedPaths": Many(PATH),
        "readonlyPaths": Many(PATH),
        "mountLabel": TEXT,
        "intelRdt": Object(
            {
                **dict.fromkeys(("closID", "l3CacheSchema", "memBwSchema"), TEXT),
                **dict.fromkeys(("enableCMT", "enableMBM", "enableMonitoring"), FLAG),
                "schemata": TEXTS,
            }
        ),
        "memoryPolicy": Object({"mode": TEXT, "nodes": TEXT, "flags": TEXTS}, ("mode",)),
        "personality": Object({"domain": OneOf(("LINUX", "LINUX32")), "flags": TEXTS}, ("domain",)),
    }
)

CONFIG = Object(
    {
        "ociVersion": TEXT,
        "root": Object({"path": TEXT, "readonly": FLAG}, ("path",)),
        "process": PROCESS,
        "hostname": TEXT,
        "domainname": TEXT,
        "mounts": Many(
            Object(
                {
                    "destination": TEXT,
                    "type": TEXT,
                    "source": TEXT,
                    "options": TEXTS,
                    "uidMappings": _ID_MAPS,
                    "gidMappings": _ID_MAPS,
                },
                ("destination",),
            )
        ),
        "hooks": Object({name: Many(_HOOK) for name in HOOKS}),
        "annotations": Named(TEXT),
        "linux": _LINUX,
    },
    ("ociVersion", "root"),
)
