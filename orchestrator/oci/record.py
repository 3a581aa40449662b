"""What is remembered of a container between commands: ROOT/ID, 0700.

    state.json    the record: who it is, which process, which control groups
    config.json   the configuration as it was when the container was created: later edits have no effect
    start         FIFO that the first process waits at; its name goes when the container is started

Records are replaced by rename. Whoever changes a container holds the lock, flock(2) on the directory
itself, which goes with its process: after a SIGKILL nothing has to be unlocked.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from orchestrator.oci.complaint import Complaint

_ID = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_+.-]*")
_LONGEST_ID = 255
_PATIENCE = 30.0  # seconds to wait for another command on the same container
FORMAT = 1
_LIMIT = 8 << 20


class Record(NamedTuple):
    """One container. `pid` is 0 until its process is made; `start_time` in clock ticks since boot."""

    id: str
    bundle: str
    rootfs: str
    version: str
    created: str
    uid: int
    annotations: dict[str, str]
    boot_id: str
    pid: int = 0
    start_time: int = 0
    cgroup: str = ""
    """Its path below each hierarchy, "" for none of its own."""
    groups: tuple[str, ...] = ()
    """The directories it is in."""
    made: tuple[str, ...] = ()
    """Those that creating it made, outermost first: nothing else is removed."""
    shares_pids: bool = False
    """Whether it sees the host's processes: then their end is not tied to the first one's."""
    shares_mounts: bool = False
    """Whether it has no mount namespace of its own: then its mounts outlive it."""


def check_id(name: str) -> str:
    """The id, if it is one: never a path. Raises Complaint."""
    if not name:
        raise Complaint("container id cannot be empty")
    if len(name) > _LONGEST_ID or not _ID.fullmatch(name) or name in (".", ".."):
        raise Complaint("invalid container ID format")
    return name


def place(root: str, name: str) -> str:
    """The directory of a container. Raises Complaint for an id that is none."""
    return f"{root}/{check_id(name)}"


def make(root: str, name: str) -> str:
    """The directory of a new container. Raises Complaint if there is one of that id."""
    path = place(root, name)
    os.makedirs(root, 0o711, exist_ok=True)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        raise Complaint(f"container with given ID already exists: {name}") from None
    return path


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock of a container. Raises Complaint when it isn't there, or stays in other hands."""
    fd = _open(path)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not _try(fd):
            if time.monotonic() > deadline:
                raise Complaint(f"container {os.path.basename(path)} is busy with another command")
            time.sleep(0.01)
        # Deleted, and perhaps made anew, while we waited.
        try:
            found = os.stat(path)
        except FileNotFoundError:
            raise Complaint("container does not exist") from None
        held = os.fstat(fd)
        if (found.st_dev, found.st_ino) != (held.st_dev, held.st_ino):
            raise Complaint("container does not exist")
        yield
    finally:
        os.close(fd)


def is_busy(path: str) -> bool:
    """Whether a command that changes this container is under way."""
    try:
        fd = _open(path)
    except Complaint:
        return False
    try:
        return not _try(fd)
    finally:
        os.close(fd)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Complaint("container does not exist") from None


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write(path: str, record: Record) -> None:
    """Keep the record of the container at `path`."""
    replace(f"{path}/state.json", json.dumps({"format": FORMAT, **record._asdict()}))


def replace(path: str, text: str) -> None:
    """Write a file by temporary name and rename: a reader sees the old or the new whole."""
    draft = f"{path}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(draft, flags, 0o600)
    try:
        data = memoryview(text.encode(errors="surrogateescape"))
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)
    os.rename(draft, path)


def read(path: str) -> Record:
    """The record at `path`. Raises Complaint when there is none, or it is damaged."""
    data = _content(f"{path}/state.json")
    try:
        found = json.loads(data)
        if found.pop("format") != FORMAT:
            raise Complaint(f"{path}/state.json was written by another version")
        for name in ("groups", "made"):
            found[name] = tuple(found[name])
        record = Record(**found)
        if not isinstance(record.pid, int) or not isinstance(record.start_time, int):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Complaint(f"{path}/state.json is damaged; delete --force takes the container away") from None
    return record


def config(path: str) -> dict[str, object]:
    """The configuration that the container was made from. Raises Complaint."""
    try:
        found: dict[str, object] = json.loads(_content(f"{path}/config.json"))
    except ValueError:
        raise Complaint(f"{path}/config.json is damaged") from None
    return found


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        raise Complaint("container does not exist") from None


def remove(path: str) -> None:
    """Take the container's directory away, whatever a command that was killed left in it."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    # The record last: as long as anything is there, it can be asked for again.
    for name in sorted(names, key=lambda name: name == "state.json"):
        try:
            os.unlink(f"{path}/{name}")
        except IsADirectoryError:
            os.rmdir(f"{path}/{name}")
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
    os.rmdir(path)


def everyone(root: str) -> list[str]:
    """The ids of all containers below a root, sorted."""
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if _ID.fullmatch(name) and os.path.isdir(f"{root}/{name}"))
