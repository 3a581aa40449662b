"""Stacks of an ordinary user, who has no privilege, no cgroup, and one id or a range of them.

The users are made by the suite (see kit/ordinary); the commands are the installed ones, run as them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.kernel import cgroups
from tests.kit.keeper import BUSYBOX
from tests.kit.ordinary import FIRST_RANGE, OUTSIDE, Ordinary, has_ranges, kill, open_node
from tests.kit.patience import patient
from tests.kit.programs import free_port
from tests.kit.site import until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes users"),
]
ranged = pytest.mark.skipif(not has_ranges(), reason="needs newuidmap and newgidmap (package uidmap)")

TWO = """
name: two
services:
  web:
    x-rootfs: {path: $BOX}
    command: sh -c 'echo hello > /tmp/index.html; echo serving; exec httpd -f -p 80 -h /tmp'
    ports: ["$PORT:80"]
    restart: always
    stop_grace_period: 0s
    healthcheck: {test: "wget -qO- http://127.0.0.1/", interval: 30s, start_period: 9s, start_interval: 50ms}
  client:
    x-rootfs: {path: $BOX}
    command: sleep 1000
    stop_grace_period: 0s
    depends_on: {web: {condition: service_healthy}}
"""


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("o")


@pytest.fixture(scope="module")
def user(state_root: Path) -> Iterator[Ordinary]:
    """With one id alone."""
    with Ordinary(state_root) as made:
        yield made


def fetch(port: int) -> bytes:
    """What the web server says to a client on the host's loopback; b"" when it says nothing."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patient(5)) as sock:
            sock.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
    except OSError:
        return b""
    return answer.partition(b"\r\n\r\n")[2]


# --- what works ------------------------------------------------------------------------------------------


def test_a_stack_of_two_services_lives_and_leaves_nothing(user: Ordinary) -> None:
    """Up with a dependency on health, names, a published port, logs, exec, stats, down."""
    published = free_port()
    user.write(TWO, PORT=published)
    user.pystack("up", "-d")

    assert fetch(published) == b"hello\n"
    assert user.pystack("exec", "client", "wget", "-qO-", "http://web/index.html").stdout == "hello\n"
    assert user.pystack("exec", "-T", "client", "cat", stdin="through").stdout == "through"
    assert "serving" in user.pystack("logs", "web").stdout
    assert "(healthy)" in user.pystack("ps").stdout
    assert "httpd" in user.pystack("top", "web").stdout
    assert user.pystack("exec", "web", "id", "-u").stdout == "0\n"
    _only_the_porter_is_outside(user)
    _state_is_the_users_alone(user)
    assert "pause: no cgroup is delegated to this user" in user.pystack("pause", exit_code=None).stderr

    user.pystack("down", "-t", "0")
    until(lambda: not user.processes(), "the end of all of the user's", lambda: str(user.processes()), 5)
    assert not user.run_dir.exists()
    assert str(user.root) not in Path("/proc/self/mountinfo").read_text()


PROBED = """
name: probed
services:
  web:
    x-rootfs: {path: $BOX}
    command: sh -c 'trap "cat /page" USR1; echo serving; httpd -p 80 -h /; while :; do sleep 0.05; done'
    configs: [page]
    x-on-change: {signal: USR1}
    x-log-ready: ^serving
    healthcheck: {x-http: {port: 80, path: /page}}
    stop_grace_period: 0s
  client:
    x-rootfs: {path: $BOX}
    command: sleep 1000
    stop_grace_period: 0s
    depends_on: {web: {condition: service_healthy, x-condition: service_log_ready}}
configs: {page: {file: page}}
"""


def test_probes_lines_and_files_that_change(user: Ordinary) -> None:
    """Nothing of it needs a privilege that counts outside."""
    page = user.home / "page"
    page.write_text("one")
    os.chown(page, user.uid, user.uid)
    user.write(PROBED)
    user.pystack("up", "-d", "--wait")
    assert "(healthy)" in user.pystack("ps").stdout
    page.write_text("two")
    until(lambda: "two" in user.pystack("logs", "web").stdout, "the new page")
    user.pystack("down", "-t", "0")


