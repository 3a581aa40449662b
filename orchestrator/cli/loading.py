"""Loading the stack of a scope: the user's own environment, folder and files."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from orchestrator.cli import say
from orchestrator.stackfile.discover import Located, locate
from orchestrator.stackfile.load import Loaded
from orchestrator.stackfile.load import load as load_located

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
        with open(path, "rb") as file:
            data = file.read(READ_LIMIT + 1)
        if len(data) > READ_LIMIT:
            raise OSError(f"the file is larger than {READ_LIMIT >> 20} MiB")
        return data.decode("utf-8")

    def exists(self, path: str) -> bool:
        return os.path.exists(path)


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


def load(files: UserFiles, found: Located, services: tuple[str, ...], *, strict: bool, warn: bool) -> Loaded:
    """The stack. `services` and `strict` as for the loader; warnings only if `warn`. Raises UserError."""
    loaded = load_located(
        found.sources,
        files=files,
        environment=os.environ,
        working_dir=found.working_dir,
        name=found.name,
        profiles=found.profiles,
        services=services,
        dotenv=found.dotenv,
        strict=strict,
    )
    for warned in (*found.warnings, *loaded.warnings) if warn else ():
        say.err(say.printable(str(warned)) + "\n")
    # `ls` shows them to somebody who stands elsewhere.
    paths = tuple(path if path == "-" else os.path.abspath(path) for path in loaded.stack.files)
    return replace(loaded, stack=replace(loaded.stack, files=paths))
