"""Commands that bring images, name them and take them away: load, save, import, tag, rmi."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shlex
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from orchestrator.api import client
from orchestrator.cli import clock, columns, say
from orchestrator.cli.scope import Scope
from orchestrator.images.store.content import Store
from orchestrator.images.store.removal import ImageUser
from orchestrator.model.errors import ExitCode, PystackError, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.images.archives import saving


def load(
    scope: Scope,
    *,
    input: str | None,  # noqa: A002 - the option's name
    quiet: bool,
    platform: str | None,
) -> int:
    """Load the images of an archive: docker save or OCI layout, tar or tar.gz."""
    from orchestrator.images.archives import loading
    from orchestrator.images.registry import platforms

    wanted = platforms.parse(platform) if platform else None
    if input is None and say.is_terminal(0):
        raise UserError("there is no archive on standard input", exit_code=ExitCode.USAGE, hint="use -i FILE")
    with Opened(scope) as store:
        assert store is not None
        try:
            source = open(input, "rb") if input not in (None, "-") else sys.stdin.buffer  # noqa: SIM115
        except OSError as error:
            raise UserError(f"{input}: {error.strerror}", exit_code=ExitCode.FILE_NOT_FOUND) from None
        with source, Bytes(quiet=quiet) as progress, named(input):
            loaded = loading.load(store, source, platform=wanted, progress=progress)
    if not quiet:
        lines = [f"Loaded image: {name}\n" for image in loaded for name in image.names]
        lines += [f"Loaded image ID: {image.id}\n" for image in loaded if not image.names]
        say.out(say.printable("".join(lines)))
    return 0


def import_(
    scope: Scope, *, path: str, name: str | None, change: tuple[str, ...], message: str | None
) -> int:
    """Make an image of a directory, or of a tar file (- is standard input); print its id."""
    from orchestrator.images.archives import importing

    if path.startswith(("http://", "https://")):
        raise UserError(
            f"{path}: only files, directories and standard input are imported",
            exit_code=ExitCode.USAGE,
            hint=f"curl -fsSL {shlex.quote(path)} | pystack import - NAME",
        )
    created = clock.show(time.time_ns())
    with Opened(scope) as store, Bytes(quiet=False) as progress:
        assert store is not None
        if os.path.isdir(path):
            image = importing.import_directory(
                store,
                Path(path),
                name or "",
                changes=change,
                message=message or "",
                created=created,
                progress=progress,
            )
        else:
            try:
                source = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115
            except OSError as error:
                raise UserError(f"{path}: {error.strerror}", exit_code=ExitCode.FILE_NOT_FOUND) from None
            with source, named(path):
                image = importing.import_tar(
                    store,
                    source,
                    name or "",
                    changes=change,
                    message=message or "",
                    created=created,
                    progress=progress,
                )
    say.out(f"{image.id}\n")
    return 0


def save(scope: Scope, *, names: tuple[str, ...], output: str | None) -> int:
    """Write images into an archive."""
    from orchestrator.images.archives import saving

    if output is None and say.is_terminal(say.STDOUT):
        raise UserError(
            "cowardly refusing to save to a terminal",
            exit_code=ExitCode.USAGE,
            hint="use -o FILE, or redirect",
        )
    with Opened(scope, write=False) as store:
        if store is None:
            raise absent(scope, names[0])
        chosen = [one for name in names for one in _chosen(scope, store, name)]
        with Bytes(quiet=False) as progress:
            if output is None:
                with _standard_output():
                    saving.save(store, saving.merged(chosen), say.STDOUT, progress)
            else:
                with Target(output) as out:
                    saving.save(store, saving.merged(chosen), out, progress)
    return 0


@contextlib.contextmanager
def _standard_output() -> Iterator[None]:
    """What goes wrong there is not the store's fault."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename:
            raise
        raise UserError(f"standard output: {(error.strerror or str(error)).lower()}") from None


def _chosen(scope: Scope, store: Store, name: str) -> list[saving.Chosen]:
    from orchestrator.images.archives import saving

    try:
        return saving.choose(store, name)
    except UserError as error:
        raise explained(scope, error, name) from None