def _only_the_porter_is_outside(user: Ordinary) -> None:
    """Root inside is the user outside: no process has another id, or a capability that counts here."""
    for pid in user.processes():
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{user.uid}\t{user.uid}\t{user.uid}\t{user.uid}\n" in status
    own = os.readlink("/proc/self/ns/user")
    held = [pid for pid in user.processes() if os.readlink(f"/proc/{pid}/ns/user") == own]
    assert held == [user.pid_of("porter.py")]
    assert "CapEff:\t0000000000000000" in Path(f"/proc/{held[0]}/status").read_text()


def _state_is_the_users_alone(user: Ordinary) -> None:
    for path in (user.run_dir, user.root / "data" / "pystack"):
        assert path.stat().st_mode & 0o777 == 0o700, path
    for name in ("supervisor.sock", "keeper.sock", "porter.sock"):
        found = (user.run_dir / name).stat()
        assert (found.st_mode & 0o777, found.st_uid) == (0o600, user.uid), name


def test_a_udp_port_answers_each_sender(user: Ordinary) -> None:
    published = free_port()
    program = "import socket as s; u = s.socket(2, 2); u.bind(('', 99))\nwhile 1: d, a = u.recvfrom(9999); u.sendto(d[::-1], a)"
    script = user.box / "echo.py"
    script.write_text(program)
    user.write(
        """
name: udp
services:
  echo: {x-rootfs: host, command: python3 /echo.py, volumes: ["$SCRIPT:/echo.py:ro"], ports: ["$PORT:99/udp"]}
""",
        PORT=published,
        SCRIPT=script,
    )
    user.pystack("up", "-d")
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]

    def asks(sender: socket.socket, text: bytes) -> bytes | None:
        sender.settimeout(patient(0.2))
        sender.sendto(text, ("127.0.0.1", published))
        try:
            return sender.recv(100)
        except (TimeoutError, ConnectionRefusedError):
            return None

    until(lambda: asks(senders[0], b"ready"), "the first answer", user.story)
    assert [asks(sender, b"%d-abc" % number) for number, sender in enumerate(senders)] == [
        b"cba-0",
        b"cba-1",
        b"cba-2",
    ]
    for sender in senders:
        sender.close()
    user.pystack("down", "-t", "0")


SHARED = """
name: shared
services:
  web:
    x-rootfs: {path: $BOX}
    command: sh -c 'hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp'
    ports: ["$PORT:80"]
    scale: 3
    stop_grace_period: 0.2s
"""


def test_containers_share_a_port_in_turn_and_none_is_missed_when_there_are_fewer(user: Ordinary) -> None:
    published = free_port()
    user.write(SHARED, PORT=published)
    user.pystack("up", "-d")
    turns = until(lambda: len(set(found := [fetch(published) for _ in range(6)])) == 3 and found, "all three")
    assert turns[:3] == turns[3:], "each in turn"
    with ThreadPoolExecutor(1) as asking:
        over = threading.Event()
        answers = asking.submit(_ask_until, over, published)
        user.pystack("up", "-d", "--scale", "web=1")
        over.set()
        assert b"" not in answers.result()
    assert len({fetch(published) for _ in range(4)}) == 1
    user.pystack("down", "-t", "0")


def _ask_until(over: threading.Event, port: int) -> list[bytes]:
    answers = []
    while not over.is_set():
        answers.append(fetch(port))
    return answers


ROLLING = """
name: rolling
services:
  web:
    x-rootfs: {path: $BOX}
    command: sh -c 'echo $PAGE > /tmp/index.html; exec httpd -f -p $LISTENS -h /tmp'
    healthcheck: {x-http: {port: 80}, interval: 0.2s, retries: 2}
    ports: ["$PORT:80"]
    stop_grace_period: 0.2s
    deploy: {replicas: 2, update_config: {order: start-first, failure_action: rollback, monitor: 0.3s}}
"""


