"""`runtime:`: the same bundle run by runc and crun, and all that we promise holds for it as well."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.kernel.test_ports import free_port, page
from tests.kit import specification
from tests.kit.keeper import REMEMBERS_EXITS
from tests.kit.site import Site, Talk, alive, until

pytestmark = pytest.mark.kernel
RUNTIMES = ("runc", "crun")


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


OWN = "pystack-oci"


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, state_root: Path) -> str:
    """What `runtime:` says: a name on the PATH, or the path of our own OCI command line."""
    if request.param == OWN:
        return own(state_root)
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


def own(directory: Path) -> str:
    program = directory / OWN
    program.write_text(
        f"#!{sys.executable}\nfrom orchestrator.oci.__main__ import main\nraise SystemExit(main())\n"
    )
    program.chmod(0o755)
    return str(program)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def helpers(site: Site) -> list[str]:
    """Processes of a runtime that work on a bundle of this site."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            if b"--root" in words and os.fsencode(site.places.run) in b" ".join(words):
                found.append(b" ".join(words).decode())
    return found


def limit(group: str, v2: str, v1: str) -> str:
    controller, _, file = v1.partition("/")
    places = (Path(f"/sys/fs/cgroup/{group}/{v2}"), Path(f"/sys/fs/cgroup/{controller}/{group}/{file}"))
    return next(place.read_text().strip() for place in places if place.exists())


# --- one life ----------------------------------------


@pytest.mark.parametrize("runtime", [*RUNTIMES, OWN], indirect=True)
def test_a_whole_life(site: Site, runtime: str) -> None:
    """Health, names, user, limits, files, exec, logs, restart, stop, down; and of the runtime nothing remains."""
    script = 'trap "echo bye; exit 7" TERM; echo "up $$(id -u):$$(id -g)"; while :; do sleep 0.05; done'
    site.up(
        f"""
        name: life
        services:
          web:
            x-rootfs: {{path: $BOX}}
            runtime: {runtime}
            command: ["sh", "-c", '{script}']
            user: app
            hostname: page
            domainname: example
            environment: {{GREETING: hello}}
            mem_limit: 48m
            pids_limit: 33
            cpus: 0.5
            volumes: ["data:/data"]
            healthcheck: {{test: [CMD, test, -e, /etc/hosts], interval: 100ms, start_interval: 100ms}}
        volumes: {{data: {{}}}}
        """,
        wait=True,
    )
    row = site.becomes("life", "web", health="healthy")
    assert row["runtime"] == runtime
    assert parent(row["pid"]) == site.keeper
    assert helpers(site) == []
    config = json.loads((site.places.bundle(row["id"]) / "config.json").read_text())
    assert specification.wrong(config) == []
    assert config["process"]["user"]["uid"] == 1000

    assert site.output("life", "web") == b"up 1000:1000\n"
    said = site.execute(
        "life", "web", "sh", "-c", "id -un; hostname; cat /proc/sys/kernel/domainname; echo $GREETING $HOME"
    )
    assert said.split() == ["app", "page", "example", "hello", "/home/app"]
    assert site.execute("life", "web", "sh", "-c", "exit 5", exit_code=5) == ""
    status = site.execute("life", "web", "cat", "/proc/1/status")
    assert "Seccomp:\t2" in status
    assert "CapBnd:\t00000000a80425fb" in status
    group = config["linux"]["cgroupsPath"].lstrip("/")
    assert limit(group, "pids.max", "pids/pids.max") == "33"
    assert limit(group, "memory.max", "memory/memory.limit_in_bytes") == f"{48 << 20}"

    site.ask("restart", stack="life", services=[])
    again = site.becomes("life", "web", health="healthy")
    assert again["pid"] != row["pid"]
    assert site.output("life", "web") == b"up 1000:1000\nbye\nup 1000:1000\n"
    site.ask("stop", stack="life")
    assert site.row("life", "web")["exit_code"] == 7
    site.down("life", remove_volumes=True)


