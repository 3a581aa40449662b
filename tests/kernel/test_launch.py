"""What a started container sees and may do, on the real kernel."""

from __future__ import annotations

import os
import signal
import stat
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from orchestrator.kernel import capabilities, cgroups
from tests.kit import leaks
from tests.kit.keeper import DOCKER_CAPABILITIES, NEW, Machine, Refused, bind, mount, until

pytestmark = pytest.mark.kernel


@pytest.fixture
def machine(state_root: Path) -> Iterator[Machine]:
    with Machine(state_root) as machine:
        yield machine


def refusal(machine: Machine, args: list[str], **bundle: object) -> Refused:
    """The error of a start that must not succeed."""
    with pytest.raises(Refused) as refused:
        machine.start(args, **bundle)
    return refused.value


# --- the program


def test_command_not_found_is_127(machine: Machine) -> None:
    error = refusal(machine, ["foo"])
    assert (error.exit_code, error.message) == (127, 'exec: "foo": executable file not found in $PATH')
    error = refusal(machine, ["/bin/foo"])
    assert (error.exit_code, error.message) == (127, 'exec: "/bin/foo": no such file or directory')


def test_not_executable_is_126(machine: Machine) -> None:
    (machine.image / "bin/data").write_text("x")
    (machine.image / "bin/data").chmod(0o644)
    (machine.image / "bin/empty").write_text("")
    (machine.image / "bin/empty").chmod(0o755)
    assert refusal(machine, ["data"]).exit_code == 126
    assert refusal(machine, ["/bin/data"]).message == 'exec: "/bin/data": permission denied'
    assert refusal(machine, ["/etc"]).exit_code == 126
    assert refusal(machine, ["empty"]).message == 'exec: "empty": exec format error'
    assert refusal(machine, []).exit_code == 127


def test_the_path_of_the_container_is_searched(machine: Machine) -> None:
    (machine.image / "opt").mkdir()
    (machine.image / "opt/tool").write_text("#!/bin/sh\necho tool $0\n")
    (machine.image / "opt/tool").chmod(0o755)
    assert machine.outcome(["tool"], process={"env": ["PATH=/nowhere:/opt"]})[1] == "tool /opt/tool\n"


def test_the_environment_is_exact_and_a_later_value_wins(machine: Machine) -> None:
    env = ["PATH=/bin", "A=1", "EMPTY=", "A=2=3"]
    said = machine.outcome(["cat", "/proc/self/environ"], process={"env": env})[1]
    assert sorted(said.split("\0")[:-1]) == ["A=2=3", "EMPTY=", "HOME=/root", "PATH=/bin"]


def test_a_value_too_long_is_named_but_not_shown(machine: Machine) -> None:
    error = refusal(machine, ["true"], process={"env": ["PATH=/bin", "SECRET=" + "x" * 140_000]})
    assert "SECRET" in error.message
    assert "xxx" not in error.message
    assert error.errno == 7  # E2BIG


def test_the_working_directory_is_made(machine: Machine) -> None:
    assert machine.shell("pwd", process={"cwd": "/srv/app"}) == "/srv/app\n"
    assert (
        machine.shell("pwd", process={"cwd": "/srv/app"}, config={"root": {"readonly": True}}) == "/srv/app\n"
    )


@pytest.mark.parametrize("fd", range(3, 24))
def test_no_descriptor_leads_the_working_directory_out(machine: Machine, fd: int) -> None:
    """CVE-2024-21626: a directory of the host still open in the child, entered by its /proc name."""
    refusal(machine, ["true"], process={"cwd": f"/proc/self/fd/{fd}"})


def test_only_three_descriptors_are_open(machine: Machine) -> None:
    # The fourth is the directory that ls itself reads.
    assert machine.shell("ls /proc/self/fd").split() == ["0", "1", "2", "3"]
    # Of a process that opens nothing: a shell might still hold an end of its own pipes.
    run = machine.start(["sleep", "100"], name="one")
    assert machine.exec(run, ["ls", "/proc/1/fd"])[1].split() == ["0", "1", "2"]


def test_no_signal_is_ignored_or_blocked(machine: Machine) -> None:
    """CPython ignores SIGPIPE; a child would inherit that over execve."""
    text = machine.outcome(["cat", "/proc/self/status"])[1]
    status = dict(line.split(":\t") for line in text.splitlines() if ":\t" in line)
    assert int(status["SigIgn"], 16) == 0
    assert int(status["SigBlk"], 16) == 0


def test_a_new_session_and_umask_022(machine: Machine) -> None:
    said = machine.shell("umask; cut -d' ' -f6 /proc/self/stat; echo $$")
    assert said.split() == ["0022", "1", "1"]