def test_a_change_by_steps_loses_no_request_and_goes_back_by_itself(user: Ordinary) -> None:
    published = free_port()
    user.write(ROLLING, PORT=published, PAGE="one", LISTENS=80)
    user.pystack("up", "-d", "--wait")
    with ThreadPoolExecutor(1) as asking:
        over = threading.Event()
        answers = asking.submit(_ask_until, over, published)
        user.write(ROLLING, PORT=published, PAGE="two", LISTENS=80)
        user.pystack("up", "-d")
        user.write(ROLLING, PORT=published, PAGE="three", LISTENS=81)
        refused = user.pystack("up", "-d", exit_code=1)
        over.set()
        assert set(answers.result()) == {b"one\n", b"two\n"}
    assert "the update of web was rolled back: container rolling-web-1 is unhealthy" in refused.stderr
    assert fetch(published) == b"two\n"

    _in_the_users_network(user, "nft", "flush", "ruleset")
    for bridge in _in_the_users_network(user, "ip", "-br", "link", "show", "type", "bridge").splitlines():
        _in_the_users_network(user, "ip", "link", "delete", bridge.split()[0])
    told = "its bridge was deleted"
    until(lambda: told in user.pystack("events", "--until", "0s").stdout, told, user.story)
    until(lambda: fetch(published) == b"two\n", "the page again", user.story, 3)
    assert user.pystack("drift").stdout == "No drift.\n"
    user.pystack("down", "-t", "0")


def _in_the_users_network(user: Ordinary, *words: str) -> str:
    place = f"--net=/proc/{user.pid_of('orchestrator.daemon')}/ns/net"
    return subprocess.run(["nsenter", place, *words], check=True, capture_output=True, text=True).stdout


def test_many_bytes_both_ways_through_a_port(user: Ordinary) -> None:
    """A client that closes its side first still gets all that it sent back, byte for byte."""
    published = free_port()
    user.write(
        """
name: bytes
services:
  echo: {x-rootfs: {path: $BOX}, command: "nc -ll -p 7 -e cat", ports: ["127.0.0.1:$PORT:7"]}
""",
        PORT=published,
    )
    user.pystack("up", "-d")
    until(lambda: _echo(published, b"?") == b"?", "the server")
    sent = os.urandom(1 << 20) * 8
    assert _echo(published, sent) == sent
    user.pystack("down", "-t", "0")


def _echo(port: int, sent: bytes) -> bytes:
    import threading

    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patient(20)) as sock:

            def speak() -> None:
                sock.sendall(sent)
                sock.shutdown(socket.SHUT_WR)

            speaker = threading.Thread(target=speak)
            speaker.start()
            while piece := sock.recv(1 << 20):
                answer += piece
            speaker.join()
    except OSError:
        pass
    return answer


# --- what is killed ----------------------------------------------------------------------------------------


def test_whatever_is_killed_the_stack_goes_on(user: Ordinary) -> None:
    """A container is restarted; without our own processes containers live on, and the next command finds
    everything again in the same namespaces."""
    published = free_port()
    user.write(TWO, PORT=published)
    user.pystack("up", "-d")
    first, client = user.pid_of("httpd"), user.pid_of("sleep 1000")
    kill(first)
    until(lambda: fetch(published) == b"hello\n" and user.pid_of("httpd") != first, "a new one", user.story)
    web = user.pid_of("httpd")

    for number, victims in enumerate(
        (["orchestrator.daemon"], ["keeper.py"], ["porter.py"], ["keeper.py", "orchestrator.daemon"]), 2
    ):
        for victim in victims:
            kill(user.pid_of(victim))
        user.pystack("up", "-d", "--scale", f"client={number}")
        assert user.pid_of("httpd") == web, victims
        assert client in _sleepers(user), victims
        until(lambda: fetch(published) == b"hello\n", f"the port without {victims}", user.story)
        for index in ("1", str(number)):
            ask = ("exec", "--index", index, "client", "wget", "-qO-", "http://web/index.html")
            assert user.pystack(*ask).stdout == "hello\n", victims
    user.pystack("down", "-t", "0")


def _sleepers(user: Ordinary) -> list[int]:
    return sorted(pid for pid, command in user.processes().items() if command == "sleep 1000 ")


# --- what is refused ---------------------------------------------------------------------------------------


