"""Commands that speak to a registry: push, login, logout, search."""

from __future__ import annotations

import functools
import os
import sys
import time

from orchestrator.cli import columns, progress, say, shape
from orchestrator.cli.images import Opened
from orchestrator.images.reference import familiar_repository, parse
from orchestrator.images.registry import login as logins
from orchestrator.images.registry.blame import DeniedError
from orchestrator.images.registry.credentials import Credential
from orchestrator.model.errors import ExitCode, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self, TypeVar

    from orchestrator.cli.scope import Scope
    from orchestrator.images.registry.search import Hit
    from orchestrator.images.transfer.push import Layer, Pushed

    T = TypeVar("T")

_PASSWORD_LIMIT = 64 << 10
_FRAME = 0.1
_FINAL = ("pushed", "exists", "mounted")
_DESCRIPTION = 45
HEADS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
}
ATTACHED_HEADS = {"Kind": "KIND", "Type": "TYPE", "Reference": "REFERENCE"}
TAG_HEADS = {"Name": "NAME", "Tag": "TAG"}


# --- push -----------------------------------------------------------------------------------------


def push(scope: Scope, *, names: tuple[str, ...], all_tags: bool, quiet: bool) -> int:
    """Bring images, or all tags of repositories, to their registries. All are found before one is sent."""
    from orchestrator.images.transfer import push as pushing

    quiet = quiet or scope.progress == "quiet"
    live = say.is_terminal(say.STDOUT) and scope.progress not in ("plain", "json")
    with Opened(scope) as store:
        assert store is not None
        for target, images in [pushing.chosen(store, name, all_tags=all_tags) for name in names]:
            if not quiet:
                say.out(f"The push refers to repository [{target.repository}]\n")
            with Board(live=live, quiet=quiet) as board:
                work = functools.partial(
                    pushing.push, store, target, images, os.environ, board.take, warn=board.warn
                )
                done = run(work)
            for one in done:
                told = f"{one.tag}: digest: {one.digest} size: {one.size}"
                say.out(f"{target.repository}:{one.tag}\n" if quiet else f"{told}\n")
    return 0


class Board:
    """One line a layer: a live table on a terminal, else a line when its fate is known."""

    def __init__(self, *, live: bool, quiet: bool) -> None:
        self._live = live and not quiet
        self._quiet = quiet
        self._layers: dict[str, Layer] = {}
        self._painted = 0
        self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live and self._layers:
            self._paint(height=len(self._layers))
            self._painted = 0

    def take(self, event: Layer | Pushed) -> None:
        """Show what has become of a layer."""
        if hasattr(event, "tag"):
            return
        if event.state == "waiting":
            # By now every layer has the digest that it goes by.
            self._layers = {key: one for key, one in self._layers.items() if one.state != "compressing"}
        self._layers[event.digest] = event
        final = event.state in _FINAL
        if self._live:
            if final or time.monotonic() - self._last >= _FRAME:
                self._paint()
        elif final and not self._quiet:
            say.out(f"{line(event)}\n")

    def warn(self, message: str) -> None:
        """Above the table."""
        if self._painted:
            say.out(progress.repaint(self._painted, []))
            self._painted = 0
        say.warning(message)

    def _paint(self, *, height: int | None = None) -> None:
        width, rows = _size()
        lines = fitting(list(self._layers.values()), rows - 1 if height is None else height)
        say.out(progress.repaint(self._painted, [columns.shorten(one, width - 1) for one in lines]))
        self._painted, self._last = len(lines), time.monotonic()


def fitting(layers: list[Layer], height: int) -> list[str]:
    """A line a layer; where there is no room, those on their way, and how many there are of all. Pure."""
    if len(layers) <= height:
        return [line(one) for one in layers]
    moving = [line(one) for one in layers if one.state in ("compressing", "pushing")][: height - 1]
    done = sum(one.state in _FINAL for one in layers)
    return [*moving, f"{done} of {len(layers)} layers are there"]


def line(layer: Layer) -> str:
    """`5f70bf18a086: Pushed`, in docker's words. Pure."""
    words = {
        "compressing": f"Compressing {columns.size(layer.size)}",
        "waiting": "Waiting",
        "pushing": f"Pushing {columns.size(layer.sent)}/{columns.size(layer.size)}",
        "pushed": "Pushed",
        "exists": "Layer already exists",
        "mounted": f"Mounted from {layer.detail}",
    }
    return f"{layer.digest[7:19]}: {words[layer.state]}"


def _size() -> tuple[int, int]:
    """Columns and rows of the terminal; one that does not know them is taken for a usual one."""
    try:
        size = os.get_terminal_size(say.STDOUT)
    except OSError:
        return 80, 24
    return size.columns or 80, size.lines or 24


# --- login, logout --------------------------------------------------------------------------------


def login(
    scope: Scope,  # noqa: ARG001 - what every command gets
    *,
    server: str | None,
    username: str | None,
    password: str | None,
    password_stdin: bool,
) -> int:
    """Try a name and password at a registry, and keep them."""
    host = logins.host_of(server)
    if password is not None and password_stdin:
        raise _usage("--password and --password-stdin are mutually exclusive")
    if password_stdin and not username:
        raise _usage("Must provide --username with --password-stdin")
    if password is not None:
        say.warning(
            "a password on the command line is seen by all users of this machine: use --password-stdin"
        )
    if password_stdin:
        password = _password_of_stdin()
    if username is None and password is None and _known_one_works(host):
        say.out("Login Succeeded\n")
        return 0
    credential = _asked(username, password)
    kept = run(lambda: logins.log_in(host, os.environ, credential, warn=say.warning))
    if kept.plain:
        say.warning(f"the password is kept unencrypted in {kept.where}; a credential helper would hide it")
    say.out("Login Succeeded\n")
    return 0


