"""Commands that tell all about something: inspect, image inspect, history, image tree. Rendering is pure."""

from __future__ import annotations

import time

from orchestrator.api import client
from orchestrator.cli import clock, columns, listing, say, shape
from orchestrator.cli.images import Opened
from orchestrator.images.store import describing
from orchestrator.model.errors import ExitCode, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from orchestrator.cli.scope import Scope
    from orchestrator.images.store.content import Store
    from orchestrator.images.store.describing import Shared, Step
    from orchestrator.images.store.index import StoredImage

    Document = dict[str, Any]
    Find = Callable[[str], Document | None]

MISSING = "<missing>"
WIDTH = 45
HEADS = {
    "Comment": "COMMENT",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "CreatedSince": "CREATED",
    "ID": "IMAGE",
    "Size": "SIZE",
}
_ZERO: dict[str, Any] = {
    **dict.fromkeys(
        ("Hostname", "Domainname", "User", "Image", "WorkingDir", "StopSignal", "MacAddress"), ""
    ),
    **{key: [] for key in ("Env", "Cmd", "Entrypoint", "OnBuild", "Shell")},
    **{key: {} for key in ("ExposedPorts", "Volumes", "Labels")},
    **dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"), False),
    "Healthcheck": None,
}
"""What fields of `.Config` are for a template when the image or container does not say them."""


# --- inspect -------------------------------------------------------------------------------------


def image_inspect(scope: Scope, *, names: tuple[str, ...], format: str | None) -> int:  # noqa: A002
    """Show all that is known of images, as JSON."""
    with Opened(scope, write=False) as store:
        return _tell(names, [_image_finder(store)], format, "image")


def inspect(
    scope: Scope,
    *,
    names: tuple[str, ...],
    format: str | None,  # noqa: A002 - the option's name
    type: str | None,  # noqa: A002 - the option's name
) -> int:
    """Show all that is known of containers, images, volumes and networks, as JSON.

    Of what has the same name, the first in that order is meant.
    """
    with Opened(scope, write=False) as store:
        finders: dict[str, Find] = {"image": _image_finder(store)}
        if type != "image":
            finders = {
                "container": _asked(scope, names, "containers"),
                **finders,
                "volume": _asked(scope, names, "volumes"),
                "network": _asked(scope, names, "networks"),
            }
        wanted = [finders[type]] if type else list(finders.values())
        return _tell(names, wanted, format, type or "object")


def _asked(scope: Scope, names: tuple[str, ...], kind: str) -> Find:
    """What the supervisor says of containers (or volumes, networks) with these names; asked when needed."""
    told: list[dict[str, Any]] = []

    def find(name: str) -> Document | None:
        if not told:
            told.append(client.ask(scope.paths, {"verb": "inspect", "names": names}) or {})
        found = (told[0].get(kind) or {}).get(name)
        if isinstance(found, str):
            raise UserError(found)
        return found

    return find


def _image_finder(store: Store | None) -> Find:
    def find(name: str) -> Document | None:
        try:
            image = store.resolve(name) if store is not None else None
        except UserError as error:
            if error.message.startswith("multiple"):
                raise
            return None  # what can't be the name of an image may be that of something else
        return describing.inspect(store, image) if store is not None and image is not None else None

    return find


def _tell(names: Sequence[str], finders: Sequence[Find], form: str | None, kind: str) -> int:
    """Print what is found, then name what is not."""
    found: list[Document] = []
    wrong: list[UserError] = []
    for name in names:
        try:
            one = next((document for find in finders if (document := find(name)) is not None), None)
        except UserError as error:
            wrong.append(error)
            continue
        if one is None:
            wrong.append(nothing(name, kind))
        else:
            found.append(known(one) if form and form != "json" else one)
    say.out(shape.inspected(form, found))
    if wrong:
        from orchestrator.cli import failure

        codes = [failure.report(error) for error in wrong]
        return codes[0]
    return 0


def nothing(name: str, kind: str) -> UserError:
    """There is nothing of that name."""
    code = ExitCode.IMAGE if kind == "image" else ExitCode.FAILED
    what = f"No such {kind}: {name}"
    return UserError(what, exit_code=code, hint=listing.elsewhere(name) if kind == "image" else "")


