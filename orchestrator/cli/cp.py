"""The command `cp`: files between a container and this machine, by the rules of `docker cp`."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Self

from orchestrator.cli import columns, lent, say
from orchestrator.cli.change import usage
from orchestrator.cli.lent import Lent
from orchestrator.cli.scope import Scope
from orchestrator.images.files import finding
from orchestrator.images.files.finding import Source, Target
from orchestrator.images.files.packing import FilesError, Packer
from orchestrator.images.files.placing import Placer
from orchestrator.images.files.visiting import Visitor
from orchestrator.images.layers import tar
from orchestrator.model.errors import ExitCode, UserError

CHUNK = 1 << 20
_PIPE_SIZE = 1 << 20


def cp(
    scope: Scope,
    *,
    source: str,
    destination: str,
    archive: bool,
    follow_link: bool,
    quiet: bool,
    index: int | None,
    all: bool,  # noqa: A002 - the option's name
) -> int:
    """Copy files out of a container, or into one, or into all containers of a service."""
    if not source or not destination:
        raise usage(f"{'destination' if source else 'source'} can not be empty")
    (there, path), (goal, target) = split(source), split(destination)
    if there and goal:
        raise usage("copying between containers is not supported", "copy to this machine first")
    if not there and not goal:
        raise usage("must specify at least one container source", "CONTAINER:PATH, or SERVICE:PATH")
    if not (path if there else target):
        raise usage(f"{there or goal}: a path is missing", f"such as {there or goal}:/")
    if there:
        if archive and target != "-" and os.geteuid() != 0:
            raise UserError(
                "--archive: only root can give files their owners", exit_code=ExitCode.NOT_PERMITTED
            )
        with lent.borrow(scope, there, index=index, every=all) as (one,):
            if target == "-":
                return _to_output(one, path, follow=follow_link)
            return _to_host(one, path, target, follow=follow_link, owner=archive, quiet=quiet)
    with lent.borrow(scope, goal, many=True, index=index, every=all) as found:
        if path == "-":
            return _from_input(found, goal, target, quiet=quiet)
        return _from_host(found, goal, path, target, follow=follow_link, owner=archive, quiet=quiet)


def split(word: str) -> tuple[str, str]:
    """(container, path); ("", path) for a path of this machine: an absolute one, one that begins with a dot,
    one without a colon. Pure."""
    container, colon, path = word.partition(":")
    if word.startswith("/") or not colon or container.startswith("."):
        return "", word
    return container, path


# --- out ---------------------------------------------------------------------------------------------


def _to_output(one: Lent, path: str, *, follow: bool) -> int:
    if say.is_terminal(say.STDOUT):
        raise usage("refusing to write an archive to a terminal", "redirect it, or name a file or directory")
    with _visiting(one) as visitor:
        found = _source(visitor, one, path, follow=follow)
        visitor.begin("pack", top="." if found.contents else found.real)
        while piece := os.read(visitor.output, CHUNK):
            say.write(say.STDOUT, piece)
        _warn(visitor.answer()["warnings"])
    return 0


def _to_host(one: Lent, path: str, goal: str, *, follow: bool, owner: bool, quiet: bool) -> int:
    place = _absolute(goal)
    parent = os.path.dirname(os.path.normpath(place))
    if not os.path.exists(parent):
        raise UserError(f'invalid output path: directory "{parent}" does not exist')
    with _visiting(one) as visitor:
        found = _source(visitor, one, path, follow=follow)
        try:
            target = finding.find_target(finding.of_host, place)
            finding.demand_files(target)
        except FilesError as error:
            raise UserError(f'invalid output path: "{place}" {error}') from None
        top = _landing(found, target)
        with _Counted(visitor.output, quiet=quiet) as stream:
            visitor.begin("pack", top=top)
            placer = Placer(tar.Source(stream.read), target.fd, lent.descriptors(), owner=owner, guarded=True)
            _place(placer, visitor)
            while stream.read(CHUNK):
                pass
            warnings = visitor.answer()["warnings"]
    _warn([*warnings, *placer.warnings])
    _report(stream.count, place, quiet=quiet)
    return 0


def _place(placer: Placer, visitor: Visitor) -> None:
    try:
        placer.place()
    except tar.TarError as error:
        visitor.answer()  # its own error comes first
        raise UserError(str(error)) from None


def _source(visitor: Visitor, one: Lent, path: str, *, follow: bool) -> Source:
    try:
        row = visitor.ask("source", path=path, follow=follow)
    except FilesError as error:
        if error.number == errno.ENOENT:
            raise UserError(f"Could not find the file {path} in container {one.name}") from None
        raise
    return Source(-1, bool(row["directory"]), str(row["name"]), bool(row["contents"]), str(row["real"]))


# --- in ----------------------------------------------------------------------------------------------


def _from_host(
    found: list[Lent], word: str, path: str, goal: str, *, follow: bool, owner: bool, quiet: bool
) -> int:
    place = _absolute(path)
    try:
        source = finding.find_source(finding.of_host, place, follow=follow)
    except OSError as error:
        code = ExitCode.FILE_NOT_FOUND if error.errno == errno.ENOENT else ExitCode.FAILED
        raise UserError(f"{path}: {(error.strerror or '').lower()}", exit_code=code) from None
    ids = None if owner else (0, 0)
    descriptors = lent.descriptors()
    for one in found:
        with _visiting(one, reads=True) as visitor:
            top = _landing(source, _target(visitor, one, word, goal))
            visitor.begin("place", owner=owner)
            with _Counted(visitor.input, quiet=quiet) as stream, _heard(visitor):
                packer = Packer(stream.write, descriptors, owner=ids)
                packer.pack(source.handle, os.fsencode(top))
                packer.finish()
            warnings = visitor.answer()["warnings"]
        _warn([*packer.warnings, *warnings])
        _report(stream.count, f"{one.name if len(found) > 1 else word}:{goal}", quiet=quiet)
    return 0


def _from_input(found: list[Lent], word: str, goal: str, *, quiet: bool) -> int:
    """An archive as it comes, with the owners that it names."""
    if say.is_terminal(0):
        raise usage("there is no archive on standard input")
    with contextlib.ExitStack() as stack:
        visitors = [stack.enter_context(_visiting(one, reads=True)) for one in found]
        for one, visitor in zip(found, visitors, strict=True):
            target = _target(visitor, one, word, goal)
            try:
                finding.landing(None, target)
            except FilesError as error:
                raise UserError(f'destination "{word}:{goal}" {error}') from None
        for visitor in visitors:
            visitor.begin("place", owner=True)
        streams = [stack.enter_context(_Counted(visitor.input, quiet=quiet)) for visitor in visitors]
        while piece := sys.stdin.buffer.read(CHUNK):
            for visitor, stream in zip(visitors, streams, strict=True):
                with _heard(visitor, closes=False):
                    stream.write(piece)
        for visitor in visitors:
            visitor.close_input()
            _warn(visitor.answer()["warnings"])
    for one, stream in zip(found, streams, strict=True):
        _report(stream.count, f"{one.name if len(found) > 1 else word}:{goal}", quiet=quiet)
    return 0


def _target(visitor: Visitor, one: Lent, word: str, goal: str) -> Target:
    try:
        row = visitor.ask("target", path=goal)
    except FilesError as error:
        if error.number == errno.ENOENT:
            parent = os.path.dirname("/" + os.path.normpath(f"/{goal}").lstrip("/"))
            raise UserError(f"Could not find the file {parent} in container {one.name}") from None
        if error.number == errno.EINVAL:
            raise UserError(f'destination "{word}:{goal}" {error}') from None
        raise
    return Target(-1, bool(row["exists"]), bool(row["directory"]), str(row["name"]), bool(row["insists"]))


@contextlib.contextmanager
def _heard(visitor: Visitor, *, closes: bool = True) -> Iterator[None]:
    """When the worker takes no more, it has said why."""
    try:
        yield
    except BrokenPipeError:
        visitor.answer()
        raise
    if closes:
        visitor.close_input()


# --- both --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _visiting(one: Lent, *, reads: bool = False) -> Iterator[Visitor]:
    """The worker in a container; what it complains of in the user's words."""
    with Visitor(one.entry(), reads=reads) as visitor:
        try:
            yield visitor
        except FilesError as error:
            raise UserError(_said(error, one)) from None


