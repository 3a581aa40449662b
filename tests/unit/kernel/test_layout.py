"""config.json and launch.json -> the ordered steps that build a container; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from orchestrator.kernel import layout, steps
from orchestrator.kernel.reading import Document, RefusedError

ROOT = [{"target": "", "lower": ["/store/top", "/store/base"], "upper": "/c/upper", "work": "/c/work"}]
PRIVATE = ["mount", "uts", "ipc", "pid", "network", "cgroup"]


def compiled(config: Mapping[str, object], launch: Mapping[str, object] | None = None) -> steps.Steps:
    whole = {"linux": {"namespaces": [{"type": kind} for kind in PRIVATE]}, **config}
    more = {"root": ROOT, **(launch or {})}
    # Through text, as the keeper gets it.
    return layout.compile_steps(
        Document(json.loads(json.dumps(whole))), Document(json.loads(json.dumps(more)))
    )


def described(config: Mapping[str, object], launch: Mapping[str, object] | None = None) -> list[str]:
    return [step.describe() for step in compiled(config, launch).steps]


def refusal(config: Mapping[str, object], launch: Mapping[str, object] | None = None) -> str:
    with pytest.raises(RefusedError) as refused:
        compiled(config, launch)
    return str(refused.value)


def mount(destination: str, fstype: str, *options: str, source: str = "") -> dict[str, object]:
    return {"destination": destination, "type": fstype, "source": source, "options": options}


def linux(**values: object) -> dict[str, object]:
    return {"linux": {"namespaces": [{"type": kind} for kind in PRIVATE], **values}}


def test_a_whole_container_in_order() -> None:
    """The order is the safety: devices on a fresh /dev, protections late, the root read-only last."""
    config = {
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "web",
        "domainname": "example.test",
        "process": {"terminal": True, "consoleSize": {"height": 24, "width": 80}, "cwd": "/srv/"},
        "mounts": [
            mount("/proc", "proc", "nosuid", "noexec", "nodev"),
            mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=64k"),
            mount("/dev/pts", "devpts", "newinstance", "ptmxmode=0666"),
            mount("/data/", "bind", "rbind", "ro", source="/volumes/data"),
            mount("/run", "tmpfs", "tmpcopyup"),
            mount("/sys/fs/cgroup", "cgroup", "nosuid"),
        ],
        **linux(
            devices=[{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600}],
            sysctl={"net.core.somaxconn": "9"},
            maskedPaths=["/proc/kcore"],
            readonlyPaths=["/proc/sys"],
        ),
    }
    launch = {
        "root": [*ROOT, {"target": "usr", "lower": ["/usr"], "upper": "/c/u", "work": "/c/w"}],
        "seed": [{"target": "/data", "data": "/volumes/data", "state": "/volumes/seed"}],
        "cgroups": ["/sys/fs/cgroup/memory/x"],
    }
    assert described(config, launch) == [
        "overlay / of 2 layers",
        "overlay /usr of 1 layers",
        "seed the volume at /data",
        "mount proc /proc (nosuid,nodev,noexec)",
        "mount tmpfs /dev (nosuid,strictatime,mode=755,size=64k)",
        "mount devpts /dev/pts (ptmxmode=0666)",
        "mount /volumes/data at /data (rbind,ro)",
        "mount tmpfs /run",
        "mount cgroups /sys/fs/cgroup",
        "mknod /dev/null c 1:3 0666",
        "mknod /dev/zero c 1:5 0666",
        "mknod /dev/full c 1:7 0666",
        "mknod /dev/random c 1:8 0666",
        "mknod /dev/urandom c 1:9 0666",
        "mknod /dev/tty c 5:0 0666",
        "mknod /dev/fuse c 10:229 0600",
        "link /dev/ptmx -> pts/ptmx",
        "link /dev/fd -> /proc/self/fd",
        "link /dev/stdin -> /proc/self/fd/0",
        "link /dev/stdout -> /proc/self/fd/1",
        "link /dev/stderr -> /proc/self/fd/2",
        "terminal 80x24",
        "mkdir /srv",
        "hostname web",
        "domainname example.test",
        "sysctl net/core/somaxconn = 9",
        "read-only /proc/sys",
        "mask /proc/kcore",
        "read-only /",
    ]


def test_the_least_container() -> None:
    assert described({})[0] == "overlay / of 2 layers"
    assert described({})[-1] == "mkdir /"


def test_the_hosts_dev_is_left_as_it_is() -> None:
    """A container that binds /dev must not have nodes made or links planted in the host's."""
    config = {"mounts": [mount("/dev", "bind", "rbind", source="/dev")]}
    assert described(config) == ["overlay / of 2 layers", "mount /dev at /dev (rbind)", "mkdir /"]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["bind"], "bind"),
        (["rbind", "ro", "rw"], "rbind"),
        (["bind", "rw", "ro", "nosuid"], "bind,ro,nosuid"),
        (["rbind", "rro", "noatime"], "rbind,noatime,rro"),
        (["rbind", "rslave"], "rbind,rslave"),
        (["bind", "shared", "rprivate"], "bind"),
    ],
)
def test_options_of_bind_mounts(options: list[str], shown: str) -> None:
    found = described({"mounts": [mount("/t", "none", *options, source="/s")]})
    assert f"mount /s at /t ({shown})" in found


