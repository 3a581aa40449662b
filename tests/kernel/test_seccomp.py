"""Compiled filters in the real kernel: each call is tried without and with the default policy."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import orchestrator
from orchestrator.kernel.seccomp import compile_profile, default_cached, default_profile, numbers
from tests.kit.patience import patient

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a filter is loaded without no_new_privs"),
]

# Runs in an interpreter of its own: loads the filter (if any), then tries each call in a forked child, so
# that no call's effect is the next one's surprise. Prints [[result, errno] or "signal N" ...].
PROBE = """
import ctypes, json, os, sys
sys.path.insert(0, sys.argv[1])
from orchestrator.kernel.syscalls import load_seccomp
filter_path, calls = sys.argv[2], json.loads(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
if filter_path:
    load_seccomp(open(filter_path, "rb").read())
answers = []
for call in calls:
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        ctypes.set_errno(0)
        result = libc.syscall(*(ctypes.c_ulong(word) for word in call))
        os.write(w, json.dumps([result, ctypes.get_errno()]).encode())
        os._exit(0)
    os.close(w)
    said = os.read(r, 100)
    os.close(r)
    status = os.waitpid(pid, 0)[1]
    answers.append(json.loads(said) if said else f"signal {status & 127}")
print(json.dumps(answers))
"""

EPERM, ESRCH, EFAULT, EINVAL, ENOSYS, EOPNOTSUPP = 1, 3, 14, 22, 38, 95
NR = numbers(platform.machine())
HUGE = (1 << 64) - 1

# call, arguments, errno that the kernel itself gives (None: anything but EPERM), errno under the filter
ROWS: list[tuple[str, tuple[int, ...], int | None, int]] = [
    ("getpid", (), 0, 0),
    ("fsopen", (0, 0), EFAULT, EPERM),
    ("fsconfig", (HUGE, 99, 0, 0, 0), None, EPERM),
    ("open_tree", (HUGE, 0, 0), EFAULT, EPERM),
    ("move_mount", (HUGE, 0, HUGE, 0, 0), None, EPERM),
    ("mount", (0, 0, 0, 0, 0), EFAULT, EPERM),
    ("umount2", (0, 0), EFAULT, EPERM),
    ("pivot_root", (0, 0), EFAULT, EPERM),
    ("mount_setattr", (HUGE, 0, 0, 0, 0), None, EPERM),
    ("unshare", (0x10000000,), 0, EPERM),
    ("unshare", (0x00020000,), 0, EPERM),
    ("unshare", (0x40000000,), 0, EPERM),
    ("setns", (HUGE, 0), None, EPERM),
    ("clone", (0x10000000 | 0x200, 0, 0, 0, 0), EINVAL, EPERM),
    ("clone", (0x02000000 | 0x10000, 0, 0, 0, 0), EINVAL, EPERM),
    ("clone3", (0, 0), EINVAL, ENOSYS),
    ("socket", (38, 5, 0), None, EPERM),
    ("socket", (40, 1, 0), None, EPERM),
    ("socket", ((1 << 32) + 38, 5, 0), None, EPERM),
    ("socket", (1, 1, 0), 0, 0),
    ("socket", (2, 2, 0), 0, 0),
    ("socket", (16, 3, 0), 0, 0),
    ("keyctl", (99, 0, 0, 0, 0), None, EPERM),
    ("add_key", (0, 0, 0, 0, 0), None, EPERM),
    ("request_key", (0, 0, 0, 0), None, EPERM),
    ("bpf", (99, 0, 0), None, EPERM),
    ("perf_event_open", (0, 0, 0, 0, 0), None, EPERM),
    ("userfaultfd", (HUGE,), None, EPERM),
    ("io_uring_setup", (0, 0), None, EPERM),
    ("io_uring_enter", (HUGE, 0, 0, 0, 0, 0), None, EPERM),
    ("personality", (0xFFFFFFFF,), 0, 0),
    ("personality", (0x8,), 0, 0),
    ("personality", (0x40000,), 0, EPERM),
    ("ptrace", (16, 0x7FFFFFFF, 0, 0), ESRCH, ESRCH),
    ("process_vm_readv", (0x7FFFFFFF, 0, 0, 0, 0, 0), None, 0),
    ("kcmp", (0x7FFFFFFF, 0x7FFFFFFF, 0, 0, 0), ESRCH, EPERM),
    ("pidfd_getfd", (HUGE, 0, 0), None, EPERM),
    ("open_by_handle_at", (HUGE, 0, 0), None, EPERM),
    ("init_module", (0, 0, 0), None, EPERM),
    ("delete_module", (0, 0), None, EPERM),
    ("kexec_load", (0, HUGE, 0, HUGE), None, EPERM),
    ("reboot", (0, 0, 0, 0), EINVAL, EPERM),
    ("swapon", (0, 0), EFAULT, EPERM),
    ("acct", (1,), EFAULT, EPERM),
    ("syslog", (99, 0, 0), EINVAL, EPERM),
    ("settimeofday", (1, 0), EFAULT, EPERM),
    ("clock_settime", (99, 0), EINVAL, EPERM),
    ("mbind", (1, 0, 99, 0, 0, 0), None, EPERM),
    ("quotactl", (HUGE, 0, 0, 0), None, EPERM),
    ("sethostname", (0, HUGE), EINVAL, EPERM),
    ("chroot", (0,), EFAULT, EPERM),
    ("vhangup", (), 0, EPERM),
    ("name_to_handle_at", (HUGE, 0, 0, 0, HUGE), None, 0),
    ("landlock_create_ruleset", (0, 0, 1), None, 0),
    ("mseal", (0, 0, 0), None, 0),
]


def probe(program: Path | None, calls: list[tuple[int, ...]]) -> list[list[int] | str]:
    root = str(Path(orchestrator.__file__).parents[1])
    answer = subprocess.run(
        [sys.executable, "-I", "-c", PROBE, root, str(program or ""), json.dumps(calls)],
        capture_output=True,
        check=True,
        text=True,
        timeout=patient(60),
    )
    found: list[list[int] | str] = json.loads(answer.stdout)
    return found


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[list[int] | str, list[int] | str]]:
    calls = [(NR[name], *args) for name, args, _, _ in ROWS]
    program = default_cached((), tmp_path_factory.mktemp("seccomp"))
    # vhangup is tried under the filter only: without it, it would hang up the terminal of whoever runs us.
    harmless = [call if call[0] != NR["vhangup"] else (NR["getpid"],) for call in calls]
    return list(zip(probe(None, harmless), probe(program, calls), strict=True))


@pytest.mark.parametrize("row", range(len(ROWS)), ids=[f"{r[0]}{list(r[1])}" for r in ROWS])
def test_a_default_container_may_call(answers: list[tuple[list[int], list[int]]], row: int) -> None:
    """0 in the last column: whatever the kernel says without a filter, it says with one."""
    _, _, usual, filtered = ROWS[row]
    without, within = answers[row]
    assert without[1] == usual if usual is not None else without[1] != EPERM
    assert within[1] == (filtered or without[1])


def test_the_capability_lets_the_call_through(tmp_path: Path) -> None:
    program = default_cached(["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"], tmp_path)
    calls = [(NR["fsopen"], 0, 0), (NR["unshare"], 0x10000000), (NR["clone3"], 0, 0), (NR["chroot"], 0)]
    assert [a[1] for a in probe(program, calls)] == [EFAULT, 0, EINVAL, EFAULT]


def test_calls_newer_than_the_policy_are_not_implemented(tmp_path: Path) -> None:
    """open_tree_attr (467) exists in Linux 6.15 and later; 5000 nowhere."""
    program = default_cached((), tmp_path)
    assert [a[1] for a in probe(program, [(467, HUGE, 0, 0, 0, 0), (5000,)])] == [ENOSYS, ENOSYS]


@pytest.mark.parametrize(
    ("action", "answer"),
    [
        ("SCMP_ACT_ALLOW", 0),
        ("SCMP_ACT_LOG", 0),
        ("SCMP_ACT_ERRNO", 77),
        ("SCMP_ACT_TRACE", ENOSYS),  # nobody traces
        ("SCMP_ACT_TRAP", f"signal {int(signal.SIGSYS)}"),
        ("SCMP_ACT_KILL_PROCESS", f"signal {int(signal.SIGSYS)}"),
        ("SCMP_ACT_KILL_THREAD", f"signal {int(signal.SIGSYS)}"),
    ],
)
def test_every_action_acts(tmp_path: Path, action: str, answer: int | str) -> None:
    rule = {"names": ["getsid"], "action": action, "errnoRet": 77}
    program = tmp_path / "program"
    program.write_bytes(compile_profile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    (found,) = probe(program, [(NR["getsid"], 0)])
    assert (found if isinstance(found, str) else found[1]) == answer


@pytest.mark.parametrize(
    ("argument", "denied"), [(5, True), (4, False), ((1 << 32) + 5, True), ((7 << 32) + 5, False)]
)
def test_arguments_are_compared_with_all_their_bits(tmp_path: Path, argument: int, denied: bool) -> None:
    """lseek on a descriptor that isn't there: EBADF, unless the offset is one of the two denied."""
    condition = {"index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": HUGE ^ (1 << 32), "valueTwo": 5}
    rule = {"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": [condition]}
    program = tmp_path / "program"
    program.write_bytes(compile_profile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    ((_, errno),) = probe(program, [(NR["lseek"], 999, argument, 0)])
    assert errno == (77 if denied else 9)


I386 = """
import ctypes, mmap, os, sys
sys.path.insert(0, sys.argv[1])
from orchestrator.kernel.syscalls import load_seccomp
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
# push rbx; mov eax, edi; mov ebx, esi; int 0x80; pop rbx; ret
code.write(b"\\x53\\x89\\xf8\\x89\\xf3\\xcd\\x80\\x5b\\xc3")
call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(
    ctypes.addressof(ctypes.c_char.from_buffer(code)))
if call(20, 0) != os.getpid():
    sys.exit("no i386")
load_seccomp(open(sys.argv[2], "rb").read())
print(call(20, 0) == os.getpid(), call(310, 0x10000000), call(359, 38), flush=True)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="int 0x80 is of x86")
@pytest.mark.parametrize("listed", [True, False])
def test_32_bit_calls_are_watched_or_killed(tmp_path: Path, listed: bool) -> None:
    """By `int 0x80`: getpid, unshare(CLONE_NEWUSER), socket(AF_ALG)."""
    document = default_profile()
    if not listed:
        document["architectures"] = ["SCMP_ARCH_X86_64"]
    program = tmp_path / "program"
    program.write_bytes(compile_profile(document))
    done = subprocess.run(
        [sys.executable, "-I", "-c", I386, str(Path(orchestrator.__file__).parents[1]), str(program)],
        capture_output=True,
        text=True,
        timeout=patient(60),
    )
    if "no i386" in done.stderr:
        pytest.skip("this kernel runs no 32-bit programs")
    if listed:
        assert done.stdout == f"True -{EPERM} -{EPERM}\n"
    else:
        assert done.returncode == -signal.SIGSYS
