"""SIGKILL at the k-th step of up, of an up that changes something, of restart and of down: for all k.

What a step is, and how it is counted from outside, stands in tests/kit/steps.py. The suite takes a few
moments, drawn by lot; PYSTACK_KILLS says how many (tests/nightly: all), PYSTACK_SEED repeats.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import leaks
from tests.kit.patience import patient
from tests.kit.site import WARM, Answer, Site, Talk, until
from tests.kit.steps import HERE, Steps

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not HERE, reason="system calls are counted by their numbers on x86-64"),
]

SEED = int(os.environ.get("PYSTACK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
MOMENTS = int(os.environ.get("PYSTACK_KILLS", "-1"))
"""So many of each order and victim; 0: all there are; -1: one of each of two orders, drawn by lot."""
LOOK_SECONDS = 5.0
"""In which the next look has to have converged (and the time it takes is most of all the supervisor's start)."""
CALM = "name: calm\nservices: {a: {x-rootfs: {path: $BOX}, command: sleep 999}}"
THREE = """
    name: three
    services:
      db:
        x-rootfs: {path: $BOX}
        command: sh -c "date >> /data/starts; exec sleep 1000"
        volumes: ["data:/data", "/scratch"]
        healthcheck: {test: [CMD, test, -s, /data/starts], interval: 0.2s, timeout: 2s}
      web:
        x-rootfs: {path: $BOX}
        command: httpd -f -p 80 -h /data
        environment: {V: VALUE}
        ports: ["PORT:80"]
        volumes: ["data:/data"]
        depends_on: {db: {condition: service_healthy}}
        healthcheck: {test: [CMD, wget, -q, -O-, "http://127.0.0.1/starts"], interval: 0.2s, timeout: 2s}
      job:
        x-rootfs: {path: $BOX}
        command: sh -c 'exit 42'
        depends_on: {db: {condition: service_healthy}}
    volumes: {data: {}}
"""


class Scene:
    """The stack, its neighbour that nothing must happen to, and what there is when the stack is not."""

    def __init__(self, site: Site) -> None:
        self.site = site
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        site.up(CALM)
        self.text = THREE.replace("PORT", str(self.port))
        site.up(WARM)  # what the first of its kind leaves for the next is no leak
        site.down("warm")
        self.calm = site.row("calm", "a")["pid"]
        self.empty = self._look()
        self.value = 0

    def servers(self) -> dict[str, list[int]]:
        """Whom to kill, by name."""
        result = until(lambda: (r := self.site.ask("ping").result)["keeper_pid"] and r, "a keeper")
        pids = [result["pid"], result["keeper_pid"]]
        return {"supervisor": pids[:1], "keeper": pids[1:], "both": pids, "whoever": [0]}

    def wish(self, *, changed: bool = False) -> str:
        self.value += changed
        return self.text.replace("VALUE", f"v{self.value}")

    def pids(self) -> dict[str, int]:
        return {row["service"]: row["pid"] for row in self.site.ps("three") if row["state"] == "running"}

    def check_up(self) -> dict[str, int]:
        """Two run and are healthy, one has ended with its own exit code, and there is nobody else."""
        site = self.site
        rows = {row["service"]: row for row in site.ps("three")}
        assert rows.keys() == {"db", "web", "job"}
        assert len(site.ps("three")) == 3
        for name in ("db", "web"):
            assert rows[name]["state"] == "running"
            site.becomes("three", name, health="healthy")
        assert site.becomes("three", "job", state="exited")["exit_code"] == 42
        inside = {int(row.split()[0]) for row in site.processes() if "orchestrator" not in row}
        probes = inside - {rows["db"]["pid"], rows["web"]["pid"], self.calm}
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in probes), f"the end of {probes}")
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/starts", timeout=5) as answer:
            assert answer.read().strip(), "the volume's content"
        return {name: rows[name]["pid"] for name in ("db", "web")}

    def check_down(self) -> None:
        """Of the stack nothing is left, and the neighbour has noticed nothing."""
        assert self.site.ps("three") == []
        left = until(
            lambda: ((found := self._left()) and None) or [found], "nothing", lambda: str(self._left()), 3
        )
        assert left == [[]]
        self.check_calm()

    def check_calm(self) -> None:
        assert self.site.row("calm", "a")["pid"] == self.calm

    def _left(self) -> list[str]:
        return [text for (kind, _), text in self._look().left_since(self.empty).items() if kind != "process"]

    def _look(self) -> leaks.Look:
        found = leaks.look(leaks.Root(path=self.site.root))
        data = self.site.places
        files = {str(path) for top in (data.stacks, data.volumes) for path in top.glob("*/*")}
        files |= {str(path) for path in data.networks.glob("*")}
        found.things["record"] = {name: name for name in files}
        return found

    # --- the orders --------------------------------------------------------------------------------

    def begin(self, order: str) -> Talk:
        begin = {
            "up": lambda: self.site.begin_up(self.wish(), timeout=0),
            "change": lambda: self.site.begin_up(self.wish(changed=True), timeout=0),
            "restart": lambda: self.site.begin("restart", stack="three", services=["web"], timeout=0),
            "down": lambda: self.site.begin("down", stack="three", timeout=0, remove_volumes=True),
        }
        return begin[order]()

    def undisturbed(self, order: str) -> None:
        """The order as it is when nobody is killed."""
        answer = self.begin(order).wait()
        assert answer.exit_code == 0, answer.error