def test_a_part_of_a_volume_is_bound() -> None:
    config = {"mounts": [mount("/t", "bind", "rbind", source="/volume")]}
    assert "mount /volume/a/b at /t (rbind)" in described(config, {"subpaths": {"/t": "a/b"}})


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
    ],
)
def test_names_of_settings(key: str, path: str) -> None:
    assert f"sysctl {path} = 1" in described(linux(sysctl={key: "1"}))


@pytest.mark.parametrize(
    "key", ["vm.swappiness", "kernel.core_pattern", "net..x", "net.ipv4/../../kernel", "", "fs.mqueue"]
)
def test_settings_of_the_machine_are_refused(key: str) -> None:
    assert "linux.sysctl" in refusal(linux(sysctl={key: "1"}))


def test_a_setting_of_a_shared_namespace_is_refused() -> None:
    config = {"linux": {"namespaces": [{"type": "mount"}], "sysctl": {"kernel.sem": "1"}}}
    assert "shares its ipc namespace" in refusal(config)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"hooks": {"poststop": [{"path": "/x"}]}}, "hooks"),
        ({"mounts": [mount("relative", "tmpfs")]}, "relative"),
        ({"mounts": [mount("/a/../b", "tmpfs")]}, "/a/../b"),
        ({"mounts": [mount("/x", "ext4", source="/dev/sda")]}, "ext4"),
        ({"mounts": [mount("/x", "bind", source="relative")]}, "relative"),
        ({"mounts": [mount("/x", "bind", "purple", source="/s")]}, "purple"),
        ({"mounts": [mount("/proc", "tmpfs")]}, "/proc"),
        ({"mounts": [mount("/proc/sys/kernel", "bind", source="/s")]}, "/proc"),
        ({"mounts": [mount("/x", "proc", "tmpcopyup")]}, "tmpcopyup"),
        ({"mounts": [{"destination": "/x", "uidMappings": [{"size": 1}]}]}, "uidMappings"),
        ({"linux": {"namespaces": []}}, "mount namespace"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "mount"}]}}, "twice"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "time"}]}}, "time"),
        ({"hostname": "x", "linux": {"namespaces": [{"type": "mount"}]}}, "uts"),
        (linux(rootfsPropagation="sideways"), "sideways"),
        (linux(devices=[{"path": "/dev/x", "type": "q"}]), "'q'"),
        (linux(maskedPaths=["proc/kcore"]), "proc/kcore"),
        (linux(mountLabel="system_u"), "mountLabel"),
        ({"process": {"cwd": "srv"}}, "srv"),
        ({"mounts": {"not": "a list"}}, "mounts"),
        ({"mounts": ["text"]}, "mounts[0]"),
        ({"hostname": 5}, "hostname"),
        ({"hostname": "a\0b"}, "hostname"),
    ],
)
def test_what_is_refused_is_named(config: Mapping[str, object], word: str) -> None:
    assert word in refusal(config)


@pytest.mark.parametrize(
    "root",
    [
        [],
        [{"target": "usr", "lower": ["/usr"]}],
        [{"target": "", "lower": []}],
        [{"target": "", "lower": ["/x"], "a": 1}],
    ],
)
def test_a_root_has_to_be_whole(root: object) -> None:
    assert "root" in refusal({}, {"root": root})


# --- OCI bundles that nobody prepared: no root in launch.json


def own(config: Mapping[str, object]) -> list[str]:
    whole = {"root": {"path": "rootfs"}, **linux(), **config}
    plan = layout.compile_steps(Document(json.loads(json.dumps(whole))), Document({}), "/bundle")
    return [step.describe() for step in plan.steps]


def test_the_root_of_a_bundle_of_its_own_is_below_it() -> None:
    assert own({})[0] == "root /bundle/rootfs"
    assert own({"root": {"path": "/elsewhere"}})[0] == "root /elsewhere"
    with pytest.raises(RefusedError, match=r"root\.path"):
        own({"root": {}})


def test_recursive_and_id_mapped_binds_of_a_bundle_of_its_own() -> None:
    options = ("rbind", "ro", "rnoexec", "rslave", "ridmap")
    assert own({"mounts": [mount("/m", "bind", *options, source="/s")]})[1] == (
        "mount /s at /m (rbind,ro,rnoexec,ridmap,rslave)"
    )
    assert own({"mounts": [mount("/m", "ext4", "errors=remount-ro", "noatime", source="/dev/vdb")]})[1] == (
        "mount ext4 /m (noatime,errors=remount-ro)"
    )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"containerID": 0, "hostID": 0, "size": 0}, "no range of ids"),
        ({"containerID": 0, "hostID": 2**32 - 1, "size": 2}, "no range of ids"),
        ({"containerID": 0, "hostID": 0, "size": 1, "frob": 1}, "frob is not supported"),
    ],
)
def test_ranges_of_ids_without_sense_are_refused(row: Mapping[str, object], words: str) -> None:
    entry = {**mount("/m", "bind", "rbind", source="/s"), "uidMappings": [row], "gidMappings": [row]}
    with pytest.raises(RefusedError, match=words):
        own({"mounts": [entry]})
    alone = {**mount("/m", "bind", "rbind", source="/s"), "uidMappings": [{**row, "size": 1, "hostID": 1}]}
    if "frob" not in row:
        with pytest.raises(RefusedError, match="only make sense together"):
            own({"mounts": [alone]})
