"""The runtime specification, row by row: what it demands, and what a container of ours shows.

Each test is one demand in our words, with the place in the specification where it stands. Where a container can
show many things at once, one does (`inside`); it is asked by a shell of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.kernel import capabilities
from tests.kit import leaks
from tests.kit.keeper import DOCKER_CAPABILITIES, NEW, bind, mount
from tests.kit.oci import Runtime, reap, until

pytestmark = pytest.mark.kernel

CONTROLLERS = Path("/sys/fs/cgroup")
V1 = (CONTROLLERS / "memory").is_dir()
FEW = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]

PROBE = """
say() { echo "== $1"; shift; "$@" 2>&1; }
say cwd pwd
say env env
say status cat /proc/self/status
say oom cat /proc/self/oom_score_adj
say umask umask
say hostname hostname
say domainname cat /proc/sys/kernel/domainname
say limits cat /proc/self/limits
say mountinfo cat /proc/self/mountinfo
say devices ls -ln /dev
say fds ls /proc/self/fd
say sysctl cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax
say masked cat /masked/file
say masked-dir ls -A /masked-dir
say read-only sh -c 'echo x > /read-only/file; mkdir /read-only/x; echo 1 > /proc/sys/kernel/msgmax; echo still'
say root sh -c 'echo x > /new; mkdir /new2; cat /new'
say inner sh -c 'cat /m/n/file; ls /m'
say tmpfs sh -c 'stat -c "%a %u" /tmpfs; dd if=/dev/zero of=/tmpfs/x bs=1k count=100; ls -l /tmpfs/x'
say timens cat /proc/self/timens_offsets
say clock cut -d. -f1 /proc/uptime
say blocked sh -c 'mkdir /blocked; chmod 700 /etc/passwd; uname'
say namespaces ls -l /proc/self/ns
say fifo ls -ln /dev/fifo /dev/other
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A runtime for all tests of the module: none of them leaves a container, and all nothing else."""
    leaks.BASE = tmp_path_factory.getbasetemp()
    with leaks.nothing_left(), Runtime(tmp_path_factory.mktemp("oci")) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """Instead of a look before and after each test: `wide` takes one for all, they are many and short."""


@pytest.fixture
def oci(wide: Runtime) -> Iterator[Runtime]:
    yield wide
    for name in wide.ids():
        wide.ask("delete", "--force", name)
    reap()


@pytest.fixture(scope="module")
def inside(wide: Runtime) -> dict[str, str]:
    """What one container shows that has something of everything: section -> text."""
    for name in ("masked", "masked-dir", "read-only", "m", "source", "tmpfs"):
        (wide.rootfs / name).mkdir()
    (wide.rootfs / "masked/file").write_text("secret\n")
    (wide.rootfs / "masked-dir/file").write_text("secret\n")
    (wide.rootfs / "source/file").write_text("bound\n")
    said = wide.run(
        ["sh", "-c", PROBE],
        name="inside",
        hostname="a-host",
        domainname="a-domain",
        annotations={"org.example.unknown": ""},
        root={"path": "rootfs", "readonly": True},
        namespaces=[*NEW, "time"],
        process={
            "cwd": "/var/made",
            "env": ["PATH=/bin", "A=1", "EMPTY=", "SPACES= a b ", "EQUALS=a=b"],
            "user": {"uid": 0, "gid": 0, "umask": 0o27, "additionalGids": [5, 29, 1234]},
            "capabilities": dict.fromkeys(
                ("bounding", "effective", "permitted", "inheritable", "ambient"), FEW
            ),
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": 1000, "hard": 2000},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1},
            ],
            "noNewPrivileges": True,
            "oomScoreAdj": 123,
        },
        mounts=[
            mount("/m", "tmpfs", ["size=64k"]),
            mount("/m/n", "tmpfs", ["size=64k"]),
            bind(wide.rootfs / "source", "/m/n", "ro"),
            mount("/tmpfs", "tmpfs", ["nosuid", "nodev", "noexec", "size=64k", "mode=1770"]),
        ],
        linux={
            "timeOffsets": {"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 5, "nanosecs": 6}},
            "sysctl": {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4321"},
            "maskedPaths": ["/masked/file", "/masked-dir", "/proc/kcore", "/not/there"],
            "readonlyPaths": ["/read-only", "/proc/sys", "/not/there"],
            "devices": [
                {"type": "p", "path": "/dev/fifo", "fileMode": 0o640, "uid": 7, "gid": 8},
                {"type": "c", "path": "/dev/other", "major": 1, "minor": 3, "fileMode": 0o600},
            ],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 40},
                    {"names": ["no_such_call_anywhere"], "action": "SCMP_ACT_KILL_PROCESS"},
                    {
                        "names": ["chmod", "fchmodat"],
                        "action": "SCMP_ACT_ERRNO",
                        "args": [{"index": 1, "value": 0o700, "op": "SCMP_CMP_EQ"}],
                    },
                ],
            },
        },
        unknownProperty={"is": "ignored"},
    )
    assert said.code == 0, said
    sections = re.split(r"^== (\S+)\n", said.out, flags=re.MULTILINE)[1:]
    return dict(zip(sections[::2], sections[1::2], strict=True))


def mounts(inside: Mapping[str, str]) -> list[tuple[str, set[str], str, str, set[str]]]:
    """(where, options, type, source, options of the filesystem), in order."""
    rows = []
    for line in inside["mountinfo"].splitlines():
        before, _, after = line.partition(" - ")
        kind, source, options = after.split(" ")
        fields = before.split(" ")
        rows.append((fields[4], set(fields[5].split(",")), kind, source, set(options.split(","))))
    return rows


def at(inside: Mapping[str, str], place: str) -> tuple[str, set[str], str, str, set[str]]:
    return [row for row in mounts(inside) if row[0] == place][-1]


# --- config.md: process


def test_the_working_directory_is_as_asked_and_made_if_missing(inside: Mapping[str, str]) -> None:
    """config.md, Process, cwd."""
    assert inside["cwd"] == "/var/made\n"


def test_the_environment_is_exact(inside: Mapping[str, str]) -> None:
    """config.md, Process, env: as environ of POSIX."""
    lines = inside["env"].splitlines()
    assert {"PATH=/bin", "A=1", "EMPTY=", "SPACES= a b ", "EQUALS=a=b"} <= set(lines)
    assert {line.partition("=")[0] for line in lines} - {"PWD", "SHLVL", "_", "OLDPWD"} == {
        "PATH", "A", "EMPTY", "SPACES", "EQUALS", "HOME"
    }  # fmt: skip


def test_the_arguments_are_exact(oci: Runtime) -> None:
    """config.md, POSIX process, args: as argv of execvp."""
    args = ["sh", "-c", "cat /proc/$$/cmdline; true", "a b", "", "ü", "-x"]
    assert oci.run(args).out.split("\0")[:-1] == args


def test_resource_limits(inside: Mapping[str, str]) -> None:
    """config.md, POSIX process, rlimits: soft and hard."""
    assert re.search(r"Max open files +1000 +2000 ", inside["limits"])
    assert re.search(r"Max core file size +0 +unlimited ", inside["limits"])


@pytest.mark.parametrize(
    "limits",
    [
        [{"type": "RLIMIT_NO_SUCH", "soft": 1, "hard": 1}],
        [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}] * 2,
        [{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}],
    ],
)
def test_limits_that_make_no_sense_are_an_error(oci: Runtime, limits: list[object]) -> None:
    """config.md, POSIX process, rlimits: unknown types and those that stand there twice."""
    oci.bundle(["true"], process={"rlimits": limits})
    assert "RLIMIT" in oci.refused("run", "c")


def test_no_new_privileges(inside: Mapping[str, str]) -> None:
    """config.md, Linux process, noNewPrivileges."""
    assert "NoNewPrivs:\t1\n" in inside["status"]


def test_the_five_capability_sets(inside: Mapping[str, str]) -> None:
    """config.md, Linux process, capabilities: each set as it stands there."""
    wanted = capabilities.mask(FEW)
    found = {line[:6]: int(line[8:], 16) for line in inside["status"].splitlines() if line[:3] == "Cap"}
    assert found == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), wanted)


def test_an_unknown_capability_is_an_error_and_from_1_1_on_a_warning(oci: Runtime) -> None:
    """config.md, Linux process, capabilities: what the kernel has no name for."""
    asked = {"capabilities": {"bounding": ["CAP_TEST"]}}
    oci.bundle(["true"], process=asked)
    assert "CAP_TEST" in oci.refused("run", "c")
    said = oci.run(["true"], process=asked, ociVersion="1.1.0")
    assert said.code == 0
    assert "CAP_TEST" in said.err


def test_a_capability_that_cannot_be_granted_is_a_warning(oci: Runtime) -> None:
    """config.md, Linux process, capabilities: logged, and no failure."""
    every = {kind: list(capabilities.NAMES) for kind in ("bounding", "effective", "permitted")}
    said = oci.run(["true"], process={"capabilities": every})
    assert said.code == 0
    lacking = [name for name in capabilities.NAMES if not capabilities.mask([name]) & capabilities.held()]
    assert all(f"{name} cannot be granted" in said.err for name in lacking)


def test_the_oom_score(inside: Mapping[str, str]) -> None:
    """config.md, Linux process, oomScoreAdj."""
    assert inside["oom"] == "123\n"


def test_the_oom_score_stays_when_it_is_not_set(oci: Runtime) -> None:
    """config.md, Linux process, oomScoreAdj: the runtime must not touch it."""
    ours = Path("/proc/self/oom_score_adj")
    before = ours.read_text()
    ours.write_text("77")
    try:
        assert oci.shell("cat /proc/self/oom_score_adj") == "77\n"
    finally:
        ours.write_text(before)


def test_user_groups_and_mask(oci: Runtime, inside: Mapping[str, str]) -> None:
    """config.md, User: uid, gid, umask, additionalGids."""
    assert inside["umask"] == "0027\n"
    assert re.search(r"^Groups:\t(0 )?5 29 1234 $", inside["status"], re.MULTILINE)
    script = "grep -E '^(Uid|Gid|Groups):' /proc/self/status"
    said = oci.shell(script, process={"user": {"uid": 4321, "gid": 44, "additionalGids": [5]}})
    uid, gid, groups = (line.split()[1:] for line in said.splitlines())
    assert (uid, gid) == (["4321"] * 4, ["44"] * 4)
    assert {"5"} <= set(groups) <= {"5", "44"}


@pytest.mark.parametrize("key", ["apparmorProfile", "selinuxLabel"])
def test_a_label_without_its_module_is_an_error(oci: Runtime, key: str) -> None:
    """config.md, Linux process: never silently without the protection that was asked for."""
    modules = Path("/sys/kernel/security/lsm")
    if modules.exists() and key[:7] in modules.read_text():
        pytest.skip("this machine has the module")
    oci.bundle(["true"], process={key: "some_profile"})
    assert key in oci.refused("run", "c")


def test_scheduler_and_io_priority(oci: Runtime) -> None:
    """config.md, Linux process, scheduler and ioPriority."""
    said = oci.shell(
        "cat /proc/self/stat; ionice -p $$",
        process={
            "scheduler": {"policy": "SCHED_BATCH", "nice": 7},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6},
        },
    )
    fields = said.splitlines()[0].rpartition(") ")[2].split()
    assert (fields[16], fields[38]) == ("7", "3")  # nice, and SCHED_BATCH (sched.h)
    assert said.splitlines()[1] == "best-effort: prio 6"


def test_without_a_process_there_is_a_container_that_cannot_start(oci: Runtime) -> None:
    """config.md, Process: needed when start is called, which must then fail."""
    document = oci.config(["true"])
    del document["process"]
    oci.write(document)
    oci.do("create", "c")
    assert oci.status("c") == "created"
    oci.refused("start", "c")
    oci.wait("c")
    oci.do("delete", "c")


# --- config.md: root, mounts, names


def test_a_read_only_root(inside: Mapping[str, str], oci: Runtime) -> None:
    """config.md, Root, readonly; false is writable."""
    assert "Read-only file system" in inside["root"]
    assert not (oci.rootfs / "new").exists()
    oci.shell("echo x > /writable")
    assert (oci.rootfs / "writable").exists()


@pytest.mark.parametrize("path", ["nowhere", "config.json", "link"])
def test_the_root_has_to_be_a_directory(oci: Runtime, path: str) -> None:
    """config.md, Root, path; through a link it could be any."""
    with contextlib.suppress(FileExistsError):
        (oci.home / "link").symlink_to("/")
    oci.bundle(["true"], root={"path": path})
    assert "root.path" in oci.refused("run", "c")


def test_the_root_may_be_absolute_or_the_bundle_itself(oci: Runtime) -> None:
    """config.md, Root, path: absolute, or relative to the bundle."""
    assert oci.shell("echo hi", root={"path": str(oci.rootfs)}) == "hi\n"
    oci.bundle(["sh", "-c", "ls /rootfs/bin/sh"], root={"path": "."})
    for name in ("bin", "etc"):
        (oci.home / name).symlink_to(f"rootfs/{name}")
    try:
        assert oci.do("run", "c") == "/rootfs/bin/sh\n"
    finally:
        for entry in oci.home.iterdir():
            if entry.name not in ("rootfs", "config.json", "link"):
                entry.unlink() if entry.is_symlink() else entry.rmdir()


def test_mounts_are_made_in_their_order(inside: Mapping[str, str]) -> None:
    """config.md, Mounts: later ones cover earlier ones."""
    assert inside["inner"] == "bound\nn\n"
    places = [row[0] for row in mounts(inside)]
    # By their numbers; that of a bind is older than its place.
    wanted = ["/proc", "/dev", "/dev/pts", "/sys", "/dev/mqueue", "/dev/shm", "/m", "/tmpfs"]
    assert [place for place in places if place in wanted] == wanted


def test_type_source_and_options_of_mounts(inside: Mapping[str, str]) -> None:
    """config.md, Mounts: each option shows in the mount or in its filesystem."""
    assert at(inside, "/proc")[2:4] == ("proc", "proc")
    assert at(inside, "/sys")[1] >= {"ro", "nosuid", "nodev", "noexec"}
    assert any(place == "/m/n" and "ro" in options for place, options, *_ in mounts(inside))
    _, options, kind, source, data = at(inside, "/tmpfs")
    assert (kind, source) == ("tmpfs", "tmpfs")
    assert options >= {"nosuid", "nodev", "noexec"}
    assert data >= {"size=64k", "mode=1770"}
    assert "1770 0" in inside["tmpfs"]
    assert re.search(r" 65536 \S+ +\S+ +\S+ +/tmpfs/x", inside["tmpfs"]), inside["tmpfs"]
    assert at(inside, "/dev/pts")[4] >= {"gid=5", "mode=620", "ptmxmode=666"}


def test_host_and_domain_name(inside: Mapping[str, str]) -> None:
    """config.md, Hostname and Domainname."""
    assert (inside["hostname"], inside["domainname"]) == ("a-host\n", "a-domain\n")


@pytest.mark.parametrize(
    "change", [{"ociVersion": "invalid"}, {"hostname": 1}, {"linux": {"namespaces": [{"type": "blue"}]}}]
)
def test_invalid_values_are_an_error(oci: Runtime, change: dict[str, object]) -> None:
    """config.md, Valid values."""
    oci.write({**oci.config(["true"]), **change})
    assert next(iter(change)) in oci.refused("create", "c")
    assert oci.ids() == []


def test_unknown_properties_and_annotations_are_none(inside: Mapping[str, str]) -> None:
    """config.md, Extensibility and Annotations: the container of `inside` has both."""
    assert inside


# --- config-linux.md: what every container has


def test_default_devices_and_links(inside: Mapping[str, str]) -> None:
    """config-linux.md, Default devices; runtime-linux.md, Dev symbolic links."""
    rows = {line.split()[-1]: line for line in inside["devices"].splitlines() if line.startswith("c")}
    for name, numbers in {"null": "1,   3", "zero": "1,   5", "full": "1,   7", "random": "1,   8",
                          "urandom": "1,   9", "tty": "5,   0"}.items():  # fmt: skip
        assert rows[name].startswith("crw-rw-rw-")
        assert numbers in rows[name]
    links = dict(re.findall(r"(\S+) -> (\S+)", inside["devices"]))
    wanted = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1"}
    assert links == {**wanted, "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}


def test_devices_of_the_configuration(inside: Mapping[str, str]) -> None:
    """config-linux.md, Devices: type, numbers, mode, owner."""
    fifo, other = sorted(inside["fifo"].splitlines(), key=lambda line: line.split()[-1])
    assert re.match(r"prw-r----- +1 7 +8 ", fifo)
    assert re.match(r"crw------- +1 0 +0 +1, +3 ", other)


def test_a_device_where_another_file_is_is_an_error(oci: Runtime) -> None:
    """config-linux.md, Devices: a file that does not match."""
    device = {"type": "c", "path": "/etc/passwd", "major": 1, "minor": 3}
    oci.bundle(["true"], linux={"devices": [device]})
    assert "/etc/passwd" in oci.refused("create", "c")


def test_only_standard_descriptors_are_open(inside: Mapping[str, str]) -> None:
    """runtime-linux.md, File descriptors: the fourth is the directory that ls reads."""
    assert inside["fds"].split() == ["0", "1", "2", "3"]


def test_masked_paths_cannot_be_read(inside: Mapping[str, str]) -> None:
    """config-linux.md, Masked paths: files and directories; what isn't there is no error."""
    assert inside["masked"] == ""
    assert inside["masked-dir"] == ""


