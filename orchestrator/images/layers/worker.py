"""The workers that unpack layers: each a process of its own, locked into its target by chroot(2).

They are forks of one process, which has imported everything they need and has no threads. It gets a
socket over standard input for each worker that is wanted (see workers). On its socket a worker reads a line
of JSON, the order (see `carry_out`), and writes lines: now and then how far it is, and last the result. What
can go wrong has happened to the image or the line, so it is told there. How a worker died is told for it.

After the chroot nothing is imported: the files found then would be the image's. For the same reason a thread
has begun and ended before: glibc loads libgcc_s when a first thread ends.
Standard library only, and isal and zstandard where they are; started with -I -S for speed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.images.layers import hashing, tar
from orchestrator.images.layers.apply import Layer
from orchestrator.images.layers.fetch import Body, FetchError
from orchestrator.images.layers.hashing import Digest
from orchestrator.images.layers.inflate import InflateError, Inflater, preload
from orchestrator.images.layers.tar import TarError
from orchestrator.kernel.owner import keeps_ids

_MEMORY = 2 << 30
_TELL_SECONDS = 0.1
_DRAIN_LIMIT = 256 << 20
"""Bytes that are still taken in after an error, to tell a damaged transfer from a damaged layer."""

Read = Callable[[int], bytes]
Answer = Mapping[str, object]


class _Progress:
    """A line of JSON, ten times a second at most."""

    def __init__(self) -> None:
        self._next = 0.0
        self.given = 0

    def tell(self, here: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _TELL_SECONDS
            answer(1, {"here": here, "given": self.given})


def main() -> int:
    """Fork a worker for each socket that comes; end with who started us, and all workers with us."""
    hashing.warm()
    preload()
    control = socket.socket(fileno=os.dup(0))
    poll = select.poll()
    poll.register(control, select.POLLIN)
    alive: dict[int, tuple[int, int]] = {}
    """pidfd -> pid, its socket."""
    while True:
        # New sockets last: their numbers may be those of sockets that are closed on the way there.
        for ready, _ in sorted(poll.poll(), key=lambda event: event[0] == control.fileno()):
            if ready == control.fileno():
                _, sockets, _, _ = socket.recv_fds(control, 1, 1)
                if not sockets:
                    for pid, _ in alive.values():
                        os.kill(pid, signal.SIGKILL)
                    return 0
                pidfd, pid = _fork(sockets[0])
                poll.register(pidfd, select.POLLIN)
                poll.register(sockets[0], select.POLLRDHUP)
                alive[pidfd] = (pid, sockets[0])
            elif ready not in alive:
                # Nobody waits for this worker any more. It is reaped below, and then its socket ends.
                with contextlib.suppress(KeyError):
                    poll.unregister(ready)
                for pid, line in alive.values():
                    if line == ready:
                        os.kill(pid, signal.SIGKILL)
            else:
                poll.unregister(ready)
                pid, line = alive.pop(ready)
                _, status = os.waitpid(pid, 0)
                if os.WIFSIGNALED(status):
                    answer(line, {"signal": os.WTERMSIG(status)})
                with contextlib.suppress(KeyError):
                    poll.unregister(line)
                os.close(ready)
                os.close(line)


def _fork(line: int) -> tuple[int, int]:
    parent = os.getpid()
    pid = os.fork()  # noqa: TID251 - this process has no threads and no trio
    if pid:
        return os.pidfd_open(pid), pid
    code = 1
    try:
        for number in (0, 1, 2):
            os.dup2(line, number)
        # The sockets of other workers, too: held open here, theirs would not end with them.
        os.closerange(3, (1 << 31) - 1)
        carry_out(parent)
        code = 0
    except BrokenPipeError:
        pass  # nobody waits
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc()[-2000:].encode())
    finally:
        os._exit(code)


def carry_out(parent: int) -> None:
    """One order: `target` (directory), `max_bytes`, `max_entries`, and of these

    path      a file to unpack; or
    source    where the blob is (see fetch.Body); with
    partial   the file that takes it in, and perhaps has its beginning; `size` and `digest` of the blob
    """
    order = json.loads(_line())
    order["parent"] = parent
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0)
    answer(1, _fetch(order) if "source" in order else _open(order))


def _open(order: Mapping[str, Any]) -> Answer:
    fd = os.open(order["path"], os.O_RDONLY | os.O_CLOEXEC)
    return _unpack(order, lambda count: os.read(fd, count), _Progress())


def _fetch(order: dict[str, Any]) -> Answer:
    progress = _Progress()
    fd = os.open(order["partial"], os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    # A worker whose starter was killed may not have died yet.
    os.lockf(fd, os.F_LOCK, 0)
    # What we were allowed in with is not needed once the connection is there.
    body = Body(order.pop("source"), size=order["size"], fd=fd, tell=progress.tell, elsewhere=_elsewhere)
    digest = Digest()

    def read(count: int) -> bytes:
        piece = body.read(count)
        digest.feed(piece)
        return piece

    try:
        body.open()
        found = _unpack(order, read, progress)
        whole = _drain(read, _DRAIN_LIMIT if "error" in found else order["size"])
        came = digest.finish()
        if whole and came != order["digest"]:
            found = {"error": f"wrong digest: what came has {came}", "kind": "digest"}
    except FetchError as error:
        found = {"error": str(error), "kind": error.kind, **error.details}
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        found = {"error": _said(error), "kind": "machine", "errno": error.errno}
    return {**found, "resumed": body.resumed, "here": body.here}


def _elsewhere(url: str) -> dict[str, Any]:
    """Who ordered us knows how to speak to the target of a redirect: which proxy, which certificates."""
    answer(1, {"elsewhere": url})
    said = _line()
    if not said:
        raise BrokenPipeError
    found = json.loads(said)
    assert isinstance(found, dict)
    return found


def _line() -> bytes:
    """A line of standard input, and not a byte more."""
    found = bytearray()
    while not found.endswith(b"\n") and (byte := os.read(0, 1)):
        found += byte
    return bytes(found)


def _drain(read: Read, limit: int) -> bool:
    """Take in the rest, which belongs to the digest; False when that is more than `limit` bytes."""
    while piece := read(1 << 20):
        limit -= len(piece)
        if limit < 0:
            return False
    return True


def _unpack(order: Mapping[str, Any], read: Read, progress: _Progress) -> Answer:
    """Enter the target and unpack there what `read` gives. What is wrong with the layer is in the answer."""
    inflater = Inflater(read, limit=order["max_bytes"])
    digest = Digest()

    def fill(count: int) -> bytes:
        piece = inflater.fill(count)
        digest.feed(piece)
        progress.given = inflater.given
        return piece

    rootless = not keeps_ids()
    layer = Layer(
        tar.Source(fill),
        max_bytes=order["max_bytes"],
        max_entries=order["max_entries"],
        parent=order["parent"],
        rootless=rootless,
    )
    entered = False
    try:
        inflater.start()
        enter(order["target"])
        entered = True
        layer.unpack()
        while fill(1 << 20):
            pass
    except FetchError:
        raise
    except (TarError, InflateError, OSError, OverflowError, MemoryError, RecursionError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        ours = isinstance(error, OSError) and (not entered or error.errno in _OF_THE_MACHINE)
        text = _said(error)
        entry = layer.entry[:200].decode("utf-8", "replace")
        if entry and not ours and entry.strip("/") not in text:
            text = f"{'after ' if layer.between else ''}entry {entry!r}: {text}"
        number = error.errno if isinstance(error, OSError) else None
        return {"error": text, "kind": "machine" if ours else "layer", "errno": number}
    return {
        "diff_id": digest.finish(),
        "size": layer.size,
        "entries": layer.entries,
        "implied": sorted(os.fsdecode(path) for path in layer.implied),
        "links": [[os.fsdecode(path), os.fsdecode(to)] for path, to in layer.links],
        "opaque_root": layer.opaque_root,
    }


_OF_THE_MACHINE = frozenset(
    (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
        errno.EFBIG,
    )
)


def enter(target: str) -> None:
    os.chroot(target)
    os.chdir("/")
    # From here on a lazy import would read the image's files: there is to be none.
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()


def _said(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename!r:.200}" if error.filename else str(error.strerror)
    return str(error) or type(error).__name__


def answer(line: int, data: Answer) -> None:
    content = json.dumps(data).encode() + b"\n"
    with contextlib.suppress(ConnectionResetError):
        while content:
            content = content[os.write(line, content) :]