def _known_one_works(host: str) -> bool:
    """Whether what is kept for a registry is still good, so that nothing needs to be typed."""
    known = run(lambda: logins.known(host, os.environ, warn=say.warning))
    if known is None:
        return False
    say.err("Authenticating with existing credentials...\n")
    try:
        run(lambda: logins.check(host, os.environ, known, warn=say.warning))
    except DeniedError as error:
        say.warning(f"they are not good any more: {error.message}")
        return False
    return True


def _asked(username: str | None, password: str | None) -> Credential:
    """What was not given on the command line is asked for. Raises UserError without a terminal."""
    if (username is None or password is None) and not say.is_terminal(0):
        raise UserError(
            "Cannot perform an interactive login from a non TTY device",
            exit_code=ExitCode.USAGE,
            hint="pystack login -u NAME --password-stdin HOST < FILE",
        )
    if username is None:
        say.out("Username: ")
        username = sys.stdin.readline().strip()
    if not username:
        raise _usage("username is empty")
    if password is None:
        import getpass

        password = getpass.getpass("Password: ")
    if not password:
        raise _usage("password is empty")
    return Credential(username=username, password=password)


def _password_of_stdin() -> str:
    text = sys.stdin.buffer.read(_PASSWORD_LIMIT + 1)
    if len(text) > _PASSWORD_LIMIT:
        raise _usage("standard input is too long for a password")
    try:
        # Only the end of the line that `echo` and editors write: blanks may belong to it.
        password = text.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise _usage("the password is not UTF-8") from None
    if not password:
        raise _usage("password is empty")
    return password


def logout(scope: Scope, *, server: str | None) -> int:  # noqa: ARG001 - what every command gets
    """Forget what `login` has kept."""
    host = logins.host_of(server)
    if run(lambda: logins.log_out(host, os.environ)):
        say.out(f"Removing login credentials for {host}\n")
    else:
        say.out(f"Not logged in to {host}\n")
    return 0


# --- signatures -----------------------------------------------------------------------------------


def signatures(
    scope: Scope,  # noqa: ARG001 - what every command gets
    *,
    name: str,
    format: str | None,  # noqa: A002 - the option's name
) -> int:
    """What a registry has beside an image that says who made it, and of what."""
    from orchestrator.images.registry import attached
    from orchestrator.images.registry.client import open_registry

    reference = parse(name)

    async def find() -> tuple[str, list[attached.Attached]]:
        async with open_registry(reference.host, os.environ, warn=say.warning) as registry:
            return await attached.find(registry, reference.path, reference.digest or reference.tag)

    digest, found = run(find)
    if not found and not shape.told(format):
        say.out(f"{reference.familiar} ({digest[:19]}): its registry has no signature or attestation of it\n")
        return 0
    rows = [{"Kind": one.kind.split(" ", 1)[1], "Type": one.type, "Reference": one.at} for one in found]
    cells = [tuple(say.printable(row[key]) for key in ATTACHED_HEADS) for row in rows]
    heads = tuple(ATTACHED_HEADS.values())
    say.out(shape.rows(format, rows, ATTACHED_HEADS, lambda: columns.table(heads, cells)))
    if not shape.told(format):
        say.err("hint: they are there; whether they are good was not checked\n")
    return 0


# --- search ---------------------------------------------------------------------------------------


def search(
    scope: Scope,  # noqa: ARG001 - what every command gets
    *,
    term: str,
    limit: int | None,
    filter: tuple[str, ...],  # noqa: A002 - the option's name
    no_trunc: bool,
    list_tags: bool,
    format: str | None,  # noqa: A002 - the option's name
) -> int:
    """Look for repositories at a registry, or for the tags of one."""
    from orchestrator.images.registry import search as searching

    most = searching.USUAL_LIMIT if limit is None else limit
    if list_tags:
        found = run(lambda: searching.tags(term, os.environ, limit=most, warn=say.warning))
        named = parse(term)
        name = familiar_repository(named.host, named.path)
        rows = [{"Name": name, "Tag": tag} for tag in found]
        cells = [(say.printable(name), say.printable(tag)) for tag in found]
        say.out(shape.rows(format, rows, TAG_HEADS, lambda: columns.table(("NAME", "TAG"), cells)))
        return 0
    hits = run(lambda: searching.search(term, os.environ, limit=most, warn=say.warning))
    hits = searching.filtered(hits, filter)
    rows = [
        {
            "Name": hit.name,
            "Description": hit.description,
            "StarCount": str(hit.stars),
            "IsOfficial": str(hit.official).lower(),
        }
        for hit in hits
    ]
    say.out(shape.rows(format, rows, HEADS, lambda: say.printable(table(hits, whole=no_trunc))))
    return 0


def table(hits: list[Hit], *, whole: bool) -> str:
    """docker search's table. Pure."""
    cells = [
        (
            hit.name,
            hit.description if whole else columns.shorten(hit.description, _DESCRIPTION),
            str(hit.stars),
            "[OK]" if hit.official else "",
        )
        for hit in hits
    ]
    return columns.table(("NAME", "DESCRIPTION", "STARS", "OFFICIAL"), cells)


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Perform what waits for the network."""
    import trio

    try:
        return trio.run(work)
    except BaseExceptionGroup as group:
        # What comes out of a nursery is in a group, Ctrl-C as well.
        raise _first(group) from None


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = next(
            (one for one in error.exceptions if isinstance(one, KeyboardInterrupt)), error.exceptions[0]
        )
    return error


def _usage(message: str) -> UserError:
    return UserError(message, exit_code=ExitCode.USAGE)
