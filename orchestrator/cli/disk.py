"""Room on the disk: `system df`, and the commands that give back what nothing uses. Rendering is pure."""

from __future__ import annotations

import os
import time

from orchestrator.api import client
from orchestrator.cli import change, clock, columns, say, shape
from orchestrator.cli.images import Opened
from orchestrator.images.reference import familiar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from orchestrator.cli.scope import Scope
    from orchestrator.images.store.content import Store
    from orchestrator.images.store.index import StoredImage
    from orchestrator.images.store.removal import Pruned
    from orchestrator.images.store.usage import Usage

    Row = dict[str, Any]

_SURE = "Are you sure you want to continue? [y/N] "
_HEADS = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}
_FILTERS = "until=24h, label=KEY[=VALUE] or label!=KEY[=VALUE]"
_DANGLING = "all dangling images"
_UNUSED = "all images without at least one container associated to them"


# --- system df -----------------------------------------------------------------------------------


def df(scope: Scope, *, verbose: bool, format: str | None) -> int:  # noqa: A002 - the option's name
    """Show what images, containers and volumes take of the disk."""
    told = _machine(scope)
    found = _images(scope, {row["image_id"] for row in told["containers"]})
    rows = totals(found, told)
    if verbose and not shape.told(format):
        say.out(details(found, told, time.time()))
        return 0
    cells = [tuple(row[key] for key in _HEADS) for row in rows]
    say.out(shape.rows(format, rows, _HEADS, lambda: columns.table(tuple(_HEADS.values()), cells)))
    return 0


def _machine(scope: Scope) -> Row:
    """Containers and volumes, with sizes. Without a stack there are no containers, and no supervisor is
    started only to say so; volumes lie there all the same."""
    told: Row | None = client.ask(scope.paths, {"verb": "disk"})
    return told if told is not None else {"containers": [], "volumes": _idle_volumes(scope)}


def _idle_volumes(scope: Scope) -> list[Row]:
    from orchestrator.engines.local.storage import size_of

    home = f"{scope.paths.data_dir}/volumes"
    try:
        names = sorted(name for name in os.listdir(home) if os.path.exists(f"{home}/{name}/volume.json"))
    except FileNotFoundError:
        return []
    except PermissionError:
        raise client.needs_root(home) from None
    return [{"name": name, "users": 0, "size": size_of(f"{home}/{name}")} for name in names]


def _images(scope: Scope, used: set[str]) -> Usage:
    from orchestrator.images.store.usage import Usage, usage

    with Opened(scope, write=False) as store:
        return Usage() if store is None else usage(store, used)


def totals(found: Usage, told: Row) -> list[Row]:
    """The lines of `system df`, in the words of docker. Pure."""
    containers, volumes = told["containers"], told["volumes"]
    used = {row["image_id"] for row in containers}
    running = [row for row in containers if row["state"] in ("running", "paused")]
    busy = [row for row in volumes if row["users"]]
    everything = sum(row["size"] for row in containers), sum(row["size"] for row in volumes)
    return [
        _total(
            "Images",
            len(found.images),
            sum(image.id in used for image in found.images),
            found.size,
            found.reclaimable,
        ),
        _total(
            "Containers",
            len(containers),
            len(running),
            everything[0],
            everything[0] - sum(row["size"] for row in running),
        ),
        _total(
            "Local Volumes",
            len(volumes),
            len(busy),
            everything[1],
            everything[1] - sum(row["size"] for row in busy),
        ),
        _total("Build Cache", 0, 0, 0, 0),
    ]


def _total(kind: str, count: int, active: int, size: int, reclaimable: int) -> Row:
    share = f" ({100 * reclaimable // size}%)" if size and kind != "Build Cache" else ""
    return {
        "Type": kind,
        "TotalCount": str(count),
        "Active": str(active),
        "Size": columns.size(size),
        "Reclaimable": columns.size(reclaimable) + share,
    }


