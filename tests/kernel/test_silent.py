"""Filesystems that never answer, as a dead NFS server's or a FUSE of a container's own, hold up nobody else."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from orchestrator.engines.local import hostfiles
from orchestrator.kernel import swap as swapping
from orchestrator.kernel import syscalls
from orchestrator.kernel.swap import Exchange, identity, swap
from tests.kit.patience import patient
from tests.kit.site import until
from tests.unit.engines.local.test_hostfiles import Bench

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no FUSE"),
]


@contextmanager
def silent(directory: Path) -> Iterator[None]:
    """A filesystem whose server reads no question; in the end it is gone, and so are those who asked."""
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    said = f"fd={server},rootmode=40000,user_id=0,group_id=0"
    try:
        syscalls.mount("silent", str(directory), "fuse", 0, said)
        yield
    finally:
        os.close(server)
        syscalls.umount(str(directory), syscalls.MNT_DETACH)


def inside(pid: int, work: Callable[[], None]) -> None:
    """In the mount namespace of a process."""

    def run() -> None:
        fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        syscalls.unshare(syscalls.CLONE_FS)
        syscalls.setns(fd, syscalls.CLONE_NEWNS)
        os.close(fd)
        work()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


@contextmanager
def container(directory: Path) -> Iterator[tuple[int, int]]:
    """A process with a mount namespace of its own, in which `old` is mounted at conf/app: pid and pidfd."""
    (directory / "conf").mkdir(parents=True)
    for name, text in (("old", "one"), ("new", "two"), ("conf/app", "")):
        (directory / name).write_text(text)
    script = 'mount --make-rprivate / && mount --bind "$1/old" "$1/conf/app" && echo ready && exec sleep 1000'
    command = ["unshare", "-m", "sh", "-c", script, "sh", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        pidfd = os.pidfd_open(process.pid)
        try:
            yield process.pid, pidfd
        finally:
            process.kill()
            os.close(pidfd)


def exchange(directory: Path) -> list[Exchange]:
    held = {one for name in ("old", "new") if (one := identity(str(directory / name)))}
    return [Exchange(source=str(directory / "new"), target=str(directory / "conf/app"), held=held)]


def test_a_container_with_a_silent_filesystem_keeps_one_thread_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swapping, "PATIENCE", 0.3)
    one, other = tmp_path / "one", tmp_path / "other"
    with container(one) as (pid, pidfd), container(other) as (neighbour, neighbours):
        server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        said = f"fd={server},rootmode=40000,user_id=0,group_id=0"
        inside(pid, lambda: syscalls.mount("silent", str(one / "conf"), "fuse", 0, said))
        try:
            for _ in range(3):
                with pytest.raises(TimeoutError, match="a filesystem that is mounted in it does not answer"):
                    swap(pidfd, exchange(one), "one")
                assert sum(thread.name == "swap" for thread in threading.enumerate()) == 1
            swap(neighbours, exchange(other), "other")
            assert Path(f"/proc/{neighbour}/root{other}/conf/app").read_text() == "two"
        finally:
            os.close(server)
        until(lambda: all(thread.name != "swap" for thread in threading.enumerate()), "the end of the thread")
        inside(pid, lambda: syscalls.umount(str(one / "conf"), syscalls.MNT_DETACH))
        assert Path(f"/proc/{pid}/root{one}/conf/app").read_text() == "one"
        swap(pidfd, exchange(one), "one")
        assert Path(f"/proc/{pid}/root{one}/conf/app").read_text() == "two"
        assert Path(f"/proc/{pid}/mountinfo").read_text().count(f" {one}/conf/app ") == 1


async def test_files_beside_a_silent_filesystem_are_known_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it falls silent, while it is, and when it is back."""
    monkeypatch.setattr(hostfiles, "PATIENCE", 0.1)
    bench, far = Bench(tmp_path), tmp_path / "far" / "far.conf"
    far.parent.mkdir()
    for path, text in ((bench.path, "one"), (far, "far")):
        path.write_text(text)
    bench.files.follow(bench.container(far, 1))
    bench.files.follow(bench.container(bench.path, 2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.files.run)
        await bench.holds("far", far)
        await bench.holds("one")
        with silent(far.parent):
            for text in ("two", "three", "four"):
                began = time.monotonic()
                bench.path.write_text(text)
                await bench.holds(text)
                assert time.monotonic() - began < patient(2)
            bench.files.follow(bench.container(far.with_name("more.conf"), 3))
            bench.path.write_text("five")
            await bench.holds("five")
            assert bench.files.of_stack("shop")[str(far)], "what was known of it"
        far.write_text("back")
        await bench.holds("back", far)
        nursery.cancel_scope.cancel()
