"""Loading the stack of a scope: the user's own environment, folder and files."""

from __future__ import annotations

import os
import sys

from orchestrator.cli import say
from orchestrator.model.frozen import replace
from orchestrator.stackfile.discover import Located, locate
from orchestrator.stackfile.load import Given, Loaded, begin
from orchestrator.stackfile.load import load as load_located
from orchestrator.stackfile.switches import Switches
from orchestrator.stackfile.tree import Map, Plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.stackfile.trail import Trail

READ_LIMIT = 64 * 1024 * 1024
"""Bytes of a file that a stack is made of; more is a mistake, such as a device."""


class UserFiles:
    """The user's files. Standard input can be read once and is kept."""

    def __init__(self) -> None:
        self._stdin: str | None = None

    @property
    def home(self) -> str:
        return os.path.expanduser("~")

    def read(self, path: str) -> str:
        if path == "-":
            if self._stdin is None:
                self._stdin = sys.stdin.buffer.read(READ_LIMIT).decode("utf-8")
            return self._stdin
        data = _bytes(path)
        if len(data) > READ_LIMIT:
            raise OSError(f"the file is larger than {READ_LIMIT >> 20} MiB")
        return data.decode("utf-8")

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def digest(self, path: str) -> str:
        from orchestrator.kernel.digest import of_file

        return of_file(path)


def _bytes(path: str) -> bytes:
    """What a file holds, up to one byte above the limit. Raises OSError.

    A pipe is waited for only while somebody has it open for writing, as in -f <(...): a stack file can name
    one that nobody ever writes to, and opening it would wait for ever (fifo(7)).
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.set_blocking(number, True)
        with open(number, "rb", closefd=False) as file:
            return file.read(READ_LIMIT + 1)
    finally:
        os.close(number)


def located(
    files: UserFiles,
    *,
    paths: tuple[str, ...],
    project_directory: str | None,
    env_files: tuple[str, ...],
    name: str | None,
    profiles: tuple[str, ...],
) -> Located:
    """Which files make up the stack, and what the environment says about it. Raises UserError."""
    return locate(
        files,
        cwd=os.getcwd(),
        environment=os.environ,
        paths=paths,
        project_directory=project_directory,
        env_files=env_files,
        name=name,
        profiles=profiles,
    )


def load(
    files: UserFiles,
    found: Located,
    services: tuple[str, ...],
    *,
    strict: bool,
    warn: bool,
    trail: Trail | None = None,
) -> Loaded:
    """The stack. `services`, `strict` and `trail` as for the loader; warnings only if `warn`.

    Raises UserError.
    """
    loaded = load_located(found.sources, _given(files, found, services, strict=strict), trail)
    for warned in (*found.warnings, *loaded.warnings) if warn else ():
        say.warning(warned.message, warned.place)
    # `ls` shows them to somebody who stands elsewhere.
    paths = tuple(path if path == "-" else os.path.abspath(path) for path in loaded.stack.files)
    return replace(loaded, stack=replace(loaded.stack, files=paths))


def outline(
    files: UserFiles, found: Located, services: tuple[str, ...], switches: Switches
) -> dict[str, Plain]:
    """The canonical form less some steps of loading. Raises UserError."""
    from orchestrator.stackfile.outline import outline as outline_located

    return outline_located(found.sources, _given(files, found, services), switches)


def literal(files: UserFiles, found: Located) -> Map:
    """All files as one tree, variables as they are written. Raises UserError."""
    return begin(found.sources, _given(files, found), switches=Switches(interpolate=False)).tree


def _given(files: UserFiles, found: Located, services: tuple[str, ...] = (), *, strict: bool = True) -> Given:
    return Given(
        files=files,
        environment=os.environ,
        working_dir=found.working_dir,
        name=found.name,
        profiles=found.profiles,
        services=services,
        dotenv=found.dotenv,
        strict=strict,
        cwd=os.getcwd(),
    )