def test_what_can_not_be_is_named_before_anything_is_done(user: Ordinary) -> None:
    user.write(
        """
name: refused
services:
  one: {x-rootfs: {path: $BOX}, command: sleep 9, mem_limit: 64m, cpus: 1, pids_limit: 9, ports: ["80:80"]}
  two: {x-rootfs: {path: $BOX}, command: sleep 9, network_mode: host, pid: host, oom_score_adj: -900}
"""
    )
    ran = user.pystack("up", "-d", exit_code=4)
    for part in (
        "service one: memory limit: no cgroup with the memory controller is delegated to this user",
        "service one: cpu limit: no cgroup with the cpu controller",
        "service one: pids limit: no cgroup with the pids controller",
        "service one: port 80/tcp: an ordinary user can publish ports from 1024 on",
        "service two: network_mode: host: an ordinary user's containers can't have the host's",
        "service two: pid: host: an",
        "service two: oom_score_adj -900: an ordinary user can't go below their own",
    ):
        assert part in ran.stderr, ran
    assert "Creating" not in ran.stderr + ran.stdout
    assert user.pystack("ps", "-aq").stdout == ""


def test_limits_of_processes_hold(user: Ordinary) -> None:
    """rlimits need no cgroup."""
    user.write(
        """
name: limited
services:
  one: {x-rootfs: {path: $BOX}, command: sh -c 'ulimit -n', ulimits: {nofile: 77}, restart: "no"}
"""
    )
    user.pystack("up", "-d")
    until(lambda: "77" in user.pystack("logs", "one").stdout, "what it prints", user.story)
    user.pystack("down")


def test_a_machine_without_user_namespaces_is_named(user: Ordinary) -> None:
    """The kernel gives none to a process in a chroot (unshare(2), EPERM)."""
    jail = user.root / "jail"
    jail.mkdir()
    command = user.argv([sys.executable, "-m", "orchestrator", "up", "-d"])
    at = command.index("setpriv")
    command[at:at] = ["unshare", "-m", "sh", "-c", f'mount --rbind / {jail}; exec chroot {jail} "$@"', "sh"]
    user.write(TWO, PORT=free_port())
    ran = subprocess.run(command, capture_output=True, text=True, timeout=patient(30), check=False)
    assert ran.returncode == 4, ran
    assert "this machine gives ordinary users no user namespaces" in ran.stderr
    assert "kernel.unprivileged_userns_clone" in ran.stderr
    jail.rmdir()
    assert not user.run_dir.exists()


# --- what the user may have besides --------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["pasta", "slirp4netns"])
def test_a_way_out_is_taken_where_there_is_one(tmp_path: Path, program: str) -> None:
    """And goes with the last stack. The "host" is a namespace with one address outside."""
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    if not Path("/dev/net/tun").exists():
        subprocess.run(["modprobe", "--quiet", "tun"], check=False)
        if not Path("/dev/net/tun").exists():
            pytest.skip("this kernel has no tun devices")
    user = Ordinary(tmp_path, uid=4444, network=True)
    others = {"pasta", "slirp4netns"} - {program}
    (tmp_path / "none").touch(0o644)
    user.covered = {path: str(tmp_path / "none") for name in others if (path := shutil.which(name))}
    user.covered["/dev/net/tun"] = open_node(tmp_path / "tun", 10, 200)
    with user:
        page = user.box / "page"
        page.write_text("from outside")
        server = user.beside(BUSYBOX, "httpd", "-f", "-p", f"{OUTSIDE}:80", "-h", str(user.box))
        user.write("name: out\nservices: {one: {x-rootfs: {path: $BOX}, command: sleep 1000}}")
        try:
            assert "warning" not in user.pystack("up", "-d").stderr
            ask = ("exec", "one", "timeout", f"{patient(3):g}", "wget", "-qO-", f"http://{OUTSIDE}/page")
            until(lambda: user.pystack(*ask, exit_code=None).stdout == "from outside", "the page", user.story)
            user.pystack("down", "-t", "0")
        finally:
            server.kill()
            server.wait()
        until(lambda: not user.processes(), "the end", lambda: str(user.processes()), 5)


RESOLVER = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.53", 53))
print("ready", flush=True)
while True:
    query, asker = server.recvfrom(512)
    end = query.index(b"\\0", 12) + 5
    answer = b"\\xc0\\x0c\\0\\x01\\0\\x01\\0\\0\\0\\x09\\0\\x04" + bytes([192, 0, 2, 7])
    server.sendto(query[:2] + b"\\x81\\x80\\0\\x01\\0\\x01\\0\\0\\0\\0" + query[12:end] + answer, asker)
