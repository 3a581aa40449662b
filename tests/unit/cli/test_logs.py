"""The command `logs`, with a real socket and real log files."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.paths import Paths
from tests.unit.cli import command
from tests.unit.cli.scripted import Scripted, Talk

BODY = "name: shop\nservices:\n  web:\n    x-rootfs: host\n"


class World:
    """Containers with log files, and a supervisor that tells of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: dict[str, dict[str, Any]] = {}
        self.following: list[Talk] = []
        self.changed = threading.Event()
        (root / "stack.yml").write_text(BODY)

    def serving(self) -> Scripted:
        return Scripted(Paths.find(str(self.root), {}), self._answer)

    def container(self, name: str, service: str, slot: int = 1, **more: Any) -> Path:
        path = self.root / f"{name}.log"
        path.touch()
        self.events[name] = {
            "event": "container",
            "id": name,
            "name": name,
            "service": service,
            "slot": slot,
            "log": str(path),
            "tty": False,
            "attach": True,
            "state": "running",
            **more,
        }
        return path

    def _answer(self, talk: Talk) -> None:
        assert talk.request["verb"] == "logs"
        services = talk.request["services"]
        chosen = [e for e in self.events.values() if not services or e["service"] in services]
        talk.send(*chosen)
        if not talk.request["follow"]:
            talk.end()
            return
        self.following.append(talk)
        self.changed.set()
        while talk.receive() is not None:
            pass

    def tell(self, **event: Any) -> None:
        assert self.changed.wait(10), "nobody follows"
        for talk in self.following:
            talk.send(event)


def write(path: Path, second: float, text: bytes, *, stream: str = "stdout", tag: str = "F") -> None:
    whole, fraction = divmod(round(second * 1e9), 10**9)
    with path.open("ab") as file:
        file.write(f"2026-11-22T14:00:{whole:02}.{fraction:09}Z {stream} {tag} ".encode() + text + b"\n")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def _logs(world: World, *words: str) -> tuple[int, str, str]:
    with world.serving():
        return command.run(world.root, "logs", *words)


def test_lines_of_all_containers_are_in_order_of_time(world: World) -> None:
    web, db = world.container("shop-web-1", "web"), world.container("shop-db-1", "db")
    for second in (1, 3, 5):
        write(web, second, b"web %d" % second)
        write(db, second + 1, b"db %d" % (second + 1))
    write(db, 2.5, b"bad", stream="stderr")

    code, out, err = _logs(world)

    assert code == 0
    assert out.splitlines() == [
        "web-1  | web 1",
        "db-1   | db 2",
        "web-1  | web 3",
        "db-1   | db 4",
        "web-1  | web 5",
        "db-1   | db 6",
    ]
    assert err == "db-1   | bad\n"


def test_tail_since_until_and_times(world: World) -> None:
    web = world.container("shop-web-1", "web")
    for second in range(1, 8):
        write(web, second, b"%d" % second)

    def texts(*words: str) -> list[str]:
        return _logs(world, "--no-log-prefix", *words)[1].split()

    assert texts("-n", "2") == ["6", "7"]
    assert texts("--tail", "0") == []
    assert texts("--since", "2026-11-22T14:00:03Z", "--until", "2026-11-22T14:00:05Z") == ["3", "4"]
    assert texts("-tn1") == ["2026-11-22T14:00:07.000000000Z", "7"]
    assert texts("--since", "1h") == []


def test_raw_output_is_what_was_printed_byte_for_byte(world: World) -> None:
    """Also of a line that is longer than what is shown at once, and of a last one without an end."""
    web = world.container("shop-web-1", "web")
    printed = b"\x1b[31mred\x1b[0m \xff\0\r" + b"x" * 3_000_000
    for begin in range(0, len(printed), 60_000):
        write(web, 1, printed[begin : begin + 60_000], tag="P")
    write(web, 2, b"")
    write(web, 3, b"the end", tag="P")
    write(web, 3, b"oops", stream="stderr", tag="P")
    with world.serving():
        process = command.start(world.root, "logs", "--raw")
        out, err = process.communicate(timeout=20)

    assert out == printed + b"\nthe end"
    assert (err, process.returncode) == (b"oops", 0)
    code, _, said = _logs(world, "--raw", "-t")
    assert code != 0
    assert "--raw and --timestamps cannot be combined" in said


