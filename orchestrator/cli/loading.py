"""Loading the stack of a scope: the user's own environment, folder and files."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from orchestrator.cli import say
from orchestrator.cli.scope import Scope
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


def load(scope: Scope, services: tuple[str, ...] = (), *, strict: bool = True) -> Loaded:
    """The stack of a scope; warnings are printed. `strict` as for the loader. Raises UserError."""
    files = UserFiles()
    located = found(scope, files)
    loaded = load_located(
        located.sources,
        files=files,
        environment=os.environ,
        working_dir=located.working_dir,
        name=located.name,
        profiles=located.profiles,
        services=services,
        dotenv=located.dotenv,
        strict=strict,
    )
    for warned in (*located.warnings, *loaded.warnings):
        say.err(say.printable(str(warned)) + "\n")
    # `ls` shows them to somebody who stands elsewhere.
    paths = tuple(path if path == "-" else os.path.abspath(path) for path in loaded.stack.files)
    return replace(loaded, stack=replace(loaded.stack, files=paths))


def found(scope: Scope, files: UserFiles) -> Located:
    """Which files make up the stack, and what the environment says about it. Raises UserError."""
    return locate(
        files,
        cwd=os.getcwd(),
        environment=os.environ,
        paths=scope.file,
        project_directory=scope.project_directory,
        env_files=scope.env_file,
        name=scope.said_name(),
        profiles=scope.profile,
    )
