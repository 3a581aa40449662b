"""What OCI bundles may ask of namespaces, mounts and devices, on the real kernel."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.kernel import links
from orchestrator.kernel.reading import RefusedError
from orchestrator.kernel.report import ExecError
from orchestrator.kernel.syscalls import PR_SET_DUMPABLE, prctl
from tests.kit.bundles import Box
from tests.kit.keeper import NEW, mount

pytestmark = pytest.mark.kernel
FIRST = 100_000
IDS = [{"containerID": 0, "hostID": FIRST, "size": 65536}]
MAPS = {"uidMappings": IDS, "gidMappings": IDS}


@pytest.fixture
def box(state_root: Path) -> Iterator[Box]:
    with Box(state_root) as box:
        yield box


def refusal(box: Box, **config: object) -> str:
    with pytest.raises((ExecError, RefusedError)) as refused:
        box.create(["true"], **config)
    return str(refused.value)


def bind(source: Path | str, *options: str, target: str = "/m", **more: object) -> dict[str, object]:
    return {**mount(target, "bind", options, str(source)), **more}


# --- namespaces


def test_a_user_namespace_with_its_maps(box: Box) -> None:
    box.belong_to(FIRST)
    script = "cat /proc/self/uid_map; touch /mine; ls -ln /mine /dev/null; echo > /dev/null; grep CapBnd /proc/1/status"
    said = box.shell(script, namespaces=[*NEW, "user"], linux=MAPS).split()
    assert said[:3] == ["0", str(FIRST), "65536"]
    assert said[-1] == "00000000a80425fb"
    assert (box.rootfs / "mine").stat().st_uid == FIRST
    # No node was made: the host's is bound, whose owner has no name inside.
    assert "65534" in said


def test_a_user_namespace_is_entered_by_exec(box: Box) -> None:
    box.belong_to(FIRST)
    held = box.start(["sleep", "60"], namespaces=[*NEW, "user"], linux=MAPS)
    code, out, _ = box.exec(held, ["sh", "-c", "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user"])
    assert code == 0
    assert out.split() == ["0", "0", str(FIRST), "65536", os.readlink(f"/proc/{held.pid}/ns/user")]


def test_a_namespace_is_joined_by_its_path(box: Box) -> None:
    held = box.start(["sleep", "60"], hostname="other")
    joined = [{"type": kind, "path": f"/proc/{held.pid}/ns/{kind}"} for kind in ("pid", "uts", "ipc")]
    said = box.shell("hostname; ps -o comm | grep sleep", namespaces=["mount", "network", "cgroup", *joined])
    assert said == "other\nsleep\n"


def test_clocks_are_set_before_anybody_sees_them(box: Box) -> None:
    offsets = {"timeOffsets": {"boottime": {"secs": 10_000_000}, "monotonic": {"secs": 5, "nanosecs": 7}}}
    said = box.shell(
        "cat /proc/self/timens_offsets; cat /proc/uptime", namespaces=[*NEW, "time"], linux=offsets
    )
    words = said.split()
    assert words[:6] == ["monotonic", "5", "7", "boottime", "10000000", "0"]
    assert float(words[6]) > 10_000_000
    assert "only a new time namespace" in refusal(box, linux=offsets)


def test_a_namespace_that_is_not_named_is_the_hosts(box: Box) -> None:
    held = box.start(
        ["sh", "-c", "ls /; sleep 60"], namespaces=["pid"], linux={"maskedPaths": [], "readonlyPaths": []}
    )
    for kind in ("mnt", "uts", "ipc", "net", "user", "cgroup"):
        assert os.readlink(f"/proc/{held.pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}"), kind
    assert os.path.samefile(f"/proc/{held.pid}/root/bin", box.rootfs / "bin")
    assert os.path.ismount(box.rootfs / "proc")
    assert box.exec(held, ["ls", "/"])[1].split() == sorted(os.listdir(box.rootfs))
    held.kill()
    box.__exit__(None, None, None)
    assert not os.path.ismount(box.rootfs / "proc")
    box._fds.clear()


def test_an_ordinary_user_makes_a_container_of_one_id(box: Box) -> None:
    place = Path(tempfile.mkdtemp(prefix="pystack-test-"))
    os.chown(place, 65534, 65534)
    reader, writer = os.pipe()
    pid = os.fork()  # noqa: TID251 (who has become an ordinary user doesn't come back)
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            prctl(PR_SET_DUMPABLE, 1)
            own = [{"containerID": 0, "hostID": 65534, "size": 1}]
            plain = [mount("/proc", "proc", []), mount("/dev", "tmpfs", ["mode=755"])]
            with Box(place / "box") as mine:
                held = mine.start(
                    ["sh", "-c", "cat /proc/self/uid_map; echo > /dev/null && touch /mine; sleep 60"],
                    namespaces=[*(kind for kind in NEW if kind != "cgroup"), "user"],
                    linux={"uidMappings": own, "gidMappings": own},
                    config_mounts=plain,
                )
                said = mine.exec(held, ["sh", "-c", "id -u; ls -d /bin"])[1] + held.output()
                os.write(writer, said.encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    said = os.read(reader, 4096).decode()
    os.close(reader)
    shutil.rmtree(place)
    assert said.split() == ["0", "/bin", "0", "65534", "1"]


def test_namespaces_without_sense_are_refused(box: Box) -> None:
    assert "stands there twice" in refusal(box, namespaces=["mount", "pid", "pid"])
    assert "'frob' namespaces" in refusal(box, namespaces=["mount", "frob"])
    assert "only a new user namespace" in refusal(box, linux=MAPS)
    assert "needs uidMappings" in refusal(box, namespaces=[*NEW, "user"])
    assert "no range of ids" in refusal(
        box,
        namespaces=[*NEW, "user"],
        linux={**MAPS, "uidMappings": [{"containerID": 0, "hostID": -5, "size": 1}]},
    )


def test_the_loopback_of_a_new_network_is_up(box: Box) -> None:
    assert "UP" in box.shell("ip link show lo")


def test_a_link_moves_with_its_addresses(box: Box) -> None:
    name, other = f"px{os.getpid() % 100000}a", f"px{os.getpid() % 100000}b"
    add = f"ip link add {name} type veth peer name {other} && ip addr add 10.9.8.7/24 dev {name}"
    assert os.system(f"{add} && ip link set {name} up") == 0
    try:
        devices = {"netDevices": {name: {"name": "net7"}}}
        said = box.shell("ip addr show net7", linux=devices)
        assert "10.9.8.7/24" in said
        assert "UP" in said
    finally:
        with links.open_route() as route:
            links.delete_link(route, other)
    with pytest.raises(OSError, match="no such link"):
        box.create(["true"], linux={"netDevices": {"nosuch": {}}})
    assert "no network namespace of its own" in refusal(
        box, namespaces=["mount"], linux={"netDevices": {"nosuch": {}}}
    )


# --- mounts


def test_files_of_an_id_mapped_mount_belong_to_others(box: Box) -> None:
    source = box.root / "source"
    source.mkdir()
    (source / "file").write_text("")
    os.chown(source / "file", 5, 6)
    shifted = {
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 100}],
        "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 100}],
    }
    assert box.shell("stat -c %u:%g /m/file", mounts=[bind(source, "bind", **shifted)]) == "1005:2006\n"
    box.belong_to(FIRST)
    own = {"namespaces": [*NEW, "user"], "linux": MAPS, "mounts": [bind(source, "rbind", "ridmap")]}
    assert box.shell("stat -c %u:%g /m/file", **own) == "5:6\n"
    assert "there are no id mappings" in refusal(box, mounts=[bind(source, "bind", "idmap")])
    tmpfs = {**mount("/m", "tmpfs", []), **shifted}
    assert "for bind mounts alone" in refusal(box, mounts=[tmpfs])


def test_recursive_options_reach_the_mounts_below(box: Box) -> None:
    source = box.root / "source"
    (source / "below").mkdir(parents=True)
    assert os.system(f"mount -t tmpfs none {source}/below") == 0
    try:
        script = "touch /m/x || touch /m/below/x || grep ' /m/below' /proc/mounts"
        assert "ro,nosuid,noexec" in box.shell(
            script, mounts=[bind(source, "rbind", "rro", "rnoexec", "rnosuid")]
        )
        assert box.shell("touch /m/x || touch /m/below/x", mounts=[bind(source, "rbind", "ro")]) == ""
    finally:
        os.system(f"umount {source}/below")


def test_what_mounts_and_the_root_propagate(box: Box) -> None:
    def optional(place: str, **config: object) -> str:
        fields = box.shell(f"grep ' {place} ' /proc/self/mountinfo", **config).split(" - ")[0].split()
        words = [word.partition(":")[0] for word in fields[6:]]
        # Where the machine's own mounts are shared (systemd) ours are slaves of them besides.
        return " ".join(word for word in words if word != "master")

    tmpfs = mount("/m", "tmpfs", ["rshared", "mode=700"])
    assert optional("/m", mounts=[tmpfs]) == "shared"
    assert optional("/m", mounts=[mount("/m", "tmpfs", [])]) == ""
    assert optional("/", linux={"rootfsPropagation": "shared"}) == "shared"
    assert (
        optional("/m", mounts=[mount("/m", "tmpfs", [])], linux={"rootfsPropagation": "rshared"}) == "shared"
    )
    assert (
        optional("/m", mounts=[mount("/m", "tmpfs", ["private"])], linux={"rootfsPropagation": "rshared"})
        == ""
    )
    assert optional("/", linux={"rootfsPropagation": "unbindable"}) == "unbindable"
    assert os.path.ismount(box.rootfs) is False


def test_any_filesystem_with_its_own_options(box: Box) -> None:
    assert "ramfs rw,nosuid" in box.shell(
        "grep ' /m' /proc/mounts", mounts=[mount("/m", "ramfs", ["nosuid"])]
    )
    assert "No such device" in refusal(box, mounts=[mount("/m", "frobfs", [])])
    assert "Unknown parameter 'frob'" in refusal(box, mounts=[mount("/m", "tmpfs", ["frob=5"])])
    assert "'frob'" in refusal(box, mounts=[bind("/tmp", "bind", "frob")])
    (box.rootfs / "full").mkdir()
    (box.rootfs / "full/file").write_text("kept")
    assert box.shell("cat /full/file", mounts=[mount("/full", "tmpfs", ["tmpcopyup"])]) == "kept"
    below = box.root / ("long" * 40)
    for name in ("lower", "upper", "work"):
        (below / name).mkdir(parents=True)
    (below / "lower/file").write_text("deep")
    layers = [
        f"{key}={below}/{name}"
        for key, name in (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work"))
    ]
    assert box.shell("cat /m/file; rm /m/file", mounts=[mount("/m", "overlay", layers)]) == "deep"
    assert (below / "lower/file").exists()


def test_nothing_but_a_procfs_comes_over_proc(box: Box) -> None:
    assert "only a procfs" in refusal(box, mounts=[bind("/tmp", "bind", target="/proc")])
    assert "nothing can be mounted over /proc" in refusal(
        box, mounts=[bind("/tmp", "bind", target="/proc/sys")]
    )
    (box.rootfs / "link").symlink_to("proc/sys")
    assert "leads into /proc" in refusal(box, mounts=[bind("/tmp", "bind", target="/link")])
    said = box.shell(
        "cat /proc/1/comm", mounts=[bind("/proc", "rbind", target="/proc")], namespaces=["mount"]
    )
    assert said == Path("/proc/1/comm").read_text()


def test_links_of_the_root_filesystem_lead_nowhere(box: Box) -> None:
    """CVE-2026-41579 and its kin: /dev, a mount's target and the working directory as links to the host."""
    decoy = box.root / "decoy"
    decoy.mkdir()
    (decoy / "ptmx").write_text("untouched")
    (box.rootfs / "dev").symlink_to(decoy)
    (box.rootfs / "m").symlink_to(f"../../../..{decoy}")
    box.shell("true", process={"cwd": "/m/deep"}, mounts=[mount("/m", "tmpfs", [])])
    box.shell("true", linux={"maskedPaths": ["/m"], "readonlyPaths": ["/m"]})
    box.shell("true", config_mounts=[mount("/proc", "proc", [])])
    assert [path.name for path in decoy.iterdir()] == ["ptmx"]
    assert (decoy / "ptmx").read_text() == "untouched"


