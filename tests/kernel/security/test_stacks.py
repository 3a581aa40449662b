"""Attacks from containers of a stack, as `up`, `exec`, health checks and `run` make them."""

from __future__ import annotations

import json
import os
import pty
import resource
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.images.archives.importing import import_directory
from orchestrator.images.store.content import Store
from tests.kit.programs import Pystack
from tests.kit.site import Site

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where core dumps are allowed, as on many machines: the supervisor inherits that from who starts it."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield tmp_path_factory.mktemp("s")
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.fixture(scope="module")
def armed(anchored_site: Site, attacker: Path) -> Site:
    """The attacker's program is in every container."""
    shutil.copy(attacker, anchored_site.box / "bin/attacker")
    return anchored_site


# --- what a health check, exec and the first process start with ------------------------------------------


def test_a_health_check_starts_as_clean_as_the_program(site: Site) -> None:
    """Three descriptors, no signal ignored or blocked, no capability to inherit, a directory inside."""
    look = "ls /proc/self/fd; cat /proc/self/status; readlink /proc/self/cwd"
    site.up(
        f"""
        name: s1
        services:
          c:
            x-rootfs: {{path: $BOX}}
            command: sh -c "({look}) > /first; sleep 100"
            healthcheck: {{test: [CMD, sh, -c, "({look}) > /new; mv /new /probe"], interval: 0.1s}}
        """
    )
    site.becomes("s1", "c", health="healthy")
    said = {"first": "", "probe": "", "exec": site.execute("s1", "c", "sh", "-c", look)}
    for name in ("first", "probe"):
        said[name] = site.execute("s1", "c", "cat", f"/{name}")
    for name, text in said.items():
        # The fourth is the directory that ls itself reads.
        assert text.split()[:4] == ["0", "1", "2", "3"], name
        assert text.split()[4] == "Name:", name
        for line in ("SigIgn", "SigBlk", "CapInh", "CapAmb"):
            assert f"{line}:\t{0:016x}\n" in text, (name, line)
        assert text.endswith("\n/\n"), name
    site.down("s1")


def test_exec_takes_no_directory_by_a_descriptor(site: Site) -> None:
    """CVE-2024-21626 by `exec --workdir`, and in the stack file by `working_dir`."""
    site.up("{name: s2, services: {c: {x-rootfs: {path: $BOX}, command: sleep 100}}}")
    for fd in range(3, 30):
        answer = site.begin(
            "exec", _null(3), stack="s2", service="c", command=["pwd"], workdir=f"/proc/self/fd/{fd}"
        ).wait()
        assert answer.exit_code != 0, fd
    site.down("s2")
    answer = site.up(
        "{name: s3, services: {c: {x-rootfs: {path: $BOX}, command: pwd, working_dir: /proc/self/fd/8}}}",
        exit_code=None,
    )
    assert answer.exit_code != 0
    site.down("s3")


def _null(count: int) -> list[int]:
    return [_NULL] * count


_NULL = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)


# --- terminals ------------------------------------------------------------------------------------------


def test_nothing_is_typed_into_the_users_terminal(armed: Site, site: Site) -> None:
    """CVE-2017-5226: neither with a terminal of the container's own, nor, with -T, through ours: the program
    never has that, for it could be kept and written to long after the command has ended."""
    site.up("{name: s4, services: {c: {x-rootfs: {path: $BOX}, command: sleep 100}}}")
    box = Pystack(root=site.root, directory=site.dir)
    script = "attacker tty; for n in 0 1 2; do readlink /proc/self/fd/$n; done; exit 3"
    for flag, terminal in (("-T", False), ("-t", True)):
        said, code = _in_terminal(box, "-p", "s4", "exec", flag, "c", "sh", "-c", script)
        assert code == 3, said
        # On a terminal of its own it may type to itself.
        assert terminal or "TIOCSTI done" not in said
        assert "TIOCLINUX done" not in said
        assert ("/dev/pts/0" in said) == terminal, said
        assert said.count("pipe:") == (0 if terminal else 3), said
    site.down("s4")