def test_read_only_paths_cannot_be_written(inside: Mapping[str, str]) -> None:
    """config-linux.md, Readonly paths."""
    assert inside["read-only"].count("Read-only file system") >= 2
    assert inside["read-only"].endswith("still\n")


def test_mounts_are_made_in_the_order_of_their_entries(oci: Runtime) -> None:
    """config.md, Mounts: "in the listed order"; mountinfo shows the order of making since Linux 6.8."""
    if tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 15):
        pytest.skip("what is detached can't be cloned, so shared ones come first")
    source = oci.rootfs / "etc"
    said = oci.shell(
        "cut -d' ' -f5 /proc/self/mountinfo | grep ^/o/",
        mounts=[
            mount("/o/1", "tmpfs", []),
            bind(source, "/o/2"),
            mount("/o/3", "tmpfs", []),
            bind(source, "/o/4", "shared"),
            mount("/o/5", "tmpfs", []),
            bind(source, "/o/6", "runbindable"),
        ],
    )
    assert said.split() == [f"/o/{number}" for number in range(1, 7)]


@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
def test_paths_are_absolute(oci: Runtime, key: str) -> None:
    """config-linux.md, Masked and Readonly paths."""
    oci.bundle(["true"], linux={key: ["etc/passwd"]})
    assert key in oci.refused("create", "c")