def test_the_root_filesystem_does_not_choose_what_protects(box: Box) -> None:
    """CVE-2019-19921 (/proc a link), CVE-2025-31133 (/dev/null a link: what is masked would show it)."""
    (box.rootfs / "proc").symlink_to("tmp")
    assert "symbolic links" in refusal(box)
    (box.rootfs / "proc").unlink()
    (box.rootfs / "dev").mkdir()
    (box.rootfs / "dev/null").symlink_to("/etc/passwd")
    proc = [mount("/proc", "proc", [])]
    assert "File exists" in refusal(box, config_mounts=proc)
    (box.rootfs / "dev/null").unlink()
    # The host's null device covers what is masked, and the root filesystem's is another.
    masked = {"maskedPaths": ["/etc/passwd"]}
    assert box.shell("stat -c %t:%T /etc/passwd", config_mounts=proc, linux=masked) == "1:3\n"


def test_nothing_of_the_image_is_loaded_and_nobody_looks_in(box: Box) -> None:
    """CVE-2019-14271 (libraries of the image in our process), CVE-2016-9962 (a look into it)."""
    box.belong_to(FIRST)
    for trap in ("usr/lib/python3.11/encodings/idna.py", "etc/nsswitch.conf", "etc/ld.so.preload"):
        (box.rootfs / trap).parent.mkdir(parents=True, exist_ok=True)
        (box.rootfs / trap).write_text("/no/such\n")
    before = (box.rootfs / "etc/nsswitch.conf").stat().st_atime_ns
    held = box.create(["true"], namespaces=[*NEW, "user"], linux=MAPS)
    # What can't be dumped belongs to root outside, whoever it runs as (proc_pid_status(5)).
    assert os.stat(f"/proc/{held.pid}/environ").st_uid == 0
    assert int(Path(f"/proc/{held.pid}/status").read_text().split("Uid:")[1].split()[0]) == FIRST
    mapped = Path(f"/proc/{held.pid}/maps").read_text()
    assert str(box.rootfs) not in mapped
    opened = Path(f"/proc/{held.pid}/fd")
    assert not [path for path in opened.iterdir() if path.is_dir()]
    held.start()
    assert held.wait() == 0
    assert (box.rootfs / "etc/nsswitch.conf").stat().st_atime_ns == before


