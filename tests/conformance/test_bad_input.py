"""Bad input on the real program: one message with its place, the right exit code, nothing left behind.

Each row is a command line or a stack file, the exit code, and the first line of what is said about it.
The codes are those of docs/exit-codes.md.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kit import leaks
from tests.kit.keeper import build_image
from tests.kit.programs import Pystack, Ran, free_port, program

pytestmark = pytest.mark.kernel

LAB = """\
name: lab
services:
  web: {x-rootfs: {path: BOX}, command: sleep 1000, stop_grace_period: 0s, cpuset: '0'}
  idle: {x-rootfs: {path: BOX}, command: sleep 1000, stop_grace_period: 0s}
  off: {x-rootfs: {path: BOX}, command: sleep 1000, profiles: [debug]}
"""


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


@pytest.fixture(scope="module")
def lab(state_root: Path) -> Iterator[Pystack]:
    """A stack that runs: service web is up, idle was never started, off is in a profile."""
    folder = state_root / "work"
    folder.mkdir()
    box = build_image(state_root / "box")
    for name, mode in (("plain", 0o644), ("strange", 0o755)):
        (box / name).write_text("no program\n")
        (box / name).chmod(mode)
    (folder / "stack.yml").write_text(LAB.replace("BOX", str(box)))
    for name, data in {
        "empty.yml": b"",
        "latin.yml": b"services:\n  caf\xe9: {image: x}\n",
        "binary.yml": bytes(range(256)),
        "tab.yml": b"services:\n\tweb: {image: x}\n",
        "twice.yml": b"services:\n  a: {image: x}\n  a: {image: y}\n",
        "list.yml": b"- a\n",
        "bad.env": b"A B=1\n",
        "no.tar": b"this is no archive" * 99,
    }.items():
        (folder / name).write_bytes(data)
    before = leaks.look(leaks.Root(path=state_root))
    made = Pystack(root=state_root, directory=folder)
    made.run("up", "-d", "web")
    try:
        yield made
        made.run("down", "-v", "-t", "0")
        assert not leaks.left(before, leaks.Root(path=state_root))
    finally:
        made.abandon()


def said(ran: Ran) -> str:
    """The first line about what is wrong: progress is indented, warnings say so."""
    lines = [line for line in ran.stderr.splitlines() if line[:1] != " " and "warning:" not in line]
    return lines[0] if lines else ""


def one_message(ran: Ran) -> None:
    """No traceback, no bug, and nothing on standard output that a script could take for an answer."""
    assert "Traceback" not in ran.stderr, ran
    assert "internal error" not in ran.stderr, ran
    assert ran.stdout == "", ran
    assert ran.stderr.count("error:") + ran.stderr.count("error[") == 1, ran


LINES = {
    # the command line
    "upp": (2, 'error: unknown command "upp"'),
    "watch": (2, "error: `watch` is not supported yet"),
    "top --all": (2, "error: no such option: --all"),
    "up -d --build": (2, "error: --build is not supported yet"),
    "ps --nonsense": (2, "error: no such option: --nonsense"),
    "ps --format yaml": (2, "error: --format: 'yaml' is no format"),
    "stop -t abc": (2, "error: invalid value for '-t' / '--timeout': 'abc' is not a valid float"),
    "stop -t -1": (2, "error: invalid value for '-t' / '--timeout': -1 is not a number from 0 on"),
    "exec": (2, "error: missing argument 'service'"),
    "exec web": (2, "error: missing argument 'command'"),
    "up -d --scale web": (2, "error: --scale: 'web' is not SERVICE=N"),
    "scale web=x": (2, "error: scale: 'web=x' is not SERVICE=N"),
    "up --force-recreate --no-recreate": (
        2,
        "error: --force-recreate and --no-recreate cannot be combined",
    ),
    "logs --tail x": (2, "error: --tail: 'x' is neither a number nor all"),
    "logs --since soon": (2, "error: --since: 'soon' is neither a time nor a duration"),
    "kill -s FOO": (2, "error: there is no signal 'FOO'"),
    "kill -s 99": (2, "error: there is no signal '99'"),
    "port web abc": (2, "error: 'abc' is no port"),
    "run -v nowhere:/x web true": (2, "error: --volume nowhere:/x: the stack has no volume 'nowhere'"),
    "run -p x:y web true": (2, "error: --publish x:y: "),
    "-p Bad ps": (15, "error: -p: 'Bad' can't name a stack"),
    f"-p {'a' * 101} ps": (15, f"error: -p: '{'a' * 20}...' can't name a stack"),
    # the files
    "-f none.yml up -d": (14, "error[E021]: {dir}/none.yml: there is no such file"),
    "-f none.yml ps": (14, "error[E021]: {dir}/none.yml: there is no such file"),
    "-f . config": (14, "error[E021]: {dir}: that is a directory, not a file"),
    "-f /dev/zero config": (14, "error[E021]: /dev/zero: the file is larger than 64 MiB"),
    "--project-directory /proc/1/fdinfo/x config": (14, "error[E021]: there is no stack file in "),
    "-f empty.yml up -d": (15, "empty.yml:1:1: error[E006]: the stack file is empty"),
    "-f - config": (15, "-:1:1: error[E006]: the stack file is empty"),
    "-f latin.yml up -d": (15, "{dir}/latin.yml:2:6: error[E001]: the file is not UTF-8 text"),
    "-f binary.yml config": (15, "{dir}/binary.yml:2:118: error[E001]: the file is not UTF-8 text"),
    "-f tab.yml config": (15, "tab.yml:2:1: error[E001]: not YAML: found character that cannot start"),
    "-f twice.yml config": (15, "twice.yml:3:3: error[E002]: the key 'a' stands here twice"),
    "-f list.yml config": (15, "list.yml:1:1: error[E013]: the top of a stack file must be a mapping"),
    "--env-file none.env config": (14, "error[E021]: {dir}/none.env: there is no such file"),
    "--env-file bad.env config": (15, "bad.env:1:1: error[E022]: the name 'A B' can't hold a blank"),
    "config -o /nowhere/x": (1, "error: /nowhere/x: No such file or directory"),
    # the services
    **{
        f"{command} wbe": (1, "error: no such service: wbe")
        for command in (
            *("ps", "logs", "stop", "start", "restart", "kill", "rm -f", "events", "run"),
            *("up -d", "create", "config", "plan", "up --exit-code-from", "up --attach"),
        )
    },
    "scale wbe=2": (1, "error: no such service: wbe"),
    "up -d --scale wbe=2": (1, "error: no such service: wbe"),
    "port wbe 80": (1, "error: no such service: wbe"),
    "exec wbe true": (1, "error: no such service: wbe"),
    "exec idle true": (1, "is not running"),
    "exec --index 2 web true": (1, 'error: service "web" has no running container with index 2'),
    "port idle 80": (1, 'error: service "idle" is not running'),
    "port web 80": (1, "error: no port 80/tcp for container lab-web-1"),
    "start idle": (1, "error: service idle has no container to start"),
    # programs
    "exec -T web nosuch": (127, 'error: exec: "nosuch": executable file not found in $PATH'),
    "exec -T web /nosuch": (127, 'error: exec: "/nosuch": no such file or directory'),
    "exec -T web /plain": (126, 'error: exec: "/plain": permission denied'),
    "exec -T web /strange": (126, 'error: exec: "/strange": exec format error'),
    "exec -T web /tmp": (126, 'error: exec: "/tmp": permission denied'),
    "exec -T -u nobodyelse web true": (1, "error: unable to find user nobodyelse: "),
    "exec -T -w /nowhere web true": (1, "working directory /nowhere: no such file or directory"),
    "run --rm -T web nosuch": (127, 'error: exec: "nosuch": executable file not found in $PATH'),
    "run --rm -T web /plain": (126, 'error: exec: "/plain": permission denied'),
    # images
    "load -i none.tar": (14, "error: none.tar: No such file or directory"),
    "load -i .": (14, "error: .: Is a directory"),
    "load -i no.tar": (6, "error: no.tar: broken image: archive: not a tar archive"),
    "load": (6, "error: broken image: the archive is empty"),
    "import none": (14, "error: none: No such file or directory"),
    "import no.tar": (6, "error: no.tar: broken image: layer: not a tar archive"),
    "import . UPPER": (6, "error: invalid reference format: 'UPPER': repository name must be lowercase"),
    "rmi nosuch:1": (6, "error: No such image: nosuch:1"),
}


@pytest.mark.parametrize("line", LINES)
def test_a_wrong_command_line(lab: Pystack, line: str) -> None:
    code, expected = LINES[line]
    ran = lab.run(*line.split(), exit_code=code, limit=20)
    assert expected.replace("{dir}", str(lab.directory)) in said(ran), ran
    one_message(ran)


BUSY = "PORT"
FILES = {
    # Refused before anything is touched, with the place.
    "a: {imge: x}": (15, "bad.yml:2:7: error[E012]: unknown key 'imge' in services.a"),
    "a: {image: nosuch:1, pull_policy: never}": (
        6,
        "error: bad.yml:2:3: service a: image not here: nosuch:1, and pull_policy is never",
    ),
    "a: {command: x}": (15, "bad.yml:2:3: error[E014]: services.a: a service needs an image"),
    "a: {HOST, networks: [lan]}": (15, "error[E016]: service 'a' uses the network 'lan', which is not"),
    "a: {HOST, volumes: ['v:/v']}": (15, "error[E016]: service 'a' uses the volume 'v', which is not"),
    "a: {HOST, secrets: [s]}": (15, "error[E016]: service 'a' uses the secret 's', which is not"),
    "a: {HOST, depends_on: [b]}": (15, "error[E016]: service 'a' needs 'b', which is not a service"),
    "a: {HOST, depends_on: [a]}": (15, "error[E018]: services depend on each other in a circle: a -> a"),
    "a: {HOST, ports: ['abc:80']}": (15, "error[E013]: services.a.ports[0]: 'abc:80' is not a port"),
    "a: {HOST, ports: ['80:99999']}": (15, "error[E013]: services.a.ports[0]: '80:99999' is not a port"),
    "a: {HOST, stop_signal: SIGFOO}": (15, "error[E013]: services.a.stop_signal: 'SIGFOO' is not a signal"),
    "a: {HOST, cap_add: [FOO]}": (15, "error[E013]: services.a.cap_add[0]: 'FOO' is not a capability"),
    "a: {HOST, cpuset: 0-x}": (15, "error[E013]: services.a.cpuset: '0-x' is not a list of CPUs"),
    "a: {HOST, mem_limit: 10q}": (15, "error[E013]: services.a.mem_limit must be a size such as 64m"),
    "a: {HOST, working_dir: here}": (15, "error[E013]: services.a.working_dir: 'here' must be an absolute"),
    "a: {HOST, dns: here}": (15, "error[E013]: services.a.dns[0]: 'here' is not an IP address"),
    "a: {HOST, env_file: none.env}": (15, "error[E021]: {dir}/none.env: there is no such file"),
    "a: {HOST, command: '$${X}${X:?is needed}'}": (15, "error[E010]: required variable X is missing a value"),
    "a: {HOST, ports: ['PORT:80']}\n  b: {HOST, ports: ['PORT:81']}": (
        7,
        "service b: port PORT/tcp is that of service a already",
    ),
    "a: {HOST, scale: 2, ports: [{target: 80, published: PORT, mode: host}]}": (
        7,
        "2 containers of service a can't all have port PORT/tcp",
    ),
    "a: {HOST, ports: [{target: 80, published: PORT, mode: guest}]}": (
        15,
        "services.a.ports[0].mode: 'guest' is neither ingress nor host",
    ),
    # Known only when it is tried.
    "a: {HOST, entrypoint: nosuch}": (127, 'exec: "nosuch": executable file not found in $PATH'),
    "a: {HOST, entrypoint: /plain}": (126, 'exec: "/plain": permission denied'),
    "a: {HOST, entrypoint: /strange}": (126, 'exec: "/strange": exec format error'),
    "a: {HOST, user: nobodyelse}": (1, "unable to find user nobodyelse: no matching entries in passwd"),
    "a: {HOST, user: '1:nogroup'}": (1, "unable to find group nogroup: no matching entries in group"),
    "a: {HOST, working_dir: /plain}": (1, "working directory /plain: not a directory"),
    "a: {HOST, cpuset: '4000'}": (1, "cpuset"),
    "a: {HOST, devices: [/dev/none]}": (1, "device /dev/none: No such file or directory"),
    "a: {HOST, volumes: [{type: bind, source: ./none, target: /x, bind: {create_host_path: false}}]}": (
        1,
        "bind source {dir}/none does not exist",
    ),
    "a: {HOST, secrets: [s]}\nsecrets: {s: {file: ./none}}": (
        15,
        "secret s: {dir}/none: there is no such file",
    ),
    "a: {HOST, networks: [n]}\nnetworks: {n: {external: true}}": (1, "external network n does not exist"),
    "a: {HOST, volumes: ['v:/v']}\nvolumes: {v: {external: true}}": (1, "external volume v does not exist"),
}


@pytest.mark.parametrize("body", FILES)
def test_a_wrong_stack_file(lab: Pystack, body: str) -> None:
    code, expected = FILES[body]
    port, box = str(free_port()), lab.root / "box"
    host = f"x-rootfs: {{path: {box}}}, stop_grace_period: 0s"
    if "command:" not in body and "entrypoint:" not in body:
        host += ", command: sleep 9"
    text = f"services:\n  {body}\n".replace("HOST", host).replace("PORT", port)
    (lab.directory / "bad.yml").write_text(text)

    ran = lab.run("-f", "bad.yml", "-p", "bad", "up", "-d", exit_code=None, limit=20)
    lab.run("-p", "bad", "down", "-v", "-t", "0", limit=20)

    assert ran.exit_code == code, ran
    assert expected.replace("{dir}", str(lab.directory)).replace("PORT", port) in said(ran), ran
    one_message(ran)
    assert not (lab.directory / "none").exists()


def test_a_port_that_another_program_has(lab: Pystack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        text = f"services:\n  a: {{x-rootfs: {{path: {lab.root}/box}}, ports: ['{port}:80'], command: sleep 9}}\n"
        (lab.directory / "bad.yml").write_text(text)
        ran = lab.run("-f", "bad.yml", "-p", "bad", "up", "-d", exit_code=7)
        lab.run("-p", "bad", "down", "-t", "0")
    assert f"port {port}/tcp is in use" in said(ran), ran
    one_message(ran)


def test_a_container_name_is_for_one_service(lab: Pystack) -> None:
    one = f"x-rootfs: {{path: {lab.root}/box}}, container_name: same"
    (lab.directory / "bad.yml").write_text(f"services:\n  a: {{{one}}}\n  b: {{{one}}}\n")
    ran = lab.run("-f", "bad.yml", "up", "-d", exit_code=15)
    assert "error[E017]: services.b.container_name: 'same' is already the name of service 'a'" in said(ran)


@pytest.mark.parametrize("arguments", [["ps"], ["up", "-d"], ["exec", "web", "id"], ["down"]])
def test_the_state_of_root_is_not_an_ordinary_users(lab: Pystack, arguments: list[str]) -> None:
    """Also by `ps`: an empty table would say that nothing runs."""
    # The virtual environment may lie where only root reads.
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *reading]
    done = subprocess.run(
        [*user, *program(), *arguments], cwd=lab.directory, env=lab.environ, capture_output=True
    )
    assert (done.returncode, done.stdout) == (4, b"")
    said = done.stderr.decode()
    assert said.startswith(f"error: {lab.root}/"), said
    assert said.endswith(
        ": permission denied\n  hint: it is not yours: run it with sudo, or without --root for your own\n"
    ), said


@contextlib.contextmanager
def disk(path: Path, *options: str) -> Iterator[Path]:
    """A small file system of its own."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", path], check=True)
    try:
        yield path
    finally:
        # A supervisor that could not begin may still be on its way out.
        deadline = time.monotonic() + 5
        while subprocess.run(["umount", path], capture_output=True).returncode:
            assert time.monotonic() < deadline, "somebody holds on to it"
            time.sleep(0.05)


