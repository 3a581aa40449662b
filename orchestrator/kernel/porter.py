"""The porter of a user without privileges: the one process of theirs that stays outside the namespaces.

Started as `python3 -I -S .../porter.py RUN_DIR [READY_FD]`, one per state root, standard library only. It
makes the user, mount and network namespace in which the supervisor, the keeper and all containers live, keeps
them alive, and opens sockets in the network of the host, where those inside can't reach. It carries no data:
a socket is bound, listens and is handed over.

Packets (see packets) on RUN_DIR/porter.sock, SEQPACKET, 0600, asked by the user alone:

    {"op": "enter"}                       -> {} + [user, mount, network]
    {"op": "look"}                        -> {"outbound": name or "", "note": text, "first_port": number}
    {"op": "open", "family", "kind", "address": [ip, port] | null, "listen": bool} -> {} + [socket]
    {"op": "leave"}                       -> {"leaving": bool}: it goes unless another process holds a line

It goes by itself when nobody has a line to it, no keeper listens and no container is left. Killed, it leaves
everything running; the next one finds the namespaces by the keeper or the supervisor.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import _socket
import errno
import fcntl
import select
import signal
import struct
import time
from contextlib import closing, suppress
from typing import NamedTuple

from orchestrator.kernel import outbound, packets, syscalls, userns
from orchestrator.kernel.lock import try_lock
from orchestrator.kernel.reading import Document, RefusedError

_BACKLOG = 16
_CONNECTIONS = 64
_IDLE_SECONDS = 3.0
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # linux/sockios.h
_KINDS = {"user": syscalls.CLONE_NEWUSER, "mnt": syscalls.CLONE_NEWNS, "net": syscalls.CLONE_NEWNET}


class Spaces(NamedTuple):
    """Descriptors of the three namespaces."""

    user: int
    mount: int
    network: int


def main(run_dir: str, ready: int = -1) -> int:
    """Serve until nobody needs us. What keeps us from starting is written to `ready`, "1" when we listen."""
    lock = try_lock(f"{run_dir}/porter.lock")
    if lock is None:
        return 0
    _detach()
    try:
        spaces = _find(run_dir) or _make()
    except (userns.RefusedError, OSError) as error:
        with suppress(OSError):
            os.write(ready, f"{error}\n{userns.HINT}".encode())
        os.unlink(f"{run_dir}/porter.lock")
        return 1
    porter = Porter(run_dir, spaces, _listen(f"{run_dir}/porter.sock"))
    if ready >= 0:
        with suppress(OSError):
            os.write(ready, b"1")
        os.close(ready)
    porter.serve()
    for name in ("porter.sock", "porter.lock"):
        with suppress(FileNotFoundError):
            os.unlink(f"{run_dir}/{name}")
    return 0


def _detach() -> None:
    if os.getpid() != os.getsid(0):
        os.setsid()
    os.chdir("/")
    os.umask(0o077)
    syscalls.set_name("pystack-porter")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)


# --- the namespaces ----------------------------------------------------------------------------------


def _make() -> Spaces:
    """New ones. A child enters them and is held until its namespaces have been opened."""
    mine, its = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    pid = os.fork()  # noqa: TID251 (one thread, and no loop yet)
    if pid == 0:
        mine.close()
        _live_inside(its)
    its.close()
    try:
        said = mine.recv(4096)
        if said != b"1":
            raise userns.RefusedError(said.decode(errors="replace") or "the namespaces could not be made")
        return _open(pid)
    finally:
        mine.close()
        os.waitpid(pid, 0)


def _live_inside(sock: _socket.socket) -> None:
    try:
        userns.enter(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET)
        _raise_loopback()
        sock.send(b"1")
        sock.recv(1)
    except BaseException as error:
        with suppress(OSError):
            sock.send(str(error).encode())
    finally:
        os._exit(0)


def _raise_loopback() -> None:
    with closing(_socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(sock.fileno(), _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(sock.fileno(), _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _open(pid: int) -> Spaces:
    return Spaces(*(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in _KINDS))


def _find(run_dir: str) -> Spaces | None:
    """Those of a keeper or supervisor that a killed porter has left; None when there is neither."""
    for name, kind in (
        ("keeper.sock", _socket.SOCK_SEQPACKET),
        ("supervisor.sock", _socket.SOCK_STREAM),
    ):
        with closing(_socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC)) as sock:
            try:
                _connect(sock, run_dir, name)
                pid, _ = _peer(sock)
                return _open(pid)
            except OSError:
                continue
    return None


# --- serving -----------------------------------------------------------------------------------------


class Porter:
    """One thread, one poll. Every request is answered at once."""

    def __init__(self, run_dir: str, spaces: Spaces, listener: _socket.socket) -> None:
        self._run_dir = run_dir
        self._spaces = spaces
        self._listener = listener
        self._lines: dict[int, tuple[_socket.socket, int]] = {}  # fd -> connection, pid at its other end
        self._poll = select.poll()
        self._poll.register(listener.fileno(), select.POLLIN)
        self._leaving = False
        self._outbound = outbound.start(spaces.user, spaces.network)

    def serve(self) -> None:
        idle_since = time.monotonic()
        while not self._leaving:
            events = self._poll.poll(None if self._lines else int(_IDLE_SECONDS * 1000))
            for fd, _ in events:
                if fd == self._listener.fileno():
                    self._accept()
                else:
                    self._answer(fd)
            now = time.monotonic()
            if self._lines:
                idle_since = now
            elif now - idle_since >= _IDLE_SECONDS and self._is_forgotten():
                break
        self._outbound.stop()

    def _is_forgotten(self) -> bool:
        """Nobody to serve, and no container that lives in our namespaces."""
        with closing(_socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)) as sock:
            try:
                _connect(sock, self._run_dir, "keeper.sock")
            except OSError:
                pass
            else:
                return False
        try:
            homes = os.listdir(f"{self._run_dir}/containers")
        except OSError:
            return True
        return not any(os.path.exists(f"{self._run_dir}/containers/{home}/pid.json") for home in homes)

    def _accept(self) -> None:
        try:
            sock, _ = _accepted(self._listener)
        except OSError:
            return
        pid, uid = _peer(sock)
        if uid != os.geteuid() or len(self._lines) >= _CONNECTIONS:
            sock.close()
            return
        sock.settimeout(1.0)
        self._lines[sock.fileno()] = (sock, pid)
        self._poll.register(sock.fileno(), select.POLLIN)

    def _answer(self, fd: int) -> None:
        sock, pid = self._lines[fd]
        try:
            received = packets.receive(sock)
            if received is None:
                raise ConnectionResetError
            message, fds = received
            packets.close(fds)
            reply, given = self._do(Document(message), pid)
            packets.send(sock, packets.pack(reply), given)
            if message.get("op") == "open":
                packets.close(given)
        except (OSError, ValueError):
            self._poll.unregister(fd)
            del self._lines[fd]
            sock.close()

    def _do(self, request: Document, pid: int) -> tuple[packets.Message, tuple[int, ...]]:
        try:
            match request.text("op"):
                case "enter":
                    return {}, tuple(self._spaces)
                case "look":
                    self._outbound = outbound.restart(self._outbound, self._spaces.user, self._spaces.network)
                    return {
                        "outbound": self._outbound.name,
                        "note": self._outbound.note,
                        "first_port": _first_port(),
                    }, ()
                case "open":
                    return {}, (_open_socket(request),)
                case "leave":
                    self._leaving = all(other == pid for _, other in self._lines.values())
                    return {"leaving": self._leaving}, ()
            return {"error": packets.failure(errno.ENOSYS, "unknown request")}, ()
        except RefusedError as error:
            return {"error": packets.failure(errno.EINVAL, str(error))}, ()
        except OSError as error:
            return {"error": packets.failure(error.errno or errno.EIO, error.strerror or str(error))}, ()


def _first_port() -> int:
    """Of the host's network namespace, in which we are."""
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1024