CONTAINERS = """
    x-same: &same
      x-rootfs: {path: $BOX}
      hostname: page
      command:
        - sh
        - -c
        - |
          grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups|Umask|Sig[IB])' /proc/self/status
          cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shm_rmid_forced /proc/self/oom_score_adj
          ulimit -n; ulimit -Hn; pwd; env | sort; cat /proc/1/comm; hostname
          for f in /c.txt /run/secrets/s /src/file /etc/resolv.conf; do cat $$f; echo; done
          grep here /etc/hosts; grep -E ' (/|/sys|/proc|/dev/shm|/dev/pts|/src|/tmp) ' /proc/mounts | sed 's/,lowerdir.*//'
          for p in /x /src/x /proc/sys/x /vol/x /tmp/x; do touch $$p 2>/dev/null && echo "$$p"; done
          ls -l /dev | grep -v kcore | awk '{ print $$1, $$5, $$6, $$NF }'; ls /proc/self/fd | wc -l; head -c 1 /proc/kcore | wc -c
    x-rich: &rich
      <<: *same
      init: true
      read_only: true
      user: app
      working_dir: /made/here
      group_add: ["5", "audio"]
      environment: {A: b}
      cap_drop: [ALL]
      cap_add: [NET_BIND_SERVICE]
      security_opt: [no-new-privileges]
      sysctls: {net.core.somaxconn: "77", kernel.shm_rmid_forced: "1"}
      ulimits: {nofile: {soft: 100, hard: 200}, core: 0}
      oom_score_adj: 300
      devices: ["/dev/full:/dev/mine:rw"]
      shm_size: 2m
      tmpfs: ["/tmp:size=1m,mode=1777"]
      extra_hosts: ["here:1.2.3.4"]
      configs: [{source: c, target: /c.txt}]
      secrets: [s]
      volumes: ["$DIR/src:/src:ro", "/vol"]
    x-plain: &plain {<<: *same}
    x-bare: &bare {<<: *same, privileged: true}
"""


@pytest.mark.parametrize("runtime", [OWN], indirect=True)
def test_its_containers_share_a_published_port(site: Site, runtime: str) -> None:
    port = free_port()
    site.up(
        f"""
        name: shared
        services:
          web:
            x-rootfs: {{path: $BOX}}
            runtime: {runtime}
            command: sh -c 'mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www'
            ports: ["{port}:80"]
            scale: 2
            stop_grace_period: 0s
        """
    )
    known = {row["id"][:12] for row in site.ps("shared")}
    assert until(lambda: {page("127.0.0.1", port) for _ in range(9)} == known, "an answer of each")
    site.down("shared", timeout=0)


@pytest.mark.parametrize("kind", ["plain", "rich", "bare"])
def test_it_is_the_same_container_whoever_runs_it(site: Site, kind: str) -> None:
    """Users, capabilities, limits, mounts, devices, files, settings: all that a program can see of them.

    But for the link /dev/core, which crun alone makes.
    """
    source = site.dir / "src"
    source.mkdir(exist_ok=True)
    (source / "file").write_text("of the host")
    found = [name for name in RUNTIMES if shutil.which(name)]
    rows = "\n".join(f"      {name}: {{<<: *{kind}, runtime: {name}}}" for name in found)
    site.up(
        f"""
    name: same
{CONTAINERS}
    services:
      ours: {{<<: *{kind}}}
{rows}
    configs: {{c: {{content: conf}}}}
    secrets: {{s: {{environment: SEC}}}}
        """
    )
    said = {}
    for name in ("ours", *found):
        site.becomes("same", name, state="exited")
        said[name] = sorted(site.output("same", name).decode().splitlines())
        home = site.places.bundle(site.row("same", name)["id"])
        assert specification.wrong(json.loads((home / "config.json").read_text())) == []
    assert len(said["ours"]) > 30
    for name in found:
        assert set(said[name]) ^ set(said["ours"]) == set(), name
    site.down("same", remove_volumes=True)