@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
def test_paths_may_be_of_any_type(oci: Runtime, key: str) -> None:
    """config-linux.md, Masked and Readonly paths: also nodes and pipes."""
    paths = []
    for kind, mode in {"b": 0o060666, "c": 0o020666, "p": 0o010666}.items():
        place = oci.rootfs / f"{key}-{kind}"
        os.mknod(place, mode)
        paths.append(f"/{place.name}")
    look = f"cat {' '.join(paths)};" if key == "maskedPaths" else ""
    assert oci.shell(f"{look} echo end", linux={key: paths}) == "end\n"


def test_settings_of_the_kernel(inside: Mapping[str, str]) -> None:
    """config-linux.md, Sysctl."""
    assert inside["sysctl"] == "1\n4321\n"


@pytest.mark.parametrize("key", ["vm.swappiness", "net.ipv4.ip_forward"])
def test_settings_of_the_whole_machine_are_refused(oci: Runtime, key: str) -> None:
    """config-linux.md, Sysctl: a container changes its own namespaces alone."""
    oci.bundle(["true"], namespaces=["mount", "pid"], mounts=[], linux={"sysctl": {key: "1"}})
    assert key in oci.refused("create", "c")


def test_system_calls_are_filtered(inside: Mapping[str, str]) -> None:
    """config-linux.md, Seccomp: actions, errnoRet, arguments; unknown names are skipped."""
    assert "mkdir: can't create directory '/blocked': Too many levels of symbolic links" in inside["blocked"]
    assert "chmod: /etc/passwd: Operation not permitted" in inside["blocked"]
    assert inside["blocked"].endswith("Linux\n")