def _said(error: FilesError, one: Lent) -> str:
    if error.number != errno.EROFS:
        return str(error)
    if one.view["readonly"]:
        return "container rootfs is marked read-only"
    return "mounted volume is marked read-only"


def _landing(source: Source, target: Target) -> str:
    try:
        return finding.landing(source, target).top
    except FilesError as error:
        raise UserError(str(error)) from None


def _absolute(path: str) -> str:
    """With the slash or dot at its end, which means something."""
    return path if path.startswith("/") else f"{os.getcwd()}/{path}"


class _Counted:
    """A pipe whose bytes are counted, and shown on a terminal as they go."""

    def __init__(self, fd: int, *, quiet: bool) -> None:
        from orchestrator.cli.images import Bytes

        self._fd = fd
        self._bytes = Bytes(quiet=quiet)
        self._tell: Callable[[int], None] = lambda _: None
        self.count = 0

    def __enter__(self) -> Self:
        self._tell = self._bytes.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._bytes.__exit__()

    def read(self, count: int) -> bytes:
        piece = os.read(self._fd, count)
        self.count += len(piece)
        self._tell(self.count)
        return piece

    def write(self, content: bytes) -> None:
        say.write(self._fd, content)
        self.count += len(content)
        self._tell(self.count)


def _warn(warnings: list[str]) -> None:
    for sentence in warnings[:20]:
        say.warning(sentence)


def _report(count: int, place: str, *, quiet: bool) -> None:
    if not quiet:
        say.err(say.printable(f"Successfully copied {columns.size(count)} to {place}\n"))
