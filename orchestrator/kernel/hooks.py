"""OCI's hooks: programs of the host's that are told a container's state on their standard input.

Source: the runtime specification, "POSIX-platform Hooks". Used in the runtime and, for some kinds, in the
container's process, so nothing here is imported late and no name is looked up by the C library.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from orchestrator.kernel.reading import Document, RefusedError
from orchestrator.kernel.report import ExecError

State = Callable[[str, int], bytes]
"""(status, pid) -> the state document of a container, as JSON."""

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_TOLD = 4096  # bytes of a failed hook's output that go into the error


def check(hooks: Document) -> None:
    """Refuse hooks that could not be run, by name, before anything is made."""
    hooks.only(*KINDS)
    for kind in KINDS:
        for hook in hooks.tables(kind):
            hook.only("path", "args", "env", "timeout")
            if not hook.text("path").startswith("/"):
                raise RefusedError(f"{hook.place}.path: {hook.text('path')!r} is not an absolute path")
            hook.texts("args")
            hook.texts("env")
            if "timeout" in hook and hook.number("timeout") <= 0:
                raise RefusedError(f"{hook.place}.timeout: has to be more than 0 seconds")


def run_hooks(hooks: Document, kind: str, state: bytes, warn: Callable[[str], None] | None = None) -> None:
    """Run the hooks of a kind in their order, each with `state` on its standard input.

    Raises ExecError at the first that fails, or tells `warn` and goes on with the next.
    """
    for hook in hooks.tables(kind):
        try:
            _run(hook, state)
        except ExecError as error:
            if warn is None:
                raise
            warn(str(error))


def _run(hook: Document, state: bytes) -> None:
    path = hook.text("path")
    name = f"{hook.place} ({path})"
    environment = dict(_pair(entry) for entry in hook.texts("env"))
    reader, writer = os.pipe2(os.O_CLOEXEC)
    said, output = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        try:
            pid = os.posix_spawn(
                path,
                hook.texts("args") or [path],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, reader, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_DUP2, output, 2),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=_SIGNALS,
            )
        except OSError as error:
            raise _failed(error.errno or errno.EIO, f"{name}: {os.strerror(error.errno or 0)}") from None
        os.close(reader)
        os.close(output)
        reader = output = -1
        _feed(writer, state)
        os.close(writer)
        writer = -1
        status, heard = _wait(pid, said, hook.number("timeout"))
    finally:
        for fd in (reader, writer, said, output):
            if fd >= 0:
                os.close(fd)
    if status is None:
        raise _failed(errno.ETIMEDOUT, f"{name}: killed, it took over {hook.number('timeout')} s{heard}")
    code = os.waitstatus_to_exitcode(status)
    if code:
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        raise _failed(errno.EIO, f"{name}: {ended}{heard}")


_SIGNALS = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]


def _failed(number: int, message: str) -> ExecError:
    return ExecError(number, message, None)


def _pair(entry: str) -> tuple[bytes, bytes]:
    name, _, value = entry.partition("=")
    return os.fsencode(name), os.fsencode(value)


def _feed(writer: int, state: bytes) -> None:
    """The state is far smaller than a pipe; a hook that doesn't read it does no harm."""
    with suppress(BrokenPipeError, BlockingIOError):
        os.set_blocking(writer, False)
        os.write(writer, state)


def _wait(pid: int, said: int, timeout: int) -> tuple[int | None, str]:
    """Its wait status, None when it had to be killed, and the first of what it wrote (for an error)."""
    deadline = time.monotonic() + timeout if timeout else None
    pidfd = os.pidfd_open(pid)
    heard, open_still = b"", True
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(said, select.POLLIN)
    try:
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = dict(poll.poll(left))
            if said in ready and open_still:
                with suppress(BlockingIOError):
                    part = os.read(said, 65536)
                    heard = (heard + part)[:_TOLD]
                    if not part:
                        poll.unregister(said)
                        open_still = False
            if pidfd in ready:
                with suppress(BlockingIOError):
                    heard = (heard + os.read(said, _TOLD))[:_TOLD] if open_still else heard
                return os.waitpid(pid, 0)[1], _shown(heard)
            if not ready and deadline is not None:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return None, _shown(heard)
    finally:
        os.close(pidfd)


def _shown(heard: bytes) -> str:
    text = heard.decode("utf-8", "replace").strip()
    return f": {text}" if text else ""
