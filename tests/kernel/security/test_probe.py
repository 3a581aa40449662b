"""Default security is Docker's or stricter: the probe in a container of ours, beside stored rows of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import security
from tests.kit import leaks

pytestmark = pytest.mark.kernel

STORED = json.loads(security.STORED.read_text())
# dockerd's policy is older than these calls, or than the decision to let them pass; today's does.
NEWER = set(
    """cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount mseal setxattrat
    getxattrat listxattrat removexattrat name_to_handle_at process_vm_readv process_vm_writev pkey_mprotect pkey_alloc
    pkey_free""".split()
)
TIGHT = {"EPERM", "EROFS", "ENOSYS", "hidden", "its own", "/", "not there", "read-only", "0"}
ABSENT = {None, "not there"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield (made := tmp_path_factory.mktemp("probe"))
    leaks.sweep(leaks.Root(path=made / "state"))


@pytest.fixture(scope="module")
def root(folder: Path) -> Path:
    return security.rootfs(folder)


@pytest.fixture
def state_root(folder: Path) -> Path:
    return folder / "state"


def comparable(rows: security.Rows) -> security.Rows:
    """Without what depends on the machine: its hierarchies of control groups, how its disks are mounted, and what
    its kernel has and lets be read."""
    machine = ("mount\t/sys/fs/cgroup", "control group\t", "mount\t/proc/", "mount\t/sys/", "mount\t/etc/",
               "setting\tnet/ipv4/ip_forward")  # fmt: skip
    kept = {key: value for key, value in rows.items() if not key.startswith(machine) and value not in ABSENT}
    return {key: value.partition(", not readable")[0] for key, value in kept.items()}


def test_a_default_container_is_as_the_page_says(state_root: Path, folder: Path, root: Path) -> None:
    """Row for row. What has changed on purpose is written down by `python benchmarks/security.py`."""
    found, stored = comparable(security.ours(folder, root)), comparable(STORED["pystack"])
    shared = found.keys() & stored.keys()
    assert {key: found[key] for key in shared} == {key: stored[key] for key in shared}
    assert len([key for key in shared if key.startswith("system call\t")]) > 430
    assert not [key for key in found.keys() ^ stored.keys() if not key.startswith("path\t")]


def test_strict_adds_no_new_privileges_and_takes_nothing_back(
    state_root: Path, folder: Path, root: Path
) -> None:
    found = security.ours(folder, root, "--strict")
    assert found["process\tNoNewPrivs"] == "1"
    changed = {key for key in found if comparable(found).get(key) != comparable(STORED["pystack"]).get(key)}
    assert {key for key in changed if not key.startswith("path\t")} == {"process\tNoNewPrivs"}


def test_no_row_is_looser_than_dockers() -> None:
    """But for calls that docker's policy of that age doesn't know yet."""
    for key in {*STORED["pystack"], *STORED["docker"]}:
        mine, theirs = STORED["pystack"].get(key), STORED["docker"].get(key)
        section, _, name = key.partition("\t")
        if mine == theirs or mine in ABSENT or mine in TIGHT:
            continue
        if section == "mount":
            assert " ro," in str(mine), (key, mine, theirs)  # what is mounted otherwise is read-only
        else:
            assert section == "system call", (key, mine, theirs)
            assert name in NEWER, (key, mine, theirs)


def test_the_page_shows_what_is_stored() -> None:
    page = security.PAGE.read_text()
    assert security.replace_part(page, security.render(STORED)) == page
