"""What the options before the command select: the state root, the stack's name, the loaded stack."""

from __future__ import annotations

import os

from orchestrator.api.paths import Paths
from orchestrator.cli import peek

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.cli.loading import UserFiles
    from orchestrator.stackfile.discover import Located
    from orchestrator.stackfile.load import Loaded


class Scope:
    """The options that all commands share. Not a dataclass: importing those would cost 10 ms."""

    __slots__ = (
        "ansi",
        "env_file",
        "file",
        "paths",
        "profile",
        "progress",
        "project_directory",
        "project_name",
    )

    def __init__(
        self,
        *,
        file: tuple[str, ...] = (),
        project_name: str | None = None,
        project_directory: str | None = None,
        profile: tuple[str, ...] = (),
        env_file: tuple[str, ...] = (),
        ansi: str | None = None,
        progress: str | None = None,
        root: str | None = None,
    ) -> None:
        self.file = file
        self.project_name = project_name
        self.project_directory = project_directory
        self.profile = profile
        self.env_file = env_file
        self.ansi = ansi
        self.progress = progress
        self.paths = Paths.find(root, os.environ)

    def beside(self, file: str, *, name: str) -> Scope:
        """The same for another file of the same stack."""
        other = Scope(
            file=(file,),
            project_name=name,
            project_directory=self.project_directory,
            profile=self.profile,
            env_file=self.env_file,
            ansi=self.ansi,
            progress=self.progress,
        )
        other.paths = self.paths
        return other

    def name(self) -> str:
        """The stack's name, by a look at the file's text when that is enough. Raises PystackError."""
        name = self.said_name() or self._peeked_name()
        return name or self.load(strict=False, warn=False).stack.name

    def said_name(self) -> str | None:
        """The name that -p or COMPOSE_PROJECT_NAME give (compose.md H1, H3)."""
        for source, name in (
            ("-p", self.project_name),
            ("COMPOSE_PROJECT_NAME", os.environ.get("COMPOSE_PROJECT_NAME")),
        ):
            if name:
                if not peek.allowed(name):
                    raise wrong_name(source, name)
                return name
        return None

    def _peeked_name(self) -> str | None:
        """None when only the loader can tell."""
        if os.environ.get("COMPOSE_FILE") and not self.file:
            return None
        files = self.file or discovered(os.getcwd(), alone=self.project_directory is None)
        if not files or "-" in files:
            return None
        directory = os.path.abspath(self.project_directory or os.path.dirname(os.path.abspath(files[0])))
        dotenvs = [*self.env_file, f"{directory}/.env", ".env"]
        if os.environ.get("COMPOSE_ENV_FILES") or any(map(_sets_compose, dotenvs)):
            return None
        name: object = None
        for file in files:
            found = peek.written_name(_text(file))
            if found is peek.UNSURE:
                return None
            name = found or name
        return peek.normalise(str(name or os.path.basename(directory))) or None

    def load(self, services: Iterable[str] = (), *, strict: bool = True, warn: bool = True) -> Loaded:
        """The stack, resolved in the user's own environment; warnings only if `warn`. Raises UserError."""
        from orchestrator.cli import loading

        files = loading.UserFiles()
        return loading.load(files, self.located(files), tuple(services), strict=strict, warn=warn)

    def located(self, files: UserFiles) -> Located:
        """Which files make up the stack, and what the environment says about it. Raises UserError."""
        from orchestrator.cli import loading

        return loading.located(
            files,
            paths=self.file,
            project_directory=self.project_directory,
            env_files=self.env_file,
            name=self.said_name(),
            profiles=self.profile,
        )


def discovered(directory: str, *, alone: bool = True) -> tuple[str, ...]:
    """The stack file of a directory or the nearest one above it, when it stands `alone`: () when there
    is none, or an override file beside it.
    """
    while alone:
        try:
            names = set(os.listdir(directory))
        except OSError:
            names = set()
        for name in peek.CANDIDATES:
            if name in names:
                return () if names.intersection(peek.OVERRIDES) else (f"{directory}/{name}",)
        above = os.path.dirname(directory)
        if above == directory:
            break
        directory = above
    return ()


def _text(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(peek.SIZE_LIMIT + 1) or b""
    except OSError:
        # The loader will say what is wrong with it.
        return b"?"


def _sets_compose(path: str) -> bool:
    """Whether a .env may change which stack is meant."""
    try:
        with open(path, "rb", buffering=0) as file:
            return b"COMPOSE_" in (file.read(peek.SIZE_LIMIT) or b"")
    except FileNotFoundError:
        return False
    except OSError:
        return True


def wrong_name(source: str, name: str) -> Exception:
    from orchestrator.model.errors import ExitCode, UserError

    if len(name) > peek.NAME_LIMIT:
        name = f"{name[:20]}..."
    return UserError(
        f"{source}: {name!r} can't name a stack",
        exit_code=ExitCode.INVALID_STACK,
        hint=f"at most {peek.NAME_LIMIT} small letters, digits, - and _, the first a letter or digit",
    )