def test_clocks_of_a_time_namespace(inside: Mapping[str, str]) -> None:
    """config-linux.md, Time offsets."""
    assert re.search(r"boottime +1000000 +0", inside["timens"])
    assert re.search(r"monotonic +5 +6", inside["timens"])
    assert int(inside["clock"]) > 1_000_000


# --- config-linux.md: namespaces


LINKS = {"mount": "mnt", "network": "net"}


def space(kind: str, pid: int | str = "self") -> str:
    return os.readlink(f"/proc/{pid}/ns/{LINKS.get(kind, kind)}")


def test_namespaces_are_new_unless_they_are_not_listed(oci: Runtime) -> None:
    """config-linux.md, Namespaces: listed without a path is new, not listed is the runtime's own."""
    oci.bundle(["sleep", "9"])
    oci.do("create", "new")
    document = oci.config(["sleep", "9"], namespaces=["mount"], mounts=[])
    document["linux"]["cgroupsPath"] = f"/pystack-b/{os.getpid()}"
    oci.write(document)
    oci.do("create", "old")
    for kind in (*NEW, "user", "time"):
        new, old = (space(kind, oci.read_state(name)["pid"]) for name in ("new", "old"))
        assert (new != space(kind)) == (kind in NEW), kind
        assert (old != space(kind)) == (kind == "mount"), kind