class Target:
    """A file that is made whole or not at all; a device or pipe that stands there is written into."""

    def __init__(self, path: str) -> None:
        self._path = os.path.realpath(path)
        self._shown = path
        self._directory = os.path.dirname(self._path)
        self._temporary = ""
        self._fd = -1

    def __enter__(self) -> int:
        try:
            self._fd = self._open()
        except OSError as error:
            raise self._wrong(error) from None
        return self._fd

    def _open(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            kind = os.stat(self._path).st_mode
            if stat.S_ISDIR(kind):
                raise IsADirectoryError(errno.EISDIR, "is a directory")
            if not stat.S_ISREG(kind):
                return os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            # Without a name until it is whole: not even SIGKILL leaves half an archive behind.
            return os.open(self._directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
        self._temporary = self._fresh()
        return os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def _fresh(self) -> str:
        return f"{self._directory}/.{os.path.basename(self._path)[:200]}.{secrets.token_hex(4)}"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if kind is None and stat.S_ISREG(os.fstat(self._fd).st_mode):
                self._place()
            elif self._temporary:
                os.unlink(self._temporary)
        except OSError as failed:
            raise self._wrong(failed) from None
        finally:
            os.close(self._fd)
        if isinstance(error, OSError) and not error.filename:
            raise self._wrong(error) from None

    def _place(self) -> None:
        if not self._temporary:
            self._temporary = self._fresh()
            # A descriptor makes Python call linkat(2), which alone follows the link of /proc.
            own = f"/proc/self/fd/{self._fd}"
            os.link(own, self._temporary, src_dir_fd=self._fd, follow_symlinks=True)
        os.replace(self._temporary, self._path)

    def _wrong(self, error: OSError) -> UserError:
        code = ExitCode.FILE_NOT_FOUND if isinstance(error, FileNotFoundError) else ExitCode.FAILED
        return UserError(f"{self._shown}: {(error.strerror or str(error)).lower()}", exit_code=code)


def tag(scope: Scope, *, source: str, target: str) -> int:
    """Give an image another name."""
    with Opened(scope) as store:
        assert store is not None
        try:
            store.tag(source, target)
        except UserError as error:
            raise explained(scope, error, source) from None
    return 0


def absent(scope: Scope, name: str) -> UserError:
    """There is no image of that name; what else could be meant."""
    from orchestrator.images import reference as references

    with contextlib.suppress(UserError):
        name = references.familiar(name)
    return explained(scope, UserError(f"No such image: {name}", exit_code=ExitCode.IMAGE), name)


def explained(
    scope: Scope, error: UserError, name: str, advice: str = "`pystack commit {} NAME` makes an image of it"
) -> UserError:
    """The same error, with advice where a container is named in place of an image."""
    if not error.message.startswith("No such image") or error.hint:
        return error
    told = client.ask(scope.paths, {"verb": "inspect", "names": [name]}) or {}
    found = (told.get("containers") or {}).get(name)
    if isinstance(found, dict):
        is_a = f"{name} is a container, made of image {(found.get('Config') or {}).get('Image')}"
        hint = f"{is_a}; {advice.format(name)}"
        return UserError(error.message, exit_code=error.exit_code, hint=hint)
    return error


def rmi(scope: Scope, *, names: tuple[str, ...], force: bool, no_prune: bool) -> int:
    """Remove images, or names of images. Every name is tried; the first failure gives the exit code.

    (`no_prune` changes nothing: no image is kept only because another was made from it.)
    """
    del no_prune
    users = client.ask(scope.paths, {"verb": "image_users"}) or {}
    code = 0
    with Opened(scope) as store:
        assert store is not None
        for name in names:
            try:
                removal = store.remove(name, force=force, in_use=lambda image: image_users(users, image))
            except UserError as error:
                from orchestrator.cli import failure

                wrong = failure.report(explained(scope, error, name, "`pystack rm` removes containers"))
                if not (force and error.message.startswith("No such image")):
                    code = code or wrong
                continue
            say.out(say.printable("".join(f"Untagged: {one}\n" for one in removal.untagged)))
            say.out("".join(f"Deleted: {one}\n" for one in removal.deleted))
    return code


def image_users(users: dict[str, Iterable[Any]], image: str) -> list[ImageUser]:
    """The containers made from an image. A bare name is taken for a running one, to be careful. Pure."""
    return [
        ImageUser(container=str(user["container"]), running=bool(user.get("running", True)))
        if isinstance(user, dict)
        else ImageUser(container=str(user), running=True)
        for user in users.get(image, ())
    ]


class Opened:
    """The image store of a scope; failures of its directory in the user's words. For reading, None when
    there is no store yet.
    """

    def __init__(self, scope: Scope, *, write: bool = True) -> None:
        self._root = scope.paths.images
        self._data = scope.paths.data_dir
        self._write = write

    def __enter__(self) -> Store | None:
        try:
            if self._write:
                become_root()
                os.makedirs(self._data, mode=0o700, exist_ok=True)
            elif not self._root.is_dir():
                return None
        except PermissionError:
            raise client.needs_root(str(self._root)) from None
        return Store(self._root)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, PermissionError) and str(error.filename or "").startswith(str(self._root)):
            raise client.needs_root(str(error.filename)) from None
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK and not error.filename:
            raise UserError(f"{self._root}: {error.strerror}") from None


def become_root() -> None:
    """Layers have owners: an ordinary user has them only in a user namespace, as the supervisor's is."""
    if os.geteuid() == 0:
        return
    from orchestrator.kernel import userns

    try:
        userns.enter()
    except userns.RefusedError as error:
        raise UserError(str(error), exit_code=ExitCode.NOT_PERMITTED, hint=userns.HINT) from error


_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@contextlib.contextmanager
def named(path: str | None) -> Iterator[None]:
    """Failures of an archive say which one it was."""
    try:
        yield
    except PystackError as error:
        if path in (None, "-") or not error.message.startswith("broken image"):
            raise
        raise PystackError(f"{path}: {error.message}", exit_code=error.exit_code, hint=error.hint) from None


class Bytes:
    """How many bytes have been read, on one line of a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._on = not quiet and say.is_terminal(say.STDERR)
        self._last = 0.0
        self._shown = False

    def __enter__(self) -> Callable[[int], None]:
        return self._tell

    def __exit__(self, *_: object) -> None:
        if self._shown:
            say.err("\r\x1b[2K")

    def _tell(self, count: int) -> None:
        if self._on and time.monotonic() - self._last >= 0.1:
            self._last = time.monotonic()
            self._shown = True
            say.err(f"\r\x1b[2K{columns.size(count)}")