def test_a_dead_reader_neither_stops_nor_ends_the_program(machine: Machine) -> None:
    """The program has its FIFOs open both ways: it can write when nobody reads."""
    script = "echo one; sleep 0.2; echo two || exit 5; sleep 0.2; exit 6"
    run = machine.start(["sh", "-c", script])
    again = os.open(run.bundle / "stdout", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    os.close(run.outputs[0])
    os.close(run.outputs[1])
    os.close(again)
    time.sleep(0.3)
    flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
    run.outputs = (os.open(run.bundle / "stdout", flags), os.open(run.bundle / "stderr", flags))
    assert run.wait() == 6
    assert run.output() == "one\ntwo\n"


def test_standard_output_can_be_opened_again_by_its_user(machine: Machine) -> None:
    assert machine.shell("echo hi > /dev/stdout", launch={"user": "app"}) == "hi\n"


def test_output_must_be_a_fifo(machine: Machine) -> None:
    (machine.root / "file").write_text("")
    error = refusal(machine, ["true"], launch={"stdout": str(machine.root / "file")})
    assert "not a FIFO" in error.message


def test_input_is_empty_without_a_fifo(machine: Machine) -> None:
    assert machine.shell("cat; readlink /proc/self/fd/0") == "/dev/null\n"


def test_oom_score(machine: Machine) -> None:
    assert machine.shell("cat /proc/self/oom_score_adj", process={"oomScoreAdj": 321}) == "321\n"


def test_rlimits(machine: Machine) -> None:
    limits = [
        {"type": "RLIMIT_NOFILE", "soft": 123, "hard": 456},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1},
    ]
    said = machine.shell("ulimit -n; ulimit -Hn; ulimit -c; ulimit -Hc", process={"rlimits": limits})
    assert said.split() == ["123", "456", "0", "unlimited"]
    # A new id each: what the first one set is not inherited by anybody.
    assert machine.shell("ulimit -n") != "123\n"


def test_a_limit_that_cannot_be_raised_is_named(machine: Machine) -> None:
    limits = [{"type": "RLIMIT_NOFILE", "soft": 2**40, "hard": 2**40}]
    assert "RLIMIT_NOFILE" in refusal(machine, ["true"], process={"rlimits": limits}).message
    assert (
        "RLIMIT_SPEED" in refusal(machine, ["true"], process={"rlimits": [{"type": "RLIMIT_SPEED"}]}).message
    )


# --- who it runs as


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root)"),
        ("app", "uid=1000(app) gid=1000(app) groups=29(audio),44(log),1000(app)"),
        ("1000", "uid=1000(app) gid=1000(app) groups=29(audio),44(log),1000(app)"),
        ("app:web", "uid=1000(app) gid=33(web) groups=33(web)"),
        ("4242", "uid=4242 gid=0(root) groups=0(root)"),
        ("4242:4343", "uid=4242 gid=4343 groups=4343"),
    ],
)
def test_users(machine: Machine, user: str, said: str) -> None:
    assert machine.shell("id", launch={"user": user}).strip() == said


def test_extra_groups(machine: Machine) -> None:
    said = machine.shell("id -G", launch={"user": "web", "groups": ["audio", "777"]})
    assert sorted(map(int, said.split())) == [29, 33, 44, 777]


@pytest.mark.parametrize(
    "user", ["nobody", "4294967296", "2147483648", "-1", "0x0", "1e3", " 0", "1000:", ":0", "a b"]
)
def test_users_that_are_refused(machine: Machine, user: str) -> None:
    """Out of range, or names that passwd doesn't have, although it has a trap for numbers taken as names."""
    with (machine.image / "etc/passwd").open("a") as file:
        file.write("4294967296:x:0:0::/:/bin/sh\n2147483648:x:0:0::/:/bin/sh\n")
    assert refusal(machine, ["id"], launch={"user": user}).step == "user"


def test_home_comes_from_passwd_unless_given(machine: Machine) -> None:
    assert machine.shell("echo $HOME", launch={"user": "app"}) == "/home/app\n"
    env = ["PATH=/bin", "HOME=/elsewhere"]
    assert machine.shell("echo $HOME", launch={"user": "app"}, process={"env": env}) == "/elsewhere\n"


