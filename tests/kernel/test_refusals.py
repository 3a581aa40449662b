"""What can't be started: one clear sentence that names what is wrong, and nothing tried in vain."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refusals")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A run directory on a disk of its own, of one megabyte."""
    disk = tmp_path / "run"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", disk], check=True)
    try:
        yield disk
    finally:
        # Who leaves it, the supervisor, may still be on the way out.
        until(lambda: subprocess.run(["umount", disk], check=False).returncode == 0, "the end of its users")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("volumes: [$DIR/file:/etc]", "can't mount $DIR/file at /etc: a directory can't go onto a file"),
        ("volumes: [$DIR:/bin/busybox/x]", "can't mount $DIR at /bin/busybox/x: not a directory"),
        ("sysctls: {net.ipv4.ip_forward: banana}", "sysctl net.ipv4.ip_forward=banana: invalid argument"),
        ("sysctls: {net.ipv4.none: 1}", "sysctl net.ipv4.none=1: this kernel has no such setting"),
        ("tmpfs: [/x:frobnicate=1]", "can't mount tmpfs /x: invalid argument (tmpfs: Unknown parameter"),
        ("working_dir: /bin/busybox", "working directory /bin/busybox: not a directory"),
    ],
)
def test_a_start_that_the_kernel_refuses_names_what_it_refuses(site: Site, more: str, said: str) -> None:
    (site.dir / "file").write_text("")
    answer = site.up(
        f"""
        name: refused
        services:
          web:
            x-rootfs: {{path: $BOX}}
            command: sleep 100
            {more}
        """,
        exit_code=125,
    )
    assert answer.error.startswith("container refused-web-1: " + said.replace("$DIR", str(site.dir)))
    site.down("refused")


def test_a_full_disk_is_one_sentence_and_not_tried_again_at_once(small: Path) -> None:
    text = """
        name: full
        services:
          a: {x-rootfs: {path: $BOX}, command: sleep 100, networks: [default]}
          b: {x-rootfs: {path: $BOX}, command: sleep 100, networks: [default]}
    """
    with Site(small.parent) as site:
        site.up(text, wanted="created")
        fill = small / "fill"
        with fill.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
        began = time.monotonic()
        answer = site.ask("start", stack="full", exit_code=1)
        assert time.monotonic() - began < 1.5
        assert answer.error == f"can't write in {small}/containers: no space left on device"
        assert f"the filesystem at {small} is full" in answer.hint
        assert sorted(answer.actions("start", "failed")) == ["container:full-a-1", "container:full-b-1"]
        fill.unlink()
        site.ask("start", stack="full")
        assert site.row("full", "a")["state"] == "running"
