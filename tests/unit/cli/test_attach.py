"""`up` from its request to its end: what is attached, Ctrl-C, containers that end."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.paths import Paths
from orchestrator.cli.attach import attached, expected_names, involved
from orchestrator.cli.clock import show
from orchestrator.cli.wish import Wish
from orchestrator.model.stack import Dependency, HostRoot, Service, Stack
from tests.unit.cli import command
from tests.unit.cli.scripted import Scripted, Talk

BODY = """
name: shop
services:
  web:
    x-rootfs: host
    depends_on: [db]
  db:
    x-rootfs: host
  quiet:
    x-rootfs: host
    attach: false
"""


def _service(name: str, *needs: str, **more: Any) -> Service:
    return Service(
        name=name, root=HostRoot(), depends_on=tuple(Dependency(service=need) for need in needs), **more
    )


STACK = Stack(
    name="shop",
    services={
        "web": _service("web", "api", replicas=2),
        "api": _service("api", "db"),
        "db": _service("db", container_name="the-db"),
        "quiet": _service("quiet", attach=False),
    },
)


@pytest.mark.parametrize(
    ("wish", "about", "shown"),
    [
        (Wish(), {"web", "api", "db", "quiet"}, {"web", "api", "db"}),
        (Wish(services=("web",)), {"web", "api", "db"}, {"web"}),
        (Wish(services=("web",), no_deps=True), {"web"}, {"web"}),
        (Wish(services=("web",), attach_dependencies=True), {"web", "api", "db"}, {"web", "api", "db"}),
        (Wish(services=("quiet",)), {"quiet"}, {"quiet"}),
        (Wish(attach=("quiet",)), {"web", "api", "db", "quiet"}, {"quiet"}),
        (Wish(no_attach=("db",)), {"web", "api", "db", "quiet"}, {"web", "api"}),
    ],
)
def test_whose_output_is_shown(wish: Wish, about: set[str], shown: set[str]) -> None:
    assert involved(STACK, wish) == about
    assert attached(STACK, wish) == shown


def test_names_are_known_before_there_is_a_container() -> None:
    assert expected_names(STACK, {"web", "db"}) == ["the-db", "web-1", "web-2"]


class World:
    """A supervisor whose containers do what the test says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "stack.yml").write_text(BODY)
        self.ups: list[Talk] = []
        self.followers: list[Talk] = []
        self.stops: list[Talk] = []
        self.kills: list[Talk] = []
        self._new = threading.Condition()
        self.server = Scripted(Paths.find(str(root), {}), self._answer)
        self._ids = itertools.count()

    def _answer(self, talk: Talk) -> None:
        kinds = {"up": self.ups, "logs": self.followers, "stop": self.stops, "kill": self.kills}
        with self._new:
            kinds[talk.request["verb"]].append(talk)
            self._new.notify_all()
        while talk.receive() is not None:
            pass

    def first(self, talks: list[Talk]) -> Talk:
        with self._new:
            assert self._new.wait_for(lambda: talks, 10), f"no request: {self.server.requests}"
            return talks[0]

    @property
    def up(self) -> Talk:
        return self.first(self.ups)

    @property
    def logs(self) -> Talk:
        return self.first(self.followers)

    @property
    def stop(self) -> Talk:
        return self.first(self.stops)

    @property
    def kill(self) -> Talk:
        return self.first(self.kills)

    def starts(self, service: str, *lines: bytes) -> Path:
        """A container begins to run and writes."""
        path = self.root / f"{service}.log"
        self.write(path, *lines)
        for verb in ("create", "start"):
            self.up.send(_action(service, verb))
        event = {
            "event": "container",
            "id": service,
            "name": f"shop-{service}-1",
            "service": service,
            "slot": 1,
            "log": str(path),
            "attach": service != "quiet",
            "state": "running",
        }
        self.logs.send(event)
        return path

    def write(self, path: Path, *lines: bytes) -> None:
        with path.open("ab") as file:
            for line in lines:
                file.write(show(time.time_ns()).encode() + b" stdout F " + line + b"\n")

    def exits(self, service: str, code: int) -> None:
        self.logs.send(
            {"event": "exited", "id": service, "name": service, "exit_code": code, "restarting": False}
        )


def _action(service: str, verb: str) -> dict[str, Any]:
    target = f"container:shop-{service}-1"
    return {"event": "action", "at": 0.1, "target": target, "verb": verb, "outcome": "done", "because": ""}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with made.server:
        yield made


def _ended(process: Any) -> tuple[int, list[str], list[str]]:
    out, err = process.communicate(timeout=20)
    return process.returncode, out.decode().splitlines(), err.decode().splitlines()


def test_it_shows_the_output_and_ends_with_0_when_all_have_ended(world: World) -> None:
    old = world.root / "web.log"
    old.write_bytes(b"2026-01-01T00:00:00.000000000Z stdout F from an earlier run\n")
    process = command.start(world.root, "up")
    world.logs.send()
    path = world.starts("web", b"hello")
    world.starts("quiet", b"never shown")
    world.up.end()
    world.write(path, b"more")
    world.logs.send({"event": "grown", "id": "web"})
    world.exits("quiet", 0)
    world.exits("web", 3)

    code, out, err = _ended(process)

    assert code == 0
    assert out == ["Attaching to db-1, web-1", "web-1  | hello", "web-1  | more", "web-1 exited with code 3"]
    assert " Container shop-web-1  Started" in err
    request = world.up.request
    assert (request["detach"], request["wanted"], request["services"]) == (False, "running", [])
    assert request["stack"]["name"] == "shop"