def details(found: Usage, told: Row, now: float) -> str:
    """What `system df -v` shows. Pure."""
    made: dict[str, int] = {}
    for row in told["containers"]:
        made[row["image_id"]] = made.get(row["image_id"], 0) + 1
    head = ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS")
    images = []
    for image in found.images:
        sizes = (image.shared + image.unique, image.shared, image.unique)
        for name in image.names or ("",):
            short = familiar(name) if name else "<none>:<none>"
            repository, _, tag = short.rpartition(":")
            images.append(
                (
                    say.printable(repository),
                    say.printable(tag),
                    image.id[7:19],
                    _ago(image.created, now),
                    *map(columns.size, sizes),
                    str(made.get(image.id, 0)),
                )
            )
    containers = [
        (
            row["id"][:12],
            say.printable(row["image"]),
            say.printable(row["state"]),
            columns.size(row["size"]),
            say.printable(row["status"]),
            say.printable(row["name"]),
        )
        for row in told["containers"]
    ]
    volumes = [
        (say.printable(row["name"]), str(row["users"]), columns.size(row["size"])) for row in told["volumes"]
    ]
    return "\n".join(
        (
            "Images space usage:\n",
            columns.table(head, images),
            "Containers space usage:\n",
            columns.table(("CONTAINER ID", "IMAGE", "STATE", "SIZE", "STATUS", "NAMES"), containers),
            "Local Volumes space usage:\n",
            columns.table(("VOLUME NAME", "LINKS", "SIZE"), volumes),
        )
    )


def _ago(created: str, now: float) -> str:
    try:
        return f"{clock.ago(max(now - clock.parse(created) / 1e9, 0))} ago"
    except ValueError:
        return "N/A"


# --- giving back ---------------------------------------------------------------------------------


def image_prune(
    scope: Scope,
    *,
    all: bool,  # noqa: A002 - the option's name
    filter: tuple[str, ...],  # noqa: A002 - the option's name
    force: bool,
) -> int:
    """Remove images without a name; with `all` every one that no container was made from."""
    time_limit(filter)  # what is wrong with it is said before anything is asked
    if not force and not _agreed(f"WARNING! This will remove {_UNUSED if all else _DANGLING}.", filter):
        return 0
    say.out(_told(*_prune_images(scope, every=all, filters=filter)))
    return 0


def container_prune(scope: Scope, *, force: bool) -> int:
    """Remove every container that does not run."""
    if not force and not _agreed("WARNING! This will remove all stopped containers."):
        return 0
    text, gained = _prune_containers(scope)
    say.out(_told(text, gained))
    return 0


def system_prune(
    scope: Scope,
    *,
    all: bool,  # noqa: A002 - the option's name
    volumes: bool,
    force: bool,
) -> int:
    """Remove stopped containers, unused images and, when asked for, anonymous volumes that nothing uses."""
    doomed = ["all stopped containers"]
    if volumes:
        doomed.append("all anonymous volumes not used by at least one container")
    doomed.append(_UNUSED if all else _DANGLING)
    lines = "".join(f"  - {one}\n" for one in doomed)
    if not force and not _agreed(f"WARNING! This will remove:\n{lines}".rstrip("\n")):
        return 0
    texts, gained = [], 0
    steps: list[tuple[str, int]] = [_prune_containers(scope)]
    if volumes:
        steps.append(_prune_volumes(scope))
    steps.append(_prune_images(scope, every=all, filters=()))
    for text, bytes_gained in steps:
        texts.append(text)
        gained += bytes_gained
    say.out(_told("".join(texts), gained))
    return 0


def _agreed(warning: str, filters: Sequence[str] = ()) -> bool:
    say.err(f"{warning}\n")
    if filters:
        say.err("\n  Items to be pruned will be filtered with:\n")
        say.err("".join(f"  - {say.printable(one)}\n" for one in filters))
    if warning.endswith(":") or "\n" in warning:
        say.err("\n")
    return change.agreed(_SURE)


def _told(text: str, gained: int) -> str:
    return f"{text}Total reclaimed space: {columns.size(gained)}\n"


def _prune_containers(scope: Scope) -> tuple[str, int]:
    if client.idle(scope.paths):
        return "", 0
    with client.summon(scope.paths, {"verb": "container_prune"}) as connection:
        told: Row = client.result(connection)
    return _list("Deleted Containers:", told["removed"]), told["gained"]


def _prune_volumes(scope: Scope) -> tuple[str, int]:
    """Anonymous ones are of stacks: where there is none, and no volume, nobody need be started."""
    if client.idle(scope.paths) and not _idle_volumes(scope):
        return "", 0
    with client.summon(scope.paths, {"verb": "volumes"}) as connection:
        rows: list[Row] = client.result(connection)
    names = [row["name"] for row in rows if not row["users"] and not row["key"]]
    if not names:
        return "", 0
    with client.summon(scope.paths, {"verb": "volume_rm", "names": names, "force": True}) as connection:
        told: Row = client.result(connection)
    return _list("Deleted Volumes:", told["removed"]), told["gained"]