def _open_socket(request: Document) -> int:
    """A socket of the host's network: bound and listening, as asked; non-blocking."""
    kind = request.number("kind")
    sock = _socket.socket(request.number("family"), kind | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    try:
        address = request.members("address")
        if address:
            # Connections that linger from a former listener are no clash; listening keeps others out.
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, int(kind == _socket.SOCK_STREAM))
            sock.bind((str(address[0]), int(address[1])))
            if kind == _socket.SOCK_STREAM:
                sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return sock.detach()


# --- sockets -----------------------------------------------------------------------------------------


def _listen(path: str) -> _socket.socket:
    """Under a temporary name first: a socket that is there is one that answers."""
    temporary = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    listener.bind(temporary)
    os.chmod(temporary, 0o600)
    listener.listen(_BACKLOG)
    os.rename(temporary, path)
    return listener


def _accepted(listener: _socket.socket) -> tuple[_socket.socket, object]:
    fd, address = listener._accept()  # type: ignore[attr-defined]
    return _socket.socket(fileno=fd), address


def _peer(sock: _socket.socket) -> tuple[int, int]:
    """(pid, uid) of the process at the other end, as our own namespaces number them (SO_PEERCRED)."""
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))
    return pid, uid


def _connect(sock: _socket.socket, run_dir: str, name: str) -> None:
    sock.connect(f"{run_dir}/{name}")


if __name__ == "__main__":
    raise SystemExit(main(os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else -1))