def known(document: Document) -> Document:
    """A document that has for a template the fields which are left out where there is nothing to say."""
    from orchestrator.cli.template.values import Struct

    zeros: dict[str, dict[str, Any]] = {"Config": _ZERO, "State": {"Health": None}}
    parts = {
        key: Struct(document[key], zero) for key, zero in zeros.items() if isinstance(document.get(key), dict)
    }
    for key in ("ExposedPorts", "Volumes"):  # sets, in Go: names without a value
        names = parts["Config"].get(key) if "Config" in parts else None
        if isinstance(names, dict):
            parts["Config"][key] = {name: Struct({}, {}) for name in names}
    return {**document, **parts}


# --- history -------------------------------------------------------------------------------------


def history(
    scope: Scope,
    *,
    name: str,
    human: bool,
    format: str | None,  # noqa: A002 - the option's name
    no_trunc: bool,
    quiet: bool,
) -> int:
    """Show how an image came to be, newest first."""
    with Opened(scope, write=False) as store:
        image = demand(store, name)
        assert store is not None
        steps = describing.steps(store, image)
    rows = history_rows(steps, time.time(), human=human, full=no_trunc)
    if quiet:
        say.out("".join(f"{row['ID']}\n" for row in rows))
        return 0
    shown = ("ID", "CreatedSince" if human else "CreatedAt", "CreatedBy", "Size", "Comment")
    cells = [tuple(say.printable(row[key]) for key in shown) for row in rows]
    head = tuple(HEADS[key] for key in shown)
    say.out(shape.rows(format, rows, HEADS, lambda: columns.table(head, cells)))
    return 0


def demand(store: Store | None, name: str) -> StoredImage:
    """The image of that name. Raises UserError."""
    image = store.resolve(name) if store is not None else None
    if image is None:
        from orchestrator.images import reference as references

        try:
            name = references.familiar(name)
        except UserError:
            if not references.is_id_prefix(name.removeprefix("sha256:")):
                raise
        raise nothing(name, "image")
    return image


def history_rows(steps: Sequence[Step], now: float, *, human: bool, full: bool) -> list[dict[str, Any]]:
    """One row a step, in docker's words. Pure."""
    rows = []
    for step in steps:
        created = listing.seconds(step.created)
        by = " ".join(step.created_by.replace("\t", " ").splitlines())
        rows.append(
            {
                "Comment": step.comment,
                "CreatedAt": _moment(created) if created > 0 else "N/A",
                "CreatedBy": by if full else columns.shorten(by, WIDTH),
                "CreatedSince": f"{clock.ago(max(now - created, 0))} ago" if created > 0 else "N/A",
                "ID": (step.image if full else step.image[7:19]) or MISSING,
                "Size": columns.size(step.size) if human else str(step.size),
            }
        )
    return rows


def _moment(seconds: float) -> str:
    """RFC 3339 in the zone of this machine, without parts of a second."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))
    return text[:-5] + ("Z" if text[-5:] == "+0000" else f"{text[-5:-2]}:{text[-2:]}")


# --- tree ----------------------------------------------------------------------------------------


def tree(scope: Scope, *, names: tuple[str, ...]) -> int:
    """Show the layers of images (of all that are here) and which other images share them."""
    with Opened(scope, write=False) as store:
        if store is None and not names:
            return 0
        images = [demand(store, name) for name in names]
        assert store is not None
        parts = [
            branches(image, describing.layers(store, image), store.config(image.id).size)
            for image in images or store.images()
        ]
    say.out("\n".join(parts))
    return 0


def branches(image: StoredImage, layers: Sequence[Shared], size: int) -> str:
    """The layers of one image as a tree, lowest first. Pure."""
    names = listing.names_of(image.names)
    lines = [
        f"Image ID: {image.id[7:19]}",
        f"Tags:     [{' '.join(names)}]",
        f"Size:     {columns.size(size)}",
        "Image Layers",
    ]
    for place, layer in enumerate(layers):
        line = f"{'└' if place == len(layers) - 1 else '├'}── ID: {layer.diff_id[7:19]}"
        line += f" Size: {columns.size(layer.size)}"
        if layer.with_others:
            line += f" Shared with: [{' '.join(layer.with_others)}]"
        if layer.top_of:
            line += f" Top Layer of: [{' '.join(layer.top_of)}]"
        lines.append(line)
    return say.printable("".join(f"{line}\n" for line in lines))