# --- devices, settings


def test_device_nodes_of_every_kind(box: Box) -> None:
    nodes = [
        {"path": "/dev/c", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/dev/deep/b", "type": "b", "major": 7, "minor": 0},
        {"path": "/dev/u", "type": "u", "major": 1, "minor": 3},
        {"path": "/dev/p", "type": "p", "fileMode": 0o600},
    ]
    said = box.shell("stat -c '%F %t:%T %a %u:%g' /dev/c /dev/deep/b /dev/u /dev/p", linux={"devices": nodes})
    assert said.splitlines() == [
        "character special file a:e5 640 5:6",
        "block special file 7:0 666 0:0",
        "character special file 1:3 666 0:0",
        "fifo 0:0 600 0:0",
    ]
    (box.rootfs / "srv").mkdir()
    (box.rootfs / "srv/null").write_text("not a device")
    wrong = [{"path": "/srv/null", "type": "c", "major": 1, "minor": 3}]
    assert "File exists" in refusal(box, linux={"devices": wrong})
    assert "unknown type" in refusal(box, linux={"devices": [{"path": "/dev/x", "type": "z"}]})


def test_settings_of_ones_own_namespaces_alone(box: Box) -> None:
    said = box.shell(
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni",
        linux={"sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmni": "77"}},
    )
    assert said == "1\n77\n"
    assert "belongs to the whole machine" in refusal(box, linux={"sysctl": {"kernel.core_pattern": "x"}})
    assert "shares its network" in refusal(
        box, namespaces=["mount"], linux={"sysctl": {"net.core.somaxconn": "1"}}
    )