def _prune_images(scope: Scope, *, every: bool, filters: Sequence[str]) -> tuple[str, int]:
    limit = time_limit(filters)
    used = set(client.ask(scope.paths, {"verb": "image_users"}) or ())
    if not os.path.isdir(f"{scope.paths.data_dir}/images"):
        return "", 0
    with Opened(scope) as store:
        assert store is not None
        wanted = _chosen(store, used, every=every, filters=filters, until=limit)
        pruned: Pruned = store.prune(wanted)
    lines = [f"untagged: {name}" for name in pruned.untagged] + [f"deleted: {one}" for one in pruned.deleted]
    return _list("Deleted Images:", lines), pruned.gained


def _list(title: str, lines: Sequence[str]) -> str:
    return say.printable("\n".join((title, *lines, "", ""))) if lines else ""


def _chosen(
    store: Store, used: set[str], *, every: bool, filters: Sequence[str], until: float | None
) -> Callable[[StoredImage], bool]:
    from orchestrator.model.errors import UserError

    def doomed(image: StoredImage) -> bool:
        if image.id in used or (image.names and not every):
            return False
        try:
            config = store.config(image.id)
        except UserError:
            return not filters  # nobody knows what it was, and nothing can be made of it
        if until is not None and _seconds(config.created) >= until:
            return False
        return all(_labelled(config.labels, text) for text in filters if text.startswith("label"))

    return doomed


def _labelled(labels: Any, text: str) -> bool:
    unwanted = text.startswith("label!=")
    key, equals, value = text.partition("=")[2].partition("=")
    has = key in labels and (not equals or labels[key] == value)
    return has != unwanted


def _seconds(created: str) -> float:
    try:
        return clock.parse(created) / 1e9
    except ValueError:
        return 0.0


def time_limit(filters: Sequence[str]) -> float | None:
    """Seconds since 1970 before which an image was made, if a filter says so. Raises UserError."""
    until: float | None = None
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or not value or key not in ("until", "label", "label!"):
            raise change.usage(f"--filter: {text!r} is no filter", _FILTERS)
        if key == "until":
            try:
                until = clock.parse(clock.moment(value, time.time_ns())) / 1e9
            except ValueError:
                example = "24h, 2026-01-02 or 2026-01-02T13:00:00Z"
                raise change.usage(f"--filter: {value!r} is no time", example) from None
    return until


# --- image verify --------------------------------------------------------------------------------


def verify(scope: Scope, *, repair: bool, quiet: bool) -> int:
    """Hash every blob, compare every layer with its blob; with `repair`, mend what can be."""
    from orchestrator.images.store.verifying import Report
    from orchestrator.images.store.verifying import verify as look

    users = client.ask(scope.paths, {"verb": "image_users"}) or {}
    busy = [image for image, rows in users.items() if any(row["running"] for row in rows)]
    if not os.path.isdir(f"{scope.paths.data_dir}/images"):
        report = Report(images=0, blobs=0, layers=0, size=0)
    else:
        with Opened(scope) as store, _Counted(quiet=quiet) as progress:
            assert store is not None
            report = look(store, mend=repair, busy=busy, progress=progress)
    for fault in report.faults:
        state = " (mended)" if fault.mended else f" ({fault.advice})" if fault.advice else ""
        say.out(say.printable(f"{fault.what}: {fault.problem}{state}\n"))
        if fault.images:
            say.out(say.printable(f"  needed by {', '.join(fault.images)}\n"))
    left = [fault for fault in report.faults if not fault.mended]
    if left:
        from orchestrator.model.errors import ExitCode, UserError

        names = {name for fault in left for name in fault.images}
        hint = "" if repair else "`pystack image verify --repair` mends what it can"
        of = f" in {len(names)} of {report.images} images" if names else ""
        raise UserError(f"{_count(len(left), 'fault')}{of}", exit_code=ExitCode.IMAGE, hint=hint)
    if not quiet:
        counted = [
            _count(report.images, "image"),
            _count(report.blobs, "blob"),
            _count(report.layers, "layer"),
        ]
        say.out(f"{', '.join(counted)}, {columns.size(report.size)}: all as they should be\n")
    return 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


class _Counted:
    """How far it is, on one line of a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._on = not quiet and say.is_terminal(say.STDERR)

    def __enter__(self) -> Callable[[int, int], None]:
        return self._tell

    def __exit__(self, *_: object) -> None:
        if self._on:
            say.err("\r\x1b[2K")

    def _tell(self, done: int, total: int) -> None:
        if self._on:
            say.err(f"\r\x1b[2K{done} of {total}")
