"""Who a process runs as, when the image lies about it: in `exec` too, while the container changes its files."""

from __future__ import annotations

import os
import time

import pytest

from tests.kit.keeper import Machine, Refused, Run

pytestmark = pytest.mark.kernel

TRAPS = (
    "4294967296:x:0:0::/:/bin/sh\n2147483648:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n0x0:x:0:0::/:/bin/sh\n"
)
WRONG = ["4294967296", "4294967295", "2147483648", "18446744073709551616", "-1", "1e3", " 0", "0 ", "1000:", ":0", "+0",
         "0:0:0", "\u0660", "nobody", "root:nobody", "0\n0"]  # fmt: skip


@pytest.fixture
def run(machine: Machine) -> Run:
    with (machine.image / "etc/passwd").open("a") as file:
        file.write(TRAPS)
    return machine.start(["sleep", "100"])


def test_no_user_is_taken_for_another(machine: Machine, run: Run) -> None:
    """CVE-2024-40635, CVE-2026-46680, CVE-2026-30892: by `exec -u`; by `user:`, see test_launch."""
    for user in WRONG:
        with pytest.raises(Refused) as refused:
            machine.exec(run, ["id"], user_name=user)
        assert refused.value.step == "user", user


def test_groups_are_exactly_those(machine: Machine, run: Run) -> None:
    """CVE-2022-36109, CVE-2023-25173: the primary group among the supplementary ones, none of the host's."""
    matrix = [
        ("0", "uid=0(root) gid=0(root) groups=0(root)"),
        ("root", "uid=0(root) gid=0(root) groups=0(root)"),
        ("app", "uid=1000(app) gid=1000(app) groups=29(audio),44(log),1000(app)"),
        ("web", "uid=33(web) gid=33(web) groups=33(web),44(log)"),
        ("app:web", "uid=1000(app) gid=33(web) groups=33(web)"),
        ("1000:33", "uid=1000(app) gid=33(web) groups=33(web)"),
        ("7:8", "uid=7 gid=8 groups=8"),
        ("7", "uid=7 gid=0(root) groups=0(root)"),
        ("2147483647", "uid=2147483647 gid=0(root) groups=0(root)"),
    ]
    for user, said in matrix:
        assert machine.exec(run, ["id"], user_name=user)[1].strip() == said


@pytest.mark.parametrize("name", ["passwd", "group"])
def test_a_file_of_names_that_is_a_trap_is_an_error_at_once(machine: Machine, name: str) -> None:
    """CVE-2024-9676: while it runs, the container makes it a FIFO, a link out, endless, a directory, a socket of
    somebody else's; no `exec` waits for it or reads what it leads to."""
    run = machine.start(["sleep", "100"])
    traps = {
        "a FIFO": "mkfifo $f",
        "a huge file": "truncate -s 4G $f",
        "a device": "mknod $f c 1 5",
        "a directory": "mkdir $f",
        "a link to a process": "ln -s /proc/1/environ $f",
        "a link to a link": "ln -s /proc/self/exe $f",
        "a link to itself": f"ln -s /etc/{name} $f",
        "a link to memory": "ln -s /proc/self/mem $f",
    }
    for what, command in traps.items():
        path = f"/proc/{run.pid}/root/etc/{name}"
        # From here, for no `exec` gets in any more once the first trap is laid.
        assert os.system(f"f={path}; rm -rf $f; {command}") == 0
        began = time.monotonic()
        with pytest.raises(Refused) as refused:
            machine.exec(run, ["true"], user_name="app:web")
        assert time.monotonic() - began < 2, what
        assert refused.value.step == "user", (what, refused.value)