@pytest.mark.parametrize("kinds", [["ipc", "uts", "network", "pid", "cgroup"], ["mount"]])
def test_namespaces_are_joined_by_path(oci: Runtime, kinds: list[str]) -> None:
    """config-linux.md, Namespaces, path."""
    flags = [f"--{LINKS.get(kind, kind).replace('mnt', 'mount')}" for kind in kinds]
    holder = subprocess.Popen(["unshare", *flags, "--fork", "sleep", "60"], start_new_session=True)
    try:
        paths = {
            kind: f"/proc/{holder.pid}/ns/{LINKS.get(kind, kind)}"
            + ("_for_children" if kind == "pid" else "")
            for kind in kinds
        }

        def is_there(path: str, kind: str) -> bool:
            with contextlib.suppress(FileNotFoundError):
                return os.readlink(path) != space(kind)
            return False

        assert until(lambda: all(is_there(path, kind) for kind, path in paths.items()))
        spaces = [name for name in ("mount", "pid", "uts") if name not in kinds]
        joined = [{"type": kind, "path": path} for kind, path in paths.items()]
        oci.bundle(["sleep", "9"], namespaces=[*spaces, *joined], mounts=[])
        oci.do("create", "c")
        pid = oci.read_state("c")["pid"]
        for kind, path in paths.items():
            assert space(kind, pid) == os.readlink(path), kind
        oci.do("delete", "-f", "c")
    finally:
        os.killpg(holder.pid, 9)
        holder.wait()


