"""The images of a store with what a list shows of each, read as quickly as that can be.

`Store` checks everything it reads, for what is run must be right; here a broken part only leaves a hole in
its line. Nor is anything imported: a list of 100 images takes little longer than to start the program.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Loads = Callable[[str], object]

_IMAGE_ID = "io.pystack.image.id"
_REF_NAME = "org.opencontainers.image.ref.name"
_ORIGIN = "io.pystack.image.origin"
_LIMIT = 64 << 20
# SystemError: json's own C code, called without json's error class at hand.
_WRONG = (OSError, ValueError, StopIteration, RecursionError, SystemError)
_HEX = frozenset("0123456789abcdef")


class Listed:
    """One image. `names` are full names in order, `origins` full REPOSITORY@DIGEST; `created` is RFC 3339 or
    "", `size` the bytes of its layers' files.
    """

    __slots__ = ("created", "id", "labels", "names", "origins", "size")

    def __init__(self, image_id: str) -> None:
        self.id = image_id
        self.names: list[str] = []
        self.origins: list[str] = []
        self.created = ""
        self.size = 0
        self.labels: dict[str, str] = {}


def read(root: str, loads: Loads) -> list[Listed]:
    """Every image of the store at `root`; none when there is no store. `loads` reads JSON.

    Raises PermissionError, and UserError when the list itself is unreadable.
    """
    try:
        data = _json(f"{root}/index.json", loads)
    except FileNotFoundError:
        if not os.path.exists(f"{root}/oci-layout"):
            return []
        from orchestrator.images.config import damaged

        raise damaged(f"{root}/index.json is damaged: it is gone") from None
    except PermissionError:
        raise
    except _WRONG as error:
        from orchestrator.images.config import damaged

        raise damaged(f"{root}/index.json is damaged: it can't be read") from error
    rows = data.get("manifests") if isinstance(data, dict) else data
    if not isinstance(data, dict) or not isinstance(rows, list | None):
        from orchestrator.images.config import damaged

        raise damaged(f"{root}/index.json is damaged: it has no list of manifests")
    found: dict[str, Listed] = {}
    for row in rows or ():
        notes = row.get("annotations") if isinstance(row, dict) else None
        if not isinstance(notes, dict) or not _is_digest(notes.get(_IMAGE_ID)):
            # Another tool has written here: its lines take more thought.
            return _by_store(root, loads)
        image = found.setdefault(notes[_IMAGE_ID], Listed(notes[_IMAGE_ID]))
        for into, key in ((image.names, _REF_NAME), (image.origins, _ORIGIN)):
            text = notes.get(key)
            if isinstance(text, str) and text and text not in into:
                into.append(text)
    return _filled(root, list(found.values()), loads)


def _by_store(root: str, loads: Loads) -> list[Listed]:
    from pathlib import Path

    from orchestrator.images.store.content import Store

    found = []
    for stored in Store(Path(root)).images():
        image = Listed(stored.id)
        image.names = list(stored.names)
        image.origins = list(stored.repo_digests)
        found.append(image)
    return _filled(root, found, loads)


def _filled(root: str, images: list[Listed], loads: Loads) -> list[Listed]:
    sizes: dict[str, int] = {}
    for image in images:
        image.names.sort()
        image.origins.sort()
        try:
            config = _json(f"{root}/blobs/sha256/{image.id[7:]}", loads)
        except _WRONG:
            continue
        if not isinstance(config, dict):
            continue
        image.created = _text(config.get("created"))
        run = config.get("config")
        labels = run.get("Labels") if isinstance(run, dict) else None
        if isinstance(labels, dict):
            image.labels = {key: _text(value) for key, value in labels.items()}
        rootfs = config.get("rootfs")
        diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        for diff_id in diff_ids if isinstance(diff_ids, list) else ():
            if _is_digest(diff_id):
                if diff_id not in sizes:
                    sizes[diff_id] = _size(f"{root}/layers/{diff_id[7:]}/meta.json", loads)
                image.size += sizes[diff_id]
    return images


def _size(path: str, loads: Loads) -> int:
    """0 for a layer that is gone: such an image can still be listed and removed."""
    try:
        record = _json(path, loads)
    except _WRONG:
        return 0
    size = record.get("size") if isinstance(record, dict) else 0
    return size if isinstance(size, int) else 0


def _json(path: str, loads: Loads) -> Any:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        if size > _LIMIT:
            raise ValueError(f"larger than {_LIMIT >> 20} MiB")
        # A store's files are replaced, never changed: one read has it all.
        text = os.read(fd, size).decode()
    finally:
        os.close(fd)
    return loads(text.strip())


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_digest(text: object) -> bool:
    return (
        isinstance(text, str) and len(text) == 71 and text.startswith("sha256:") and _HEX.issuperset(text[7:])
    )
