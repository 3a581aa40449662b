"""What is written down, so that a supervisor that was killed finds everything again.

A record is replaced by rename, so a reader sees the old one or the new one. Only what must outlive the
machine's uptime is synced to disk: after a power cut no run exists any more, so run records need no fsync.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from orchestrator.engines.local.trouble import report
from orchestrator.model import codec
from orchestrator.model.desired import Desired
from orchestrator.model.errors import EngineError
from orchestrator.model.frozen import dataclass, field
from orchestrator.model.observation import Container, NetworkState, Run, VolumeState

FORMAT = 1
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError)
"""What reading a record may raise when somebody has had his hands in it."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """A volume as one container uses it: target in the container -> name on the machine."""

    target: str
    volume: str
    anonymous: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A container with what the engine alone must remember of it. `container.run` is kept apart."""

    container: Container
    volumes: tuple[Mounted, ...] = ()
    networks: Mapping[str, str] = field(default_factory=dict)
    """Key in the stack -> name on the machine."""


def write(path: Path, value: object, *, durable: bool = False) -> None:
    """Replace the record at `path` by `value` (a value of the model)."""
    document = {"format": FORMAT, "value": codec.encode(value)}
    write_bytes(path, json.dumps(document, separators=(",", ":")).encode(), durable=durable)


def write_bytes(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    temporary = path.with_name(f".{path.name}.new")
    try:
        _fill(temporary, content, mode, durable=durable)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # on a full disk, its half would take the room of others
        raise
    if durable:
        _sync_directory(path.parent)


def write_plain(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file that nobody reads before we say so, and that is written anew after a crash: no rename,
    which costs as much again as the writing."""
    _fill(path, content, mode, durable=False)


def _fill(path: Path, content: bytes, mode: int, *, durable: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
    except OSError as error:
        error.filename = str(path)  # the system names none for a descriptor
        raise
    finally:
        os.close(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class DamagedError(EngineError):
    """A record that is no record."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path} is damaged: {reason}", retryable=False)


def read(path: Path, kind: type[T]) -> T | None:
    """The record at `path`; None when there is none. Raises DamagedError, and EngineError for one that a
    newer version has written."""
    try:
        document = json.loads(path.read_bytes())
        if document["format"] > FORMAT:
            raise EngineError(f"{path} was written by a newer pystack", retryable=False)
        return codec.decode(kind, document["value"])
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise DamagedError(path, error) from error


def read_or_none(path: Path, kind: type[T]) -> T | None:
    """As `read`, but a damaged record counts as none, once it is said: the truth is in the kernel."""
    try:
        return read(path, kind)
    except EngineError as error:
        report(error)
        return None


def is_newer(path: Path) -> bool:
    """Whether a newer version has written the record at `path`: then it is not ours to judge."""
    try:
        read(path, Built)
    except DamagedError:
        return False
    except EngineError:
        return True
    return False


def containers(stacks: Path) -> Iterator[Built]:
    """Every container written down, of all stacks. Half-made ones (no record yet) are not listed."""
    for path in sorted(stacks.glob("*/containers/*/container.json")):
        built = read_or_none(path, Built)
        if built is not None:
            yield built


def networks(directory: Path) -> Iterator[NetworkState]:
    for path in sorted(directory.glob("*.json")):
        network = read_or_none(path, NetworkState)
        if network is not None:
            yield network


def volumes(directory: Path) -> Iterator[VolumeState]:
    for path in sorted(directory.glob("*/volume.json")):
        volume = read_or_none(path, VolumeState)
        if volume is not None:
            yield volume


def stacks(directory: Path) -> Iterator[Desired]:
    for path in sorted(directory.glob("*/desired.json")):
        desired = read_or_none(path, Desired)
        if desired is not None:
            yield desired


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The latest run, and the boot it belongs to (/proc/sys/kernel/random/boot_id)."""

    run: Run
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """A life of the machine (/proc/sys/kernel/random/boot_id)."""

    id: str


def exit_of(bundle: Path) -> tuple[int, float, str] | None:
    """(exit code, boot time, boot id) from the keeper's exit record."""
    try:
        document = json.loads((bundle / "exit.json").read_bytes())
        return int(document["exit_code"]), float(document["at"]), str(document["boot_id"])
    except UNREADABLE:
        return None