def test_ends_are_the_program_s_own(site: Site, runtime: str) -> None:
    """Also of programs that end before the runtime has. The keeper has nothing more open than before."""
    held = len(os.listdir(f"/proc/{site.keeper}/fd"))
    site.up(
        f"""
        name: ends
        x-of: &of {{x-rootfs: {{path: $BOX}}, runtime: {runtime}}}
        services:
          zero: {{<<: *of, command: "true", scale: 5}}
          three: {{<<: *of, command: sh -c "exit 3"}}
          killed: {{<<: *of, command: sh -c "kill -9 $$$$", init: true}}
        """
    )
    for service, code in (("zero", 0), ("three", 3), ("killed", 137)):
        assert site.becomes("ends", service, state="exited")["exit_code"] == code
    site.down("ends")
    until(lambda: len(os.listdir(f"/proc/{site.keeper}/fd")) == held, "descriptors to be closed")


@pytest.mark.parametrize(("command", "code"), [("nothing-here", 127), ("/etc/passwd", 126)])
def test_a_command_that_can_t_be_run_is_no_other_failure(
    site: Site, runtime: str, command: str, code: int
) -> None:
    held = len(os.listdir(f"/proc/{site.keeper}/fd"))
    answer = site.up(
        f"name: bad\nservices: {{a: {{x-rootfs: {{path: $BOX}}, runtime: {runtime}, command: {command}}}}}",
        exit_code=code,
    )
    assert answer.error.startswith(f"container bad-a-1: {runtime}: ")
    assert command in answer.error or "open executable: Permission denied" in answer.error
    site.down("bad")
    until(lambda: len(os.listdir(f"/proc/{site.keeper}/fd")) == held, "descriptors to be closed")


def test_what_takes_too_much_memory_is_told_of(site: Site, runtime: str) -> None:
    site.up(
        f"""
        name: oom
        services:
          eater:
            x-rootfs: {{path: $BOX}}
            runtime: {runtime}
            mem_limit: 24m
            memswap_limit: 24m
            command: sh -c "x=x; while :; do x=$$x$$x; done"
        """
    )
    row = site.becomes("oom", "eater", state="exited")
    assert row["exit_code"] == 137
    site.down("oom")


def test_a_terminal(site: Site, runtime: str) -> None:
    site.up(
        f"""
        name: tty
        services:
          a: {{x-rootfs: {{path: $BOX}}, runtime: {runtime}, tty: true, command: sh -c "tty; sleep 100"}}
        """
    )
    site.prints("tty", "a", b"/dev/pts/0")
    site.down("tty")


def test_a_part_of_a_volume_is_not_left_by_a_link(site: Site, runtime: str) -> None:
    """What a container planted in the volume can't make another's mount lead out of it."""
    site.up(
        f"""
        name: part
        services:
          plant:
            x-rootfs: {{path: $BOX}}
            command: sh -c "mkdir -p /data/in; echo mine > /data/in/passwd; ln -s /etc /data/out"
            volumes: ["data:/data"]
          reader:
            x-rootfs: {{path: $BOX}}
            runtime: {runtime}
            command: cat /part/passwd
            depends_on: {{plant: {{condition: service_completed_successfully}}}}
            volumes: [{{type: volume, source: data, target: /part, volume: {{subpath: in}}}}]
        volumes: {{data: {{}}}}
        """
    )
    site.becomes("part", "reader", state="exited", exit_code=0)
    assert site.output("part", "reader") == b"mine\n"
    answer = site.up(
        f"""
        name: part2
        services:
          reader:
            x-rootfs: {{path: $BOX}}
            runtime: {runtime}
            command: cat /part/passwd
            volumes: [{{type: volume, source: data, target: /part, volume: {{subpath: out}}}}]
        volumes: {{data: {{external: true, name: part_data}}}}
        """,
        exit_code=1,
    )
    assert "subpath out" in answer.error
    site.down("part2")
    site.down("part", remove_volumes=True)


