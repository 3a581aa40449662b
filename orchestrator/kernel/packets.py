"""One JSON object per packet over a SEQPACKET Unix socket, with descriptors beside it: the keeper's wire.

Used by the keeper, by its clients and by the children that report to it. A packet is at most LIMIT bytes;
more than FDS descriptors never travel together. Received descriptors are close-on-exec and belong to the
receiver.
"""

from __future__ import annotations

import _socket
import array
import errno
import json
import os
from collections import deque
from typing import NamedTuple

LIMIT = 128 * 1024
FDS = 16

Message = dict[str, object]
_RIGHTS = _socket.CMSG_SPACE(FDS * 4)


def pack(message: Message) -> bytes:
    """The bytes of one packet. Raises ValueError when they are more than LIMIT."""
    data = json.dumps(message, separators=(",", ":")).encode("utf-8", "surrogatepass")
    if len(data) > LIMIT:
        raise ValueError(f"a message of {len(data)} bytes; the limit is {LIMIT}")
    return data


def send(sock: _socket.socket, data: bytes, fds: tuple[int, ...] = ()) -> None:
    """Send one packet, whole or not at all. BlockingIOError when the socket doesn't block and is full."""
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], rights, _socket.MSG_NOSIGNAL)


def receive(sock: _socket.socket) -> tuple[Message, list[int]] | None:
    """The next packet and its descriptors; None at the end. ValueError when it isn't one JSON object."""
    data, ancillary, flags, _ = sock.recvmsg(LIMIT + 1, _RIGHTS, _socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if not data and not fds:
        return None
    try:
        if flags & _socket.MSG_CTRUNC:
            raise ValueError("descriptors were lost: more than 16, or this process has too many open")
        message = json.loads(data) if len(data) <= LIMIT else None
        if not isinstance(message, dict):
            raise ValueError("not one JSON object of at most 128 KiB")
    except (ValueError, RecursionError) as error:
        close(fds)
        raise ValueError(str(error)) from None
    return message, list(fds)


def close(fds: array.array[int] | list[int] | tuple[int, ...]) -> None:
    """Close descriptors that nobody wants."""
    for fd in fds:
        os.close(fd)


def failure(number: int, message: str, *, step: str = "", exit_code: int | None = None) -> Message:
    """The `error` of a reply: errno, the step that failed, a sentence, 126 or 127 as in a shell."""
    return {
        "errno": number,
        "step": step,
        "message": message,
        "exit_code": exit_code,
        "code": errno.errorcode.get(number, ""),
    }


class Post(NamedTuple):
    """A packet that waits for room in a socket; its descriptors are duplicates and ours to close."""

    data: bytes
    fds: tuple[int, ...]


class Connection:
    """One client."""

    __slots__ = ("heard", "outbox", "peer", "sock")

    def __init__(self, sock: _socket.socket, peer: int) -> None:
        self.sock = sock
        self.peer = peer
        self.heard = False  # whether it ever asked for anything
        self.outbox: deque[Post] = deque()