def test_detached_it_ends_with_the_order_and_follows_nothing(world: World) -> None:
    process = command.start(world.root, "up", "-d", "web")
    world.up.send(_action("web", "start"))
    world.up.end()

    assert _ended(process)[:2] == (0, [])
    assert world.followers == []
    assert world.up.request["services"] == ["web"]


def test_a_failure_is_told_with_its_reason_and_code(world: World) -> None:
    process = command.start(world.root, "up", "-d")
    world.up.end(exit_code=6, error="no image nginx:1 here")

    code, _, err = _ended(process)

    assert code == 6
    assert err == ["error: no image nginx:1 here"]


def test_the_first_ctrl_c_stops_and_the_code_is_130(world: World) -> None:
    process = command.start(world.root, "up", "-t", "7")
    world.logs.send()
    world.starts("web", b"hello")
    world.up.end()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    request = world.stop.request
    world.stop.send(_action("web", "stop"))
    world.exits("web", 143)
    world.stop.end()

    code, out, err = _ended(process)

    assert code == 130
    assert (request["stack"], request["services"], request["timeout"]) == ("shop", [], 7.0)
    assert "Gracefully stopping... (press Ctrl+C again to force)" in err
    assert " Container shop-web-1  Stopped" in err
    assert out[-1] == "web-1 exited with code 143"
    assert world.kills == []


def test_the_second_ctrl_c_kills(world: World) -> None:
    process = command.start(world.root, "up", "web", "--no-deps")
    world.logs.send()
    world.starts("web")
    world.up.end()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert world.stop.request["services"] == ["web"]
    process.send_signal(signal.SIGINT)
    assert (world.kill.request["signal"], world.kill.request["services"]) == ("SIGKILL", ["web"])
    world.kill.end()
    world.exits("web", 137)
    world.stop.end()

    assert _ended(process)[0] == 130


def test_ctrl_c_while_it_is_still_starting_stops_what_was_begun(world: World) -> None:
    process = command.start(world.root, "up")
    world.up.send(_action("web", "create"))
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    world.stop.end()

    assert _ended(process)[0] == 130


def test_ctrl_c_where_nothing_is_attached_only_ends_the_waiting(world: World) -> None:
    """What runs may have run for days; docker compose lets it."""
    process = command.start(world.root, "up", "-d")
    world.up.send(_action("web", "create"))
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)

    code, _, err = _ended(process)

    assert (code, world.stops) == (130, [])
    assert "goes on" in err[-1]


def test_ctrl_c_before_the_supervisor_has_said_a_word_is_not_lost(world: World) -> None:
    """A stop that overtakes the order would leave containers running."""
    process = command.start(world.root, "up")
    assert world.up
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert world.stops == []
    world.up.send(_action("web", "create"))
    world.stop.end()

    assert _ended(process)[0] == 130


@pytest.mark.parametrize(
    ("options", "ends", "code"),
    [
        (["--abort-on-container-exit"], [("db", 0), ("web", 143)], 0),
        (["--abort-on-container-exit"], [("web", 5), ("db", 143)], 5),
        (["--abort-on-container-failure"], [("web", 5), ("db", 143)], 5),
        (["--exit-code-from", "db"], [("web", 5), ("db", 143)], 143),
    ],
)
def test_one_that_ends_takes_the_others_with_it(
    world: World, options: list[str], ends: list[tuple[str, int]], code: int
) -> None:
    process = command.start(world.root, "up", *options)
    world.logs.send()
    world.starts("web")
    world.starts("db")
    world.up.end()
    (first, first_code), (second, second_code) = ends
    world.exits(first, first_code)
    assert world.stop.request["verb"] == "stop"
    world.stop.end()
    world.exits(second, second_code)

    assert _ended(process)[0] == code


def test_a_supervisor_that_left_in_the_same_moment_is_asked_again(world: World) -> None:
    process = command.start(world.root, "up", "-d")
    first = world.up
    first._connection.shutdown(2)
    with world._new:
        assert world._new.wait_for(lambda: len(world.ups) == 2, 10)
    world.ups[1].end()

    assert _ended(process)[0] == 0


def test_on_a_terminal_there_is_a_live_table_and_logs_stand_above_it(world: World) -> None:
    terminal = command.OnTerminal(world.root, "up")
    world.logs.send()
    terminal_thread = threading.Thread(target=terminal.until, args=(b"[+] Running 1/1",))
    terminal_thread.start()
    world.starts("web", b"hello")
    terminal_thread.join()
    shown = terminal.until(b"hello")
    terminal.type(b"\x03")
    terminal.process.send_signal(signal.SIGINT)
    world.stop.end()
    world.exits("web", 0)

    assert terminal.end() == 130
    assert b"\x1b[?2026h" in shown
    assert b"\x1b[33mweb-1  | \x1b[0mhello\r\n" in terminal.shown
    assert terminal.shown.count(b"\x1b[?25h") == terminal.shown.count(b"\x1b[?25l")
    terminal.close()


def test_progress_as_json_is_one_object_a_line(world: World) -> None:
    process = command.start(world.root, "--progress", "json", "up", "-d")
    world.up.send(_action("web", "start"), {"event": "warning", "message": "careful"})
    world.up.end()

    _, _, err = _ended(process)
    assert err == [
        '{"kind":"container","name":"shop-web-1","status":"started","at":0.1}',
        '{"kind":"warning","message":"careful"}',
    ]


def test_quiet_says_nothing(world: World) -> None:
    process = command.start(world.root, "--progress", "quiet", "up", "-d")
    world.up.send(_action("web", "start"), {"event": "warning", "message": "careful"})
    world.up.end()

    assert _ended(process) == (0, [], [])
