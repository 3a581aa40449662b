"""Which files make up the stack, and what the command line and the environment say about them.

Compose's rules, with our own file names first: stack.yml, stack.yaml, then the names of Compose.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from orchestrator.model.errors import ExitCode
from orchestrator.model.frozen import dataclass
from orchestrator.stackfile import dotenv, problem
from orchestrator.stackfile.files import Files, read_text
from orchestrator.stackfile.problem import Report, Warned, reject
from orchestrator.stackfile.read import Source

NAMES = (
    "stack.yml",
    "stack.yaml",
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
)
OVERRIDES = (
    "stack.override.yml",
    "stack.override.yaml",
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
_MAX_PARENTS = 64
STDIN = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Everything `load` wants to know that is not said in the files themselves."""

    sources: tuple[Source, ...]
    working_dir: str
    """The project directory, absolute."""
    dotenv: Mapping[str, str]
    name: str | None
    profiles: tuple[str, ...]
    warnings: tuple[Warned, ...]


def discover(files: Files, directory: str) -> tuple[str, ...]:
    """Absolute paths of the stack file in `directory` or the nearest parent that has one, and of the override
    file beside it. Empty when there is none."""
    return _discover(files, directory, Report())


def _discover(files: Files, directory: str, report: Report) -> tuple[str, ...]:
    for _ in range(_MAX_PARENTS):
        found = _present(files, directory, NAMES, report)
        if found:
            override = _present(files, directory, OVERRIDES, report)
            return (found, override) if override else (found,)
        parent = posixpath.dirname(directory)
        if parent == directory:
            break
        directory = parent
    return ()


def _present(files: Files, directory: str, names: Sequence[str], report: Report) -> str:
    found = [path for name in names if files.exists(path := posixpath.join(directory, name))]
    if len(found) > 1:
        others = ", ".join(posixpath.basename(path) for path in found[1:])
        report.warn(None, f"{found[0]} is used; there is also {others}")
    return found[0] if found else ""


def locate(
    files: Files,
    *,
    cwd: str,
    environment: Mapping[str, str],
    paths: Sequence[str] = (),
    project_directory: str | None = None,
    env_files: Sequence[str] = (),
    name: str | None = None,
    profiles: Sequence[str] = (),
) -> Located:
    """From the command line (-f, --project-directory, --env-file, -p, --profile) and the environment.

    COMPOSE_FILE, COMPOSE_PATH_SEPARATOR, COMPOSE_PROJECT_NAME, COMPOSE_PROFILES may also stand in .env.
    Raises StackfileError when a file is missing or can't be read.
    """
    report = Report()
    base = _absolute(project_directory, cwd) if project_directory else ""
    near: dict[str, str] = {}
    if not paths and not environment.get("COMPOSE_FILE") and not env_files:
        near = _default_env(files, base or cwd, environment, report)
    variables = {**near, **environment}
    chosen = list(paths) or _listed(variables)
    if not chosen:
        chosen = _shown(_discover(files, base or cwd, report), cwd)
    if not chosen:
        raise reject(
            f"there is no stack file in {base or cwd} or above",
            exit_code=ExitCode.FILE_NOT_FOUND,
            hint=f"name one with -f FILE; looked for {', '.join(NAMES)}",
        )
    working_dir = base or _folder(chosen[0], cwd)
    settings = _settings(files, working_dir, cwd, env_files, environment, near, report)
    report.settle()
    sources = tuple(_source(files, path, cwd) for path in chosen)
    merged = {**settings, **environment}
    return Located(
        sources=sources,
        working_dir=working_dir,
        dotenv=settings,
        name=name or merged.get("COMPOSE_PROJECT_NAME") or None,
        profiles=tuple(profiles) or _split(merged.get("COMPOSE_PROFILES", "")),
        warnings=tuple(report.warnings),
    )


def _listed(variables: Mapping[str, str]) -> list[str]:
    separator = variables.get("COMPOSE_PATH_SEPARATOR") or ":"
    return [path for path in variables.get("COMPOSE_FILE", "").split(separator) if path]


def _split(text: str) -> tuple[str, ...]:
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def _absolute(path: str, cwd: str) -> str:
    return posixpath.normpath(posixpath.join(cwd, path))


def _folder(path: str, cwd: str) -> str:
    return cwd if path == STDIN else posixpath.dirname(_absolute(path, cwd))


def _shown(paths: Sequence[str], cwd: str) -> list[str]:
    """The short form of what lies in the current directory."""
    return [posixpath.basename(path) if posixpath.dirname(path) == cwd else path for path in paths]


def _source(files: Files, path: str, cwd: str) -> Source:
    text = read_text(files, path if path == STDIN else _absolute(path, cwd)).text
    return Source(path=path, text=text)


def _settings(
    files: Files,
    working_dir: str,
    cwd: str,
    env_files: Sequence[str],
    environment: Mapping[str, str],
    near: Mapping[str, str],
    report: Report,
) -> dict[str, str]:
    """The variables of --env-file, else of .env in the project directory below those of the current one."""
    named = [*env_files] or list(_split(environment.get("COMPOSE_ENV_FILES", "")))
    if not named:
        return {**_default_env(files, working_dir, environment, report), **near}
    found: dict[str, str] = {}
    for path in named:
        source = read_text(files, _absolute(path, cwd))
        shown = Source(path=path, text=source.text)
        found.update(dotenv.parse(shown, lambda key: environment.get(key, found.get(key)), report))
    return found


def _is_off(disable: str) -> bool:
    """Go's strconv.ParseBool, as docker compose reads this variable. Raises StackfileError."""
    if disable in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if disable in ("", "0", "f", "F", "FALSE", "false", "False"):
        return False
    raise reject(f"COMPOSE_DISABLE_ENV_FILE is {disable!r}", code=problem.WRONG_VALUE, hint="1 or 0")


def _default_env(
    files: Files, directory: str, environment: Mapping[str, str], report: Report
) -> dict[str, str]:
    path = posixpath.join(directory, ".env")
    if _is_off(environment.get("COMPOSE_DISABLE_ENV_FILE", "")) or not files.exists(path):
        return {}
    return dotenv.parse(read_text(files, path), environment.get, report)


__all__ = ["NAMES", "OVERRIDES", "Located", "discover", "locate"]