@pytest.mark.parametrize(
    "entries",
    [
        [{"type": "uts", "path": "/proc/self/ns/net"}],
        [{"type": "uts", "path": "/etc/passwd"}],
        [{"type": "uts", "path": "proc/self/ns/uts"}],
        [{"type": "uts", "path": "/no/where"}],
        [{"type": "uts"}, {"type": "uts"}],
    ],
)
def test_a_namespace_of_another_kind_or_twice_is_an_error(
    oci: Runtime, entries: list[dict[str, str]]
) -> None:
    """config-linux.md, Namespaces: the type has to match, and each stands there once."""
    oci.bundle(["true"], namespaces=["mount", "pid", *entries], mounts=[])
    oci.refused("create", "c")
    assert oci.ids() == []


def test_id_maps_of_a_user_namespace(oci: Runtime) -> None:
    """config-linux.md, User namespace mappings."""
    maps = [
        {"containerID": 0, "hostID": 100_000, "size": 1000},
        {"containerID": 5000, "hostID": 7, "size": 1},
    ]
    oci.path.chmod(0o755)  # root of the container is nobody here
    said = oci.shell(
        "cat /proc/self/uid_map /proc/self/gid_map; id -u",
        namespaces=[*NEW, "user"],
        linux={"uidMappings": maps, "gidMappings": maps[:1]},
    )
    words = said.split()
    assert words == ["0", "100000", "1000", "5000", "7", "1", "0", "100000", "1000", "0"]


# --- config-linux.md: propagation, personality


@pytest.mark.parametrize(
    ("mode", "shown"), [("shared", "shared:"), ("slave", ""), ("private", ""), ("unbindable", "unbindable")]
)
def test_propagation_of_the_root(oci: Runtime, mode: str, shown: str) -> None:
    """config-linux.md, Rootfs mount propagation."""
    said = oci.shell("grep ' / / \\| / rw' /proc/self/mountinfo | head -1", linux={"rootfsPropagation": mode})
    optional = said.partition(" - ")[0].split(" ")[6:]
    assert (any(word.startswith(shown) for word in optional)) if shown else optional == []


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_filter_may_refuse_what_the_runtime_itself_calls(oci: Runtime, *, no_new_privileges: bool) -> None:
    """config-linux.md, Seccomp: it is the program's. Without noNewPrivileges, capabilities go after it."""
    names = ["close_range", "umask", "setresuid", "sendmsg", "close", "fcntl", "chdir", "setgroups", "poll"]
    names += ["capset", "prctl"] if no_new_privileges else []
    oci.bundle(
        ["sleep", "9"],
        process={"noNewPrivileges": no_new_privileges},
        linux={
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
            }
        },
    )
    oci.do("create", "c")
    oci.do("start", "c")
    assert oci.status("c") == "running"
    said = oci.ask("exec", "c", "grep", "Seccomp:", "/proc/self/status")
    assert said.out == "Seccomp:\t2\n", said


def test_personality(oci: Runtime) -> None:
    """config-linux.md, Personality."""
    if os.uname().machine != "x86_64":
        pytest.skip("what a 32-bit personality is called depends on the machine")
    assert oci.shell("uname -m", linux={"personality": {"domain": "LINUX32"}}) == "i686\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("intelRdt", {"closID": "x"}),
        ("memoryPolicy", {"mode": "MPOL_BEST"}),
    ],
)
def test_what_this_machine_or_we_lack_is_an_error_by_name(oci: Runtime, key: str, value: object) -> None:
    """config.md, Valid values: unsupported ones."""
    oci.bundle(["true"], linux={key: value})
    assert key in oci.refused("create", "c")


