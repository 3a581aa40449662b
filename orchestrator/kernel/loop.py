"""The keeper's event loop: requests in, replies and exits out, the supervisor watched.

Nothing in here waits for anything but the poll itself. A request that takes time (start, exec) is a forked
child with a report socket; its reply goes out when that socket ends.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from orchestrator.kernel import launch, orders, packets, pins, runs, shelf, store, syscalls
from orchestrator.kernel.door import Door
from orchestrator.kernel.guard import Guard
from orchestrator.kernel.orders import RequestError
from orchestrator.kernel.packets import Connection, Post
from orchestrator.kernel.program import Host
from orchestrator.kernel.reading import Document, RefusedError

_CONNECTIONS = 64
_BACKLOG = 10_000  # packets waiting for one reader; then the connection is dropped, exit.json tells
_LISTED = 400  # runs and keys in one packet of the reply to hello: of 300 bytes at most
_NAME_LENGTH = 255
_TOGETHER = 32  # requests of a client that are heard before others are


class Waiting(NamedTuple):
    """A start under way and who wants to know."""

    birth: runs.Birth
    connection: Connection
    tag: object


class Due(NamedTuple):
    """A process that is to be forked as soon as all who wait have been heard."""

    order: orders.Order
    connection: Connection
    tag: object


class Loop:
    """The keeper's state. All of it but the runs' exit records may be lost with it."""

    def __init__(self, door: Door, wakeup: int, host: Host, own_pids: int, guard: Guard) -> None:
        self._host = host
        self._own_pids = own_pids
        self._guard = guard
        self._poll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._door = door
        self._wakeup = wakeup
        self._connections: dict[int, Connection] = {}
        self._supervisor: Connection | None = None
        self._runs: dict[str, runs.Run] = {}
        self._shelf = shelf.Shelf(host.held)
        self._due: list[Due] = []
        self._by_pid: dict[int, runs.Run] = {}
        self._births: dict[int, Waiting] = {}
        self._store = store.Store(os.sysconf("SC_OPEN_MAX") // 2)
        self._leaving = False
        self._answer_the_door()
        self._watch(wakeup, self._child_ended)

    def run(self) -> None:
        """Serve until the supervisor said goodbye and nothing runs any more."""
        while True:
            done = self._is_done()
            now = time.monotonic()
            ready = self._poll.poll(0 if done else self._door.patience(now, self._guard.patience(now)))
            if done and not ready:
                return
            for fd, events in ready:
                call = self._calls.get(fd)
                if call:
                    call(events)
            now = time.monotonic()
            if not self._door.stands(now):
                self._return_to_the_door()
            self._guard.act(now, self._watch, self._unwatch)

    def _answer_the_door(self) -> None:
        if self._door.listener is not None:
            self._watch(self._door.listener.fileno(), self._accept)

    def _return_to_the_door(self) -> None:
        """Nobody finds us any more. If another keeper is found by now, we stay for our own runs alone."""
        if self._door.listener is not None:
            self._unwatch(self._door.listener.fileno())
        try:
            if not self._door.put_back():
                self._guard.rest(self._unwatch)
                self._leaving = True
        except OSError as error:
            print(f"keeper.sock: {error}", file=sys.stderr, flush=True)
        self._answer_the_door()

    def _is_done(self) -> bool:
        """Whether there is nobody left to keep for: no run, and no client that is about to say hello."""
        if not self._leaving or self._runs or self._births:
            return False
        return all(client.heard and not client.outbox for client in self._connections.values())

    def _watch(self, fd: int, call: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        self._calls[fd] = call
        self._poll.register(fd, events)

    def _unwatch(self, fd: int) -> None:
        if self._calls.pop(fd, None):
            self._poll.unregister(fd)

    # -- connections

    def _accept(self, _: int) -> None:
        try:
            fd, _ = self._door.listener._accept()  # type: ignore[union-attr]
        except OSError:
            return
        sock = _socket.socket(fileno=fd)
        pid, uid, _gid = struct.unpack("3i", sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))
        if uid != os.geteuid() or len(self._connections) >= _CONNECTIONS:
            sock.close()
            return
        sock.setblocking(False)  # noqa: FBT003 (the standard library's signature)
        connection = Connection(sock, pid)
        self._connections[sock.fileno()] = connection
        self._watch(sock.fileno(), lambda events: self._serve(connection, events))

    def _serve(self, connection: Connection, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush(connection)
        if not events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return
        for _ in range(_TOGETHER):
            if not self._take(connection):
                break
        self._fork()

    def _take(self, connection: Connection) -> bool:
        """Serve one packet; False when there is no other, now or ever."""
        try:
            received = packets.receive(connection.sock)
        except BlockingIOError:
            return False
        except ValueError as error:
            self._reply(connection, None, error=packets.failure(errno.EBADMSG, str(error)))
            return connection.sock.fileno() >= 0
        except OSError:
            received = None
        if received is None:
            self._drop(connection)
            return False
        self._request(connection, *received)
        return connection.sock.fileno() >= 0

    def _drop(self, connection: Connection) -> None:
        fd = connection.sock.fileno()
        if fd < 0:
            return
        self._unwatch(fd)
        self._connections.pop(fd, None)
        if self._supervisor is connection:
            self._supervisor = None
            self._door.hurry()
        for post in connection.outbox:
            packets.close(post.fds)
        connection.outbox.clear()
        connection.sock.close()

    def _send(self, connection: Connection, message: packets.Message, fds: tuple[int, ...] = ()) -> None:
        if connection.sock.fileno() < 0:
            return
        data = packets.pack(message)
        try:
            if not connection.outbox:
                packets.send(connection.sock, data, fds)
                return
        except BlockingIOError:
            self._poll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            self._drop(connection)
            return
        if len(connection.outbox) >= _BACKLOG:
            self._drop(connection)
            return
        connection.outbox.append(Post(data, tuple(os.dup(fd) for fd in fds)))

    def _flush(self, connection: Connection) -> None:
        while connection.outbox:
            post = connection.outbox[0]
            try:
                packets.send(connection.sock, post.data, post.fds)
            except BlockingIOError:
                return
            except OSError:
                self._drop(connection)
                return
            connection.outbox.popleft()
            packets.close(post.fds)
        self._poll.modify(connection.sock.fileno(), select.EPOLLIN)

    def _reply(
        self,
        connection: Connection,
        tag: object,
        fds: tuple[int, ...] = (),
        error: packets.Message | None = None,
        **values: object,
    ) -> None:
        if error is not None:
            values["error"] = error
        self._send(connection, {"tag": tag, **values}, fds)

    # -- requests

    def _request(self, connection: Connection, message: packets.Message, fds: list[int]) -> None:
        """Serve one request. Descriptors that it didn't keep (took out of `fds`) are closed."""
        connection.heard = True
        request = Document(message)
        tag = message.get("tag")
        try:
            operation = request.text("op")
            serve = _OPERATIONS.get(operation)
            if serve is None:
                raise RequestError(errno.ENOSYS, f"unknown request {operation!r}")
            serve(self, connection, tag, request, fds)
        except Exception as error:
            self._refuse_request(connection, tag, error)
        finally:
            packets.close(fds)

    def _refuse_request(self, connection: Connection, tag: object, error: Exception) -> None:
        match error:
            case RequestError() | runs.StartError() | store.StoreError():
                number = error.number
            case RefusedError():
                number = errno.EINVAL
            case OSError():
                number = error.errno or errno.EIO
            case _:
                # A bug of ours. Told and written down, and we go on: with us the exit codes would go.
                sys.excepthook(type(error), error, error.__traceback__)
                told = packets.failure(errno.EIO, f"internal error: {error!r}")
                self._reply(connection, tag, error=told)
                return
        self._reply(connection, tag, error=packets.failure(number, str(error), step="request"))

    def _hello(self, connection: Connection, tag: object, request: Document, _: list[int]) -> None:
        environ = request.table("environ")
        names = environ.names()
        self._guard.watch(
            connection.sock,
            connection.peer,
            request.texts("respawn"),
            {name: environ.text(name) for name in names},
            time.monotonic(),
            self._watch,
            self._unwatch,
        )
        self._supervisor = connection
        self._leaving = False
        running: list[object] = [{"id": run.id, "pid": run.pid} for run in self._runs.values() if run.bundle]
        kept = self._store.listing()
        while len(running) + len(kept) > _LISTED:
            # One packet can't hold it: the reply goes on as long as it says "more".
            some, others = running[:_LISTED], kept[: max(0, _LISTED - len(running))]
            self._reply(connection, tag, pid=os.getpid(), more=True, runs=some, stored=others)
            del running[: len(some)], kept[: len(others)]
        self._reply(connection, tag, pid=os.getpid(), runs=running, stored=kept)

    def _start(self, connection: Connection, tag: object, request: Document, fds: list[int]) -> None:
        bundle, kinds, key = request.text("bundle"), request.texts("namespaces"), request.text("keep")
        orders.demand_start(bundle, kinds, fds, key)
        if key:
            self._store.put(key, fds[len(kinds) :], replace=True)
            del fds[len(kinds) :]
        name, what = self._new_id(request.text("id")), launch.read(bundle)
        order = orders.start(name, what, kinds, fds, self._host, self._own_pids)
        runs.forget(bundle)
        self._due.append(Due(order, connection, tag))
        fds.clear()

    def _exec(self, connection: Connection, tag: object, request: Document, fds: list[int]) -> None:
        name, container = self._new_id(request.text("id")), request.text("container")
        run = self._runs.get(container)
        bundle = run.bundle if run else request.text("bundle")
        if not bundle:
            raise RequestError(errno.ESRCH, f"{container} does not run here; name its bundle to reach it")
        entry = self._shelf.read(bundle)
        stdio, process = tuple(fds), request.table("process")
        init = run.pidfd if run else runs.adopt(bundle, self._host)
        if not run:
            fds.append(init)
        order = orders.execute(name, entry, init, process, stdio, self._host, self._own_pids)
        self._due.append(Due(order._replace(fds=tuple(fds)), connection, tag))
        fds.clear()

    def _release(self, connection: Connection, tag: object, request: Document, _: list[int]) -> None:
        """Another runtime is to forget the container that it ran for us; the reply comes when it has."""
        name, what = self._new_id(f"release-{request.text('id')}"), launch.read(request.text("bundle"))
        self._due.append(Due(orders.release(name, what, self._host, self._own_pids), connection, tag))

    def _new_id(self, name: str) -> str:
        if not name or len(name) > _NAME_LENGTH:
            raise RequestError(errno.EINVAL, "an id has 1 to 255 characters")
        births = (waiting.birth.run.id for waiting in self._births.values())
        if name in self._runs or name in births or any(due.order.id == name for due in self._due):
            raise RequestError(errno.EBUSY, f"{name} runs already")
        return name

    def _fork(self) -> None:
        """Fork what was asked for, one right after the other: each page that we write to between two forks
        has to be copied."""
        due, self._due = self._due, []
        for one in due:
            try:
                self._bear(one)
            except Exception as error:
                self._refuse_request(one.connection, one.tag, error)
            finally:
                packets.close(one.order.fds)

    def _bear(self, due: Due) -> None:
        order = due.order
        pid, sock = runs.fork(order.child, order.pids, order.group)
        try:
            pidfd = syscalls.pidfd_open(pid)
            self._watch(sock.fileno(), partial(self._listen, pid))
        except OSError:
            sock.close()  # with nobody to report to the child ends before its program runs
            raise
        birth = runs.Birth(runs.Run(order.id, pid, pidfd, order.bundle), sock)
        self._births[pid] = Waiting(birth, due.connection, due.tag)

    def _keep(self, connection: Connection, tag: object, request: Document, fds: list[int]) -> None:
        self._store.put(request.text("key"), list(fds), replace=request.flag("replace"))
        fds.clear()
        self._reply(connection, tag)

    def _fetch(self, connection: Connection, tag: object, request: Document, _: list[int]) -> None:
        self._reply(connection, tag, self._store.get(request.text("key")))

    def _discard(self, connection: Connection, tag: object, request: Document, _: list[int]) -> None:
        self._store.discard(request.texts("keys"))
        self._reply(connection, tag)

    def _goodbye(self, connection: Connection, tag: object, _: Document, __: list[int]) -> None:
        if self._supervisor not in (None, connection):
            raise RequestError(errno.EPERM, "another supervisor is in charge")
        self._guard.rest(self._unwatch)
        self._leaving = True
        self._reply(connection, tag)

    # -- runs

    def _listen(self, pid: int, _: int) -> None:
        """A child reported, or its report ended: then its program runs, or it is about to be dead."""
        waiting = self._births[pid]
        if not waiting.birth.listen():
            return
        self._unwatch(waiting.birth.sock.fileno())
        if waiting.birth.outcome() is None:
            self._confirm(pid)

    def _confirm(self, pid: int) -> None:
        """The program runs: from now on its end is told."""
        waiting = self._births.pop(pid)
        birth = waiting.birth
        run = birth.first or birth.run
        fds = (run.pidfd, birth.master) if birth.master >= 0 else (run.pidfd,)
        if not birth.ended:
            pins.pin(run.bundle, run.pidfd)
        self._reply(waiting.connection, waiting.tag, fds, pid=run.pid)
        if birth.ended:
            self._tell(run, birth.ended)
        else:
            self._runs[run.id] = self._by_pid[run.pid] = run
        birth.close()

    def _child_ended(self, _: int) -> None:
        """SIGCHLD: signals merge, so look for all that ended."""
        with suppress(BlockingIOError):
            os.read(self._wakeup, 4096)
        while dead := runs.peek():
            self._bury(dead)

    def _bury(self, dead: runs.Dead) -> None:
        waiting = self._births.get(dead.pid)
        if waiting:
            # It lived so shortly that its report was not read yet; the reply comes before the end.
            waiting.birth.listen()
            self._unwatch(waiting.birth.sock.fileno())
            if waiting.birth.outcome() is None:
                self._confirm(dead.pid)
        run = self._by_pid.get(dead.pid)
        if run is None:
            if not waiting and self._bury_unconfirmed(dead):
                return
            runs.reap(dead.pid)
            if dead.pid in self._births:
                self._refuse(dead.pid)
            return
        at = self._record(run, dead)
        runs.reap(dead.pid)
        del self._runs[run.id], self._by_pid[dead.pid]
        self._shelf.forget(run.bundle)
        self._tell(run, runs.Ended(dead, at))

    def _bury_unconfirmed(self, dead: runs.Dead) -> bool:
        """Whether it was the first process of a start under way, which another runtime's child told of."""
        for waiting in self._births.values():
            birth = waiting.birth
            birth.listen()  # it was told of before it could end
            if birth.first is not None and birth.first.pid == dead.pid and birth.ended is None:
                birth.ended = runs.Ended(dead, self._record(birth.first, dead))
                runs.reap(dead.pid)
                return True
        return False

    def _tell(self, run: runs.Run, ended: runs.Ended) -> None:
        os.close(run.pidfd)
        if self._supervisor:
            end = {
                "event": "exited",
                "id": run.id,
                "exit_code": ended.dead.exit_code,
                "signal": ended.dead.signal,
                "at": ended.at,
            }
            self._send(self._supervisor, end)

    def _record(self, run: runs.Run, dead: runs.Dead) -> float:
        try:
            return runs.write_exit(run, dead, self._host.boot_id)
        except OSError as error:
            # No room, or the bundle was removed: the supervisor still learns it from the event.
            print(f"exit record of {run.id}: {error}", file=sys.stderr, flush=True)
            return time.clock_gettime(time.CLOCK_BOOTTIME)

    def _refuse(self, pid: int) -> None:
        """A start that failed is told only now that its process is gone: its cgroups can be removed."""
        waiting = self._births.pop(pid)
        run, first = waiting.birth.run, waiting.birth.first
        if first is not None:
            with suppress(ProcessLookupError):
                syscalls.pidfd_send_signal(first.pidfd, signal.SIGKILL)
        if run.bundle:
            runs.forget(run.bundle)
        self._reply(waiting.connection, waiting.tag, error=waiting.birth.outcome())
        os.close(run.pidfd)
        waiting.birth.close()


_OPERATIONS: Mapping[str, Callable[[Loop, Connection, object, Document, list[int]], None]] = {
    "hello": Loop._hello,
    "start": Loop._start,
    "exec": Loop._exec,
    "release": Loop._release,
    "store": Loop._keep,
    "fetch": Loop._fetch,
    "discard": Loop._discard,
    "goodbye": Loop._goodbye,
}
