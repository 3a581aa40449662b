"""`run`: the recipe of the one-off container, and its output."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.paths import Paths
from orchestrator.cli.clock import show
from orchestrator.cli.oneoff import mount, published, recipe
from orchestrator.model import codec
from orchestrator.model.errors import UserError
from orchestrator.model.stack import (
    Attachment,
    BindMount,
    HostRoot,
    Port,
    RestartPolicy,
    Service,
    Stack,
    Volume,
    VolumeMount,
)
from tests.unit.cli import command
from tests.unit.cli.scripted import Scripted, Talk

WEB = Service(
    name="web",
    root=HostRoot(),
    replicas=3,
    command=("serve",),
    entrypoint=("/entry",),
    container_name="the-web",
    environment={"A": "1", "B": "2"},
    labels={"x": "y"},
    restart=RestartPolicy(condition="always"),
    ports=(Port(target=80, published=(8080, 8080)),),
    mounts=(VolumeMount(source="data", target="/data"),),
    networks=(Attachment(network="default", aliases=("www",), ipv4_address="10.0.0.2"),),
)
STACK = Stack(name="shop", services={"web": WEB}, volumes={"data": Volume(key="data", name="shop_data")})


def _oneoff(**more: Any) -> Service:
    options: dict[str, Any] = {
        "command": (),
        "entrypoint": None,
        "environment": {},
        "labels": {},
        "user": None,
        "workdir": None,
        "volumes": (),
        "publish": (),
        "service_ports": False,
        "name": None,
        "tty": False,
        "stdin": True,
        "remove": False,
        "base": "/here",
    }
    return recipe(STACK, "web", "0123456789ab", **{**options, **more})


def test_it_is_one_container_that_is_not_restarted_nor_found_by_its_services_name() -> None:
    made = _oneoff()

    assert (made.name, made.container_name) == ("web-run-0123456789ab", "shop-web-run-0123456789ab")
    assert (made.oneoff, made.replicas, made.restart, made.ports) == (True, 1, RestartPolicy(), ())
    assert made.networks == (Attachment(network="default"),)
    assert (made.entrypoint, made.command) == (("/entry",), ("serve",))
    assert codec.decode(Service, codec.encode(made)) == made


def test_a_command_replaces_the_services_and_an_entrypoint_drops_it() -> None:
    assert _oneoff(command=("ls",)).command == ("ls",)
    shell = _oneoff(entrypoint="sh -c 'echo hi'")
    assert (shell.entrypoint, shell.command) == (("sh", "-c", "echo hi"), ())
    none = _oneoff(entrypoint="", command=("ls",))
    assert (none.entrypoint, none.command) == ((), ("ls",))


def test_what_the_line_says_is_added_or_replaces() -> None:
    made = _oneoff(
        environment={"B": "3"},
        labels={"l": "m"},
        user="nobody",
        workdir="/w",
        name="mine",
        service_ports=True,
        publish=published(("53:53/udp",)),
        volumes=("/etc:/data:ro",),
        remove=True,
        tty=True,
    )

    assert made.environment == {"A": "1", "B": "3"}
    assert made.labels == {"x": "y", "l": "m"}
    assert (made.user, made.working_dir, made.container_name) == ("nobody", "/w", "mine")
    assert made.ports == (*WEB.ports, Port(target=53, published=(53, 53), protocol="udp"))
    assert made.mounts == (BindMount(source="/etc", target="/data", read_only=True),)
    assert made.remove_on_exit
    assert made.tty


def test_mounts_may_be_paths_named_or_anonymous() -> None:
    assert mount("./x:/x", STACK, "/here") == BindMount(source="/here/x", target="/x")
    assert mount("data:/d", STACK, "/here") == VolumeMount(source="data", target="/d")
    assert mount("/cache", STACK, "/here") == VolumeMount(source=None, target="/cache")
    for wrong in ("dta:/d", "a::b", ""):
        with pytest.raises(UserError, match="--volume"):
            mount(wrong, STACK, "/here")


def test_ports_are_read_as_in_the_file() -> None:
    assert published(("80", "127.0.0.1:8000-8001:80-81")) == (
        Port(target=80),
        Port(target=80, published=(8000, 8000), host_ip="127.0.0.1"),
        Port(target=81, published=(8001, 8001), host_ip="127.0.0.1"),
    )
    with pytest.raises(UserError, match="--publish x"):
        published(("x",))


# --- its life -------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "stack.yml").write_text("name: shop\nservices:\n  web:\n    x-rootfs: host\n")
    return tmp_path


def _record(text: bytes, *, stream: str = "stdout", tag: str = "F") -> bytes:
    return f"{show(0)} {stream} {tag} ".encode() + text + b"\n"


def _container(talk: Talk, root: Path, log: bytes = b"") -> dict[str, Any]:
    path = root / "container.log"
    path.write_bytes(log)
    service = talk.request["service"]
    return {
        "event": "container",
        "id": "c",
        "name": f"shop-{service}",
        "service": service,
        "slot": 0,
        "log": str(path),
        "state": "running",
    }


def test_its_output_is_byte_exact_and_its_code_is_ours(root: Path) -> None:
    def answer(talk: Talk) -> None:
        talk.send(_container(talk, root, _record(b"one") + _record(b"bad\xff", stream="stderr")))
        with (root / "container.log").open("ab") as file:
            file.write(_record(b"prompt> ", tag="P"))
        talk.send({"event": "grown", "id": "c"})
        talk.end(exit_code=3)

    with Scripted(Paths.find(str(root), {}), answer) as server:
        process = command.start(root, "run", "--rm", "web", "x", "-y")
        out, err = process.communicate(timeout=20)

    assert (process.returncode, out, err) == (3, b"one\nprompt> ", b"bad\xff\n")
    (request,) = server.requests
    stack = codec.decode(Stack, request["stack"])
    assert stack.services[request["service"]].command == ("x", "-y")
    assert request["remove"] is True
    assert stack.services[request["service"]].remove_on_exit


def test_its_input_is_ours(root: Path) -> None:
    def answer(talk: Talk) -> None:
        data = b""
        while more := os.read(talk.fds[0], 100):
            data += more
        talk.send(_container(talk, root, _record(data)))
        talk.end()

    with Scripted(Paths.find(str(root), {}), answer):
        done = subprocess.run(
            [*command.MAIN, "--root", str(root), "run", "-T", "web"],
            input=b"some input",
            capture_output=True,
            cwd=root,
            env=command.environment(),
            timeout=20,
        )

    assert done.stdout == b"some input\n"


def test_while_it_waits_for_others_progress_is_shown_and_ctrl_c_leaves(root: Path) -> None:
    gone = threading.Event()
    begun = threading.Event()

    def answer(talk: Talk) -> None:
        talk.send(
            {"event": "action", "at": 0, "target": "container:shop-db-1", "verb": "start", "outcome": "done"}
        )
        begun.set()
        while talk.receive() is not None:
            pass
        gone.set()

    with Scripted(Paths.find(str(root), {}), answer):
        process = command.start(root, "run", "web")
        assert process.stderr is not None
        assert process.stderr.readline() == b" Container shop-db-1  Started\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert gone.wait(10)

    assert process.returncode == 130


def test_signals_reach_the_command(root: Path) -> None:
    def answer(talk: Talk) -> None:
        talk.send(_container(talk, root, _record(b"ready")))
        message = talk.receive()
        assert message == {"signal": int(signal.SIGTERM)} or message is None
        talk.end(exit_code=143)

    with Scripted(Paths.find(str(root), {}), answer):
        process = command.start(root, "run", "web")
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)

    assert process.returncode == 143


def test_ctrl_p_ctrl_q_leaves_it_running_and_restores_the_terminal(root: Path) -> None:
    told: list[Any] = []
    slaves: list[int] = []

    def answer(talk: Talk) -> None:
        talk.send(_container(talk, root, _record(b"ready\r")))
        master, slave = os.openpty()
        slaves.append(slave)
        talk.send({"event": "terminal"}, fds=[master])
        os.close(master)
        while (message := talk.receive()) is not None:
            told.append(message)

    with Scripted(Paths.find(str(root), {}), answer):
        terminal = command.OnTerminal(root, "run", "web", "sh")
        terminal.until(b"ready\r\n")
        while terminal.restored:
            pass
        terminal.type(b"\x10")
        terminal.type(b"\x11")
        assert terminal.end() == 0
        assert terminal.restored
        terminal.close()

    assert told == [{"detach": True}]
    for fd in slaves:
        os.close(fd)
