"""A small real supervisor for tests of the client side: a socket, threads, and answers by a function."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from orchestrator.api import wire
from orchestrator.api.paths import Paths

Message = dict[str, Any]


class Talk:
    """One request, as the supervisor sees it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = wire.Lines()
        self._ready: list[bytes] = []
        self.fds: list[int] = []
        self.request = self.receive() or {}

    def receive(self) -> Message | None:
        """The client's next message; None when it has gone."""
        while not self._ready:
            try:
                data, fds, _, _ = socket.recv_fds(self._connection, 65536, wire.FDS_LIMIT)
            except OSError:
                return None
            self.fds.extend(fds)
            if not data:
                return None
            self._ready = self._lines.feed(data)
        return wire.decode(self._ready.pop(0))

    def send(self, *messages: Message, fds: Sequence[int] = ()) -> None:
        data = b"".join(map(wire.encode, messages))
        if fds:
            socket.send_fds(self._connection, [data], list(fds))
        else:
            self._connection.sendall(data)

    def end(self, result: Any = None, *, exit_code: int = 0, error: str = "") -> None:
        wrong = {"message": error, "hint": ""} if error else None
        self.send({"end": {"exit_code": exit_code, "error": wrong, "result": result}})

    def close(self) -> None:
        for fd in self.fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._connection.close()


class Scripted:
    """Listens where a supervisor would; `answer` is called in a thread for each request."""

    def __init__(self, paths: Paths, answer: Callable[[Talk], None]) -> None:
        self.paths = paths
        self.requests: list[Message] = []
        self._answer = answer
        os.makedirs(paths.run_dir, mode=0o700, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(paths.socket)
        self._listener.listen(16)
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self.failures: list[BaseException] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "an answer does not end"
        os.unlink(self.paths.socket)
        assert not self.failures, self.failures

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        talk = Talk(connection)
        try:
            if talk.request:
                self.requests.append(talk.request)
                self._answer(talk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        except BaseException as error:
            self.failures.append(error)
        finally:
            talk.close()
