"""The supervisor's line to the keeper: requests with descriptors, replies by tag, exits as they happen.

The protocol is described in kernel/keeper. The keeper outlives us: everything we must find again after our
own death (network namespaces, resolver sockets, terminals) is lent to its store.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from orchestrator.engines.local.places import Places
from orchestrator.engines.local.trouble import of_start
from orchestrator.kernel.spawn import spawn_keeper
from orchestrator.model.errors import EngineError, ExitCode
from orchestrator.model.frozen import dataclass, field

PACKET = 256 * 1024
REQUEST_LIMIT = 128 * 1024
"""Bytes of one request (kernel/packets)."""
MOST_FDS = 32
AT_A_TURN = 64
"""Packets that are taken in before others in this process have their turn."""
START_SECONDS = 20.0
ON_ITS_WAY_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """A process the keeper started has ended; `at` is boot time."""

    id: str
    exit_code: int | None
    """None when it was lost: neither the keeper nor the kernel has it."""
    at: float


@dataclass(slots=True)
class Started:
    """A process that has reached its own program. We own the descriptors."""

    pid: int
    pidfd: int
    terminal: int | None = None


@dataclass(slots=True)
class _Answer:
    """What comes back for one request."""

    ready: trio.Event = field(default_factory=trio.Event)
    body: dict[str, Any] = field(default_factory=dict)
    fds: list[int] = field(default_factory=list)
    begun: dict[str, list[Any]] = field(default_factory=dict)


class KeeperLost(EngineError):
    """The keeper has died; it is replaced, and the action may be tried again.

    `heard`: it may have got the request, and begun to do it.
    """

    def __init__(self, *, heard: bool = False) -> None:
        super().__init__("the keeper process has died")
        self.heard = heard


class AlreadyRunsError(EngineError):
    """A process of this id is there, from a start whose answer was lost with a supervisor."""


class Keeper:
    """One connection. `on_exit` is called from the reader task for every exit; `serve` runs that task."""

    def __init__(self, connection: socket.socket, on_exit: Callable[[Exited], None]) -> None:
        """`connection` does not block."""
        self._connection = connection
        self._on_exit = on_exit
        self._answers: dict[int, _Answer] = {}
        self._next_tag = 1
        self._sending = trio.Lock()
        self.lost = trio.Event()
        self.pid = 0
        self.runs: dict[str, int] = {}
        self.stored: set[str] = set()

    # --- the connection ----------------------------------------------------------------------------

    async def serve(self) -> None:
        """Read until the keeper goes away; then every request under way fails."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._connection)
                # Several at a turn: of a crowd of health checks each has two.
                for _ in range(AT_A_TURN):
                    try:
                        packet, fds = self._receive()
                    except BlockingIOError:
                        break
                    if not packet:
                        return
                    self._take(json.loads(packet), fds)
        except OSError:
            return
        finally:
            self.lost.set()
            for answer in self._answers.values():
                answer.ready.set()
            trio.lowlevel.notify_closing(self._connection)
            self._connection.close()

    def _receive(self) -> tuple[bytes, list[int]]:
        space = socket.CMSG_SPACE(MOST_FDS * 4)
        packet, ancillary, _flags, _address = self._connection.recvmsg(PACKET, space, socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        return packet, list(fds)

    def _take(self, message: dict[str, Any], fds: list[int]) -> None:
        if message.get("event") == "exited":
            self._on_exit(Exited(id=message["id"], exit_code=message["exit_code"], at=message["at"]))
            return
        answer = self._answers.get(message.get("tag", 0))
        if answer is None:
            for fd in fds:
                os.close(fd)
            return
        for name, rows in answer.begun.items():
            message[name] = rows + message[name]
        if message.get("more"):
            # A reply too long for one packet: its lists go on in the next.
            answer.begun = {name: rows for name, rows in message.items() if isinstance(rows, list)}
            return
        answer.body, answer.fds = message, fds
        answer.ready.set()

    async def request(
        self, body: Mapping[str, Any], fds: Sequence[int] = ()
    ) -> tuple[dict[str, Any], list[int]]:
        """Send and wait for the answer. Raises KeeperLost, or EngineError with the keeper's reason."""
        tag, answer = self._next_tag, _Answer()
        self._next_tag += 1
        packet = json.dumps({**body, "tag": tag}, separators=(",", ":")).encode()
        if len(packet) > REQUEST_LIMIT:
            raise EngineError(
                f"command and environment take {len(packet)} bytes; at most {REQUEST_LIMIT} can be passed on",
                retryable=False,
                exit_code=ExitCode.NOT_EXECUTABLE,
            )
        if self.lost.is_set():
            raise KeeperLost
        self._answers[tag] = answer
        try:
            await self._send(packet, fds)
            with trio.CancelScope(shield=True):
                await answer.ready.wait()
        finally:
            del self._answers[tag]
        if not answer.body:
            raise KeeperLost(heard=True)
        if "error" in answer.body:
            raise _refusal(answer.body["error"])
        return answer.body, answer.fds

    async def _send(self, packet: bytes, fds: Sequence[int]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            while True:
                with contextlib.suppress(BlockingIOError):
                    self._connection.sendmsg([packet], rights)
                    return
                async with self._sending:  # one task at a time may wait for it
                    await trio.lowlevel.wait_writable(self._connection)
        except (OSError, trio.ClosedResourceError) as error:
            raise KeeperLost from error

    # --- what it does for us -----------------------------------------------------------------------

    async def hello(self, respawn: Sequence[str], environ: Mapping[str, str]) -> None:
        body, _ = await self.request({"op": "hello", "respawn": list(respawn), "environ": dict(environ)})
        self.pid = body["pid"]
        self.runs = {run["id"]: run["pid"] for run in body["runs"]}
        self.stored = {entry["key"] for entry in body["stored"]}

    async def start(
        self,
        container_id: str,
        bundle: Path,
        joined: Mapping[str, int],
        keep: tuple[str, Sequence[int]] | None = None,
    ) -> Started:
        """`joined`: namespace type -> descriptor of the namespace to join. `keep`: a key and what is stored
        under it before the process is there, as by `store`."""
        key, kept = keep or ("", ())
        self.stored.update((key,) if key else ())  # also when the start fails: to discard it is no error
        body, fds = await self.request(
            {
                "op": "start",
                "id": container_id,
                "bundle": str(bundle),
                "namespaces": list(joined),
                "keep": key,
            },
            [*joined.values(), *kept],
        )
        return _started(body, fds)

    async def execute(
        self, exec_id: str, bundle: Path, process: Mapping[str, Any], stdio: Sequence[int]
    ) -> Started:
        """Run one more process in the container of `bundle`, whichever keeper has started it.

        `stdio` is empty when the process asks for a terminal.
        """
        body, fds = await self.request(
            {
                "op": "exec",
                "id": exec_id,
                "container": bundle.name,
                "bundle": str(bundle),
                "process": dict(process),
            },
            stdio,
        )
        return _started(body, fds)

    async def release(self, container_id: str, bundle: Path) -> None:
        """Have another runtime forget the container that it ran for us, which has ended."""
        _, fds = await self.request({"op": "release", "id": container_id, "bundle": str(bundle)})
        for fd in fds:
            os.close(fd)

    async def store(self, key: str, fds: Sequence[int]) -> None:
        await self.request({"op": "store", "key": key, "replace": True}, fds)
        self.stored.add(key)

    async def fetch(self, key: str) -> list[int]:
        """Copies of the descriptors under `key`; none when there is no such key."""
        if key not in self.stored:
            return []
        _, fds = await self.request({"op": "fetch", "key": key})
        return fds

    async def discard(self, *keys: str) -> None:
        known = [key for key in keys if key in self.stored]
        if known:
            self.stored.difference_update(known)
            await self.request({"op": "discard", "keys": known})

    async def goodbye(self) -> None:
        await self.request({"op": "goodbye"})


def _started(body: Mapping[str, Any], fds: Sequence[int]) -> Started:
    return Started(pid=body["pid"], pidfd=fds[0], terminal=fds[1] if len(fds) > 1 else None)


def _refusal(error: Mapping[str, Any]) -> EngineError:
    """What went wrong in the keeper or its child, as our own error."""
    if error.get("errno") == errno.EBUSY and error.get("step") == "request":
        return AlreadyRunsError(str(error.get("message")))
    return of_start(error)


async def connect(places: Places, on_exit: Callable[[Exited], None]) -> Keeper:
    """The keeper of this state root; started when there is none. Raises EngineError."""
    with trio.move_on_after(START_SECONDS):
        spawned = False
        began = trio.current_time()
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            try:
                connection.connect(str(places.keeper_socket))
                return Keeper(connection, on_exit)
            except OSError:
                connection.close()
            # One may be on its way: the supervisor starts it before itself (see daemon).
            if not spawned and trio.current_time() - began >= ON_ITS_WAY_SECONDS:
                spawn_keeper(str(places.run))
                spawned = True
            await trio.sleep(0.002)
    raise EngineError(f"the keeper did not start; see {places.run / 'keeper.log'}")
