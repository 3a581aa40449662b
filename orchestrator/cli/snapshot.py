"""What a container has become: diff, commit, export."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.cli import clock, lent, say
from orchestrator.cli.change import usage
from orchestrator.cli.scope import Scope
from orchestrator.images.files.packing import FilesError
from orchestrator.images.files.visiting import Visitor
from orchestrator.model.errors import ExitCode, UserError

CHUNK = 1 << 20


def diff(scope: Scope, *, container: str, index: int | None) -> int:
    """List what a container has added, changed and deleted in its root."""
    from orchestrator.cli.images import become_root
    from orchestrator.images.files import delta

    with lent.borrow(scope, container, index=index) as (one,):
        become_root()
        os.close(lent.descriptors())
        changes = [
            change
            for piece in one.view["root"]
            for change in delta.compare(
                piece["upper"], piece["lower"], one.view["targets"], os.fsencode(piece["target"].strip("/"))
            ).changes
        ]
    text = "".join(f"{change.kind} {os.fsdecode(change.path)}\n" for change in changes)
    say.out(say.printable(text) if say.is_terminal(say.STDOUT) else text)
    return 0


def commit(
    scope: Scope,
    *,
    container: str,
    name: str | None,
    author: str | None,
    message: str | None,
    change: tuple[str, ...],
    pause: bool,
    index: int | None,
) -> int:
    """Make an image of what a container has become; print its id."""
    from orchestrator.cli.images import Opened
    from orchestrator.images.files import committing, delta
    from orchestrator.images.files.committing import Words
    from orchestrator.model import codec
    from orchestrator.model.stack import Service

    words = Words(
        name=name or "",
        author=author or "",
        message=message or "",
        changes=change,
        created=clock.show(time.time_ns()),
    )
    committing.check(words)
    with lent.borrow(scope, container, index=index, pause=pause) as (one,):
        service = codec.decode(Service, one.definition)
        if not one.image:
            # All of its root: only from inside can that be seen as one.
            with Visitor(one.entry(bare=True)) as visitor, Opened(scope) as store:
                assert store is not None
                image = committing.commit(store, "", service, words, lambda put: _pour(visitor, put))
        else:
            with Opened(scope) as store:
                assert store is not None
                descriptors, piece = lent.descriptors(), one.view["root"][0]
                made = delta.compare(piece["upper"], piece["lower"], one.view["targets"]).made

                def pack(put: Callable[[bytes], object]) -> None:
                    for sentence in committing.pack_changes(piece["upper"], made, descriptors, put):
                        say.warning(sentence)

                image = committing.commit(store, one.image, service, words, pack)
    say.out(f"{image.id}\n")
    return 0


def export(scope: Scope, *, container: str, output: str | None, index: int | None) -> int:
    """Write the root of a container as a tar archive, without what is mounted into it."""
    if output is None and say.is_terminal(say.STDOUT):
        raise usage("cowardly refusing to save to a terminal", "use -o FILE, or redirect")
    if output is not None and not os.path.isdir(os.path.dirname(os.path.abspath(output))):
        raise UserError(
            f'invalid output path: directory "{os.path.dirname(output)}" does not exist',
            exit_code=ExitCode.FILE_NOT_FOUND,
        )
    if output is not None and os.path.isdir(output):
        raise UserError(f'invalid output path: "{output}" is a directory')
    with (
        lent.borrow(scope, container, index=index) as (one,),
        Visitor(one.entry(bare=True)) as visitor,
    ):
        if output is None:
            _pour(visitor, lambda piece: say.write(say.STDOUT, piece))
        else:
            _write(visitor, Path(output))
    return 0


def _write(visitor: Visitor, path: Path) -> None:
    """The file is there when it is whole; a device or pipe is written to as it is."""
    direct = path.exists() and not path.is_file()
    place = path if direct else path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with open(place, "wb" if direct else "xb", buffering=0) as file:
            _pour(visitor, lambda piece: say.write(file.fileno(), piece))
        if not direct:
            os.replace(place, path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    finally:
        if not direct:
            place.unlink(missing_ok=True)


def _pour(visitor: Visitor, put: Callable[[bytes], object]) -> None:
    """The whole root as a tar."""
    try:
        visitor.ask("source", path="/", follow=False)
        visitor.begin("pack", top="")
        while piece := os.read(visitor.output, CHUNK):
            put(piece)
        for sentence in visitor.answer()["warnings"]:
            say.warning(sentence)
    except FilesError as error:
        raise UserError(str(error)) from None
