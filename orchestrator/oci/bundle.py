"""A bundle directory -> what the launcher takes. Reads files, makes nothing."""

from __future__ import annotations

import json
import os
import stat
from typing import NamedTuple

from orchestrator.oci import validate
from orchestrator.oci.complaint import Complaint

_LIMIT = 4 << 20
_MEANT = ("idmap=", "ridmap=")  # crun's way to give the maps: not known here, so it has to stay an error


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
    ignored = [*(f"{name}: unknown" for name in unknown), *_without_meaning(found)]
    return Bundle(where, found, rootfs, tuple(f"config.json: {what}, ignored" for what in ignored))


def _without_meaning(config: dict[str, object]) -> list[str]:
    """Leave out what can't change anything, and name it: other runtimes take it, so there are such files."""
    found: list[str] = []
    mounts = config.get("mounts")
    for index, mount in enumerate(mounts if isinstance(mounts, list) else ()):
        options = mount.get("options", ())
        if mount.get("type") == "bind" or "bind" in options or "rbind" in options:
            # mount(2): data is for a new filesystem, and MS_BIND makes none.
            data = [option for option in options if "=" in option and not option.startswith(_MEANT)]
            mount["options"] = [option for option in options if option not in data]
            found += [
                f"mounts[{index}].options: {option!r} means nothing for a bind mount" for option in data
            ]
    linux = config.get("linux")
    if isinstance(linux, dict) and linux.get("mountLabel") and not _has_selinux():
        del linux["mountLabel"]
        found.append("linux.mountLabel: this kernel has no SELinux")
    return found


def _has_selinux() -> bool:
    """Not asked of securityfs, which need not be mounted."""
    with open("/proc/filesystems", encoding="ascii") as file:
        return "selinuxfs" in file.read()


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