def _in_terminal(box: Pystack, *words: str) -> tuple[str, int]:
    """A command of ours on a pty, as a user has it; afterwards nothing may stand in its input."""
    master, slave = pty.openpty()
    try:
        program = Path(sys.executable).parent / "pystack"
        done = subprocess.Popen(
            [program, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=box.environ,
            start_new_session=True,
        )
        said, deadline = b"", time.monotonic() + 20
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.05)[0]:
                said += os.read(master, 4096)
            elif done.poll() is not None:
                break
        assert not select.select([slave], [], [], 0)[0], "something was typed"
        return said.decode(errors="replace"), done.wait(5)
    finally:
        os.close(master)
        os.close(slave)


def test_each_container_has_a_keyring_of_its_own(armed: Site, site: Site) -> None:
    """Not the supervisor's, and not each other's. The filter of system calls forbids to ask, so without it."""
    site.up(
        """
        name: s5
        services:
          a: &a {x-rootfs: {path: $BOX}, command: sleep 100, security_opt: [seccomp=unconfined]}
          b: *a
          c: {x-rootfs: {path: $BOX}, command: sleep 100}
        """
    )
    found = [int(site.execute("s5", name, "attacker", "keyring")) for name in "aabc"]
    here = int(subprocess.run([site.box / "bin/attacker", "keyring"], capture_output=True, check=True).stdout)
    assert len({here, *found[:3]}) == 4, (here, found)
    assert found[3] == -1, "EPERM"
    site.down("s5")


# --- the kernel's own doors ----------------------------------------------------------------------------


def test_cgroups_are_no_way_out(site: Site) -> None:
    """CVE-2022-0492: as root, and with the capability to mount a hierarchy but not a namespace to do it in."""
    site.up("{name: s6, services: {c: {x-rootfs: {path: $BOX}, command: sleep 100}}}")
    said = site.execute(
        "s6",
        "c",
        "sh",
        "-c",
        """
        mkdir /cg
        for group in memory pids cpu devices freezer; do
            mount -t cgroup -o $group x /cg && echo MOUNTED $group
            unshare -UrC mount -t cgroup -o $group x /cg && echo MOUNTED $group
        done
        mount -t cgroup2 x /cg && echo MOUNTED v2
        unshare -Urm true && echo UNSHARED
        mkdir /sys/fs/cgroup/x && echo WRITABLE
        for file in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release -o -name cgroup.procs); do
            (echo 1 > $file) && echo WRITABLE $file
        done
        find /sys/fs/cgroup -name release_agent | sed 's/^/AGENT /'
        mount -o remount,rw /sys/fs/cgroup && echo REMOUNTED
        cut -d: -f3 /proc/self/cgroup | sort -u | sed 's/^/AT /'
        """,
        exit_code=None,
    )
    for word in ("MOUNTED", "UNSHARED", "WRITABLE", "AGENT", "REMOUNTED"):
        assert word not in [line.split()[0] for line in said.splitlines() if line], said
    site.down("s6")


# --- images ---------------------------------------------------------------------------------------------


def test_volumes_of_an_image_stay_inside_it(site: Site) -> None:
    """CVE-2022-23648: a declared volume at a path that leads out, by dots and by links, copies nothing in."""
    (site.box / "escape").symlink_to("../../../../../../../../etc")
    changes = (
        'VOLUME ["/escape", "/../../../../etc/ssl", "relative/../../../../root", "/a/../../../../home"]',
    )
    import_directory(Store(site.places.images), site.box, "leading:1", changes=changes)
    (site.box / "escape").unlink()
    answer = site.up("{name: s7, services: {c: {image: 'leading:1', command: sleep 100}}}", exit_code=None)
    host = {path.name for path in Path("/etc").iterdir()} - {
        "passwd",
        "group",
        "hosts",
        "hostname",
        "resolv.conf",
    }
    for volume in site.places.volumes.glob("*/_data"):
        inside = {path.name for path in volume.iterdir()}
        assert not inside & host, (volume, inside & host)
    assert answer.exit_code == 0 or "leading:1" in answer.error or "not an absolute path" in answer.error, (
        answer.error
    )
    site.down("s7", remove_volumes=True)


