"""CVE-2020-15257, CVE-2024-25621, CVE-2021-41091: nobody else reaches what controls the containers."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.site import Site

pytestmark = pytest.mark.kernel

NOBODY = 65534


@pytest.fixture(scope="module")
def state_root() -> Iterator[Path]:
    """Where everybody could go, unlike the folders that pytest makes: what is closed here is closed by us."""
    root = Path(tempfile.mkdtemp(prefix="pystack-open-"))
    root.chmod(0o755)
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def stack(anchored_site: Site, attacker: Path) -> Iterator[Site]:
    shutil.copy(attacker, anchored_site.root / "attacker")
    (anchored_site.root / "attacker").chmod(0o755)
    shutil.copy(attacker, anchored_site.box / "bin/attacker")
    anchored_site.up(
        """
        name: k1
        services:
          beside: {x-rootfs: {path: $BOX}, network_mode: host, pid: host, command: sleep 100}
          within:
            x-rootfs: {path: $BOX}
            command: sleep 100
            environment: {A: b}
            volumes: ["data:/data"]
            configs: [c]
        volumes: {data: {}}
        configs: {c: {content: "hidden"}}
        """
    )
    yield anchored_site
    anchored_site.down("k1", remove_volumes=True)


def everything(site: Site) -> list[Path]:
    """All that the supervisor and the keeper have made."""
    tops = (Path(site.paths.run_dir), Path(site.paths.data_dir))
    return [path for top in tops for path in (top, *sorted(top.rglob("*")))]


def as_nobody(site: Site, paths: list[Path]) -> list[str]:
    done = subprocess.run(
        [site.root / "attacker", "reach", *paths],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def sockets(site: Site) -> list[Path]:
    return [path for path in everything(site) if stat.S_ISSOCK(path.lstat().st_mode)]


def test_another_user_finds_nothing_of_ours(stack: Site) -> None:
    paths = everything(stack)
    assert len(paths) > 20
    assert len(sockets(stack)) >= 2
    assert as_nobody(stack, [path for path in paths if len(str(path)) < 100]) == []


def test_modes_are_as_narrow_as_said(stack: Site) -> None:
    """Sockets 0600; the directories above everything 0700."""
    assert {stat.S_IMODE(path.lstat().st_mode) for path in sockets(stack)} == {0o600}
    for top in (stack.paths.run_dir, stack.paths.data_dir):
        assert stat.S_IMODE(os.stat(top).st_mode) == 0o700


def test_with_every_mode_opened_wide_the_sockets_still_ask_who_it_is(stack: Site) -> None:
    """SO_PEERCRED: connected, and not one word back."""
    paths = sockets(stack)
    opened = {
        *paths,
        *(above for path in paths for above in path.parents if str(above).startswith(str(stack.root))),
    }
    before = {path: stat.S_IMODE(path.stat().st_mode) for path in opened}
    try:
        for path in opened:
            path.chmod(0o777)
        said = as_nobody(stack, paths)
    finally:
        for path, mode in before.items():
            path.chmod(mode)
    assert {line for line in said if line.startswith("connected")} == {f"connected {path}" for path in paths}
    assert [line for line in said if line.startswith("answered")] == []


def test_no_socket_of_ours_is_abstract(stack: Site) -> None:
    """Such a one could be had from any container on the host's network, for it has no mode and no place."""
    table = stack.execute("k1", "beside", "cat", "/proc/net/unix").splitlines()[1:]
    assert any(stack.paths.run_dir in line for line in table), "it sees the host's sockets"
    opened = [
        _opened(pid, fd) for pid in (stack.supervisor, stack.keeper) for fd in os.listdir(f"/proc/{pid}/fd")
    ]
    inodes = {goal[8:-1] for goal in opened if goal.startswith("socket:[")}
    ours = [line.split() for line in table if line.split()[6] in inodes]
    assert len(ours) > 4
    assert [row for row in ours if len(row) > 7 and row[7].startswith("@")] == []


def _opened(pid: int, fd: str) -> str:
    """What a descriptor stands for; nothing when it has been closed since it was listed."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except FileNotFoundError:
        return ""


def test_a_container_beside_us_is_not_served_either(stack: Site) -> None:
    """It has the host's network and sees the host's processes, and is root; still it has no file of ours, and
    none of our processes can be opened."""
    names = [str(path) for path in sockets(stack)]
    assert stack.execute("k1", "beside", "attacker", "reach", *names) == ""
    for pid in (stack.supervisor, stack.keeper):
        places = [
            f"/proc/{pid}/{name}" for name in ("root", "cwd", "exe", "fd/3", "environ", "mem", "ns/mnt")
        ]
        said = stack.execute("k1", "beside", "attacker", "reach", *places)
        opened = [line for line in said.splitlines() if "mem" not in line and "environ" not in line]
        assert opened == [], said
        read = (
            "for f in mem environ maps; do head -c 1 /proc/{}/$f >/dev/null && echo got $f; done 2>/dev/null"
        )
        assert stack.execute("k1", "beside", "sh", "-c", read.format(pid), exit_code=None) == ""
        through = f"attacker reach $(for s in {' '.join(names)}; do echo /proc/{pid}/root$s; done)"
        assert stack.execute("k1", "beside", "sh", "-c", through) == ""