def test_a_hostile_passwd_is_an_error_and_no_trap(machine: Machine) -> None:
    """A FIFO, a huge sparse file, a device: each is refused at once; a link out ends inside."""
    passwd = machine.image / "etc/passwd"
    passwd.unlink()
    os.mkfifo(passwd)
    assert "regular file" in refusal(machine, ["id"], launch={"user": "app"}).message
    passwd.unlink()
    passwd.write_bytes(b"")
    os.truncate(passwd, 4 << 30)
    assert "larger" in refusal(machine, ["id"], launch={"user": "app"}).message
    passwd.unlink()
    os.mknod(passwd, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    assert "regular file" in refusal(machine, ["id"], launch={"user": "app"}).message
    passwd.unlink()
    passwd.symlink_to("/proc/1/root/etc/passwd")
    assert refusal(machine, ["id"], launch={"user": "app"}).step == "user"
    passwd.unlink()
    assert machine.outcome(["true"])[0] == 0


# --- capabilities


def masks(text: str) -> dict[str, int]:
    return {line[:6]: int(line[8:], 16) for line in text.splitlines() if line.startswith("Cap")}


def test_capabilities_of_root(machine: Machine) -> None:
    found = masks(machine.shell("cat /proc/self/status"))
    wanted = capabilities.mask(DOCKER_CAPABILITIES)
    assert found == {"CapInh": 0, "CapPrm": wanted, "CapEff": wanted, "CapBnd": wanted, "CapAmb": 0}


def test_capabilities_of_a_user(machine: Machine) -> None:
    """Bounded as root is, but none in effect."""
    found = masks(machine.shell("cat /proc/self/status", launch={"user": "app"}))
    wanted = capabilities.mask(DOCKER_CAPABILITIES)
    assert found == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": wanted, "CapAmb": 0}


def test_ambient_capabilities(machine: Machine) -> None:
    kinds = ("bounding", "effective", "permitted", "inheritable", "ambient")
    one = {kind: ["CAP_NET_RAW"] for kind in kinds}
    found = masks(
        machine.shell("cat /proc/self/status", launch={"user": "app"}, process={"capabilities": one})
    )
    assert set(found.values()) == {capabilities.mask(["CAP_NET_RAW"])}


def test_what_this_machine_lacks_is_left_out(machine: Machine) -> None:
    names = list(capabilities.NAMES)
    everything = {"bounding": names, "effective": names, "permitted": names}
    found = masks(machine.shell("cat /proc/self/status", process={"capabilities": everything}))
    assert found["CapEff"] == masks(Path("/proc/self/status").read_text())["CapBnd"]


def test_an_unknown_capability_is_named(machine: Machine) -> None:
    error = refusal(machine, ["true"], process={"capabilities": {"bounding": ["CAP_FLY"]}})
    assert "CAP_FLY" in error.message


def test_no_new_privileges(machine: Machine) -> None:
    read = "grep NoNewPrivs /proc/self/status"
    assert machine.shell(read) == "NoNewPrivs:\t0\n"
    assert machine.shell(read, process={"noNewPrivileges": True}) == "NoNewPrivs:\t1\n"


def seccomp_filter(path: Path) -> str:
    """sethostname(2) fails with EPERM, all else is allowed: x86-64 170, aarch64 161."""
    number = 170 if os.uname().machine == "x86_64" else 161
    rows = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
    path.write_bytes(b"".join(struct.pack("HBBI", *row) for row in rows))
    return str(path)


@pytest.mark.parametrize("user", ["", "app"])
@pytest.mark.parametrize("sealed", [False, True])
def test_seccomp(machine: Machine, user: str, sealed: bool) -> None:
    """The compiled filter holds, with and without no_new_privs, for root and for a user."""
    program = seccomp_filter(machine.root / "filter")
    kept = {kind: [*DOCKER_CAPABILITIES, "CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    launch = {"seccomp": program, "user": user}
    process = {"noNewPrivileges": sealed, "capabilities": kept}
    script = "hostname changed || echo refused; grep -e Seccomp: -e CapEff -e CapInh /proc/self/status"
    said = machine.shell(script, launch=launch, process=process)
    assert "refused" in said
    assert "Seccomp:\t2" in said
    assert masks(said)["CapInh"] == 0
    assert masks(said)["CapEff"] == (0 if user else capabilities.mask(kept["bounding"]))


def test_a_filter_that_is_none_is_refused(machine: Machine) -> None:
    (machine.root / "filter").write_bytes(b"123")
    error = refusal(machine, ["true"], launch={"seccomp": str(machine.root / "filter")})
    assert "seccomp" in error.message


# --- the root


def test_writes_go_to_the_upper_layer(machine: Machine) -> None:
    machine.shell("echo changed > /etc/new; rm /etc/group", name="writer")
    upper = machine.root / "layers/writer/upper"
    assert (upper / "etc/new").read_text() == "changed\n"
    assert (machine.image / "etc/group").exists()
    assert not (machine.image / "etc/new").exists()


def test_layers_are_stacked_topmost_first(machine: Machine) -> None:
    top = machine.root / "top"
    (top / "etc").mkdir(parents=True)
    (top / "etc/passwd").write_text("top\n")
    piece = {"target": "", "lower": [str(top), str(machine.image)], "upper": str(machine.root / "u"),
             "work": str(machine.root / "w")}  # fmt: skip
    assert machine.shell("cat /etc/passwd; ls /bin/sh", launch={"root": [piece]}) == "top\n/bin/sh\n"


def test_a_root_of_several_overlays(machine: Machine) -> None:
    """As `x-rootfs: host` has it: a base and /usr from elsewhere, each with an upper layer that vanishes."""
    usr = machine.root / "usr"
    (usr / "share").mkdir(parents=True)
    (usr / "share/word").write_text("from elsewhere\n")
    pieces = [
        {
            "target": target,
            "lower": [str(lower)],
            "upper": str(machine.root / f"u{n}"),
            "work": str(machine.root / f"w{n}"),
        }
        for n, (target, lower) in enumerate([("", machine.image), ("usr", usr)])
    ]
    said = machine.shell(
        "cat /usr/share/word; echo x > /usr/share/new; ls /usr/share", launch={"root": pieces}
    )
    assert said == "from elsewhere\nnew\nword\n"
    assert (machine.root / "u1/share/new").exists()
    config = {"root": {"readonly": True}}
    said = machine.shell("touch /usr/y 2>&1 || touch /x 2>&1 || true", launch={"root": pieces}, config=config)
    assert said.count("Read-only file system") == 2


def test_forty_layers_with_long_names(machine: Machine) -> None:
    """More than the page of options that mount(2) has; names longer than fsconfig's strings."""
    layers = []
    for number in range(40):
        layer = machine.root / ("l" * 100) / ("m" * 100) / f"layer{number}"
        layer.mkdir(parents=True)
        (layer / f"file{number}").write_text("")
        layers.append(str(layer))
    piece = {"target": "", "lower": [*layers, str(machine.image)], "upper": str(machine.root / "u"),
             "work": str(machine.root / "w")}  # fmt: skip
    assert machine.shell("ls -d /file* | wc -l", launch={"root": [piece]}) == "40\n"


def test_a_root_is_used_again_after_a_kill(machine: Machine) -> None:
    """The mark that the kernel leaves on a volatile overlay doesn't stop the next run."""
    run = machine.start(["sh", "-c", "echo 1 > /kept; echo ready; sleep 100"], name="again")
    run.said("ready")
    run.kill()
    assert machine.client.exited("again")["exit_code"] == 137
    assert machine.shell("cat /kept", name="again") == "1\n"


def test_a_launcher_that_was_killed_while_it_took_the_mark_away_stops_no_later_one(machine: Machine) -> None:
    """The kernel's mark is a directory with a file in it: the file may be gone and the directory not."""
    run = machine.start(["sleep", "100"], name="half")
    run.kill()
    machine.client.exited("half")
    mark = machine.root / "layers" / "half" / "work" / "work" / "incompat" / "volatile"
    (mark / "dirty").unlink()
    assert mark.is_dir()
    assert machine.shell("echo up", name="half") == "up\n"


def test_a_read_only_root(machine: Machine) -> None:
    config = {"root": {"readonly": True}}
    said = machine.shell("touch /x 2>&1 || true; touch /dev/shm/y && echo shm", config=config)
    assert said == "touch: /x: Read-only file system\nshm\n"


def test_nothing_of_the_host_is_mounted(machine: Machine) -> None:
    """The old root is gone, not hidden."""
    places = [line.split()[4] for line in machine.shell("cat /proc/self/mountinfo").splitlines()]
    masked = {place for place in places if place.startswith(("/proc/", "/sys/"))}
    assert set(places) - masked == {"/", "/proc", "/dev", "/dev/pts", "/sys", "/dev/mqueue", "/dev/shm"}
    assert machine.shell("ls -a /..") == machine.shell("ls -a /", name="second")


def test_mounts_do_not_reach_the_host(machine: Machine) -> None:
    before = leaks.mount_points()
    machine.start(["sleep", "100"])
    assert leaks.mount_points() == before


# --- mounts


def test_bind_mounts(machine: Machine) -> None:
    """A directory and a file, writable and read-only, at places that are made."""
    data = machine.root / "data"
    data.mkdir()
    (data / "file").write_text("content\n")
    mounts = [
        bind(data, "/new/place"),
        bind(data, "/read", "ro", "nosuid"),
        bind(data / "file", "/etc/made.conf", "ro"),
    ]
    script = """
        cat /new/place/file /etc/made.conf
        echo more > /new/place/more; cat /read/more
        touch /read/x 2>&1 || true
        echo x 2>&1 > /etc/made.conf || true
        grep -c ' /read ro,nosuid' /proc/self/mountinfo
    """
    said = machine.shell(script, mounts=mounts).splitlines()
    assert said[:4] == ["content", "content", "more", "touch: /read/x: Read-only file system"]
    assert said[-1] == "1"
    assert (data / "more").read_text() == "more\n"


def test_a_missing_source_is_named(machine: Machine) -> None:
    error = refusal(machine, ["true"], mounts=[bind("/no/such/place", "/data")])
    assert "/no/such/place" in error.message
    assert error.errno == 2


def test_a_mount_point_behind_a_dangling_link_is_made_inside(machine: Machine) -> None:
    """/etc/resolv.conf of many images points into /run, which is empty."""
    (machine.image / "etc/resolv.conf").symlink_to("../run/resolve/stub.conf")
    source = machine.root / "resolv.conf"
    source.write_text("nameserver 127.0.0.11\n")
    said = machine.shell("cat /etc/resolv.conf; ls /run/resolve", mounts=[bind(source, "/etc/resolv.conf")])
    assert said == "nameserver 127.0.0.11\nstub.conf\n"


def test_links_of_the_image_lead_nowhere_but_inside(machine: Machine) -> None:
    """Absolute, upward and looping links as parents of mount points and of devices."""
    decoy = machine.root / "decoy"
    decoy.mkdir()
    (decoy / "ptmx").write_text("host's")
    (machine.image / "dev").symlink_to(decoy)
    (machine.image / "up").symlink_to("../../../../../../../.." + str(decoy))
    source = machine.root / "source"
    source.mkdir()
    mounts = [bind(source, "/up/data"), mount("/up/tmp", "tmpfs", [])]
    config = {"mounts": [mount("/proc", "proc", []), *mounts]}
    machine.outcome(["true"], config=config, launch={"stdout": None, "stderr": None})
    assert sorted(path.name for path in decoy.iterdir()) == ["ptmx"]
    assert (decoy / "ptmx").read_text() == "host's"


def test_looping_links_are_an_error(machine: Machine) -> None:
    (machine.image / "loop").symlink_to("loop")
    assert refusal(machine, ["true"], mounts=[bind("/usr", "/loop/x")]).errno == 40  # ELOOP


@pytest.mark.parametrize("target", ["/proc", "/proc/sys", "/proc/self/attr", "/trick", "/trick/sys"])
def test_nothing_is_mounted_over_proc(machine: Machine, target: str) -> None:
    """CVE-2019-16884: by name, or through a link of the image."""
    (machine.image / "trick").symlink_to("/proc")
    error = refusal(machine, ["true"], mounts=[bind("/usr", target)])
    assert "/proc" in error.message


def test_a_file_of_proc_that_lxcfs_replaces_may_be_covered(machine: Machine) -> None:
    fake = machine.root / "uptime"
    fake.write_text("42 0\n")
    assert machine.shell("cat /proc/uptime", mounts=[bind(fake, "/proc/uptime")]) == "42 0\n"


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_and_sys_are_never_mounted_through_a_link(machine: Machine, name: str) -> None:
    """CVE-2019-19921: masks would then cover something else."""
    (machine.image / "elsewhere").mkdir()
    (machine.image / name).symlink_to("/elsewhere")
    assert refusal(machine, ["true"]).errno == 40  # ELOOP


def test_a_part_of_a_volume(machine: Machine) -> None:
    """What containers planted in a volume can't lead a subpath out of it."""
    volume = machine.root / "volume"
    (volume / "part").mkdir(parents=True)
    (volume / "part/word").write_text("part\n")
    (volume / "trap").symlink_to("/etc")
    mounts = [bind(volume, "/data")]
    assert machine.shell("cat /data/word", mounts=mounts, launch={"subpaths": {"/data": "part"}}) == "part\n"
    error = refusal(machine, ["true"], mounts=mounts, launch={"subpaths": {"/data": "trap"}})
    assert error.errno == 2


def test_tmpfs_with_options(machine: Machine) -> None:
    options = ["size=1m", "mode=700", "uid=1000", "noexec", "ro"]
    said = machine.shell(
        "stat -c '%a %u' /t; grep ' /t ' /proc/self/mounts", mounts=[mount("/t", "tmpfs", options)]
    )
    assert said.startswith("700 1000\ntmpfs /t tmpfs ro,noexec,relatime,size=1024k,mode=700,uid=1000")


def test_tmpfs_that_starts_with_a_copy(machine: Machine) -> None:
    (machine.image / "home/app/file").write_text("copied\n")
    os.chown(machine.image / "home/app/file", 1000, 1000)
    mounts = [mount("/home", "tmpfs", ["tmpcopyup"])]
    assert machine.shell("cat /home/app/file; stat -c %u /home/app/file", mounts=mounts) == "copied\n1000\n"


def test_an_unknown_option_is_named(machine: Machine) -> None:
    assert "colour" in refusal(machine, ["true"], mounts=[mount("/t", "tmpfs", ["colour=red"])]).message
    assert "colour" in refusal(machine, ["true"], mounts=[bind("/usr", "/t", "colour")]).message


def test_a_recursive_bind_and_its_protection(machine: Machine) -> None:
    """rbind shows what is mounted below; "ro" protects the top, "rro" all of it."""
    host = [bind("/sys", "/host")]
    host[0]["options"] = ["rbind", "rro"]
    said = machine.shell("grep ' /host' /proc/self/mountinfo | cut -d' ' -f6", mounts=host)
    assert len(said.split()) > 1
    assert all(options.startswith("ro") for options in said.split())


def test_a_shared_bind_lets_mounts_through(machine: Machine) -> None:
    """rshared: what the container mounts below, the host sees; by default it doesn't."""
    peer = machine.root / "peer"
    peer.mkdir()
    os.system(f"mount -t tmpfs peer {peer} && mount --make-shared {peer} && mkdir {peer}/in {peer}/other")
    admin = {kind: [*DOCKER_CAPABILITIES, "CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    try:
        for name, option, count in (("shared", "rshared", 2), ("private", "rprivate", 1)):
            run = machine.start(
                ["sh", "-c", "mount -t tmpfs x /peer/in && echo done; sleep 100"],
                name=name,
                mounts=[bind(peer, "/peer", option)],
                process={"capabilities": admin},
            )
            run.said("done")
            assert Path("/proc/self/mountinfo").read_text().count(f" {peer}") == count
            run.kill()
            run.wait()
            os.system(f"umount {peer}/in 2>/dev/null")
    finally:
        os.system(f"umount -R {peer}")


def test_masked_and_read_only_paths(machine: Machine) -> None:
    (machine.image / "secret").mkdir()
    (machine.image / "secret/key").write_text("key")
    linux = {
        "maskedPaths": ["/proc/keys", "/secret", "/proc/nothing"],
        "readonlyPaths": ["/proc/sys", "/home"],
    }
    script = """
        ls /secret | wc -l
        stat -c %t:%T /proc/keys
        touch /secret/x 2>&1 || true
        touch /home/x 2>&1 || true
        echo 0 > /proc/sys/kernel/panic || true
    """
    said = machine.outcome(["sh", "-c", script], linux=linux)
    assert said[1].splitlines()[:2] == ["0", "1:3"]
    assert said[1].count("Read-only file system") == 2
    assert "Read-only file system" in said[2]


def test_masks_do_not_trust_the_null_device_of_the_image(machine: Machine) -> None:
    """CVE-2025-31133: /dev/null as a link to a host path would be bound over what is to be hidden."""
    config = {"mounts": [mount("/proc", "proc", [])]}
    (machine.image / "dev").mkdir()
    (machine.image / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    error = refusal(machine, ["true"], config=config)
    assert "/dev/null" in error.step


# --- devices


def test_the_usual_devices(machine: Machine) -> None:
    script = """
        cd /dev
        stat -c '%n %a %t:%T' null zero full random urandom tty
        for n in ptmx fd stdin; do readlink $n; done
    """
    said = machine.shell(script)
    assert said.splitlines() == [
        "null 666 1:3",
        "zero 666 1:5",
        "full 666 1:7",
        "random 666 1:8",
        "urandom 666 1:9",
        "tty 666 5:0",
        "pts/ptmx",
        "/proc/self/fd",
        "/proc/self/fd/0",
    ]
    assert machine.shell("head -c 4 /dev/zero | wc -c; ls /dev | wc -l", name="second").split() == ["4", "14"]


def test_more_devices(machine: Machine) -> None:
    linux = {
        "devices": [
            {
                "path": "/dev/deep/loop7",
                "type": "b",
                "major": 7,
                "minor": 7,
                "fileMode": 0o640,
                "uid": 0,
                "gid": 6,
            },
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600},
            {"path": "/dev/pipe", "type": "p"},
        ]
    }
    said = machine.shell("cd /dev; stat -c '%n %F %a %g %t:%T' deep/loop7 null pipe", linux=linux)
    assert said.splitlines() == [
        "deep/loop7 block special file 640 6 7:7",
        "null character special file 600 0 1:3",
        "pipe fifo 666 0 0:0",
    ]


# --- namespaces


def test_a_new_namespace_of_each_kind(machine: Machine) -> None:
    said = machine.shell(
        "cd /proc/self/ns; for n in mnt uts ipc pid net cgroup; do readlink $n; done"
    ).split()
    here = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "uts", "ipc", "pid", "net", "cgroup")]
    assert len(set(said) & set(here)) == 0
    assert machine.shell("echo $$; cd /proc; echo [0-9]*", name="second").split() == ["1", "1"]


def test_namespaces_of_the_host(machine: Machine) -> None:
    said = machine.shell(
        "cd /proc/self/ns; readlink net; readlink uts; readlink pid", namespaces=("mount", "ipc")
    )
    assert said.split() == [os.readlink(f"/proc/self/ns/{name}") for name in ("net", "uts", "pid")]


def test_joining_the_namespaces_of_another(machine: Machine) -> None:
    """network, pid and ipc of a neighbour, whose processes are then seen."""
    first = machine.start(["sh", "-c", "sleep 100"], name="first")
    names = {"network": "net", "pid": "pid", "ipc": "ipc"}
    joins = {
        kind: machine.own(os.open(f"/proc/{first.pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC))
        for kind, name in names.items()
    }
    script = "cd /proc/self/ns; readlink net; readlink pid; readlink ipc; cat /proc/1/cmdline; sleep 100"
    second = machine.start(["sh", "-c", script], name="second", joins=joins)
    second.said("sleep")
    assert os.readlink(f"/proc/{second.pid}/ns/pid") == os.readlink(f"/proc/{first.pid}/ns/pid")
    first.kill()
    # A pid namespace ends with its first process, and takes all along.
    assert first.wait() == 137
    assert second.wait() == 137


def test_a_pid_namespace_that_ended_cannot_be_joined(machine: Machine) -> None:
    first = machine.start(["sleep", "100"], name="first")
    fd = machine.own(os.open(f"/proc/{first.pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC))
    first.kill()
    first.wait()
    with pytest.raises(Refused) as refused:
        machine.start(["true"], joins={"pid": fd})
    assert "has ended" in refused.value.message
    assert machine.outcome(["true"])[0] == 0


def test_hostname_and_domain(machine: Machine) -> None:
    config = {"hostname": "web-1", "domainname": "example.test"}
    said = machine.shell("hostname; cat /proc/sys/kernel/domainname", config=config)
    assert said == "web-1\nexample.test\n"


def test_a_hostname_never_becomes_the_hosts(machine: Machine) -> None:
    before = os.uname().nodename
    error = refusal(machine, ["true"], namespaces=("mount", "pid"), config={"hostname": "evil"})
    assert "uts" in error.message
    assert os.uname().nodename == before


def test_settings_of_its_own_namespaces(machine: Machine) -> None:
    linux = {
        "sysctl": {
            "net.ipv4.ip_unprivileged_port_start": "0",
            "kernel.shmmax": "12345",
            "net/core/somaxconn": "77",
        }
    }
    script = "cd /proc/sys; cat net/ipv4/ip_unprivileged_port_start kernel/shmmax net/core/somaxconn"
    assert machine.shell(script, linux=linux) == "0\n12345\n77\n"


@pytest.mark.parametrize(
    "key", ["kernel.core_pattern", "vm.swappiness", "net.ipv4.ip_forward/../../../x", "net"]
)
def test_settings_of_the_machine_are_refused(machine: Machine, key: str) -> None:
    assert key in refusal(machine, ["true"], linux={"sysctl": {key: "1"}}).message


def test_network_settings_need_a_network_namespace(machine: Machine) -> None:
    settings: Mapping[str, object] = {"sysctl": {"net.ipv4.ip_forward": "1"}}
    spaces = tuple(kind for kind in NEW if kind != "network")
    assert "network" in refusal(machine, ["true"], linux=settings, namespaces=spaces).message


@pytest.mark.parametrize(
    "config",
    [
        {"hooks": {"prestart": [{"path": "/bin/true"}]}},
        {"process": {"args": ["true"], "apparmorProfile": "x"}},
        {"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}]}},
        {"linux": {"namespaces": [{"type": "mount"}], "intelRdt": {"closID": "x"}}},
        {"vm": {"x": 1}},
    ],
)
def test_what_we_do_not_do_is_refused_by_name(machine: Machine, config: Mapping[str, object]) -> None:
    assert "not supported" in refusal(machine, ["true"], config=config, namespaces=()).message


# --- cgroups


def test_cgroups_are_joined_and_shown(machine: Machine) -> None:
    """The process is in the groups that were named; inside it sees them as the root, read-only."""
    name = f"pystack-test-{os.getpid()}-{machine.root.name[-20:]}"
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    hierarchies = [line.split()[1] for line in mounts if line.split()[2] in ("cgroup", "cgroup2")]
    groups = [f"{top}/{name}" for top in hierarchies if "cpuset" not in top]
    for group in groups:
        os.mkdir(group)
    try:
        view = mount("/sys/fs/cgroup", "cgroup", ["ro", "nosuid", "noexec", "nodev"])
        script = (
            "cat /proc/self/cgroup; cat /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; sleep 100"
        )
        run = machine.start(["sh", "-c", script], mounts=[view], launch={"cgroups": groups})
        members = [Path(f"{group}/cgroup.procs").read_text().split() for group in groups]
        assert all(str(run.pid) in found for found in members)
        run.said(":/\n")
        run.kill()
        run.wait()
    finally:
        for group in groups:
            until(lambda group=group: not Path(f"{group}/cgroup.procs").read_text(), "an empty group")
            os.rmdir(group)


# --- volumes


def volume(machine: Machine, state: str = "pending") -> tuple[Path, Path, list[dict[str, str]]]:
    data, book = machine.root / "volume/_data", machine.root / "volume/seed"
    data.mkdir(parents=True)
    book.write_text(state)
    return data, book, [{"target": "/data", "data": str(data), "state": str(book)}]


def fill_image(machine: Machine) -> Path:
    source = machine.image / "data"
    (source / "deep/er").mkdir(parents=True)
    (source / "file").write_text("content\n")
    os.chown(source / "file", 1000, 33)
    (source / "file").chmod(0o4751)
    (source / "link").symlink_to("/etc/passwd")
    os.link(source / "file", source / "deep/same")
    os.mkfifo(source / "deep/fifo", 0o604)
    os.setxattr(source / "file", "user.colour", b"red")
    os.utime(source / "deep", (1000, 2000))
    os.chown(source, 1000, 1000)
    source.chmod(0o750)
    return source


def test_a_new_volume_gets_the_content_of_the_image(machine: Machine) -> None:
    """Owners, modes, links, times and attributes and all; a second container finds it done."""
    fill_image(machine)
    data, book, seed = volume(machine)
    bundle = {"mounts": [bind(data, "/data")], "launch": {"seed": seed}}
    assert machine.shell("cat /data/file", **bundle) == "content\n"
    assert book.read_text() == "done"
    found = (data / "file").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), found.st_nlink) == (1000, 33, 0o4751, 2)
    assert (data / "deep/same").stat().st_ino == found.st_ino
    assert os.readlink(data / "link") == "/etc/passwd"
    assert stat.S_ISFIFO((data / "deep/fifo").stat().st_mode)
    assert os.getxattr(data / "file", "user.colour") == b"red"
    assert (data / "deep").stat().st_mtime == 2000
    assert (data.stat().st_uid, stat.S_IMODE(data.stat().st_mode)) == (1000, 0o750)
    machine.shell("rm /data/file", **bundle)
    assert machine.outcome(["ls", "/data/file"], **bundle)[0] == 1


def test_a_volume_in_use_is_not_filled(machine: Machine) -> None:
    fill_image(machine)
    data, book, seed = volume(machine)
    (data / "mine").write_text("")
    assert machine.shell("ls /data", mounts=[bind(data, "/data")], launch={"seed": seed}) == "mine\n"
    assert book.read_text() == "done"


def test_a_copy_cut_short_is_begun_again(machine: Machine) -> None:
    fill_image(machine)
    data, book, seed = volume(machine, "copying")
    (data / "half/way").mkdir(parents=True)
    (data / "half/way/file").write_text("half")
    (data / "out").symlink_to("/etc")
    said = machine.shell("ls /data", mounts=[bind(data, "/data")], launch={"seed": seed})
    assert said.split() == ["deep", "file", "link"]
    assert book.read_text() == "done"
    assert Path("/etc/passwd").exists()


def test_containers_that_share_a_new_volume_fill_it_once(machine: Machine) -> None:
    source = fill_image(machine)
    for number in range(200):
        (source / f"many{number}").write_text("x" * 1000)
    data, _, seed = volume(machine)
    runs = [
        machine.prepare(f"share{n}", ["sh", "-c", "ls /data | wc -l"], mounts=[bind(data, "/data")],
                        launch={"seed": seed})
        for n in range(6)
    ]  # fmt: skip
    tags = [machine.request(run) for run in runs]
    for run, tag in zip(runs, tags, strict=True):
        machine.confirm(run, tag)
    assert [run.wait() for run in runs] == [0] * 6
    assert {run.output() for run in runs} == {"203\n"}


def test_a_link_in_the_image_is_no_way_to_copy_from_the_host(machine: Machine) -> None:
    """CVE-2022-23648: the image's /data is a link to /etc of, as it hopes, the host."""
    (machine.image / "data").symlink_to("../../../../../../etc")
    data, _, seed = volume(machine)
    machine.outcome(["true"], mounts=[bind(data, "/vol")], launch={"seed": seed})
    assert sorted(path.name for path in data.iterdir()) == ["group", "passwd"]


# --- a terminal


def test_a_terminal(machine: Machine) -> None:
    """The container's own pty: sized, controlling, at /dev/console, owned by the user, hung up at the end."""
    process = {"terminal": True, "consoleSize": {"height": 33, "width": 99}}
    script = "tty; stat -c %u /dev/pts/0; stat -c %t:%T /dev/console; stty size; echo x > /dev/tty; exit 4"
    run = machine.start(["sh", "-c", script], process=process, launch={"user": "app"})
    said = b""
    while True:
        try:
            part = os.read(run.master, 4096)
        except OSError:
            break
        said += part
    assert said.replace(b"\r", b"").decode().splitlines() == ["/dev/pts/0", "1000", "88:0", "33 99", "x"]
    assert run.wait() == 4


def test_a_terminal_passes_ctrl_c(machine: Machine) -> None:
    script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    run = machine.start(["sh", "-c", script], process={"terminal": True})
    seen = b""
    while b"ready" not in seen:
        seen += os.read(run.master, 100)
    os.write(run.master, b"\x03")
    assert run.wait() == 5


def test_the_console_is_not_followed_through_a_link(machine: Machine) -> None:
    """CVE-2025-52565: /dev/console and /dev/pts/ptmx planted in the image, with no tmpfs on /dev."""
    decoy = machine.root / "decoy"
    decoy.write_text("host's")
    (machine.image / "dev").mkdir()
    (machine.image / "dev/console").symlink_to(decoy)
    config = {
        "mounts": [mount("/proc", "proc", []), mount("/dev/pts", "devpts", ["newinstance", "ptmxmode=0666"])]
    }
    run = machine.start(["sleep", "100"], config=config, process={"terminal": True})
    assert decoy.read_text() == "host's"
    run.kill(signal.SIGKILL)
    assert run.wait() == 137


def test_processes_are_born_in_their_group(machine: Machine) -> None:
    """Moving there takes milliseconds on a machine at rest."""
    hier = cgroups.detect()
    if hier.unified is None:
        pytest.skip("this machine has no unified hierarchy")
    group = Path(hier.unified, f"pystack-born-{os.getpid()}")
    group.mkdir()
    trace = machine.root / "trace"
    calls = ["strace", "-f", "-qq", "-e", "trace=openat", "-o", str(trace), "-p", str(machine.keeper.pid)]
    try:
        with subprocess.Popen(calls, stderr=subprocess.PIPE) as tracer:
            until(lambda: "TracerPid:\t0\n" not in status(machine.keeper.pid), "the tracer")
            run = machine.start(["sleep", "1000"], launch={"cgroups": [str(group)]})
            assert (group / "cgroup.procs").read_text() == f"{run.pid}\n"
            assert machine.exec(run, ["sh", "-c", "echo $$; cat /proc/self/cgroup"])[1].endswith("0::/\n")
            tracer.terminate()
        assert "config.json" in trace.read_text()
        assert "cgroup.procs" not in trace.read_text()
        run.kill()
        run.wait()
    finally:
        until(lambda: "populated 0" in (group / "cgroup.events").read_text(), "the end of the group")
        group.rmdir()


def test_a_group_that_nobody_can_be_born_in_costs_no_pid_namespace(machine: Machine) -> None:
    """A clone3(2) that fails has used up a pid namespace that was made before it."""
    hier = cgroups.detect()
    old = next(iter(hier.v1.values()), "")
    group = Path(old or hier.unified or "", f"pystack-old-{os.getpid()}")
    group.mkdir()
    try:
        refused = refusal(machine, ["true"], launch={"cgroups": [str(group / "missing")]})
        assert refused.step == "cgroups"
        if old:
            assert machine.shell("echo $$", launch={"cgroups": [str(group)]}) == "1\n"
        assert machine.shell("echo $$") == "1\n"
    finally:
        group.rmdir()


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()
