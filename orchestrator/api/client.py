"""The blocking client of the commands: asks a supervisor, and starts one when none is there.

Nothing here may import more than it must: `ps` and `exec` are as quick as this module.
"""

from __future__ import annotations

import _socket
import errno
import os
import time

from orchestrator import __version__
from orchestrator.api import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Self

    from orchestrator.api.paths import Paths
    from orchestrator.api.wire import Message
    from orchestrator.model.errors import PystackError

CHUNK = 256 * 1024
START_TIMEOUT = 30.0
"""Seconds until a supervisor that neither answers nor dies is given up."""
RETRY_TIMEOUT = 10.0
"""Seconds of patience with a socket that another command's supervisor is about to open."""
ATTEMPTS = 3
LOST_SECONDS = 0.1
"""Until another try, when the supervisor was lost: a dying one may still be listened to for a moment."""
_NOT_PERMITTED = 4
"""ExitCode.NOT_PERMITTED, without its import."""
_held: list[int] = []
"""Pipes by which supervisors that we have started wait for us (see Server.expect), until we are connected."""
_NOBODY = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)


class Connection:
    """One request and the stream of its answers.

    `fds` go with the request's first byte; descriptors that arrive are appended to `received_fds`, and
    belong to the caller. Raises OSError when nobody listens.
    """

    __slots__ = ("_lines", "_ready", "_socket", "ended", "received_fds")

    def __init__(self, paths: Paths, request: Message, fds: Sequence[int] = ()) -> None:
        self.received_fds: list[int] = []
        self.ended = False
        self._lines = wire.Lines()
        self._ready: list[bytes] = []
        self._socket = _connect(paths)
        while _held:
            os.close(_held.pop())
        try:
            self._send(wire.encode({"version": __version__, **request}), fds)
        except BaseException:
            self._socket.close()
            raise

    def _send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        import array

        # MSG_NOSIGNAL: an answer may end the connection while we still speak.
        flags = _socket.MSG_NOSIGNAL
        if fds:
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds).tobytes())
            sent = self._socket.sendmsg([data], [rights], flags)
            data = data[sent:]
        if data:
            self._socket.sendall(data, flags)

    def send(self, message: Message) -> None:
        """A message after the request. A supervisor that is gone already is no error."""
        try:
            self._send(wire.encode(message))
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> list[Message]:
        """The messages that have come, at least one; empty when the supervisor has closed. May block."""
        while not self._ready:
            data = self._read()
            if not data:
                self.ended = True
                return []
            self._ready = self._lines.feed(data)
        lines, self._ready = self._ready, []
        return [wire.decode(line) for line in lines]

    def _read(self) -> bytes:
        import array

        space = _socket.CMSG_SPACE(wire.FDS_LIMIT * 4)
        try:
            data, ancillary, _, _ = self._socket.recvmsg(CHUNK, space, _socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return b""
        for level, kind, rights in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
                self.received_fds.extend(fds)
        return data

    def lines(self) -> Iterator[Message]:
        """Every message up to and with the one that has "end". Raises when the supervisor goes before."""
        while messages := self.receive():
            for message in messages:
                yield message
                if "end" in message:
                    return
        raise lost()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def call(paths: Paths, request: Message, fds: Sequence[int] = ()) -> Any:
    """Ask, skip what comes before the end, return the result. Raises PystackError as the end says."""
    with reach(paths, request, fds) as connection:
        return result(connection)


def result(connection: Connection) -> Any:
    """Skip what comes before the end, and return what it carries. Raises PystackError as the end says."""
    for message in connection.lines():
        if "end" in message:
            return outcome(message["end"])
    raise AssertionError("lines() ends with an end")


def outcome(end: Message) -> Any:
    """The result that stands in an `end`. Raises PystackError when it carries an error."""
    if error := end.get("error"):
        raise failure(error, end.get("exit_code", 1))
    return end.get("result")


def failure(error: Message, exit_code: int) -> PystackError:
    """The error of an `end`, as an exception. The code may be that of a container's command: any number."""
    from orchestrator.model.errors import ExitCode, PystackError

    known = ExitCode(exit_code) if exit_code in ExitCode._value2member_map_ else ExitCode.FAILED
    return PystackError(
        str(error.get("message", "")), exit_code=known or ExitCode.FAILED, hint=error.get("hint") or ""
    )


def reach(paths: Paths, request: Message, fds: Sequence[int] = ()) -> Connection:
    """A connection, with the two usual failures told in the user's words. Raises PystackError."""
    from_system: OSError
    try:
        return Connection(paths, request, fds)
    except (PermissionError, FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        from_system = error
    from orchestrator.model.errors import ExitCode, PystackError

    if isinstance(from_system, PermissionError):
        raise needs_root(paths.socket) from from_system
    raise PystackError(
        "no supervisor is running", exit_code=ExitCode.SUPERVISOR, hint="`pystack up` starts one"
    ) from from_system


def summon(paths: Paths, request: Message, fds: Sequence[int] = ()) -> Connection:
    """A connection, to a new supervisor where need be: one that has just lost its last stack may be about
    to leave while we speak to it. Raises PystackError.
    """
    for _ in range(ATTEMPTS):
        try:
            return Connection(paths, request, fds)
        except PermissionError as error:
            raise needs_root(paths.socket) from error
        except OSError as error:
            if error.errno not in (*_NOBODY, errno.ECONNRESET, errno.EPIPE):
                raise
        ensure_supervisor(paths)
    return reach(paths, request, fds)


def find(paths: Paths, request: Message, fds: Sequence[int] = ()) -> Connection | None:
    """A connection to the supervisor, started anew if there are stacks but nobody listens; None when there
    is nothing that one could be asked about. Raises PystackError.
    """
    try:
        return Connection(paths, request, fds)
    except PermissionError as error:
        raise needs_root(paths.socket) from error
    except OSError as error:
        if error.errno not in _NOBODY:
            raise
    return None if idle(paths) else summon(paths, request, fds)


def ask(paths: Paths, request: Message) -> Any:
    """As `call`, by `find`: None when there is nothing that a supervisor could be asked about.

    For what may be asked twice: a supervisor that is killed as we speak to it is followed by another.
    """
    for attempt in range(ATTEMPTS):
        connection = find(paths, request)
        if connection is None:
            return None
        with connection:
            try:
                return result(connection)
            except Exception as error:
                from orchestrator.model.errors import PystackError  # most questions have an answer

                last = not connection.ended or attempt == ATTEMPTS - 1
                if last or not isinstance(error, PystackError):
                    raise
        time.sleep(LOST_SECONDS)
    raise AssertionError("the last attempt returns or raises")


def alive(paths: Paths) -> bool:
    """Whether a supervisor listens. Raises PermissionError when it is somebody else's."""
    try:
        _connect(paths).close()
    except OSError as error:
        if error.errno in _NOBODY:
            return False
        raise
    return True


def idle(paths: Paths) -> bool:
    """Whether nobody listens, no keeper is left and no stack is written down: there is nothing to ask."""
    try:
        if alive(paths) or os.path.exists(f"{paths.run_dir}/keeper.sock"):
            return False
        return not os.listdir(f"{paths.data_dir}/stacks")
    except (FileNotFoundError, NotADirectoryError):
        return True
    except PermissionError as error:
        raise needs_root(error.filename or paths.run_dir) from error


def ensure_supervisor(paths: Paths) -> None:
    """Return when a supervisor listens; start one if need be. Raises PystackError."""
    started = begin_supervisor(paths)
    if started is not None:
        started.wait()


def begin_supervisor(paths: Paths) -> Start | None:
    """Start a supervisor without waiting for it; None when one listens already. Raises PystackError."""
    try:
        if alive(paths):
            if os.geteuid() != 0:
                _restore_porter(paths)
            return None
        _prepare(paths)
        return Start(paths)
    except PermissionError as error:
        raise needs_root(error.filename or paths.socket) from error


def _restore_porter(paths: Paths) -> None:
    """An ordinary user's porter that was killed can be started by those alone who are outside, as we are."""
    from orchestrator.kernel import rootless, userns

    if not rootless.is_served(paths.run_dir):
        try:
            rootless.start(paths.run_dir)
        except userns.RefusedError as error:
            from orchestrator.model.errors import ExitCode, UserError

            raise UserError(str(error), exit_code=ExitCode.NOT_PERMITTED) from error


class Start:
    """A supervisor on its way."""

    __slots__ = ("_log_start", "_paths", "_pid", "_ready")

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        log = os.open(paths.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._ready, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            self._log_start = os.fstat(log).st_size
            self._pid = _spawn(paths, log, write_end)
        except BaseException:
            os.close(self._ready)
            raise
        finally:
            os.close(log)
            os.close(write_end)

    def wait(self) -> None:
        """Return when it listens. Raises PystackError with its last words when it has died."""
        import select

        readable, _, _ = select.select([self._ready], [], [], START_TIMEOUT)
        if readable and os.read(self._ready, 1):
            _held.append(self._ready)
            return
        os.close(self._ready)
        if not readable:
            raise self._broken(f"gave no sign within {START_TIMEOUT:g} s")
        # It has gone without a word: it died, or another command's supervisor has the lock and it left.
        deadline = time.monotonic() + RETRY_TIMEOUT
        while time.monotonic() < deadline:
            if alive(self._paths):
                return
            pid, status = os.waitpid(self._pid, os.WNOHANG) if self._pid else (0, 0)
            if pid:
                self._pid = 0
                if code := os.waitstatus_to_exitcode(status):
                    raise (
                        self._refused()
                        if code == _NOT_PERMITTED
                        else self._broken(f"ended at once ({_ending(code)})")
                    )
            time.sleep(0.01)
        raise self._broken(f"did not open {self._paths.socket} within {RETRY_TIMEOUT:g} s")

    def _refused(self) -> PystackError:
        """This machine lets an ordinary user have no containers: it has said why, and what may help."""
        from contextlib import suppress

        from orchestrator.model.errors import ExitCode, UserError

        words = last_words(self._paths.log, self._log_start) or ["not permitted"]
        if not self._log_start:
            with suppress(OSError):
                os.unlink(self._paths.log)
                os.rmdir(self._paths.run_dir)
        return UserError(words[0], exit_code=ExitCode.NOT_PERMITTED, hint="\n".join(words[1:]))

    def _broken(self, what: str) -> PystackError:
        from orchestrator.model.errors import ExitCode, PystackError

        words = last_words(self._paths.log, self._log_start)
        told = "".join(f"\n    {line}" for line in words)
        return PystackError(
            f"the supervisor {what}{':' if told else ''}{told}",
            exit_code=ExitCode.SUPERVISOR,
            hint=f"its log is {self._paths.log}",
        )


def last_words(path: str, start: int = 0, *, lines: int = 8) -> list[str]:
    """The last `lines` lines of a log from byte `start` on; [] when there is none."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(min(start, end), end - 16 * 1024))
            text = file.read(16 * 1024).decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def needs_root(what: str) -> PystackError:
    from orchestrator.model.errors import ExitCode, UserError

    hint = "it is not yours: run it with sudo, or without --root for your own" if os.geteuid() else ""
    return UserError(f"{what}: permission denied", exit_code=ExitCode.NOT_PERMITTED, hint=hint)


def lost() -> PystackError:
    """It was killed, or has died of a bug: the keeper starts another, which finds everything by records."""
    from orchestrator.model.errors import ExitCode, PystackError

    return PystackError(
        "the supervisor was lost in the middle of this command",
        exit_code=ExitCode.SUPERVISOR,
        hint="containers run on and another one takes over; `pystack ps` shows how far it came, "
        "then say the command again",
    )


def _ending(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"signal {-code}"


def _connect(paths: Paths) -> _socket.socket:
    """Raises OSError. Paths beyond the 107 bytes of sockaddr_un (unix(7)) go through /proc/self/fd."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        if len(os.fsencode(paths.socket)) <= 107:
            connection.connect(paths.socket)
        else:
            directory = os.open(paths.run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                connection.connect(f"/proc/self/fd/{directory}/supervisor.sock")
            finally:
                os.close(directory)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(paths: Paths) -> None:
    os.makedirs(paths.data_dir, mode=0o700, exist_ok=True)
    os.makedirs(paths.run_dir, mode=0o700, exist_ok=True)
    os.chmod(paths.run_dir, 0o700)


_KEPT_PREFIXES = ("PYTHON", "PYSTACK_", "XDG_", "LC_", "SSL_CERT_")
_KEPT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


def _environment(package_root: str) -> dict[str, str]:
    """The supervisor outlives this command: it gets of the environment only what is its business."""
    import sys

    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper() in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    if package_root not in (part for part in sys.path if part.endswith(("site-packages", "dist-packages"))):
        # A checkout: `-m` must find the package from "/" too.
        older = [os.path.abspath(part) for part in kept.get("PYTHONPATH", "").split(os.pathsep) if part]
        kept["PYTHONPATH"] = os.pathsep.join([package_root, *older])
    return kept


def _spawn(paths: Paths, log: int, ready: int) -> int:
    """posix_spawn(3) of the supervisor in a session of its own: no terminal, cwd /, no fd but ours."""
    import sys

    inner = 3  # the number of the pipe in the child
    close = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > inner and _inheritable(fd)]
    package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
        (os.POSIX_SPAWN_DUP2, ready, inner),
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        *((os.POSIX_SPAWN_CLOSE, fd) for fd in close),
    ]
    command = [sys.executable, "-m", "orchestrator.daemon", "--run", paths.run_dir, "--data", paths.data_dir]
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir("/")
        return os.posix_spawn(
            sys.executable,
            [*command, "--ready-fd", str(inner)],
            _environment(package_root),
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(1, 2, 3, 13, 15, 20),  # HUP INT QUIT PIPE TERM TSTP, whatever our caller ignores
        )
    finally:
        os.fchdir(here)
        os.close(here)


def _inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False
