"""What the host's files hold is known again soon after they have changed, in whichever way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from orchestrator.engines.local.hostfiles import HostFiles
from orchestrator.engines.local.table import Table
from orchestrator.kernel import digest
from orchestrator.model.observation import Container
from orchestrator.model.stack import FileMount
from tests.kit.stacks import service

SOON = 2.0


class Bench:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "sub" / "app.conf"
        self.path.parent.mkdir()
        self.table = Table()
        self.files = HostFiles(self.table)

    def container(self, path: Path, number: int = 1) -> Container:
        mount = FileMount(kind="config", name="app", target="/app", path=str(path), digest="0")
        definition = replace(service(), mounts=(mount,))
        return Container(
            id=f"{number:064}",
            name=f"shop-web-{number}",
            stack="shop",
            service="web",
            slot=number,
            definition=definition,
            fingerprint="",
            generation=0,
            image_id="",
            created=0.0,
        )

    async def holds(self, text: str | None, path: Path | None = None) -> None:
        """Wait until the file is known to hold this; None: nothing that could be read."""
        wanted = "" if text is None else hashlib.sha256(text.encode()).hexdigest()
        with trio.fail_after(SOON):
            while self.files.of_stack("shop").get(str(path or self.path)) != wanted:
                await self.table.bell("shop").wait()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.files.run)
        yield made
        nursery.cancel_scope.cancel()


async def test_every_way_to_change_a_file_is_noticed(bench: Bench) -> None:
    bench.path.write_text("one")
    bench.files.follow(bench.container(bench.path))
    await bench.holds("one")
    bench.path.write_text("two")
    await bench.holds("two")
    (bench.path.parent / "new").write_text("three")
    (bench.path.parent / "new").replace(bench.path)
    await bench.holds("three")
    bench.path.unlink()
    await bench.holds(None)
    bench.path.write_text("four")
    await bench.holds("four")
    bench.path.parent.rename(bench.home / "away")
    await bench.holds(None)
    (bench.home / "away").rename(bench.path.parent)
    await bench.holds("four")


async def test_a_link_that_is_led_elsewhere_is_noticed(bench: Bench) -> None:
    """As a directory of several versions has it, with a link to the current one."""
    for number in ("1", "2"):
        (bench.home / number).mkdir()
        (bench.home / number / "app.conf").write_text(number)
    (bench.home / "current").symlink_to("1")
    bench.path.symlink_to("../current/app.conf")
    bench.files.follow(bench.container(bench.path))
    await bench.holds("1")
    (bench.home / "next").symlink_to("2")
    (bench.home / "next").rename(bench.home / "current")
    await bench.holds("2")


async def test_what_nobody_uses_any_more_is_forgotten(bench: Bench) -> None:
    bench.path.write_text("one")
    first, second = bench.container(bench.path, 1), bench.container(bench.path, 2)
    bench.files.follow(first)
    bench.files.follow(second)
    await bench.holds("one")
    bench.files.leave(first)
    assert bench.files.of_stack("shop")
    assert bench.files.of_stack("other") == {}
    bench.files.leave(second)
    assert bench.files.of_stack("shop") == {}


def test_what_is_no_plain_file_or_too_large_has_no_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert digest.of_file(str(tmp_path / "fifo")) == ""
    assert digest.of_file(str(tmp_path)) == ""
    assert digest.of_file("/dev/zero") == ""
    monkeypatch.setattr(digest, "LIMIT", 4)
    (tmp_path / "file").write_bytes(b"\xff1234")
    assert digest.of_file(str(tmp_path / "file")) == ""
    with pytest.raises(OSError, match="too large"):
        digest.read(str(tmp_path / "file"))
    (tmp_path / "file").write_bytes(b"\xff123")
    assert digest.of_file(str(tmp_path / "file")) == digest.of_bytes(b"\xff123")
    with pytest.raises(FileNotFoundError):
        digest.of_file(str(tmp_path / "nothing"))