"""


def test_names_outside_are_asked_of_the_hosts_resolver(tmp_path: Path) -> None:
    """Also of one on the host's loopback, and without a way out for the containers."""
    user = Ordinary(tmp_path, uid=4545, network=True)
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    user.covered = {"/etc/resolv.conf": str(tmp_path / "resolv.conf")}
    with user:
        server = user.beside(sys.executable, "-c", RESOLVER)
        user.write("name: names\nservices: {one: {x-rootfs: {path: $BOX}, command: sleep 1000}}")
        try:
            assert "containers can't reach networks outside" in user.pystack("up", "-d").stderr
            ask = ("exec", "one", "nslookup", "elsewhere.example")
            until(lambda: "192.0.2.7" in user.pystack(*ask, exit_code=None).stdout, "an answer", user.story)
            user.pystack("down", "-t", "0")
        finally:
            server.kill()
            server.wait()
        until(lambda: not user.processes(), "the end", lambda: str(user.processes()), 5)


@pytest.fixture
def delegated(tmp_path: Path) -> Iterator[str]:
    """A group of the unified hierarchy that belongs to the user, with what controllers the machine has there."""
    mounted = cgroups.detect().unified
    if mounted is None:
        pytest.skip("no unified hierarchy")
    group = Path(mounted, f"test-{os.getpid()}")
    wanted = {"memory", "pids"} & set(Path(mounted, "cgroup.controllers").read_text().split())
    for name in wanted:
        Path(mounted, "cgroup.subtree_control").write_text(f"+{name}")
    group.mkdir()
    for path in (group, *(group / f"cgroup.{name}" for name in ("procs", "threads", "subtree_control"))):
        os.chown(path, 4646, 4646)
    yield str(group)
    for place, _, _ in sorted(os.walk(group), reverse=True):
        os.rmdir(place)


def test_a_delegated_cgroup_is_used(tmp_path: Path, delegated: str) -> None:
    """For pause, for the end of what a container leaves, and for limits whose controllers are in it."""
    with Ordinary(tmp_path, uid=4646, cgroup=delegated) as user:
        user.write("name: own\nservices: {one: {x-rootfs: {path: $BOX}, command: sleep 1000}}")
        user.pystack("up", "-d")
        user.cgroup = ""  # further commands come from anywhere
        user.pystack("pause")
        assert "(Paused)" in user.pystack("ps").stdout
        user.pystack("unpause")
        groups = [path for path in Path(delegated).rglob("cgroup.procs") if path.read_text().strip()]
        assert str(user.pid_of("sleep 1000")) in "".join(path.read_text() for path in groups).split()

        user.write(
            "name: own\nservices: {one: {x-rootfs: {path: $BOX}, command: sleep 1000, mem_limit: 40m}}"
        )
        has_memory = "memory" in (Path(delegated) / "cgroup.controllers").read_text().split()
        ran = user.pystack("up", "-d", exit_code=0 if has_memory else 4)
        if has_memory:
            limits = {path.read_text().strip() for path in Path(delegated).rglob("memory.max")}
            assert str(40 << 20) in limits
        else:
            assert "no cgroup with the memory controller is delegated to this user" in ran.stderr
        user.pystack("down", "-t", "0")
        until(lambda: not user.processes(), "the end", lambda: str(user.processes()), 5)


WITHIN = """
name: own
services:
  eater:
    x-rootfs: {path: $BOX}
    command: ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1"]
    mem_limit: 40m
    memswap_limit: 40m
  spin: {x-rootfs: {path: $BOX}, command: ["sh", "-c", "while :; do :; done"], cpus: 0.2, stop_grace_period: 0s}
  few: {x-rootfs: {path: $BOX}, command: sleep 1000, pids_limit: 5, mem_limit: 64m, stop_grace_period: 0s}
"""