def test_what_can_change_nothing_is_left_out_with_a_warning(oci: Runtime) -> None:
    """config.md, Mounts: data of a bind mount, which mount(2) ignores; a label in a kernel without SELinux."""
    if "selinuxfs" in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has SELinux")
    said = oci.run(
        ["cat", "/x/passwd"],
        mounts=[bind(oci.rootfs / "etc", "/x", "mode=755", "size=1k", "nosuid")],
        linux={"mountLabel": "system_u:object_r:x:s0"},
    )
    assert said.code == 0, said
    assert said.out == (oci.rootfs / "etc/passwd").read_text()
    assert said.err.count("level=warning") == 3
    assert re.findall(r"config.json: (.*), ignored", said.err) == [
        "mounts[6].options: 'mode=755' means nothing for a bind mount",
        "mounts[6].options: 'size=1k' means nothing for a bind mount",
        "linux.mountLabel: this kernel has no SELinux",
    ]


@pytest.mark.parametrize("word", ["raed-only", "idmap=uids=0-1000-1"])
def test_an_unknown_word_is_no_option_of_a_bind_mount(oci: Runtime, word: str) -> None:
    """config.md, Valid values; crun's idmap= means something."""
    oci.bundle(["true"], mounts=[bind(oci.rootfs / "etc", "/x", word)])
    assert word in oci.refused("create", "c")


# --- config-linux.md: control groups


def test_where_the_control_group_is(oci: Runtime) -> None:
    """config-linux.md, Cgroups path: absolute counts from the mount; relative from the same place always."""
    seen = []
    for path in (f"/pystack-abs/{os.getpid()}", "pystack-rel/x"):
        oci.bundle(["sleep", "9"], linux={"cgroupsPath": path})
        oci.do("create", "c")
        lines = Path(f"/proc/{oci.read_state('c')['pid']}/cgroup").read_text().splitlines()
        seen.append({line.split(":", 2)[2] for line in lines if "name=" not in line})
        oci.do("delete", "-f", "c")
    assert seen == [{f"/pystack-abs/{os.getpid()}"}, {"/pystack-oci/pystack-rel/x"}]


def test_what_was_there_before_is_not_deleted(oci: Runtime) -> None:
    """runtime.md, Delete: only what create made."""
    group = CONTROLLERS / "pids/pystack-before" if V1 else CONTROLLERS / "pystack-before"
    group.mkdir()
    try:
        oci.bundle(["sleep", "9"], linux={"cgroupsPath": "/pystack-before/c"})
        oci.do("create", "c")
        oci.do("delete", "-f", "c")
        assert group.is_dir()
        assert not (group / "c").exists()
        oci.bundle(["sleep", "9"], linux={"cgroupsPath": "/pystack-before"})
        oci.do("create", "c")
        oci.do("delete", "-f", "c")
        assert group.is_dir()
    finally:
        group.rmdir()


