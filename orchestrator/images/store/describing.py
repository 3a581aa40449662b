"""Of an image: all that is known, in docker's shape; its history; its layers, and who shares them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.images import config as configs
from orchestrator.images import reference as references
from orchestrator.images.layers import meta
from orchestrator.images.store.content import MANIFEST_LIMIT, Store
from orchestrator.images.store.index import StoredImage
from orchestrator.model.errors import UserError
from orchestrator.model.frozen import dataclass

Document = dict[str, Any]

ALWAYS: Mapping[str, object] = {
    "User": "",
    "Env": None,
    "Cmd": None,
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}
"""Run defaults that are told of every image, and what they are when it says nothing."""
_SOMETIMES = ("ExposedPorts", "Healthcheck", "StopSignal", "Shell", "ArgsEscaped")
_HISTORY_LIMIT = 10_000


def inspect(store: Store, image: StoredImage) -> Document:
    """All that is known of an image, with the fields of docker. Raises UserError when it is broken."""
    parsed = store.config(image.id)
    data = configs.read_json(
        store.blob(image.id, limit=configs.CONFIG_LIMIT), "config", limit=configs.CONFIG_LIMIT
    )
    manifest = store.blob(image.manifest, limit=MANIFEST_LIMIT)
    kind = configs.read_json(manifest, "manifest", limit=MANIFEST_LIMIT).get("mediaType", "")
    try:
        lowers = [os.fspath(path) for path in store.layers(image.id)]
    except UserError:
        lowers = []
    steps = history(data, image.id, [0] * len(parsed.diff_ids))
    run = data.get("config") or {}
    return {
        "Id": image.id,
        "RepoTags": [references.familiar(name) for name in image.names],
        "RepoDigests": [references.familiar(name) for name in image.repo_digests],
        "Parent": "",
        "Comment": _text(data.get("comment")) or (steps[0].comment if steps else ""),
        "Created": parsed.created,
        "DockerVersion": _text(data.get("docker_version")),
        "Author": parsed.author,
        "Config": {
            **{key: run.get(key, absent) for key, absent in ALWAYS.items()},
            **{key: run[key] for key in _SOMETIMES if run.get(key)},
        },
        "Architecture": parsed.architecture,
        **({"Variant": parsed.variant} if parsed.variant else {}),
        "Os": parsed.os,
        "Size": parsed.size,
        "GraphDriver": {
            "Data": {
                **({"LowerDir": ":".join(lowers[1:])} if len(lowers) > 1 else {}),
                **({"UpperDir": lowers[0]} if lowers else {}),
            },
            "Name": "overlay",
        },
        "RootFS": {"Type": "layers", "Layers": list(parsed.diff_ids)},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
        "Descriptor": {"mediaType": kind, "digest": image.manifest, "size": len(manifest)},
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


# --- history -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of an image's history. `image` is "" for what is no image of this machine; `size` in bytes."""

    image: str = ""
    created: str = ""
    created_by: str = ""
    comment: str = ""
    size: int = 0


def steps(store: Store, image: StoredImage) -> list[Step]:
    """How an image came to be, newest first. Raises UserError when it is broken."""
    parsed = store.config(image.id)
    data = configs.read_json(
        store.blob(image.id, limit=configs.CONFIG_LIMIT), "config", limit=configs.CONFIG_LIMIT
    )
    return history(data, image.id, [size_of(store, diff_id) for diff_id in parsed.diff_ids])


def size_of(store: Store, diff_id: str) -> int:
    """Bytes of a layer's files; 0 for one that is gone."""
    try:
        return meta.read_meta(store.layer_path(diff_id)).size
    except UserError:
        return 0


def history(data: Mapping[str, Any], image_id: str, sizes: Sequence[int]) -> list[Step]:
    """The lines of a config's history, newest first; `sizes` are those of the layers, lowest first. Pure.

    A line that made no layer says so. Layers that no line speaks of come last, as lines that say nothing.
    """
    rows = data.get("history")
    found: list[Step] = []
    left = list(reversed(sizes))
    for row in rows[:_HISTORY_LIMIT] if isinstance(rows, list) else ():
        if not isinstance(row, dict):
            continue
        empty = bool(row.get("empty_layer"))
        step = Step(
            created=_text(row.get("created")),
            created_by=_text(row.get("created_by")),
            comment=_text(row.get("comment")),
            size=left.pop() if left and not empty else 0,
        )
        found.append(step)
    found.extend(Step(size=size) for size in reversed(left))
    if not found:
        return []
    newest = found[-1]
    top = Step(
        image=image_id,
        created=newest.created,
        created_by=newest.created_by,
        comment=newest.comment,
        size=newest.size,
    )
    return [top, *reversed(found[:-1])]


# --- layers --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A layer of an image: its bytes, who has it as well, and whose topmost one it is (familiar names)."""

    diff_id: str
    size: int
    with_others: tuple[str, ...] = ()
    top_of: tuple[str, ...] = ()


def layers(store: Store, image: StoredImage) -> list[Shared]:
    """The layers of an image, lowest first, and which others share them."""
    owners: dict[str, list[str]] = {}
    tops: dict[str, list[str]] = {}
    for one in store.images():
        try:
            diff_ids = store.config(one.id).diff_ids
        except UserError:
            continue
        names = _names(one)
        for diff_id in dict.fromkeys(diff_ids):
            if one.id != image.id:
                owners.setdefault(diff_id, []).extend(names)
        if diff_ids:
            tops.setdefault(diff_ids[-1], []).extend(names)
    return [
        Shared(
            diff_id=diff_id,
            size=size_of(store, diff_id),
            with_others=tuple(sorted(owners.get(diff_id, ()))),
            top_of=tuple(sorted(tops.get(diff_id, ()))),
        )
        for diff_id in store.config(image.id).diff_ids
    ]


def _names(image: StoredImage) -> list[str]:
    """An image without a name goes by the beginning of its id."""
    return [references.familiar(name) for name in image.names] or [image.id[7:19]]
