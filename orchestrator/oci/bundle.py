"""A bundle directory -> what the launcher takes. Reads files, makes nothing."""

from __future__ import annotations

import json
import os
import stat
from typing import NamedTuple

from orchestrator.oci import validate
from orchestrator.oci.complaint import Complaint

_LIMIT = 4 << 20


class Bundle(NamedTuple):
    """A bundle, checked. `rootfs` is absolute."""

    path: str
    config: dict[str, object]
    rootfs: str
    warnings: tuple[str, ...]


def read(path: str, config: str = "") -> Bundle:
    """The bundle in a directory; `config` names another file than its config.json. Raises Complaint."""
    where = os.path.abspath(path or ".")
    if not os.path.isdir(where):
        raise Complaint(f"bundle {where}: no such file or directory")
    file = os.path.join(where, config or "config.json")
    found, unknown = validate.config(parse(file))
    root = found["root"]
    assert isinstance(root, dict)
    rootfs = os.path.normpath(os.path.join(where, root["path"]))
    if not root["path"] or not os.path.isdir(rootfs):
        raise Complaint(f"config.json: root.path: {rootfs} is not a directory")
    if os.path.islink(rootfs):
        raise Complaint(f"config.json: root.path: {rootfs} is a symbolic link")
    root["path"] = rootfs
    return Bundle(where, found, rootfs, tuple(f"config.json: {name}: unknown, ignored" for name in unknown))


def parse(path: str) -> object:
    """The JSON document in a file, "-" for standard input. Raises Complaint."""
    try:
        if path == "-":
            data = _read(0, "standard input")
        else:
            # Non-blocking: a FIFO of that name must not stop us.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode) and not path.startswith(("/dev/", "/proc/")):
                    raise Complaint(f"{path}: not a regular file")
                os.set_blocking(fd, True)
                data = _read(fd, path)
            finally:
                os.close(fd)
    except FileNotFoundError:
        raise Complaint(f"JSON specification file {path} not found: no such file or directory") from None
    except OSError as error:
        raise Complaint(f"{path}: {error.strerror}") from None
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Complaint(f"{path}: {error}") from None
    return document


def _read(fd: int, name: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := os.read(fd, 1 << 20):
        parts.append(part)
        size += len(part)
        if size > _LIMIT:
            raise Complaint(f"{name}: larger than {_LIMIT} bytes")
    return b"".join(parts)
