"""What containers print is kept: every byte, in order, in files of bounded size, and followed as it grows."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


def tail(log: Path) -> bytes:
    """The end of a log file; nothing while it is being turned over."""
    with contextlib.suppress(FileNotFoundError):
        return log.read_bytes()[-200:]
    return b""


def test_every_byte_is_kept_whatever_it_is(site: Site) -> None:
    """Invalid UTF-8, NUL, escapes, a megabyte without a newline, an end without one."""
    data = bytes(range(256)) * 40 + b"\n" + os.urandom(1 << 20).replace(b"\n", b"") + b"\nthe end"
    (site.dir / "data").write_bytes(data)
    site.up(
        """
        name: l1
        services:
          a: {x-rootfs: {path: $BOX}, command: sh -c "cat /data; cat /data >&2", volumes: ["$DIR/data:/data"]}
        """
    )
    site.becomes("l1", "a", state="exited")
    for stream in (b"stdout", b"stderr"):
        until(lambda stream=stream: len(site.output("l1", "a", stream)) >= len(data), "all of it")
        assert site.output("l1", "a", stream) == data
    site.down("l1")


def test_the_output_of_a_run_begins_on_a_line_of_its_own(site: Site) -> None:
    """After a restart, what the run before has left open is not joined to it."""
    site.up("name: l2\nservices: {a: {x-rootfs: {path: $BOX}, command: printf open}}")
    site.becomes("l2", "a", state="exited")
    site.ask("start", stack="l2", services=["a"])
    until(lambda: site.output("l2", "a") == b"open\nopen", "both runs")
    site.down("l2")


def test_a_terminal_s_output_goes_to_the_log_too(site: Site) -> None:
    site.up(
        """
        name: l3
        services: {a: {x-rootfs: {path: $BOX}, tty: true, command: sh -c "tty; test -t 1 && echo yes; sleep 100"}}
        """
    )
    site.prints("l3", "a", b"yes\r\n")
    assert site.output("l3", "a") == b"/dev/pts/0\r\nyes\r\n"
    site.ask("restart", stack="l3", timeout=0)
    until(lambda: site.output("l3", "a").count(b"yes") == 2, "the second run's output")
    site.down("l3")


@pytest.mark.parametrize("name", ["/dev/stdout", "/proc/self/fd/1"])
def test_a_user_may_open_its_output_again(site: Site, name: str) -> None:
    site.up(
        f"""
        name: l4
        services:
          a: {{x-rootfs: {{path: $BOX}}, user: app, command: sh -c "echo x > {name}; sleep 100"}}
        """
    )
    site.prints("l4", "a", b"x\n")
    site.down("l4")


def test_files_are_turned_over_at_their_size_and_only_so_many_are_kept(site: Site) -> None:
    site.up(
        """
        name: l5
        services:
          a:
            x-rootfs: {path: $BOX}
            command: sh -c "seq 1 20000; sleep 100"
            logging: {options: {max-size: 20k, max-file: "3"}}
        """
    )
    site.prints("l5", "a", b"\n20000\n")
    home = next(site.places.stacks.glob("l5/containers/*"))
    sizes = {path.name: path.stat().st_size for path in home.glob("container.log*")}
    assert set(sizes) == {"container.log", "container.log.1", "container.log.2"}
    assert max(sizes.values()) <= 20 * 1024
    assert sizes["container.log.1"] > 19 * 1024
    lines = site.output("l5", "a").split()
    assert lines == [b"%d" % number for number in range(20001 - len(lines), 20001)]
    site.down("l5")


def test_a_follower_hears_of_new_containers_growth_ends_and_removal(site: Site) -> None:
    text = "name: l6\nservices: {a: {x-rootfs: {path: $BOX}, command: sh -c 'sleep 0.3; echo x; exit 3'}}"
    talk = site.begin("logs", stack="l6", services=[], follow=True)
    site.up(text)
    assert talk.event("container")["name"] == "l6-a-1"
    talk.event("grown")
    assert talk.event("exited")["exit_code"] == 3
    site.down("l6")
    talk.event("removed")
    kinds = [line["event"] for line in talk.answer.lines]
    assert kinds.index("grown") < kinds.index("exited") < kinds.index("removed")
    talk.leave()


def test_a_chatty_container_holds_up_nobody_and_cuts_nobody_off(site: Site) -> None:
    site.up(
        """
        name: l7
        services:
          loud:
            x-rootfs: {path: $BOX}
            command: sh -c "yes | head -c 6000000; echo done; sleep 100"
            logging: {options: {max-size: 1m, max-file: "2"}}
          quiet: {x-rootfs: {path: $BOX}, command: sh -c "while :; do sleep 0.1; echo tick; done"}
        """
    )
    talk = site.begin("logs", stack="l7", services=["quiet"], follow=True)
    site.execute("l7", "quiet", "true")
    home = site.places.container("l7", site.row("l7", "loud")["id"])
    until(lambda: any(b" F done\n" in tail(path) for path in home.glob("container.log*")), "all of it")
    before = len(talk.answer.lines)
    until(lambda: len(talk.answer.lines) > before, "more growth")
    assert talk.answer.exit_code == -1
    talk.leave()
    site.down("l7")


def test_a_log_file_that_was_replaced_by_a_link_is_not_followed(site: Site) -> None:
    victim = site.dir / "victim"
    victim.write_bytes(b"")
    site.up(
        """
        name: l8
        services: {a: {x-rootfs: {path: $BOX}, command: sh -c "while :; do echo x; sleep 0.05; done"}}
        """
    )
    site.prints("l8", "a", b"x\n")
    site.ask("stop", stack="l8", timeout=0)
    log = next(site.places.stacks.glob("l8/containers/*")) / "container.log"
    log.unlink()
    log.symlink_to(victim)
    site.ask("start", stack="l8")
    site.execute("l8", "a", "sleep", "0.2")
    assert victim.read_bytes() == b""
    site.down("l8")
