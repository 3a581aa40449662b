"""The supervisor: one for all stacks, there when needed, gone without a trace, calm in between."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from orchestrator.api import client, orders
from orchestrator.api.stacks import Stacks
from orchestrator.engines.local.machine import open_machine
from orchestrator.model.observation import Observation, State
from tests.kit.patience import patient
from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel

PAIR = """
    name: NAME
    services:
      a: {x-rootfs: {path: $BOX}, command: sleep 1000}
      b: {x-rootfs: {path: $BOX}, command: sleep 1000}
"""


GRACE = 2.0
"""Seconds that a supervisor waits for its first request (daemon.FIRST_SECONDS)."""


@pytest.fixture
def fresh(state_root: Path) -> Iterator[Site]:
    with Site(state_root) as site:
        yield site


def test_after_the_last_down_nothing_is_left(fresh: Site) -> None:
    """Judged by `nothing_left`: processes, mounts, links, control groups, tables, files; here: at once."""
    fresh.up(PAIR.replace("NAME", "one"))
    fresh.up(PAIR.replace("NAME", "two"))
    servers = (fresh.supervisor, fresh.keeper)
    fresh.down("one")
    assert fresh.row("two", "a")["state"] == "running"
    assert (fresh.supervisor, fresh.keeper) == servers
    fresh.down("two")
    assert not fresh.places.run.exists()
    until(lambda: not fresh.processes(), "the end of supervisor and keeper", seconds=2)
    assert not any(fresh.places.stacks.parent.glob("stacks/*"))


def test_a_network_that_outlived_its_stack_goes_with_the_last_one(fresh: Site) -> None:
    fresh.up("name: host\nservices: {a: {x-rootfs: {path: $BOX}, command: sleep 1000}}\n")
    fresh.up(
        """
        name: guest
        services: {b: {x-rootfs: {path: $BOX}, command: sleep 1000, networks: [theirs]}}
        networks: {theirs: {external: true, name: host_default}}
        """
    )
    fresh.down("host")
    fresh.down("guest")
    assert not fresh.places.run.exists()


def test_a_follower_is_told_when_the_last_stack_has_gone(fresh: Site) -> None:
    """It keeps nobody from leaving."""
    fresh.up(PAIR.replace("NAME", "one"))
    logs = fresh.begin("logs", stack="one", services=[], follow=True)
    events = fresh.begin("events", stack="one", follow=True)
    logs.event("container")
    fresh.down("one")
    assert logs.wait().exit_code == 0
    assert events.wait().exit_code == 0
    assert not fresh.places.run.exists()


def test_two_ups_at_once_make_one_stack(fresh: Site) -> None:
    talks = [fresh.begin_up(PAIR.replace("NAME", "one")) for _ in range(3)]
    for talk in talks:
        answer = talk.wait()
        assert answer.exit_code == 0, answer.error
    assert [row["name"] for row in fresh.ps("one")] == ["one-a-1", "one-b-1"]
    assert len([row for row in fresh.processes() if "sleep 1000" in row]) == 2
    fresh.down("one")


def test_up_and_down_at_once_end_as_one_after_the_other(fresh: Site) -> None:
    fresh.up(PAIR.replace("NAME", "other"))
    for _ in range(5):
        up = fresh.begin_up(PAIR.replace("NAME", "one"))
        down = fresh.begin("down", stack="one", timeout=0)
        up.wait()
        down.wait()
        rows = fresh.ps("one")
        assert sorted(row["state"] for row in rows) in ([], ["running", "running"]), rows
        fresh.down("one")
        assert fresh.ps("one") == []
    fresh.down("other")


def test_stacks_do_not_wait_for_one_another(fresh: Site) -> None:
    """A stop that takes its full grace in one stack, and an `up` in another meanwhile."""
    slowly = "{x-rootfs: {path: $BOX}, command: sleep 1000, stop_grace_period: GRACE}"
    fresh.up(f"name: slow\nservices: {{a: {slowly}}}".replace("GRACE", f"{patient(3):g}s"))
    slow = fresh.begin("stop", stack="slow")
    began = time.monotonic()
    fresh.up(PAIR.replace("NAME", "quick"))
    fresh.down("quick")
    assert time.monotonic() - began < patient(2)
    assert slow.answer.exit_code == -1
    slow.wait()
    fresh.down("slow")


def test_a_supervisor_with_nothing_to_do_sleeps(fresh: Site) -> None:
    """No health check, nothing printed: nobody wakes before the loop's own rescan every 30 s."""
    fresh.up(PAIR.replace("NAME", "one"))
    fresh.up(PAIR.replace("NAME", "two"))
    pids = (fresh.supervisor, fresh.keeper)
    time.sleep(1)

    def wakings() -> int:
        found = 0
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    words = (task / "status").read_text().split()
                    found += int(words[words.index("voluntary_ctxt_switches:") + 1])
        return found

    before = wakings()
    time.sleep(3)
    assert wakings() - before <= 2
    fresh.down("one")
    fresh.down("two")