def test_labels_of_an_image_are_not_ours(site: Site) -> None:
    """CVE-2026-53488 and kin: an image that says it is another service, of another stack, with other files."""
    names = {
        "io.pystack.stack": "anchor",
        "io.pystack.service": "idle",
        "io.pystack.name": "anchor-idle-1",
        "com.docker.compose.project": "anchor",
        "com.docker.compose.service": "idle",
        "com.docker.compose.oneoff": "True",
    }
    changes = tuple(f"LABEL {name}={value}" for name, value in names.items())
    import_directory(Store(site.places.images), site.box, "liar:1", changes=changes)
    site.up("{name: s8, services: {c: {image: 'liar:1', command: sleep 100}}}")
    row = site.row("s8", "c")
    assert (row["service"], row["name"]) == ("c", "s8-c-1")
    assert [found["service"] for found in site.ps("anchor")] == ["idle"]
    bundle = json.loads((site.places.bundle(row["id"]) / "config.json").read_text())
    assert bundle["annotations"]["io.pystack.stack"] == "s8"
    assert "anchor" not in json.dumps(bundle["annotations"])
    site.down("s8")
    assert [found["state"] for found in site.ps("anchor")] == ["running"]


def test_a_log_that_became_a_link_is_not_read_back(site: Site) -> None:
    """CVE-2026-53492: `logs` would print a file of the host."""
    secret = site.dir / "shadow"
    secret.write_text("2026-11-22T14:00:00.000000000Z stdout F canary-of-the-host\n")
    site.up("{name: s9, services: {c: {x-rootfs: {path: $BOX}, command: sh -c 'echo hello; sleep 100'}}}")
    site.prints("s9", "c", b"hello\n")
    site.ask("stop", stack="s9", timeout=0)
    log = next(site.places.stacks.glob("s9/containers/*")) / "container.log"
    log.unlink()
    log.symlink_to(secret)
    said = Pystack(root=site.root, directory=site.dir).run("-p", "s9", "logs", exit_code=None)
    assert "canary" not in said.stdout + said.stderr
    site.down("s9")


# --- secrets --------------------------------------------------------------------------------------------


def test_secrets_stand_nowhere_but_where_they_belong(site: Site) -> None:
    """Values of the environment and of secrets, while the stack runs, fails, is asked about and is taken down:
    in no command line, environment, log or error of ours, and in no file that another user could read."""
    first, second = "canary-" + os.urandom(6).hex(), "canary-" + os.urandom(6).hex()
    (site.dir / "token").write_text(second + "\n")
    text = f"""
        name: s10
        services:
          good:
            x-rootfs: {{path: $BOX}}
            command: sleep 100
            environment: {{PASSWORD: {first}}}
            secrets: [token]
            healthcheck: {{test: [CMD, "true"], interval: 0.1s}}
          bad:
            x-rootfs: {{path: $BOX}}
            command: /nowhere
            environment: {{PASSWORD: {first}}}
            secrets: [token]
          worse:
            x-rootfs: {{path: $BOX}}
            command: "true"
            environment: {{PASSWORD: {first}, LONG: "{"x" * 140_000}"}}
        secrets: {{token: {{file: $DIR/token}}}}
    """
    talks = [site.up(text, exit_code=None), site.ask("ls")]
    site.becomes("s10", "good", health="healthy")
    assert site.execute("s10", "good", "cat", "/run/secrets/token") == second + "\n"
    talks.append(site.ask("ps", stack="s10", all=True))
    told = "".join(
        json.dumps(talk.lines) + talk.error + talk.hint + json.dumps(talk.result) for talk in talks
    )
    for canary in (first, second):
        assert canary not in told
        ours = [site.supervisor, site.keeper]
        for pid in ours:
            for name in ("cmdline", "environ"):
                assert canary.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
        for name in os.listdir("/proc"):
            if name.isdigit():
                assert canary.encode() not in _bytes(Path(f"/proc/{name}/cmdline"))
        for path in _files(site):
            if canary.encode() in _bytes(path):
                assert not path.name.endswith(".log"), path
                assert _mode_on_the_way(path, site.root) & 0o077 == 0, path
    for pid in (site.supervisor, site.keeper):
        assert Path(f"/proc/{pid}/limits").read_text().split("Max core file size")[1].split()[0] == "0"
    site.down("s10")
    for path in _files(site):
        for canary in (first, second):
            assert path.name == "token" or canary.encode() not in _bytes(path), path


