"""The command `features`: what this runtime can do, as features.md and features-linux.md of the spec say."""

from __future__ import annotations

import json
import os

from orchestrator import __version__
from orchestrator.kernel import capabilities, manner, steps
from orchestrator.oci import grammar
from orchestrator.oci.arguments import Call
from orchestrator.oci.scope import Scope

_MACHINES = {"x86_64": ("X86_64", "X86", "X32"), "aarch64": ("AARCH64", "ARM")}


def features(_: Scope, __: Call) -> int:
    """Print what we can do."""
    print(json.dumps(document(os.uname().machine), indent=4))
    return 0


def _mount_options() -> list[str]:
    """Those that mean something to us; any other goes to the filesystem."""
    attributes = {*steps.ATTRIBUTES} - {"defaults"}
    recursive = {f"r{name}" for name in attributes}
    return sorted({*attributes, *recursive, *steps.PROPAGATIONS, "defaults", "bind", "rbind", "tmpcopyup"})


def document(machine: str) -> dict[str, object]:
    """The features on a machine of that type."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": grammar.NEWEST,
        "hooks": list(grammar.HOOKS),
        "mountOptions": _mount_options(),
        "linux": {
            "namespaces": sorted(grammar.NAMESPACES),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": machine in _MACHINES,
                "actions": sorted(grammar.ACTIONS),
                "operators": sorted(grammar.OPERATORS),
                "archs": [f"SCMP_ARCH_{name}" for name in _MACHINES.get(machine, ())],
                "knownFlags": sorted(grammar.SECCOMP_FLAGS),
                "supportedFlags": sorted(grammar.SECCOMP_FLAGS),
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "memoryPolicy": {"modes": list(manner.MEMORY_MODES), "flags": list(manner.MEMORY_FLAGS)},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"io.pystack.oci.version": __version__},
        "potentiallyUnsafeConfigAnnotations": [],
    }