READ_ONLY = {
    ("ps",): (0, ""),
    ("up", "-d"): (1, "Read-only file system"),
    ("plan",): (1, "Read-only file system"),
    ("import", "."): (1, "Read-only file system"),
}


def test_a_state_root_that_cannot_be_written(lab: Pystack, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "ro") as root:
        for words, (code, expected) in READ_ONLY.items():
            ran = replace(lab, root=root).run(*words, exit_code=code)
            assert expected in said(ran), ran


def test_a_state_root_that_is_full(lab: Pystack, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=64k") as root:
        full = replace(lab, root=root)
        (root / "filler").write_bytes(b"x" * 64 * 1024)
        ran = full.run("up", "-d", exit_code=1)
        assert said(ran).endswith("no space left on device"), ran
        one_message(ran)
        ran = full.run("import", ".", exit_code=1)
        assert said(ran) == f"error: {root}/data/images: No space left on device", ran
        assert full.run("ps").stdout.count("\n") == 1
        deadline = time.monotonic() + 5
        while (root / "run").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not (root / "run").exists()


def test_a_file_where_the_state_root_should_be(lab: Pystack, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = replace(lab, root=tmp_path / "file").run("up", "-d", exit_code=1)
    assert said(ran) == f"error: {tmp_path}/file/data: Not a directory"


@pytest.fixture
def own(lab: Pystack, tmp_path: Path) -> Iterator[Pystack]:
    """The same files in a state root for one test, whose supervisor may die."""
    root = leaks.Root(path=tmp_path / "own")
    before = leaks.look(root)
    made = replace(lab, root=root.path)
    try:
        yield made
        assert not leaks.left(before, root)
    finally:
        made.abandon()
        shutil.rmtree(root.path, ignore_errors=True)


def test_what_a_dead_supervisor_has_left_is_in_nobodys_way(own: Pystack) -> None:
    run = own.root / "run"
    run.mkdir(parents=True)
    for name in ("supervisor.sock", "keeper.sock"):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(f"{run}/{name}")
    assert own.run("ps").stdout.count("\n") == 1
    own.run("up", "-d", "web")
    assert own.containers()[0]["State"] == "running"
    own.run("down", "-t", "0")


SLOW = """\
name: slow
services:
  a:
    x-rootfs: {path: BOX}
    command: sleep 1000
    stop_grace_period: 0s
    healthcheck: {test: exit 1, interval: 60s, start_period: 60s}
"""


def supervisor(root: Path) -> int:
    found = subprocess.run(
        ["pgrep", "-f", f"orchestrator.daemon --run {root}/run"], capture_output=True, text=True, check=True
    )
    return int(found.stdout.split()[0])


def test_a_supervisor_that_dies_while_a_command_waits(lab: Pystack, own: Pystack) -> None:
    """The command says so and ends; the stack is where it was, and the next command finds it."""
    (lab.directory / "slow.yml").write_text(SLOW.replace("BOX", str(lab.root / "box")))
    waits = [*program(), "-f", "slow.yml", "up", "-d", "--wait"]
    with subprocess.Popen(
        waits, cwd=own.directory, env=own.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 30
        while not own.run("-f", "slow.yml", "ps", "-q").stdout and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(supervisor(own.root), signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 5, err
    assert "error: the supervisor was lost in the middle of this command" in err.splitlines()
    assert "containers run on" in err
    assert "say the command again" in err
    assert len(own.run("-f", "slow.yml", "ps", "-q").stdout.split()) == 1
    own.run("-f", "slow.yml", "down", "-t", "0")


def test_followed_logs_go_on_when_the_supervisor_dies(lab: Pystack, own: Pystack) -> None:
    text = (
        "name: talk\nservices:\n  a: {x-rootfs: {path: BOX}, stop_grace_period: 0s, command: [sh, -c, CMD]}\n"
    )
    script = '"i=0; while sleep 0.05; do i=$$((i+1)); echo $$i; done"'
    text = text.replace("BOX", str(lab.root / "box")).replace("CMD", script)
    (lab.directory / "talk.yml").write_text(text)
    own.run("-f", "talk.yml", "up", "-d")
    follows = [*program(), "-f", "talk.yml", "logs", "-f", "--no-log-prefix"]
    with subprocess.Popen(
        follows, cwd=own.directory, env=own.environ, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        os.kill(supervisor(own.root), signal.SIGKILL)
        lines = [first, *(process.stdout.readline() for _ in range(30))]
        own.run("-f", "talk.yml", "down", "-t", "0")
        process.communicate(timeout=60)
    assert [int(line) for line in lines] == list(range(1, 32))
    assert process.returncode == 0