def _files(site: Site) -> list[Path]:
    roots = (Path(site.paths.run_dir), Path(site.paths.data_dir))
    return [path for root in roots for path in root.rglob("*") if path.is_file() and not path.is_symlink()]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _mode_on_the_way(path: Path, root: Path) -> int:
    """What others may, given every directory from the state root down to the file."""
    mode = path.stat().st_mode
    while path != root:
        path = path.parent
        mode &= path.stat().st_mode if path != root else mode
    return mode


# --- what containers print, and what things are called --------------------------------------------------

EVIL = r"\033]52;c;cGF5bG9hZA==\007 \033[2J\033[1A \r forged-1  | I am root\n\302\233 31m plain"


def test_output_cannot_pretend_to_be_ours(site: Site) -> None:
    """Cursor moves, the clipboard (OSC 52), carriage returns and forged prefixes: each line of `logs` begins with
    its own prefix, and our tables show nothing that a terminal would obey."""
    site.up(
        r"""
        name: s11
        services:
          c:
            x-rootfs: {path: $BOX}
            command: [sh, -c, 'printf "EVIL\n"; sleep 100', "\e[31mred\e]0;title\a"]
            healthcheck: {test: [CMD, sh, -c, 'printf "EVIL"; exit 1'], interval: 0.1s, retries: 1}
        """.replace("EVIL", EVIL)
    )
    site.prints("s11", "c", b"plain\n")
    site.becomes("s11", "c", health="unhealthy")
    box = Pystack(root=site.root, directory=site.dir)
    printed = box.run("-p", "s11", "logs").stdout
    assert [line[:7] for line in printed.split("\n")[:-1]] == ["c-1  | "] * 2, printed
    for words in (("ps",), ("ps", "--no-trunc"), ("ls",), ("events", "--until", "1s")):
        said = box.run("-p", "s11", *words, exit_code=None, limit=20)
        bad = [c for c in said.stdout + said.stderr if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160]
        assert not bad, (words, bad)
    site.down("s11")


NAMES = ["../x", ".", "..", "a/b", "a\nb", "a\0b", "-rf", "x" * 300, "a;b", "$(id)", "a b", "é", ""]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_never_becomes_a_path_or_an_option(site: Site, name: str) -> None:
    """As a stack's name to every verb: refused, or not there; nothing is made, and nobody dies."""
    before = sorted(str(path) for path in Path(site.paths.data_dir).rglob("*"))
    supervisor = site.supervisor
    for verb in ("ps", "down", "stop", "start", "restart", "kill", "rm", "logs", "exec", "stack"):
        request = {"stack": name, "services": [name], "service": name, "command": ["true"], "names": [name]}
        more = {"signal": "SIGTERM", "volumes": False, "timeout": 0, "follow": False}
        answer = site.begin(verb, **request, **more).wait()
        assert "Traceback" not in answer.error, (verb, answer.error)
    assert site.supervisor == supervisor
    assert sorted(str(path) for path in Path(site.paths.data_dir).rglob("*")) == before
