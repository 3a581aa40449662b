"""What a child tells the keeper before it becomes the program: that it is about to, or why it can't."""

from __future__ import annotations

import _socket
import errno
import os
from typing import NoReturn

from orchestrator.kernel import packets

_READY = packets.pack({"ready": True})


class ExecError(Exception):
    """The program can't be run; `exit_code` is what a shell would return: 126 or 127."""

    def __init__(self, number: int, message: str, exit_code: int | None) -> None:
        super().__init__(message)
        self.number = number
        self.exit_code = exit_code


class Report:
    """The child's one line to the keeper: a close-on-exec socket whose end means "the program runs".

    `ready` goes out right before execve: an end without it means that the child died before.
    """

    def __init__(self, sock: _socket.socket, group: str = "") -> None:
        self.sock = sock
        self.step = "fork"
        self.group = group  # the directory of the control group that the child began in

    def fail(self, error: BaseException) -> NoReturn:
        """Tell the keeper and leave."""
        told = explain(error, self.step)
        try:
            packets.send(self.sock, packets.pack({"error": told}))
        finally:
            code = told["exit_code"]
            os._exit(code if isinstance(code, int) else 125)

    def born(self, pid: int, fds: tuple[int, ...]) -> None:
        """Another process than this one is the first of the container; `fds` are its pidfd and terminal."""
        packets.send(self.sock, packets.pack({"pid": pid}), fds)

    def ready(self, fds: tuple[int, ...] = ()) -> None:
        """The next call is execve. SIGPIPE or BrokenPipeError where the keeper is gone: none would wait.

        By write(2) where it can be: the program's filter holds already, and that is what few programs lack.
        """
        if fds:
            packets.send(self.sock, _READY, fds)
        else:
            os.write(self.sock.fileno(), _READY)


def explain(error: BaseException, step: str) -> packets.Message:
    """An error in the words of a reply. Never formats a traceback: that would read source files."""
    number = error.errno if isinstance(error, OSError) else None
    exit_code = None
    if isinstance(error, ExecError):
        number, exit_code = error.number, error.exit_code
    elif not isinstance(error, OSError | ValueError):
        step += " " + _places(error)
    message = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None:
        message = f"{os.fsdecode(error.filename)}: {error.strerror}"
    return packets.failure(number or errno.EINVAL, message[:2000], step=step[:500], exit_code=exit_code)


def _places(error: BaseException) -> str:
    """Where it was raised: function:line, innermost last."""
    places: list[str] = []
    trace = error.__traceback__
    while trace:
        places.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"({type(error).__name__} at {' '.join(places[-6:])})"