ORDERS = ("up", "change", "restart", "down")


@pytest.fixture
def scene(state_root: Path) -> Iterator[Scene]:
    with Site(state_root) as site:
        yield Scene(site)


_steps: dict[str, int] = {}


def counted(scene: Scene) -> dict[str, int]:
    """Steps of each order: they differ by a few from time to time."""
    if not _steps:
        for order in ORDERS:
            with Steps(scene.servers()["both"]) as steps:
                scene.undisturbed(order)
            _steps[order] = steps.count
        print(f"PYSTACK_SEED={SEED} steps: {_steps}")
    return _steps


def one_kill(scene: Scene, order: str, victims: str, at: int) -> tuple[str, float]:
    """The order, hit at its step `at`, and the look that follows. Where it was ("" when there were fewer
    steps), and how long the look took."""
    site = scene.site
    there = bool(site.ps("three"))
    if order == "up" and there:
        site.down("three", remove_volumes=True)
        scene.check_down()
    elif order != "up" and not there:
        scene.undisturbed("up")
        scene.check_up()
    pids = scene.servers()
    before = scene.pids()
    with Steps(pids["both"], at, pids[victims]) as steps:
        talk = scene.begin(order)
        with contextlib.suppress(AssertionError):
            talk.wait(30)
    talk.leave()
    began = time.monotonic()
    answer: Answer
    if order == "down":
        answer = site.down("three", remove_volumes=True)
    else:
        answer = site.up(scene.wish(), timeout=0, exit_code=None)
    took = time.monotonic() - began
    assert answer.exit_code == 0, (answer.error, site.story(answer))
    assert took < patient(LOOK_SECONDS), took
    if order == "down":
        scene.check_down()
        return steps.killed_at, took
    after = scene.check_up()
    scene.check_calm()
    assert {name: after[name] for name in before if name == "db"} == {
        name: pid for name, pid in before.items() if name == "db"
    }, "db was healthy, and nobody had asked for another"
    site.up(scene.wish(), timeout=0)
    assert scene.check_up() == after, "a second up touched what was right"
    return steps.killed_at, took


def moments(total: int, lots: random.Random) -> list[int]:
    """All there are, and some more for an order that has a few more steps today; or one in each n-th part."""
    if not MOMENTS:
        return list(range(1, total + total // 10))
    count = abs(MOMENTS)
    return [1 + int(total * (number + lots.random()) / count) for number in range(count)]


@pytest.mark.timeout(60 + 8 * abs(MOMENTS) if MOMENTS else 0)
@pytest.mark.parametrize("victims", ["supervisor", "keeper", "both", "whoever"])
def test_a_kill_at_any_step_is_made_good_by_the_next_look(scene: Scene, victims: str) -> None:
    """Containers that were healthy run on, exit codes are right, everything is there once, and then nothing."""
    longest, failed = 0.0, []
    steps_of = counted(scene)
    orders = random.Random(f"{SEED} {victims}").sample(ORDERS, 2) if MOMENTS < 0 else ORDERS
    for order in orders:
        total = steps_of[order]
        for at in moments(total, random.Random(f"{SEED} {order} {victims}")):
            try:
                where, took = one_kill(scene, order, victims, at)
            except AssertionError as error:  # the other moments are still worth knowing
                failed.append(f"{order} {victims} {at}: {error}")
                print(f"FAILED {failed[-1]}", flush=True)
                assert len(failed) < 5, "\n".join(failed)
                scene.site.down("three", remove_volumes=True, exit_code=None)
                continue
            print(f"{order} {victims} {at} of {total}: {where or 'it was over'}, {took:.2f} s", flush=True)
            longest = max(longest, took)
            if not where and not MOMENTS:
                break
    print(f"{victims}: longest look {longest:.2f} s")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize(("graceful", "code"), [(True, 7), (False, 137)])
def test_a_signal_that_was_written_down_and_never_sent_is_sent_by_the_next(
    state_root: Path, graceful: bool, code: int
) -> None:
    """The supervisor is killed just before it sends it; nobody waits for the end of the grace, or of patience."""
    with Site(state_root) as site:
        site.up(
            """
            name: one
            services:
              a:
                x-rootfs: {path: $BOX}
                command: sh -c "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
                stop_grace_period: 60s
            """
        )
        site.prints("one", "a", b"ready")
        pids = [site.supervisor]
        with Steps(pids, 1, pids, only="pidfd_send_signal") as steps:
            talk = site.begin("stop", stack="one", **({} if graceful else {"timeout": 0}))
            with contextlib.suppress(AssertionError):
                talk.wait(10)
        assert steps.killed_at
        began = time.monotonic()
        assert site.becomes("one", "a", state="exited")["exit_code"] == code
        assert time.monotonic() - began < patient(LOOK_SECONDS / 2)
        site.down("one")
