"""What goes wrong, in the user's words: the kernel's refusals of a start, full disks, and, where nobody waits
for an answer, a line in the supervisor's log."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.model.errors import EngineError, ExitCode, PystackError

LEAST_ROOM = 64 * 1024
"""Bytes: a disk with less is a full one."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESRCH, errno.EINTR)
"""What may be otherwise a moment later, without the user doing anything."""
_NUMBER = re.compile(r"^\[Errno \d+\] ")
_RLIMIT = re.compile(r"RLIMIT_([A-Z]+) (\d+):(\d+): .*\((.*)\)$")
_CONTAINER = re.compile(r"/[0-9a-f]{64}(?:/|$)")
_DETAIL = re.compile(r" \((?P<detail>.+)\)$", re.DOTALL)


def report(error: BaseException) -> None:
    """An expected error as one line, a bug with its traceback. Never raises: the log's disk may be full."""
    try:
        if isinstance(error, PystackError):
            sys.stderr.write(f"{error}\n")
        else:
            traceback.print_exception(error, file=sys.stderr)
        sys.stderr.flush()
    except OSError:
        return


def note(sentence: str) -> None:
    """Something worth knowing that is no error."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{sentence}\n")
        sys.stderr.flush()


# --- of the supervisor's own files -----------------------------------------------------------------------


def of_file(error: OSError, about: str = "", *, within: Iterable[Path] = ()) -> EngineError:
    """What the system said of a file of ours. A disk without room is told at once and tried again seldom.

    `about`: what it happened to, as "container x-web-1". `within`: where the file may be, when the system
    has not named it (a write to a descriptor).
    """
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if not path and error.errno == errno.ENOSPC:
        path = next((f"{directory}/" for directory in within if _is_full(directory)), "")
    if room := no_room(error.errno or 0, path):
        return EngineError(unwritable(error.errno or 0, path), lasting=True, hint=room)
    head = f"{about}: " if about else ""
    return EngineError(f"{head}{error.strerror or error}" + (f": {path}" if path else ""))


def _is_full(directory: Path) -> bool:
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < LEAST_ROOM or bool(found.f_files and not found.f_ffree)


def unwritable(number: int, path: str) -> str:
    """The sentence for a disk that takes no more: the same for every container that suffers by it."""
    directory = _CONTAINER.split(os.path.dirname(path))[0]
    return f"can't write in {directory}: {_words(number)}"


def no_room(number: int, path: str) -> str:
    """The hint for a disk that takes no more, naming where it is mounted; "" when it is not that."""
    if number not in _NO_ROOM:
        return ""
    if not path.startswith("/"):
        return ""
    mounted = mount_point(path)
    if number == errno.EROFS:
        return f"what is mounted at {mounted} is read-only"
    if number == errno.EDQUOT:
        return f"the quota of the filesystem at {mounted} is used up"
    with contextlib.suppress(OSError):
        found = os.statvfs(mounted)
        if found.f_files and not found.f_ffree:
            return f"the filesystem at {mounted} has no inodes left; see `df -i {mounted}`"
    return f"the filesystem at {mounted} is full; make room there, see `df -h {mounted}`"


def mount_point(path: str) -> str:
    """Where the filesystem that holds `path`, or would, is mounted."""
    place = os.path.realpath(path)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    while not os.path.ismount(place):
        place = os.path.dirname(place)
    return place


# --- of a start, as the keeper tells it ------------------------------------------------------------------


def of_start(error: Mapping[str, Any]) -> EngineError:
    """What went wrong in the child (kernel/report), as our own error. A command that can't be run is not
    tried again."""
    code, number = error.get("exit_code"), int(error.get("errno") or 0)
    raw = str(error.get("message") or error.get("step") or "the keeper refused")
    message, hint = sentence(number, str(error.get("step") or ""), raw)
    if code is not None:
        known = ExitCode(code) if code in (126, 127) else ExitCode.FAILED
        return EngineError(message, retryable=False, exit_code=known, hint=hint)
    path = raw.rpartition(": ")[0]
    if room := no_room(number, path):
        return EngineError(unwritable(number, path), lasting=True, hint=room)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return EngineError(message, lasting=True, hint="`df -h` and `df -i` show which disk is full")
    return EngineError(message, retryable=number in _PASSING, hint=hint)


def sentence(number: int, step: str, raw: str) -> tuple[str, str]:
    """(message, hint) for what the kernel said (`raw`) to a step of a start (kernel/steps `describe`)."""
    kind, _, rest = step.partition(" ")
    if kind == "start" and number == errno.ECHILD:
        return raw, "a memory limit that is too small for any program does this"
    if kind == "rlimits" and (limit := _RLIMIT.search(raw)):
        name, soft, hard, most = limit.groups()
        return f"ulimits.{name.lower()}: can't be {soft}:{hard}: {_words(number)} ({most})", _RAISING
    plain = _NUMBER.sub("", raw)
    said = _words(number) if number else plain
    if raw == plain and not raw.endswith(f": {os.strerror(number)}"):
        return raw, ""  # our own refusal says itself what it is about
    detail = _DETAIL.search(plain)
    reason = f"{said} ({detail['detail']})" if detail else said
    match kind:
        case "mount" if " at " in rest:
            return _bind(number, rest, reason, plain)
        case "mount":
            target = rest.partition(" (")[0]
            return f"can't mount {target}: {reason}", ""
        case "sysctl":
            return _sysctl(number, rest, reason)
        case "hostname" | "domainname":
            return f"{kind} {rest}: {reason}", "a name has at most 64 characters" if len(rest) > 64 else ""
        case "mkdir" | "cwd":
            return f"working directory {rest or raw.rpartition(': ')[0]}: {reason}", ""
        case "mknod":
            return f"device {rest.partition(' ')[0]}: {reason}", ""
        case "overlay" | "seed" | "mask" | "read-only" | "link" | "terminal":
            return f"{step}: {plain if raw.startswith('/') else reason}", ""
    return plain, ""


_RAISING = "more than the hard limit needs CAP_SYS_RESOURCE, more open files than fs.nr_open nobody gets"


def _words(number: int) -> str:
    text = os.strerror(number)
    return text[:1].lower() + text[1:]


def _bind(number: int, rest: str, reason: str, plain: str) -> tuple[str, str]:
    what = rest.rpartition(" (")[0] or rest
    kinds_differ = plain.startswith("move_mount") and number == errno.EINVAL
    if kinds_differ:
        reason = "a directory can't go onto a file, nor a file onto a directory"
        return f"can't mount {what}: {reason}", "does the host path exist, and is it what is meant?"
    return f"can't mount {what}: {reason}", ""


def _sysctl(number: int, rest: str, reason: str) -> tuple[str, str]:
    path, _, value = rest.partition(" = ")
    name = path if "." in path else path.replace("/", ".")
    if number == errno.ENOENT:
        return f"sysctl {name}={value}: this kernel has no such setting", ""
    return f"sysctl {name}={value}: {reason}", ""
