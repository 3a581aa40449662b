"""What the kernel says of a start, in the user's words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from orchestrator.engines.local import trouble
from orchestrator.kernel import syscalls

OTHER_KIND = "a directory can't go onto a file, nor a file onto a directory"


def raw(number: int, what: str = "", detail: str = "") -> str:
    """As kernel/report sends an OSError of kernel/syscalls, of os.write, or of open."""
    error = syscalls.failure(what, number) if what else OSError(number, os.strerror(number))
    return str(error) + (f" ({detail})" if detail else "")


@pytest.mark.parametrize(
    ("number", "step", "said", "message"),
    [
        (
            errno.EINVAL,
            "mount /srv/conf at /etc/passwd (rbind,ro)",
            raw(errno.EINVAL, "move_mount"),
            f"can't mount /srv/conf at /etc/passwd: {OTHER_KIND}",
        ),
        (
            errno.ENOENT,
            "mount /srv/none at /data (rbind)",
            f"/srv/none: {os.strerror(errno.ENOENT)}",
            "can't mount /srv/none at /data: no such file or directory",
        ),
        (
            errno.EINVAL,
            "mount tmpfs /x (nosuid,frobnicate=1)",
            raw(errno.EINVAL, "fsconfig frobnicate", "tmpfs: Unknown parameter 'frobnicate'"),
            "can't mount tmpfs /x: invalid argument (tmpfs: Unknown parameter 'frobnicate')",
        ),
        (
            errno.EINVAL,
            "sysctl net/ipv4/ip_forward = banana",
            raw(errno.EINVAL),
            "sysctl net.ipv4.ip_forward=banana: invalid argument",
        ),
        (
            errno.ENOENT,
            "sysctl net/ipv4/conf/eth0.1/forwarding = 1",
            raw(errno.ENOENT, "openat2 sys/net"),
            "sysctl net/ipv4/conf/eth0.1/forwarding=1: this kernel has no such setting",
        ),
        (
            errno.ENOTDIR,
            "mkdir /etc/passwd/x",
            raw(errno.ENOTDIR, "openat2 /etc/passwd/x"),
            "working directory /etc/passwd/x: not a directory",
        ),
        (
            errno.ENOTDIR,
            "cwd",
            f"/etc/passwd: {os.strerror(errno.ENOTDIR)}",
            "working directory /etc/passwd: not a directory",
        ),
        (
            errno.EINVAL,
            "mount /srv at /proc/x (rbind)",
            "/proc/x leads into /proc: nothing can be mounted there",
            "/proc/x leads into /proc: nothing can be mounted there",
        ),
        (
            errno.EACCES,
            "stdio",
            raw(errno.EACCES, "oom_score_adj -1000"),
            "oom_score_adj -1000: Permission denied",
        ),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_a_refusal_names_what_it_is_about(number: int, step: str, said: str, message: str) -> None:
    assert trouble.sentence(number, step, said)[0] == message


def test_a_command_that_cannot_be_run_keeps_its_words_and_its_code() -> None:
    words = 'exec: "serve": executable file not found in $PATH'
    error = trouble.of_start({"errno": errno.ENOENT, "step": "exec", "message": words, "exit_code": 127})
    assert (error.message, error.exit_code, error.retryable) == (words, 127, False)


def test_a_full_disk_is_named_by_where_it_is_mounted_and_is_not_tried_again_soon() -> None:
    path = f"/dev/shm/stacks/x/containers/{'a' * 64}/layers/root/upper"
    told = {"errno": errno.ENOSPC, "step": "overlay /", "message": f"{path}: {os.strerror(errno.ENOSPC)}"}
    error = trouble.of_start(told)
    assert error.message == "can't write in /dev/shm/stacks/x/containers: no space left on device"
    assert "the filesystem at /dev/shm is full" in error.hint
    assert (error.retryable, error.lasting) == (True, True)


def test_an_error_of_a_file_says_what_and_where() -> None:
    error = trouble.of_file(PermissionError(errno.EPERM, "Not permitted", "/a/b"), "container x")
    assert (error.message, error.lasting) == ("container x: Not permitted: /a/b", False)


def test_without_a_name_a_disk_with_room_is_not_called_full(tmp_path: Path) -> None:
    """ENOSPC is also said of mounts, of control groups and of watches."""
    error = trouble.of_file(OSError(errno.ENOSPC, "No space left"), within=(tmp_path,))
    assert (error.message, error.hint, error.lasting) == ("No space left", "", False)