RESOURCES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "memory": (
        {"limit": 50593792, "reservation": 40000000 // 4096 * 4096, "swap": 101187584, "swappiness": 30},
        {
            "memory/memory.limit_in_bytes": "50593792",
            "memory/memory.soft_limit_in_bytes": str(40000000 // 4096 * 4096),
            "memory/memory.memsw.limit_in_bytes": "101187584",
            "memory/memory.swappiness": "30",
        },
    ),
    "memory without killer": (
        {"limit": 50593792, "disableOOMKiller": True, "kernelTCP": 50593792},
        {
            "memory/memory.oom_control": "oom_kill_disable 1",
            "memory/memory.kmem.tcp.limit_in_bytes": "50593792",
        },
    ),
    "cpu": (
        {"shares": 2048, "quota": 200000, "period": 500000, "cpus": "0", "mems": "0"},
        {
            "cpu/cpu.shares": "2048",
            "cpu/cpu.cfs_quota_us": "200000",
            "cpu/cpu.cfs_period_us": "500000",
            "cpuset/cpuset.cpus": "0",
            "cpuset/cpuset.mems": "0",
        },
    ),
    "cpu empty": ({}, {}),
    "pids": ({"limit": 1000}, {"pids/pids.max": "1000"}),
}


@pytest.mark.skipif(not V1, reason="the files of cgroup v1; v2's are in tests/kernel/test_oci_limits.py")
@pytest.mark.parametrize("what", RESOURCES)
def test_limits(oci: Runtime, what: str) -> None:
    """config-linux.md, Memory, CPU and PIDs: each value in its control file."""
    wanted, files = RESOURCES[what]
    oci.bundle(
        ["sleep", "9"],
        linux={"cgroupsPath": "/pystack-limits", "resources": {what.partition(" ")[0]: wanted}},
    )
    oci.do("create", "c")
    for file, value in files.items():
        controller, _, name = file.partition("/")
        assert (CONTROLLERS / controller / "pystack-limits" / name).read_text().startswith(value), file


@pytest.mark.skipif(not V1, reason="the files of cgroup v1")
def test_limits_of_devices(oci: Runtime) -> None:
    """config-linux.md, Allowed device list: in its order; seen in the list, and by opening."""
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
        {"allow": True, "type": "b", "major": 8, "minor": 20, "access": "rw"},
        {"allow": True, "type": "b", "major": 10, "minor": 200, "access": "r"},
    ]
    kmsg = {"type": "c", "path": "/dev/kmsg", "major": 1, "minor": 11}
    oci.bundle(
        ["sh", "-c", "echo > /dev/null && cat /dev/kmsg; sleep 9"],
        linux={"cgroupsPath": "/pystack-limits", "resources": {"devices": rules}, "devices": [kmsg]},
    )
    oci.do("create", "c")
    listed = (CONTROLLERS / "devices/pystack-limits/devices.list").read_text().splitlines()
    assert {"c 10:229 rwm", "b 8:20 rw", "b 10:200 r", "c 1:3 rwm"} <= set(listed)
    assert "a *:* rwm" not in listed
    oci.do("delete", "-f", "c")
    said = oci.ask("run", "c") if oci.bundle(
        ["cat", "/dev/kmsg"], linux={"resources": {"devices": rules}, "devices": [kmsg]}
    ) else None  # fmt: skip
    assert said is not None
    assert "Operation not permitted" in said.err


def _controllers() -> set[str]:
    """Those that are mounted, in whichever version."""
    files = (CONTROLLERS / "cgroup.controllers", CONTROLLERS / "unified/cgroup.controllers")
    v2 = {word for file in files if file.exists() for word in file.read_text().split()}
    return v2 | {entry.name for entry in CONTROLLERS.iterdir()}


def test_a_limit_whose_controller_is_missing_is_an_error(oci: Runtime) -> None:
    """config.md, Valid values: never run without a limit that was asked for."""
    wanted: list[dict[str, object]] = [{"unified": {"no.such_file": "1"}}, {"unified": {"../x": "1"}}]
    if "hugetlb" not in _controllers():
        wanted.append({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]})
    if "net_cls" not in _controllers():
        wanted.append({"network": {"classID": 1}})
    for resources in wanted:
        oci.bundle(["true"], linux={"resources": resources})
        oci.refused("create", "c")
        assert oci.ids() == []


# --- runtime.md: the operations (their order is in tests/kernel/test_oci.py)


@pytest.mark.parametrize("operation", ["state", "create", "start", "kill", "delete"])
def test_an_operation_without_an_id_is_an_error(oci: Runtime, operation: str) -> None:
    """runtime.md, Operations."""
    oci.refused(operation)


def test_no_error_leaves_anything(oci: Runtime) -> None:
    """runtime.md, Errors: as if the operation had never been tried."""
    before = sorted(os.listdir("/proc/self/fd")), (Path("/proc/self/mountinfo")).read_text()
    oci.bundle(["true"], mounts=[mount("/x", "tmpfs", ["size=nonsense"])])
    assert "/x" in oci.refused("create", "c")
    assert oci.ids() == []
    assert (sorted(os.listdir("/proc/self/fd")), (Path("/proc/self/mountinfo")).read_text()) == before


def test_what_the_kit_grants_is_dockers(oci: Runtime) -> None:
    """The bounding set of the other tests, so that they mean what they say."""
    said = oci.shell("grep CapBnd /proc/self/status")
    assert int(said.split()[1], 16) == capabilities.mask(DOCKER_CAPABILITIES)


def test_the_state_is_json_of_the_pattern(oci: Runtime) -> None:
    """runtime.md, State."""
    oci.bundle(["sleep", "9"], annotations={"k": "v"})
    oci.do("create", "c")
    state = json.loads(oci.do("state", "c"))
    assert {"ociVersion", "id", "status", "pid", "bundle", "annotations"} <= set(state)
    assert state["annotations"] == {"k": "v"}
