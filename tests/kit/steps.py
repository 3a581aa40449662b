"""Kills at the k-th step of others, from outside: what is killed has no hook for it and knows nothing of it.

A step is a system call that changes something which others can see: a record written, renamed or removed, a
mount, a link or route (netlink), a fork, a signal, a word to another process of ours. The tracer (ptrace(2))
stops every thread of the processes it is given, and of the children these fork until they execute a program,
at each of their calls; before step k it kills whom it was told to, and lets go of the rest. It is a process
of its own, for a tracer's business is a thread's:

    with Steps([supervisor, keeper], at=17, victims=[supervisor]) as steps:
        ... an order to the supervisor ...
    steps.count, steps.killed_at        # how many there were; "12345 renameat2" or ""
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.kit.programs import REPOSITORY

HERE = platform.machine() == "x86_64"
"""The numbers below are those of x86-64 (arch/x86/entry/syscalls/syscall_64.tbl)."""

PLAIN = {
    56: "clone",
    57: "fork",
    58: "vfork",
    59: "execve",
    61: "wait4",
    62: "kill",
    74: "fsync",
    77: "ftruncate",
    82: "rename",
    83: "mkdir",
    84: "rmdir",
    86: "link",
    87: "unlink",
    88: "symlink",
    90: "chmod",
    91: "fchmod",
    92: "chown",
    93: "fchown",
    94: "lchown",
    133: "mknod",
    155: "pivot_root",
    165: "mount",
    166: "umount2",
    170: "sethostname",
    258: "mkdirat",
    259: "mknodat",
    260: "fchownat",
    263: "unlinkat",
    264: "renameat",
    265: "linkat",
    266: "symlinkat",
    268: "fchmodat",
    272: "unshare",
    276: "tee",
    308: "setns",
    316: "renameat2",
    317: "seccomp",
    424: "pidfd_send_signal",
    429: "move_mount",
    435: "clone3",
    442: "mount_setattr",
}
WRITES = {1: "write", 18: "pwrite64"}  # steps where they reach a file with a name
SENDS = {44: "sendto", 46: "sendmsg"}  # steps but for single bytes, by which a process wakes itself
OPENS = {2: ("open", 1), 257: ("openat", 2)}  # steps where they make or empty a file
MAKING = os.O_CREAT | os.O_TRUNC

SEIZE, INTERRUPT, LISTEN, SYSCALL, DETACH, INFO = 0x4206, 0x4207, 0x4208, 24, 17, 0x420E
OPTIONS = 1 | 2 | 4 | 8 | 16  # SYSGOOD, and FORK, VFORK, CLONE, EXEC are told
EXEC, STOP = 4, 128
WALL = 0x40000000


class Steps:
    """For the length of a `with` block. `at` 0: nobody is killed, the steps are counted."""

    def __init__(
        self, traced: Sequence[int], at: int = 0, victims: Sequence[int] = (), only: str = ""
    ) -> None:
        """`victims`: 0 is whoever makes the step, one of `traced` or a child that it has forked. `only`: no
        other call is a step."""
        order = {"traced": list(traced), "at": at, "victims": list(victims), "only": only}
        self._order = json.dumps(order)
        self._mortal = list(traced)
        self.count = 0
        self.killed_at = ""
        self.names: list[str] = []

    def __enter__(self) -> Self:
        self._pidfds = {pid: os.pidfd_open(pid) for pid in self._mortal}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kit.steps", self._order],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        if self._process.stdout.readline() != "ready\n":
            self._process.communicate(timeout=60)
            raise AssertionError("the tracer could not attach")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)  # a wait is interrupted by nothing else
        said, _ = self._process.communicate(timeout=60)
        found = json.loads(said or '{"names": [], "killed": [], "killed_at": ""}')
        for pid, pidfd in self._pidfds.items():
            # Readable when all of its threads have gone: before, its sockets may still be listened on.
            assert pid not in found["killed"] or select.select([pidfd], [], [], 20)[0], "it does not die"
            os.close(pidfd)
        if kind is None:
            self.names, self.count, self.killed_at = found["names"], len(found["names"]), found["killed_at"]


# --- the tracer's process ---------------------------------------------------------------------------


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long
_info = ctypes.create_string_buffer(88)


class Over(Exception):
    """We are to stop."""


class Tracer:
    def __init__(self, at: int, victims: Sequence[int], only: str) -> None:
        self._at = at
        self._only = only
        self._victims = victims
        self.names: list[str] = []
        self.killed: list[int] = []
        self.killed_at = ""

    def attach(self, pid: int) -> None:
        """Every thread of it. Raises OSError."""
        for name in os.listdir(f"/proc/{pid}/task"):
            if _libc.ptrace(SEIZE, int(name), 0, OPTIONS) >= 0:
                _libc.ptrace(INTERRUPT, int(name), 0, 0)
            elif not _gone_or_ours(name):
                raise OSError(ctypes.get_errno(), "ptrace", name)

    def run(self) -> None:
        while not self.killed_at:
            try:
                tid, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                return
            if os.WIFSTOPPED(status):
                self._stopped(tid, os.WSTOPSIG(status), status >> 16)

    def _stopped(self, tid: int, number: int, event: int) -> None:
        if number == signal.SIGTRAP | 0x80:
            self._called(tid)
            if not self.killed_at:
                _libc.ptrace(SYSCALL, tid, 0, 0)
        elif event == EXEC:
            _libc.ptrace(DETACH, tid, 0, 0)
        elif event == STOP and number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            _libc.ptrace(LISTEN, tid, 0, 0)
        elif event:
            _libc.ptrace(SYSCALL, tid, 0, 0)
        else:
            _libc.ptrace(SYSCALL, tid, 0, number)  # a signal for it, which it gets

    def _called(self, tid: int) -> None:
        if _libc.ptrace(INFO, tid, 88, ctypes.addressof(_info)) <= 0 or _info.raw[0] != 1:
            return  # gone, or the call's end
        call, first, second, third = struct.unpack_from("<4Q", _info.raw, 24)
        name = _named(tid, call, (first, second, third))
        if not name or self._only not in ("", name):
            return
        self.names.append(name)
        if len(self.names) == self._at:
            self.killed = [pid or _process(tid) for pid in self._victims]
            for pid in self.killed:
                os.kill(pid, signal.SIGKILL)
            self.killed_at = f"{tid} {name}"


def _gone_or_ours(tid: str) -> bool:
    """A thread may have ended since, or have been made by one that is traced, and so be traced with it."""
    try:
        with open(f"/proc/{tid}/status") as lines:
            return f"TracerPid:\t{os.getpid()}\n" in lines
    except FileNotFoundError:
        return True


def _process(tid: int) -> int:
    """Whose thread it is."""
    with open(f"/proc/{tid}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Tgid:"))


def _named(tid: int, call: int, arguments: tuple[int, int, int]) -> str:
    """ "": no step."""
    if call in WRITES:
        try:
            target = os.readlink(f"/proc/{tid}/fd/{arguments[0]}")
        except OSError:
            return ""
        return f"{WRITES[call]} {target}" if target[:1] == "/" and target[:5] != "/dev/" else ""
    if call in SENDS:
        return SENDS[call] if call == 46 or arguments[2] != 1 else ""
    if call in OPENS:
        name, place = OPENS[call]
        return name if arguments[place] & MAKING else ""
    return PLAIN.get(call, "")


def main() -> int:
    order = json.loads(sys.argv[1])
    tracer = Tracer(order["at"], order["victims"], order["only"])

    def over(*_: object) -> None:
        raise Over

    signal.signal(signal.SIGTERM, over)
    with contextlib.suppress(Over):
        for pid in order["traced"]:
            tracer.attach(pid)
        print("ready", flush=True)
        tracer.run()
    # Whoever is still traced goes on when we end (ptrace(2)).
    told = {"names": tracer.names, "killed": tracer.killed, "killed_at": tracer.killed_at}
    print(json.dumps(told), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
