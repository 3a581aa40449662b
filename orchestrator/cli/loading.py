"""Which files make up the stack, and loading them: the user's own environment, folder and files.

Sources: compose.md 1.1 (discovery), 4.B (.env), 4.I (profiles); the rules are those of docker compose v2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from orchestrator.cli import peek, say
from orchestrator.cli.scope import Scope
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.stackfile import dotenv
from orchestrator.stackfile.files import why
from orchestrator.stackfile.load import Loaded, Source, load as load_sources
from orchestrator.stackfile.problem import Report

_TRUE = ("1", "t", "true")


class UserFiles:
    """The user's files, for the loader."""

    @property
    def home(self) -> str:
        return os.path.expanduser("~")

    def read(self, path: str) -> str:
        if path == "-":
            return sys.stdin.buffer.read().decode("utf-8")
        with open(path, encoding="utf-8") as file:
            return file.read()

    def exists(self, path: str) -> bool:
        return os.path.exists(path)


def load(scope: Scope, services: tuple[str, ...] = (), *, strict: bool = True) -> Loaded:
    """The stack of a scope; warnings are printed. Raises UserError."""
    environ = dict(os.environ)
    here = os.getcwd()
    local = [] if _named_env_files(scope, environ) else _existing(f"{here}/.env", environ)
    variables = {**_values(local, environ), **environ}
    files = find_files(scope, variables, here)
    directory = _directory(scope, files, here)
    name = scope.said_name() or variables.get("COMPOSE_PROJECT_NAME") or None
    sources = [Source(path=path, text=_read(path)) for path in files]
    dotenvs = _dotenvs(scope, environ, directory, local)
    below = _values(dotenvs, environ)
    loaded = load_sources(
        sources,
        files=UserFiles(),
        environment=environ,
        working_dir=directory,
        name=name or below.get("COMPOSE_PROJECT_NAME") or None,
        profiles=_profiles(scope, {**below, **environ}),
        services=services,
        dotenv=dotenvs,
        strict=strict,
    )
    for warned in loaded.warnings:
        say.err(say.printable(str(warned)) + "\n")
    return loaded


def find_files(scope: Scope, variables: Mapping[str, str], here: str) -> tuple[str, ...]:
    """-f, else COMPOSE_FILE, else the first candidate in the folder or one above it, with its override.

    Raises UserError when there is none.
    """
    if scope.file:
        return scope.file
    if listed := variables.get("COMPOSE_FILE"):
        separator = variables.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        return tuple(part for part in listed.split(separator) if part)
    directory = here
    if scope.project_directory is not None:
        directory = os.path.abspath(scope.project_directory)
    while True:
        found = [name for name in peek.CANDIDATES if os.path.exists(f"{directory}/{name}")]
        if found:
            break
        above = os.path.dirname(directory)
        if above == directory or scope.project_directory is not None:
            raise UserError(
                "no stack file here or in a folder above",
                exit_code=ExitCode.FILE_NOT_FOUND,
                hint=f"name one with -f, or create {peek.CANDIDATES[0]}",
            )
        directory = above
    if len(found) > 1:
        say.warning(f"several stack files in {directory}: {', '.join(found)}; using {found[0]}")
    overrides = [name for name in peek.OVERRIDES if os.path.exists(f"{directory}/{name}")]
    shown = "" if directory == here else f"{directory}/"
    return tuple(f"{shown}{name}" for name in (found[0], *overrides[:1]))


def _directory(scope: Scope, files: tuple[str, ...], here: str) -> str:
    if scope.project_directory is not None:
        return os.path.abspath(scope.project_directory)
    return here if files[0] == "-" else os.path.dirname(os.path.abspath(files[0]))


def _read(path: str) -> str:
    try:
        return UserFiles().read(path)
    except (OSError, UnicodeError) as error:
        raise UserError(f"{path}: {why(error)}", exit_code=ExitCode.FILE_NOT_FOUND) from None


def _named_env_files(scope: Scope, environ: Mapping[str, str]) -> tuple[str, ...]:
    """--env-file, else COMPOSE_ENV_FILES (compose.md B2)."""
    listed = environ.get("COMPOSE_ENV_FILES", "")
    return scope.env_file or tuple(part.strip() for part in listed.split(",") if part.strip())


def _dotenvs(scope: Scope, environ: Mapping[str, str], directory: str, local: list[Source]) -> list[Source]:
    """The variable files in order, later wins: those named, else the project directory's .env and above
    it the one of the current folder when that chose the stack file (compose.md B3).
    """
    if named := _named_env_files(scope, environ):
        return [Source(path=path, text=_read(path)) for path in named]
    own = _existing(f"{directory}/.env", environ)
    if local and "COMPOSE_FILE" in _values(local, environ) and not scope.file:
        return local if own == local else own + local
    return own


def _existing(path: str, environ: Mapping[str, str]) -> list[Source]:
    if environ.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in _TRUE or not os.path.isfile(path):
        return []
    return [Source(path=os.path.relpath(path), text=_read(path))]


def _values(sources: list[Source], environ: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    report = Report()
    for source in sources:
        values.update(dotenv.parse(source, lambda key: environ.get(key, values.get(key)), report))
    report.settle()
    return values


def _profiles(scope: Scope, variables: Mapping[str, str]) -> tuple[str, ...]:
    """--profile replaces COMPOSE_PROFILES (compose.md I2)."""
    listed = variables.get("COMPOSE_PROFILES", "")
    return scope.profile or tuple(part.strip() for part in listed.split(",") if part.strip())