@pytest.fixture
def handed_down() -> Iterator[tuple[int, Path]]:
    """A user's id and a group with all controllers that is theirs: from systemd where it runs, else by hand."""
    wanted = {"cpu", "memory", "pids"}
    if not wanted <= cgroups.detect().v2:
        pytest.skip("the controllers are on v1, where nothing is delegated")
    if os.path.isdir("/run/systemd/system"):
        uid, unit = pwd.getpwnam("games").pw_uid, f"test-{os.getpid()}.service"
        subprocess.run(
            ["systemd-run", "--quiet", "--collect", f"--unit={unit}", "-p", "Delegate=yes", "-p", "User=games",
             "sleep", "10000"],
            check=True,
        )  # fmt: skip
        shown = ["systemctl", "show", "-P", "ControlGroup", unit]
        group = Path("/sys/fs/cgroup" + subprocess.check_output(shown, text=True).strip())
        yield uid, group
        # It may have gone with the user's last process.
        subprocess.run(["systemctl", "stop", unit], check=False, capture_output=True)
    else:
        uid, group = 4747, Path("/sys/fs/cgroup", f"test-{os.getpid()}")
        (group.parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(wanted)))
        group.mkdir()
        for path in (group, *(group / f"cgroup.{name}" for name in ("procs", "threads", "subtree_control"))):
            os.chown(path, uid, uid)
        yield uid, group
        for place, _, _ in sorted(os.walk(group), reverse=True):
            os.rmdir(place)
    until(lambda: not group.exists(), "the end of the group")


def test_limits_hold_in_a_delegated_cgroup(tmp_path: Path, handed_down: tuple[int, Path]) -> None:
    """Memory with the end told for what it was, processes, processor time: each is felt, not only written."""
    uid, group = handed_down
    assert {"cpu", "memory", "pids"} <= set((group / "cgroup.controllers").read_text().split())
    with Ordinary(tmp_path, uid=uid, cgroup=str(group)) as user:
        user.write(WITHIN)
        user.pystack("up", "-d")
        user.cgroup = ""
        until(
            lambda: "Exited (137) OOM killed" in user.pystack("ps", "-a").stdout,
            "the eater's end",
            user.story,
        )

        fork = "for i in 1 2 3 4 5 6 7 8 9; do sleep 20 & done; echo all"
        ran = user.pystack("exec", "few", "sh", "-c", fork, exit_code=None)
        assert ran.exit_code != 0
        assert "fork" in ran.stderr
        assert "all" not in ran.stdout

        place = Path("/sys/fs/cgroup" + own_group(user.pid_of("while :; do :; done")))
        assert place.is_relative_to(group)
        assert place.stat().st_uid == uid

        def spent() -> float:
            return int((place / "cpu.stat").read_text().split()[1]) / 1e6

        before, began = spent(), time.monotonic()
        time.sleep(2)
        assert 0 < (spent() - before) / (time.monotonic() - began) < 0.3
        user.pystack("update", "--cpus", "0", "spin")
        assert (place / "cpu.max").read_text().startswith("max ")

        running = user.pystack("ps", "--format", "{{.Service}}").stdout.split()
        assert sorted(running) == ["few", "spin"]
        user.pystack("down", "-t", "0")
        until(lambda: not list(group.glob("pystack-*/own")), "the groups of the stack gone")


