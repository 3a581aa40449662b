"""`linux.netDevices`: links of the host's that move into a container, with their addresses.

Source: the runtime specification 1.3, config-linux, "Network Devices". They are not brought back: what is
hardware returns to the host by itself when its namespace ends.
"""

from __future__ import annotations

import errno
import socket
import struct

from orchestrator.kernel import links
from orchestrator.kernel.netlink import CREATE, REPLACE, Request, attribute, attributes, text, u32
from orchestrator.kernel.reading import Document, RefusedError

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
_SETLINK, _NEWADDR, _GETADDR = 19, 20, 22
_IFNAME, _NETNS_FD = 3, 28
_KEPT = (1, 2, 4)  # IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST
_PERMANENT = 0x80
_IFF_UP = 1
_LINK = struct.Struct("=BxHiII")
_ADDR = struct.Struct("=BBBBi")
_NAME_LENGTH = 15


def check(devices: Document, *, own: bool) -> None:
    """Refuse what can't be a link's name. `own`: whether the container has a network namespace."""
    if devices.names() and not own:
        raise RefusedError("linux.netDevices: the container has no network namespace of its own")
    names: list[str] = []
    for name in devices.names():
        devices.table(name).only("name")
        names.append(devices.table(name).text("name") or name)
        for word in (name, names[-1]):
            bad = word in ("", ".", "..") or len(word) > _NAME_LENGTH
            if bad or any(letter.isspace() or letter in "/:" for letter in word):
                raise RefusedError(f"linux.netDevices: {word!r} is no name of a network interface")
    if len(set(names)) < len(names):
        raise RefusedError("linux.netDevices: two links would get the same name")


def move(namespace: int, devices: Document) -> None:
    """Move each link to the network namespace behind a descriptor, and bring it up there. Raises OSError."""
    if not devices.names():
        return
    with links.open_route() as ours, links.open_route_in(namespace) as theirs:
        for name in devices.names():
            doing = f"linux.netDevices: {name}"
            link = links.find_link(ours, name)
            if link is None:
                raise OSError(errno.ENODEV, f"{doing}: the host has no such link")
            wanted = devices.table(name).text("name") or name
            addresses = [
                data
                for kind, data in ours.dump(_GETADDR, _ADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
                if kind == _NEWADDR and _is_kept(data, link.index)
            ]
            body = (
                _LINK.pack(0, 0, link.index, 0, _IFF_UP) + u32(_NETNS_FD, namespace) + text(_IFNAME, wanted)
            )
            ours.batch([Request(_SETLINK, 0, body, doing)])
            moved = links.find_link(theirs, wanted)
            if moved is None:
                raise OSError(errno.ENODEV, f"{doing}: it vanished on its way")
            requests = [_address(data, moved.index, doing) for data in addresses]
            up = Request(_SETLINK, 0, _LINK.pack(0, 0, moved.index, _IFF_UP, _IFF_UP), doing)
            theirs.batch([*requests, up])


def _is_kept(data: bytes, index: int) -> bool:
    """Addresses that were given, not made up: global and permanent."""
    _, _, flags, scope, of = _ADDR.unpack_from(data)
    return of == index and scope == 0 and bool(flags & _PERMANENT)


def _address(data: bytes, index: int, doing: str) -> Request:
    family, length, flags, scope, _ = _ADDR.unpack_from(data)
    parts = attributes(data, _ADDR.size)
    body = _ADDR.pack(family, length, flags, scope, index)
    body += b"".join(attribute(kind, parts[kind]) for kind in _KEPT if kind in parts)
    return Request(_NEWADDR, CREATE | REPLACE, body, doing, (errno.EEXIST,))
