"""schemas/oci-runtime.json: takes what the specification allows, and nothing else."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit import specification
from tests.kit.specification import wrong

Json = dict[str, Any]
PLAIN: Json = {
    "ociVersion": "1.0.2",
    "root": {"path": "rootfs"},
    "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
    "linux": {"namespaces": [{"type": "mount"}]},
}


def changed(**more: Any) -> Json:
    """PLAIN with values at paths: process__cwd="x"."""
    config = copy.deepcopy(PLAIN)
    for key, value in more.items():
        *steps, last = key.split("__")
        place = config
        for step in steps:
            place = place.setdefault(step, {})
        place[last] = value
    return config


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_what_other_runtimes_write_is_right(runtime: str, tmp_path: Path) -> None:
    """Their `spec` command writes a config.json: a second opinion of what one looks like."""
    if shutil.which(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    subprocess.run([runtime, "spec"], cwd=tmp_path, check=True, timeout=20)
    config = json.loads((tmp_path / "config.json").read_text())
    config["ociVersion"] = config["ociVersion"].removesuffix("-dev")
    assert wrong(config) == []


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"annotations": {"any.name": "any text"}},
        {"hooks": {"poststart": [{"path": "/x", "args": ["x"], "env": ["A="], "timeout": 1}]}},
        {
            "linux__devices": [
                {"type": "p", "path": "/f"},
                {"type": "c", "path": "/c", "major": 1, "minor": 3},
            ]
        },
        {"linux__namespaces": [{"type": "user"}, {"type": "time", "path": "/ns"}]},
        {"linux__uidMappings": [{"containerID": 0, "hostID": 1000, "size": 2**32 - 1}]},
        {"linux__timeOffsets": {"boottime": {"secs": -5, "nanosecs": 1}}},
        {"linux__resources": {"unified": {"memory.high": "1"}, "rdma": {"mlx5_1": {"hcaHandles": 3}}}},
        {"linux__resources": {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}], "pids": {"limit": -1}}},
        {"linux__personality": {"domain": "LINUX32"}},
        {"linux__netDevices": {"eth1": {"name": "in"}, "eth2": {}}},
        {
            "linux__seccomp": {
                "defaultAction": "SCMP_ACT_NOTIFY",
                "listenerPath": "/s",
                "listenerMetadata": "x",
            }
        },
        {"process__scheduler": {"policy": "SCHED_BATCH", "nice": 5}, "process__oomScoreAdj": -1000},
        {"process__rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2**64 - 1}]},
        {"mounts": [{"destination": "/a", "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}]},
    ],
    ids=str,
)
def test_what_the_specification_allows_is_right(more: Json) -> None:
    assert wrong(changed(**more)) == []


@pytest.mark.parametrize(
    "more",
    [
        {"ociVersion": "2.0.0"},
        {"root__path": ""},
        {"root__writable": True},
        {"colour": "red"},
        {"annotations": {"a": 1}},
        {"annotations": {"": "x"}},
        {"process__cwd": "relative"},
        {"process__args": []},
        {"process__env": ["NOTHING"]},
        {"process__user": {"uid": 0}},
        {"process__user": {"uid": -1, "gid": 0}},
        {"process__user": {"uid": 2**32, "gid": 0}},
        {"process__user": {"uid": 0, "gid": 0, "name": "root"}},
        {"process__capabilities": {"bounding": ["chown"]}},
        {"process__rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1}]},
        {"process__rlimits": [{"type": "NOFILE", "soft": 1, "hard": 1}]},
        {"process__rlimits": [{"type": "RLIMIT_NOFILE", "soft": -1, "hard": -1}]},
        {"process__oomScoreAdj": 1001},
        {"mounts": [{"destination": "relative"}]},
        {"mounts": [{"destination": "/a", "options": "ro"}]},
        {"linux__namespaces": [{"type": "net"}]},
        {"linux__namespaces": [{"type": "pid", "path": "relative"}]},
        {"linux__devices": [{"type": "c", "path": "/c"}]},
        {"linux__resources": {"devices": [{"access": "rwm"}]}},
        {"linux__resources": {"devices": [{"allow": True, "access": "x"}]}},
        {"linux__resources": {"memory": {"max": 1}}},
        {"linux__resources": {"unified": {"../x": "1"}}},
        {"linux__seccomp": {"syscalls": []}},
        {"linux__seccomp": {"defaultAction": "ALLOW"}},
        {"linux__seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}},
        {"linux__seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a"}]}},
        {"linux__rootfsPropagation": "sharing"},
        {"linux__maskedPaths": ["proc"]},
        {"hooks": {"poststart": [{"path": "x"}]}},
        {"hooks": {"afterwards": []}},
    ],
    ids=str,
)
def test_what_it_does_not_allow_is_wrong(more: Json) -> None:
    assert wrong(changed(**more))


def every(node: Any, look: Callable[[Json], bool]) -> list[Json]:
    found = [node] if isinstance(node, dict) and look(node) else []
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return found + [row for part in parts for row in every(part, look)]


def test_objects_take_no_keys_that_the_specification_does_not_have() -> None:
    schema = json.loads(specification.SCHEMA.read_text())
    objects = every(schema, lambda node: node.get("type") == "object")
    assert len(objects) > 30
    assert [node for node in objects if node.get("additionalProperties", True) is True] == []


def test_every_property_has_a_description() -> None:
    schema = json.loads(specification.SCHEMA.read_text())
    bare = [
        name
        for node in every(schema, lambda node: isinstance(node.get("properties"), dict) and "type" in node)
        for name, value in node["properties"].items()
        if "description" not in value and "$ref" not in value
    ]
    assert bare == []