def test_a_client_that_sends_garbage_or_nothing_harms_nobody(fresh: Site) -> None:
    import socket

    fresh.up(PAIR.replace("NAME", "one"))
    for message in (
        b"\xff\xfe\n",
        b"[]\n",
        b"{}\n",
        b'{"verb": "up", "stack": {"is": "Stack"}}\n',
        b"{",
        b"{" * 100_000,
    ):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(fresh.paths.socket)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(message)
            sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(4096):
                    pass
    for request in ({"verb": "up"}, {"verb": "ps"}, {"verb": "nonsense"}, {"verb": "exec", "stack": 1}):
        verb = request.pop("verb")
        answer = fresh.ask(str(verb), exit_code=None, **request)
        assert answer.exit_code == 1
        assert answer.error
    assert fresh.row("one", "a")["state"] == "running"
    fresh.down("one")


def test_a_stack_that_can_t_be_planned_is_refused_and_changes_nothing(fresh: Site) -> None:
    """A circle, as no command line of ours would send it."""
    from dataclasses import replace

    from orchestrator.model import codec
    from orchestrator.model.stack import Dependency

    fresh.up(PAIR.replace("NAME", "one"))
    stack = fresh.stack(PAIR.replace("NAME", "one"))
    services = {
        name: replace(service, depends_on=(Dependency(service="b" if name == "a" else "a"),))
        for name, service in stack.services.items()
    }
    wish = codec.encode(replace(stack, services=services))
    answer = fresh.ask("up", exit_code=None, stack=wish, services=[])
    assert answer.exit_code != 0
    assert "a -> b -> a" in answer.error
    assert fresh.up(PAIR.replace("NAME", "one")).actions() == []
    fresh.down("one")


async def test_a_bug_in_one_stack_s_loop_is_another_s_luck(fresh: Site) -> None:
    """One engine raises at every look; the other stack comes up, is restarted and goes."""
    fresh.places.run.mkdir(parents=True)
    for directory in (fresh.places.stacks, fresh.places.volumes, fresh.places.bundles):
        directory.mkdir(parents=True)
    async with trio.open_nursery() as nursery:
        machine = await open_machine(fresh.places, nursery)
        stacks = Stacks(machine, nursery)
        looks = 0

        async def broken() -> Observation:
            nonlocal looks
            looks += 1
            raise RuntimeError("a bug")

        machine.engine("bad").observe = broken  # type: ignore[method-assign]
        for name in ("bad", "good"):
            wish = fresh.stack(PAIR.replace("NAME", name))
            await stacks.want(name, lambda previous, wish=wish: orders.up(previous, wish, orders.UpOptions()))
        good = stacks.get("good")
        assert good is not None

        def runs(view: object) -> bool:
            return [c.state for c in view.observation.containers] == [State.RUNNING] * 2  # type: ignore[attr-defined]

        with trio.fail_after(10):
            await good.loop.until(runs)
            while looks < 2:
                await trio.sleep(0.05)
            _, revision = await stacks.want(
                "good",
                lambda previous: orders.down(previous, remove_volumes=False, remove_orphans=False, timeout=0),  # type: ignore[arg-type]
            )
            await good.gone.wait()
        await machine.clear()
        nursery.cancel_scope.cancel()


def test_a_thousand_clients_that_come_and_go_leave_no_descriptor(fresh: Site) -> None:
    import socket

    fresh.up(PAIR.replace("NAME", "one"))
    pid = fresh.supervisor
    before = len(os.listdir(f"/proc/{pid}/fd"))

    def knock() -> None:
        for _ in range(250):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(fresh.paths.socket)
                sock.sendall(b'{"verb": "pi')

    threads = [threading.Thread(target=knock) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before + 1, "descriptors given back")
    assert fresh.supervisor == pid
    fresh.down("one")


def test_who_has_started_the_supervisor_is_waited_for_while_it_makes_up_its_mind(
    fresh: Site,
) -> None:
    """Under load, or with a big stack file, longer than any grace; and not once it is connected, or gone."""
    client.ensure_supervisor(fresh.paths)
    servers = fresh.processes()
    time.sleep(GRACE + 1.0)
    assert fresh.processes() == servers
    assert fresh.ask("ls").result == []
    until(lambda: not fresh.processes(), "its end after the first answer", seconds=5)
    client.ensure_supervisor(fresh.paths)
    while client._held:
        os.close(client._held.pop())
    until(lambda: not fresh.processes(), "its end when nobody waits", seconds=GRACE + 5)