def test_namespaces_are_shared_with_containers_of_ours(site: Site, runtime: str) -> None:
    site.up(
        f"""
        name: shared
        services:
          ours: {{x-rootfs: {{path: $BOX}}, command: sleep 100, hostname: first}}
          theirs:
            x-rootfs: {{path: $BOX}}
            runtime: {runtime}
            command: sleep 100
            network_mode: service:ours
            pid: service:ours
            ipc: service:ours
          last: {{x-rootfs: {{path: $BOX}}, command: sleep 100, network_mode: "service:theirs", pid: "service:theirs"}}
        """
    )
    pids = {name: site.row("shared", name)["pid"] for name in ("ours", "theirs", "last")}

    def namespace(service: str, kind: str) -> str:
        return os.readlink(f"/proc/{pids[service]}/ns/{kind}")

    for kind in ("net", "pid"):
        assert namespace("ours", kind) == namespace("theirs", kind) == namespace("last", kind)
    assert namespace("ours", "ipc") == namespace("theirs", "ipc")
    assert namespace("ours", "uts") != namespace("theirs", "uts")
    site.down("shared")


def test_another_runtime_is_another_container(site: Site, runtime: str) -> None:
    text = "name: other\nservices: {a: {x-rootfs: {path: $BOX}, command: sleep 100%s}}"
    site.up(text % "", timeout=0)
    ours = site.row("other", "a")
    assert "runtime" not in ours
    answer = site.up(text % f", runtime: {runtime}", timeout=0)
    assert answer.actions("create")
    assert site.row("other", "a")["id"] != ours["id"]
    assert site.up(text % f", runtime: {runtime}", timeout=0).actions() == []
    site.down("other")


def test_exec_goes_through_a_runtime_whose_containers_we_can_t_enter(site: Site, runtime: str) -> None:
    """As runsc's: here the same program under a name that promises nothing."""
    program = site.dir / "sandboxed"
    program.unlink(missing_ok=True)
    program.symlink_to(shutil.which(runtime) or "")
    site.up(
        f"""
        name: boxed
        services:
          a: {{x-rootfs: {{path: $BOX}}, runtime: {program}, command: sleep 100, user: app, environment: {{A: b}}}}
        """
    )
    assert site.execute("boxed", "a", "sh", "-c", "id -un; echo $A; cat", stdin=b"in\n") == "app\nb\nin\n"
    assert site.execute("boxed", "a", "sh", "-c", "exit 9", exit_code=9) == ""
    assert site.execute("boxed", "a", "id", "-u", user="7:8") == "7\n"
    for _ in range(2):
        site.execute("boxed", "a", "true")
    home = site.places.bundle(site.row("boxed", "a")["id"])
    assert len(list(home.glob("exec-*"))) <= 1
    talk = site.begin(
        "exec",
        stack="boxed",
        service="a",
        command=["sh", "-c", "tty; stty size"],
        tty=True,
        rows=33,
        columns=101,
    )
    answer = talk.wait()
    terminal = answer.fds[0]
    seen = b""
    with contextlib.suppress(OSError):  # EIO at the end
        while part := os.read(terminal, 4096):
            seen += part
    os.close(terminal)
    assert seen.split()[:1] == [b"/dev/pts/0"]
    with pytest.raises(AssertionError, match="takes numbers, not names"):
        site.execute("boxed", "a", "id", user="web")
    site.down("boxed")


# --- deaths ----------------------------------------


