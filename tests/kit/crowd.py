"""Those who ask for a page of a published port all the time, and go without no answer.

with Crowd(port) as crowd:
    ...
assert crowd.lost == {}
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from typing import Self

from tests.kit.patience import patient


class Crowd:
    """Asks for the page all the time, each over a connection of its own. `said`: how often which answer came;
    what is lost is counted by its error."""

    def __init__(self, port: int, many: int = 4) -> None:
        self.said: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self._port = port
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(many)]

    def _run(self) -> None:
        while not self._over.is_set():
            self._ask()
            time.sleep(0.005)

    def _ask(self) -> None:
        answer = b""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=patient(3)) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                while part := sock.recv(4096):
                    answer += part
            head, _, body = answer.partition(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.") and b" 200 " in head.splitlines()[0] and body:
                self.said[body.decode().strip()] += 1
            else:
                self.lost[f"half an answer: {answer[:40]!r}"] += 1
        except OSError as error:
            self.lost[f"{type(error).__name__}: {error}"] += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