def own_group(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")


# --- ids -----------------------------------------------------------------------------------------------------

IDS = """
name: ids
services:
  root:
    x-rootfs: {path: $BOX}
    command: sh -c 'touch /tmp/f; chown 33:44 /tmp/f && ls -ln /tmp/f; su web -c "id -u; echo went"; sleep 1000'
    volumes: ["data:/data"]
  named:
    x-rootfs: {path: $BOX}
    user: "1000:1000"
    command: sh -c 'id; echo out > /dev/stdout; touch /data/mine && ls -ln /data/mine; sleep 1000'
    volumes: ["data:/data"]
volumes: {data: {}}
"""


def test_with_one_id_giving_away_is_pretended_and_users_are_root_by_another_name(user: Ordinary) -> None:
    user.write(IDS)
    user.pystack("up", "-d")
    until(lambda: "/data/mine" in user.pystack("logs").stdout, "the output", user.story)
    said = user.pystack("logs", "--no-log-prefix", "root").stdout
    assert said.split()[2:4] == ["0", "0"], said
    assert said.endswith("0\nwent\n"), said
    said = user.pystack("logs", "--no-log-prefix", "named").stdout
    assert "uid=1000(app) gid=1000(app)" in said
    assert "\nout\n" in said
    assert said.splitlines()[-1].split()[2:4] == ["1000", "1000"], said
    assert user.pystack("exec", "named", "id", "-u").stdout == "1000\n"
    assert user.pystack("exec", "-u", "0", "named", "id", "-u").stdout == "0\n"
    made = next((user.root / "data").rglob("mine"))
    assert made.stat().st_uid == user.uid
    user.pystack("down", "-v", "-t", "0")
    assert not made.exists()


@pytest.fixture
def wide(tmp_path: Path) -> Iterator[Ordinary]:
    """A user with a range of ids."""
    with Ordinary(tmp_path, uid=4343, ranges=True) as made:
        yield made
        until(lambda: not made.processes(), "the end of all of the user's", lambda: str(made.processes()), 5)


@ranged
def test_with_a_range_ids_are_real(wide: Ordinary) -> None:
    """Files and processes belong to ids of the range outside, and an image keeps its owners."""
    layer = wide.root / "layer"
    shutil.copytree(wide.box, layer, symlinks=True)
    subprocess.run(["chown", "-R", "--no-dereference", "0:0", layer], check=True)
    os.chown(layer / "home/app", 1000, 1000)
    archive = wide.home / "image.tar"
    subprocess.run(["tar", "-C", layer, "-cf", archive, "."], check=True)
    wide.pystack("import", str(archive), "ranged:1")
    wide.write(IDS.replace("x-rootfs: {path: $BOX}", "image: ranged:1"))
    wide.pystack("up", "-d")
    until(lambda: "went" in wide.pystack("logs").stdout, "the output", wide.story)

    said = wide.pystack("logs", "--no-log-prefix", "root").stdout
    assert said.split()[2:4] == ["33", "44"], said
    assert said.endswith("33\nwent\n"), said
    assert wide.pystack("exec", "root", "stat", "-c", "%u:%g", "/home/app").stdout == "1000:1000\n"
    assert wide.pystack("exec", "named", "id", "-G").stdout == "1000\n"
    sleeper = [pid for pid, command in wide.processes().items() if command == "sleep 1000 "]
    owners = {os.stat(f"/proc/{pid}").st_uid for pid in sleeper}
    assert owners == {wide.uid, FIRST_RANGE + 999}
    wide.pystack("down", "-v", "-t", "0")
    wide.pystack("rmi", "ranged:1")


@ranged
def test_a_user_beyond_the_range_is_refused(wide: Ordinary) -> None:
    wide.write("name: far\nservices: {one: {x-rootfs: {path: $BOX}, command: sleep 9, user: '70000'}}")
    ran = wide.pystack("up", "-d", exit_code=None)
    assert ran.exit_code
    assert "user 70000:0 is beyond the ids that /etc/subuid and /etc/subgid give" in ran.stderr
    wide.pystack("down")


FILES = """
name: files
services:
  web:
    image: base:1
    command: sh -c 'echo made > /new; rm /etc/group; echo data > /data/x; exec sleep 1000'
    volumes: [data:/data]
    stop_grace_period: 0s
volumes: {data: {}}
"""
COPIED = """
set -e
pystack() { $PYTHON -m orchestrator "$@"; }
pystack import $BOX base:1 > /dev/null
pystack up -d 2> /dev/null
pystack cp web:/data/x - | tar xO
echo own > own; chmod 640 own; pystack cp own web:/data/own 2>&1
pystack diff web
pystack export web | tar t | grep -x -e new -e etc/group -e data/x -e etc/passwd
pystack commit web made:1 2>&1 > /dev/null
pystack kill 2> /dev/null
pystack cp -q web:/data got; cat got/x; stat -c '%U %a' got/own
pystack run --rm -T again cat /new 2> /dev/null
pystack down -v -t 0 2> /dev/null
"""


def test_files_go_in_and_out_and_become_an_image(wide: Ordinary) -> None:
    """The worker finds its way into the user's own namespaces; owners are those inside, and outside the user."""
    again = "  again: {image: made:1, profiles: [later], network_mode: none}\n"
    wide.write(FILES.replace("volumes: {data: {}}", f"{again}volumes: {{data: {{}}}}"))
    script = COPIED.replace("$PYTHON", sys.executable).replace("$BOX", str(wide.box))
    said = wide.do("sh", "-c", script).stdout.splitlines()
    assert said == [
        "data",
        "Successfully copied 2.05kB to web:/data/own",
        "C /etc",
        "D /etc/group",
        "A /new",
        "etc/passwd",
        "new",
        "warning: it goes on running meanwhile: container files-web-1: pause: no cgroup is delegated to this user",
        "data",
        "ordinary 640",
        "made",
    ]
