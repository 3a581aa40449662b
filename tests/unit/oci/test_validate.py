"""What a config.json may say: each wrong thing is one sentence that names its path."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from orchestrator.oci import spec, validate
from orchestrator.oci.complaint import Complaint


def config(**change: Any) -> dict[str, Any]:
    return {**spec.document(rootless=False, uid=0, gid=0), **change}


def place(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """The document with a value at a path such as "linux.seccomp.syscalls"."""
    document = copy.deepcopy(document)
    inner = document
    *parents, last = path.split(".")
    for name in parents:
        inner = inner.setdefault(name, {})
    inner[last] = value
    return document


def refusal(document: object) -> str:
    with pytest.raises(Complaint) as refused:
        validate.config(document)
    return str(refused.value)


@pytest.mark.parametrize("rootless", [False, True])
def test_what_spec_writes_is_valid(rootless: bool) -> None:
    document = spec.document(rootless=rootless, uid=1000, gid=1000)
    found, unknown = validate.config(document)
    assert found == document
    assert unknown == []


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("ociVersion", None, "ociVersion: missing"),
        ("ociVersion", 1, "ociVersion: not a string"),
        ("ociVersion", "1.0", "ociVersion: '1.0' is not a semantic version"),
        ("ociVersion", "v1.0.0", "is not a semantic version"),
        ("ociVersion", "01.0.0", "is not a semantic version"),
        ("ociVersion", "0.9.0", "unknown version specified: 0.9.0"),
        ("ociVersion", "2.0.0", "unknown version specified: 2.0.0"),
        ("root", None, "root: missing"),
        ("root", [], "root: not an object"),
        ("root.path", None, "root.path: missing"),
        ("root.readonly", "yes", "root.readonly: 'yes' is neither true nor false"),
        ("process.args", None, "process.args: missing"),
        ("process.args", [], "process.args: empty"),
        ("process.args", ["a", 1], "process.args[1]: 1 is not a string"),
        ("process.args", ["a\0b"], "process.args[0]: holds a NUL"),
        ("process.cwd", "tmp", "process.cwd: 'tmp' is not an absolute path"),
        ("process.cwd", None, "process.cwd: missing"),
        ("process.user", {"uid": -1}, "process.user.uid: -1 is not between 0 and 4294967295"),
        ("process.user", {"uid": 2**32}, "process.user.uid: 4294967296 is not between"),
        ("process.user", {"uid": True}, "process.user.uid: True is not a whole number"),
        ("process.user", {"uid": 1.5}, "process.user.uid: 1.5 is not a whole number"),
        ("process.terminal", 1, "process.terminal: 1 is neither"),
        ("process.consoleSize", {"height": 1}, "process.consoleSize.width: missing"),
        ("process.rlimits", [{"type": "RLIMIT_CORE", "soft": 1}], "process.rlimits[0].hard: missing"),
        (
            "process.rlimits",
            [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}] * 2,
            "process.rlimits[1].type: RLIMIT_CORE stands there twice",
        ),
        ("process.oomScoreAdj", 2000, "process.oomScoreAdj: 2000 is not between"),
        ("process.scheduler", {"policy": "SCHED_BEST"}, "process.scheduler.policy: 'SCHED_BEST' is none of"),
        ("process.ioPriority", {"class": "HIGH"}, "process.ioPriority.class: 'HIGH' is none of"),
        ("mounts", {}, "mounts: not a list"),
        ("mounts", [{"type": "tmpfs"}], "mounts[0].destination: missing"),
        ("mounts", [{"destination": ""}], "mounts[0].destination: empty"),
        ("hooks.prestart", [{}], "hooks.prestart[0].path: missing"),
        ("hooks.poststop", [{"path": "x"}], "hooks.poststop[0].path: 'x' is not an absolute path"),
        ("hooks.poststart", [{"path": "/x", "timeout": 0}], "hooks.poststart[0].timeout: 0 is not between"),
        ("annotations", {"a": 1}, "annotations.a: 1 is not a string"),
        ("annotations", {"": "x"}, "annotations: '' is not a name"),
        ("linux.namespaces", [{"type": "disk"}], "linux.namespaces[0].type: 'disk' is none of pid, network"),
        (
            "linux.namespaces",
            [{"type": "pid", "path": "x"}],
            "linux.namespaces[0].path: 'x' is not an absolute",
        ),
        ("linux.uidMappings", [{"hostID": 0, "size": 1}], "linux.uidMappings[0].containerID: missing"),
        (
            "linux.timeOffsets",
            {"realtime": {}},
            "linux.timeOffsets: 'realtime' is none of boottime, monotonic",
        ),
        ("linux.devices", [{"type": "x", "path": "/a"}], "linux.devices[0].type: 'x' is none of b, c, u, p"),
        ("linux.rootfsPropagation", "public", "linux.rootfsPropagation: 'public' is none of"),
        ("linux.sysctl", {"a": 1}, "linux.sysctl.a: 1 is not a string"),
        ("linux.maskedPaths", ["proc"], "linux.maskedPaths[0]: 'proc' is not an absolute path"),
        ("linux.seccomp", {}, "linux.seccomp.defaultAction: missing"),
        ("linux.seccomp", {"defaultAction": "ALLOW"}, "linux.seccomp.defaultAction: 'ALLOW' is none of"),
        (
            "linux.seccomp",
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_KILL"}]},
            "linux.seccomp.syscalls[0].names: empty",
        ),
        ("linux.personality", {"domain": "BSD"}, "linux.personality.domain: 'BSD' is none of LINUX, LINUX32"),
        ("linux.resources", {"devices": [{}]}, "linux.resources.devices[0].allow: missing"),
        ("linux.resources", {"memory": {"limit": "1g"}}, "linux.resources.memory.limit: '1g' is not a whole"),
        ("linux.resources", {"cpu": {"shares": -1}}, "linux.resources.cpu.shares: -1 is not between"),
        ("linux.resources", {"blockIO": {"weight": 70000}}, "linux.resources.blockIO.weight: 70000 is not"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(path: str, value: object, told: str) -> None:
    assert told in refusal(place(config(), path, value))


def test_a_document_that_is_no_object() -> None:
    assert refusal([]) == "config.json: not an object"


def test_unknown_properties_are_left_out_and_listed() -> None:
    """config.md, "Extensibility": no error, whatever they hold; also the sections of other platforms."""
    document = config(windows={"layerFolders": 7}, unknown="x")
    document["linux"]["futureThing"] = {"deep": [1]}
    document["mounts"][0]["color"] = "red"
    found, unknown = validate.config(document)
    assert set(unknown) == {"windows", "unknown", "linux.futureThing", "mounts[0].color"}
    assert found == validate.config(config())[0]


@pytest.mark.parametrize("version", ["1.0.0", "1.0.0-rc5", "1.0.2-dev", "1.2.1", "1.3.0", "1.9.0", "1.0.0+x"])
def test_versions_of_the_same_major_are_taken(version: str) -> None:
    assert validate.config(config(ociVersion=version))[0]["ociVersion"] == version


def test_null_is_the_same_as_absent() -> None:
    assert "hooks" not in validate.config(config(hooks=None))[0]


def test_a_relative_destination_counts_from_the_root() -> None:
    found, _ = validate.config(config(mounts=[{"destination": "tmp/x", "type": "tmpfs"}]))
    assert found["mounts"] == [{"destination": "/tmp/x", "type": "tmpfs"}]


def test_the_process_may_be_missing() -> None:
    """It is needed at start alone: config.md, "Process"."""
    document = config()
    del document["process"]
    assert "process" not in validate.config(document)[0]
