"""The worker that copies inside a container: a process of its own, locked into the container's root.

It imports what it needs (and little: it is started for one file), takes on the container's files
(kernel.visit), and imports nothing afterwards: what it would find then is the container's. What it is asked
comes as lines of JSON on one descriptor, and is answered there; archives go through standard input and
output. Standard library only, started with -I -S.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable

from orchestrator.images.files import finding
from orchestrator.images.files.finding import Source, Target
from orchestrator.images.files.packing import FilesError, Packer
from orchestrator.images.files.placing import Placer
from orchestrator.images.layers import tar
from orchestrator.kernel import visit
from orchestrator.model.compact import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]
_MEMORY = 2 << 30
_LINE_LIMIT = 16 << 20
_WARNINGS = 20


def main(arguments: list[str]) -> None:
    """`CONTROL PIDFD`: descriptors; the second is -1 where no process is to be joined. Never returns."""
    control, init = map(int, arguments)
    # Whatever happens: Python's own last words would be read from files, and those are the container's now.
    code = 1
    try:
        serve(Lines(control), init)
        code = 0
    except BaseException as error:
        os.write(control, _line({"error": _said(error), "errno": _number(error)}))
    finally:
        os._exit(code)


class Lines:
    """Messages on one descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._held = b""

    def take(self) -> Message | None:
        """The next one; None at the end."""
        while b"\n" not in self._held:
            piece = os.read(self.fd, 1 << 16)
            if not piece or len(self._held) > _LINE_LIMIT:
                return None
            self._held += piece
        line, _, self._held = self._held.partition(b"\n")
        message = loads(line.decode())
        return message if isinstance(message, dict) else None

    def put(self, message: Message) -> None:
        content = _line(message)
        while content:
            content = content[os.write(self.fd, content) :]


def _line(message: Message) -> bytes:
    return dumps(message).encode() + b"\n"


def serve(lines: Lines, init: int) -> None:
    descriptors = visit.begin()
    _limit()
    order = lines.take()
    if order is None:
        return
    _enter(order, init)
    desk = Desk(visit.lock(), descriptors)
    lines.put({"done": {}})
    while (message := lines.take()) is not None:
        work = desk.works[message["op"]]
        try:
            done = work(message)
        except (FilesError, OSError, tar.TarError) as error:
            lines.put({"error": _said(error), "errno": _number(error)})
            if message["op"] in ("pack", "place"):
                return  # the stream is of no use any more
            continue
        lines.put({"done": done})


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _enter(order: Message, init: int) -> None:
    if order["run"]:
        # An ordinary user's containers are in namespaces of the user's own.
        from orchestrator.kernel import rootless

        rootless.enter(order["run"])
    if order["way"] == "running":
        visit.enter_running(init)
    elif order["way"] == "bare":
        visit.enter_bare(init, order["targets"])
    else:
        visit.enter_stopped(order["view"], order["mountpoint"])
    if init >= 0:
        os.close(init)


class Desk:
    """What can be asked. Source and target are found first and kept, then copied from or to."""

    def __init__(self, root: int, descriptors: int) -> None:
        self._root = root
        self._descriptors = descriptors
        self._opener = finding.of_container(root)
        self._source: Source | None = None
        self._target: Target | None = None
        self.works: dict[str, Callable[[Message], Message]] = {
            "source": self.source,
            "target": self.target,
            "pack": self.pack,
            "place": self.place,
        }

    def source(self, message: Message) -> Message:
        self._source = found = finding.find_source(
            self._opener, message["path"], follow=bool(message["follow"])
        )
        row = {"directory": found.directory, "name": found.name, "contents": found.contents}
        return {**row, "real": found.real}

    def target(self, message: Message) -> Message:
        self._target = found = finding.find_target(self._opener, message["path"])
        finding.demand_files(found)
        row = {"exists": found.exists, "directory": found.directory, "name": found.name}
        return {**row, "insists": found.insists}

    def pack(self, message: Message) -> Message:
        if self._source is None:
            raise FilesError("nothing was found to be packed")
        packer = Packer(_write, self._descriptors)
        packer.pack(self._source.handle, os.fsencode(message["top"]))
        packer.finish()
        os.close(1)
        return {"warnings": packer.warnings[:_WARNINGS], "entries": packer.entries}

    def place(self, message: Message) -> Message:
        if self._target is None:
            raise FilesError("nothing was found to put it into")
        whole = os.path.samestat(os.fstat(self._target.fd), os.fstat(self._root))
        placer = Placer(
            tar.Source(_read),
            self._target.fd,
            self._descriptors,
            owner=bool(message["owner"]),
            guarded=False,
            whole=whole,
        )
        placer.place()
        while _read(1 << 20):
            pass  # what follows the end marker
        return {"warnings": placer.warnings[:_WARNINGS], "entries": placer.entries}


def _read(count: int) -> bytes:
    return os.read(0, count)


def _write(content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(1, view) :]


def _said(error: BaseException) -> str:
    if isinstance(error, FilesError | tar.TarError):
        return str(error)
    if isinstance(error, OSError):
        name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"{name}{error.strerror or errno.errorcode.get(error.errno or 0, 'error')}"
    return f"{type(error).__name__}: {error}"


def _number(error: BaseException) -> int:
    if isinstance(error, FilesError):
        return error.number
    return (error.errno or 0) if isinstance(error, OSError) else 0