def test_services_that_do_not_attach_and_other_replicas_stay_out_unless_named(world: World) -> None:
    for name, service, slot, attach in (
        ("a", "quiet", 1, False),
        ("b", "web", 1, True),
        ("c", "web", 2, True),
    ):
        write(world.container(f"shop-{name}", service, slot, attach=attach), 1, name.encode())

    def shown(*words: str) -> list[str]:
        return sorted(_logs(world, "--no-log-prefix", *words)[1].split())

    assert shown() == ["b", "c"]
    assert shown("quiet") == ["a"]
    assert shown("--index", "2") == ["c"]


def test_bytes_come_out_as_they_went_in_and_a_last_line_gets_its_end(world: World) -> None:
    web = world.container("shop-web-1", "web")
    write(web, 1, bytes(range(256)).replace(b"\n", b""))
    write(web, 2, b"no end", tag="P")

    with world.serving():
        process = command.start(world.root, "logs", "--no-log-prefix")
        out, _ = process.communicate(timeout=20)

    assert out == bytes(range(256)).replace(b"\n", b"") + b"\nno end\n"


def test_following_shows_what_grows_and_ends_with_the_last_container(world: World) -> None:
    web = world.container("shop-web-1", "web")
    write(web, 1, b"old")
    with world.serving():
        process = command.start(world.root, "logs", "-f")
        assert process.stdout is not None
        assert process.stdout.readline() == b"web-1  | old\n"
        assert world.changed.wait(10)
        write(web, 2, b"new")
        world.tell(event="grown", id="shop-web-1")
        assert process.stdout.readline() == b"web-1  | new\n"
        late = world.container("shop-late-1", "late")
        write(late, 3, b"hello from late")
        world.tell(**world.events["shop-late-1"])
        assert process.stdout.readline() == b"late-1  | hello from late\n"
        world.tell(event="exited", id="shop-web-1", exit_code=0, restarting=True)
        assert process.stdout.readline() == b"web-1 exited with code 0 (restarting)\n"
        write(web, 4, b"again")
        write(web, 5, b"no end", tag="P")
        world.tell(event="exited", id="shop-web-1", exit_code=3, restarting=False)
        world.tell(event="exited", id="shop-late-1", exit_code=0, restarting=False)
        out, _ = process.communicate(timeout=20)

    assert process.returncode == 0
    assert sorted(out.decode().splitlines()) == [
        "late-1 exited with code 0",
        "web-1   | again",
        "web-1   | no end",
        "web-1 exited with code 3",
    ]


def test_the_last_words_of_a_removed_container_are_shown(world: World) -> None:
    web = world.container("shop-web-1", "web")
    with world.serving():
        process = command.start(world.root, "logs", "-f", "--no-log-prefix")
        assert world.changed.wait(10)
        time.sleep(0.3)  # until it has been told of the container and holds its file
        write(web, 1, b"bye")
        web.unlink()
        world.tell(event="exited", id="shop-web-1", exit_code=0, restarting=False)
        out, _ = process.communicate(timeout=20)

    assert out.decode().splitlines() == ["bye", "web-1 exited with code 0"]


def test_ctrl_c_ends_following_without_a_traceback(world: World) -> None:
    world.container("shop-web-1", "web")
    with world.serving():
        process = command.start(world.root, "logs", "-f")
        assert world.changed.wait(10)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert b"Traceback" not in err


def test_following_survives_the_loss_of_the_supervisor(world: World) -> None:
    """It comes back by itself and containers run on, so no line may be missed or shown twice."""
    log = world.container("shop-web-1", "web")
    write(log, 1, b"before")
    with world.serving() as server:
        process = command.start(world.root, "logs", "-f", "--no-log-prefix")
        assert world.changed.wait(10)
        world.changed.clear()
        lost = world.following.pop()
        write(log, 2, b"meanwhile")
        lost._connection.shutdown(2)
        assert world.changed.wait(10), "it does not follow again"
        world.tell(event="container", **{k: v for k, v in world.events["shop-web-1"].items() if k != "event"})
        world.tell(event="exited", id="shop-web-1", exit_code=0)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, b"")
    assert out.splitlines() == [b"before", b"meanwhile", b"web-1 exited with code 0"]
    assert [request["follow"] for request in server.requests] == [False, True, False, True]