@pytest.mark.parametrize("runtime", ["runc"], indirect=True)
def test_its_containers_outlive_keeper_and_supervisor(state_root: Path, runtime: str) -> None:
    text = """
        name: kept
        services:
          a:
            x-rootfs: {path: $BOX}
            runtime: runc
            command: ["sh", "-c", 'trap "exit 7" TERM; echo up; while :; do sleep 0.05; done']
        """
    with Site(state_root) as site:
        site.up(text)
        row = site.row("kept", "a")
        site.kill(site.supervisor, site.keeper)
        assert alive(row["pid"])
        assert site.up(text).actions() == []
        assert site.row("kept", "a")["pid"] == row["pid"]
        assert site.execute("kept", "a", "echo", "there") == "there\n"
        site.ask("stop", stack="kept")
        code = site.row("kept", "a")["exit_code"]
        assert code == 7 or (code is None and not REMEMBERS_EXITS)  # nobody who lives is its parent
        site.ask("start", stack="kept", services=[])
        assert site.row("kept", "a")["state"] == "running"
        site.down("kept")


@pytest.mark.parametrize(
    ("runtime", "victims"),
    [("runc", "keeper"), ("crun", "both")],
    indirect=["runtime"],
)
def test_a_kill_in_the_middle_is_made_good_by_the_next_look(
    state_root: Path, runtime: str, victims: str
) -> None:
    text = f"""
        name: cut
        services:
          a: {{x-rootfs: {{path: $BOX}}, runtime: {runtime}, command: sleep 100, scale: 3, stop_grace_period: 0s}}
        """
    lots = random.Random(f"{runtime} {victims}")
    with Site(state_root) as site:
        site.up("name: anchor\nservices: {idle: {x-rootfs: {path: $BOX}, command: sleep 1000}}")
        for order in ("up", "restart", "down"):
            pids = {"supervisor": site.supervisor, "keeper": site.keeper}
            talk = (
                site.begin_up(text)
                if order == "up"
                else site.begin(
                    order, stack="cut", timeout=0, **({"services": []} if order != "down" else {})
                )
            )
            time.sleep(lots.uniform(0.01, 0.25))
            site.kill(*(pid for name, pid in pids.items() if victims in (name, "both")))
            _finish(talk)
            if order == "down":
                site.down("cut")
                assert site.ps("cut") == []
                continue
            site.up(text)
            rows = site.ps("cut")
            assert [row["state"] for row in rows] == ["running"] * 3
            known = sorted(row["pid"] for row in rows)
            # A runtime's `start` may return before its process has become the program.
            until(partial(_sleeps, site, known), "what is known is what runs", lambda: f"{site.processes()}")
        until(lambda: not helpers(site), "the end of the runtime's processes")
        site.down("anchor")


def _sleeps(site: Site, pids: list[int]) -> bool:
    inside = [row for row in site.processes() if "sleep 100" in row and "sleep 1000" not in row]
    return sorted(int(row.split()[0]) for row in inside) == pids


def _finish(talk: Talk) -> None:
    """Its supervisor may have died before it answered."""
    with contextlib.suppress(AssertionError):
        talk.wait(30)


@pytest.mark.parametrize("runtime", ["crun"], indirect=True)
def test_a_container_that_was_left_waiting_is_not_taken_for_one_that_runs(
    state_root: Path, runtime: str
) -> None:
    """Made, and never started: both who would have started it were killed."""
    home = state_root / "slow"
    home.mkdir(exist_ok=True)
    program, slow = home / runtime, home / "slow"
    program.write_text(
        f'#!/bin/sh\n[ -e {slow} ] && case "$*" in *" start "*) sleep 100;; esac\nexec {shutil.which(runtime)} "$@"\n'
    )
    program.chmod(0o755)
    slow.touch()
    text = (
        f"name: left\nservices: {{a: {{x-rootfs: {{path: $BOX}}, runtime: {program}, command: sleep 100}}}}"
    )
    with Site(state_root) as site:
        site.up("name: anchor\nservices: {idle: {x-rootfs: {path: $BOX}, command: sleep 1000}}")
        talk = site.begin_up(text)
        until(lambda: any(" start " in line for line in helpers(site)), "its start")
        slow.unlink()
        site.kill(site.supervisor, site.keeper)
        _finish(talk)
        site.up(text)
        pid = site.row("left", "a")["pid"]
        assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00100\x00"
        assert helpers(site) == []
        site.down("left", timeout=0)
        site.down("anchor")
