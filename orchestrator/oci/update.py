"""The command `update`: other limits for a container that runs."""

from __future__ import annotations

import json
from collections.abc import Mapping

from orchestrator.oci import bundle, limits, record, status, validate
from orchestrator.oci.arguments import Call, Value
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.scope import Scope

# Option -> where OCI's linux.resources has it.
_PLACES = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "cpuset-cpus": ("cpu", "cpus"),
    "cpuset-mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "kernel-memory": ("memory", "kernel"),
    "kernel-memory-tcp": ("memory", "kernelTCP"),
    "pids-limit": ("pids", "limit"),
}
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def update(scope: Scope, call: Call) -> int:
    """Change the limits that are named; the others stay as they are."""
    asked: object
    if call.options.get("resources"):
        asked = bundle.parse(str(call.options["resources"]))
    else:
        asked = from_options(call.options)
    wanted, unknown = validate.resources(asked)
    for name in unknown:
        scope.journal.warning(f"{name}: unknown, ignored")
    if not wanted:
        raise Complaint("nothing to update: say what, or give --resources")
    path = record.place(scope.root, call.words[0])
    with record.locked(path):
        found = record.read(path)
        if status.look(path, found) not in ("created", "running", "paused"):
            raise Complaint("container not running")
        config = record.config(path)
        linux = config.get("linux")
        linux = dict(linux) if isinstance(linux, dict) else {}
        before = linux.get("resources")
        after = merged(before if isinstance(before, dict) else {}, wanted)
        limits.change(scope, found, wanted)
        record.replace(f"{path}/config.json", json.dumps({**config, "linux": {**linux, "resources": after}}))
    return 0


def from_options(options: Mapping[str, Value]) -> dict[str, object]:
    """OCI's linux.resources from the options of the command line. Raises Complaint."""
    asked: dict[str, dict[str, object]] = {}
    for option, (part, key) in _PLACES.items():
        value = options.get(option)
        if value is None:
            continue
        if part == "memory":
            value = _bytes(option, str(value))
        asked.setdefault(part, {})[key] = value
    return dict(asked)


def _bytes(option: str, text: str) -> int:
    """64m, 1g, 4096, -1 -> bytes."""
    number, unit = (
        (text[:-1], text[-1].lower()) if text[-1:].lower() in _UNITS else (text.removesuffix("b"), "")
    )
    try:
        return int(number) * _UNITS.get(unit, 1)
    except ValueError:
        raise Complaint(f"--{option}: {text!r} is not a number of bytes") from None


def merged(before: Mapping[str, object], wanted: Mapping[str, object]) -> dict[str, object]:
    """All limits of the container afterwards: an object is joined key by key, anything else replaced."""
    after = dict(before)
    for key, value in wanted.items():
        earlier = after.get(key)
        after[key] = {**earlier, **value} if isinstance(earlier, dict) and isinstance(value, dict) else value
    return after
