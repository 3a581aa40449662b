"""The short forms of mounts: [source:]target[:options], and of devices: source[:target[:permissions]]."""

from __future__ import annotations

import posixpath

from orchestrator.model.frozen import dataclass

PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortMount:
    """What a short form says; `bind` when the source is a path rather than a name."""

    source: str
    target: str
    bind: bool = False
    read_only: bool = False
    nocopy: bool = False
    subpath: str = ""
    propagation: str = ""
    selinux: str = ""
    unknown: tuple[str, ...] = ()


def parse(text: str) -> ShortMount:
    """Raises ValueError.

    A source of one letter is a name, not a Windows drive: this runs on Linux only.
    """
    if not text:
        raise ValueError("a mount needs at least a target")
    parts = text.split(":")
    if "" in parts:
        raise ValueError("nothing stands between two colons")
    if len(parts) > 3:
        raise ValueError("too many colons: source:target:options")
    if len(parts) == 1:
        return ShortMount(source="", target=clean(parts[0]))
    source, target = parts[0], parts[1]
    options = parts[2].split(",") if len(parts) == 3 else []
    read_only = nocopy = False
    subpath = propagation = selinux = ""
    unknown: list[str] = []
    for option in options:
        if option in ("ro", "rw"):
            read_only = option == "ro"
        elif option == "nocopy":
            nocopy = True
        elif option in ("z", "Z"):
            selinux = option
        elif option in PROPAGATIONS:
            propagation = option
        elif option.startswith("subpath="):
            subpath = option.removeprefix("subpath=")
        elif option not in ("cached", "delegated", "consistent"):
            unknown.append(option)
    return ShortMount(
        source=source,
        target=clean(target),
        bind=source[0] in "./~",
        read_only=read_only,
        nocopy=nocopy,
        subpath=subpath,
        propagation=propagation,
        selinux=selinux,
        unknown=tuple(unknown),
    )


def clean(target: str) -> str:
    """A path in the container without . and .. and a trailing slash."""
    cleaned = posixpath.normpath(target) if target else target
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def parse_device(text: str) -> tuple[str, str, str]:
    """source, target, permissions. Raises ValueError."""
    parts = text.split(":")
    if len(parts) > 3:
        raise ValueError(f"{text!r} is not a device: source[:target[:rwm]]")
    source, target, permissions = parts[0], parts[0], "rwm"
    if len(parts) == 3:
        target, permissions = parts[1], parts[2]
    elif len(parts) == 2 and parts[1]:
        if set(parts[1]) <= set("rwm"):
            permissions = parts[1]
        else:
            target = parts[1]
    return source, target, permissions


def absolute(path: str, base: str, home: str) -> str:
    """A path of the host: relative ones from `base`, ~ from `home`; absolute ones stay as they are."""
    if path.startswith("/"):
        return path
    if path == "~" or path.startswith("~/"):
        path = home + path[1:]
    return clean(posixpath.join(base, path))
