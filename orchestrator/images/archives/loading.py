"""`load`: images out of an archive.

Understood: what `docker save` writes and wrote (manifest.json, before that `repositories`), OCI image layouts
(index.json), and the form that is both; as tar, also compressed; from a file or a pipe.

Layers that are not here yet are unpacked side by side, each as soon as its blob is on the store's disk, and
only when every digest fits does anything become visible.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from orchestrator.images import config as configs
from orchestrator.images import reference as references
from orchestrator.images.archives import layouts, saved, spool
from orchestrator.images.archives.candidates import Candidate
from orchestrator.images.archives.spool import Contents, Part
from orchestrator.images.layers.unpacking import Limits, unpack
from orchestrator.images.layers.workers import Workers
from orchestrator.images.registry.platforms import Platform
from orchestrator.images.store import repairs
from orchestrator.images.store.content import Store
from orchestrator.images.store.pairs import Pairs
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One image that is now in the store: its id and the familiar names it was given here."""

    id: str
    names: tuple[str, ...]


def load(
    store: Store,
    source: IO[bytes],
    *,
    limits: Limits | None = None,
    platform: Platform | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Loaded]:
    """Put every image of the archive into the store; of several platforms `platform`, or this machine's.

    `progress` is told how many bytes of the archive have been read. All images come in, or none.
    Raises UserError (exit code IMAGE) for what is wrong with the archive.
    """
    bounds = limits or Limits()
    with store.scratch() as work:
        contents = spool.read(source, work, limit=bounds.max_bytes, progress=progress)
        found = list(_candidates(contents, platform, work, bounds))
        if not found:
            raise configs.broken("the archive holds no image")
        _bring(store, found, _Workshop(work, bounds, progress, _called(found)))
    return [
        Loaded(id=one.image.id, names=tuple(references.familiar(name) for name in one.image.names))
        for one in found
    ]


def _candidates(
    contents: Contents, platform: Platform | None, work: Path, limits: Limits
) -> Iterator[Candidate]:
    index = contents.find("index.json")
    table = contents.find("manifest.json")
    if table is not None:
        yield from saved.images(contents, table, index)
    elif index is not None:
        yield from layouts.images(contents, index, platform)
    elif saved.is_old(contents):
        yield from saved.old_images(contents, work, limits.max_bytes)
    else:
        raise UserError(
            "not an image archive: it has neither manifest.json nor index.json",
            exit_code=ExitCode.IMAGE,
            hint="a root file system comes in with `import`",
        )


def _called(found: list[Candidate]) -> dict[str, str]:
    """How errors call a layer, by its diff_id: with the first image that has it."""
    called: dict[str, str] = {}
    for one in found:
        image = references.familiar(one.image.names[0]) if one.image.names else one.image.id[7:19]
        for diff_id in one.layers:
            called.setdefault(diff_id, f"{image}: layer {diff_id[7:19]}")
    return called


def _bring(store: Store, found: list[Candidate], workshop: _Workshop) -> None:
    """Make ready what is lacking and add; again when another process removed something meanwhile."""
    parts = {part.digest: part for one in found for part in one.parts}
    sources = dict.fromkeys(
        (diff_id, parts[part.digest]) for one in found for diff_id, part in one.layers.items()
    )
    blobs = [digest for digest in parts if not store.has_blob(digest)]
    pairs = Pairs(store)
    layers = [
        (diff_id, part)
        for diff_id, part in sources
        if not store.has_layer(diff_id) or not pairs.known(part.digest, diff_id)
    ]
    for _ in range(_ATTEMPTS):
        workshop.make([parts[one] for one in blobs], layers)
        mended = repairs.make_all(
            [one.config.diff_ids for one in found], workshop.layers, store, workshop.work, workshop.called
        )
        images = [one.image for one in found]
        missing = store.add(images, blobs=workshop.blobs, layers=workshop.layers, repairs=mended)
        if missing is None:
            return
        blobs = list(missing.blobs)
        layers = [one for one in sources if one[0] in missing.layers]
    raise UserError("the image's layers are being removed by somebody else", exit_code=ExitCode.CONFLICT)


class _Workshop:
    """What is made in the scratch directory: blobs by digest, unpacked layers by diff_id."""

    def __init__(
        self, work: Path, limits: Limits, progress: Callable[[int], None], called: dict[str, str]
    ) -> None:
        self.work = work
        self.called = called
        self.blobs: dict[str, Path] = {}
        self.layers: dict[str, Path] = {}
        self._limits = limits
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def make(self, blobs: list[Part], layers: list[tuple[str, Part]]) -> None:
        """Side by side, the largest first, so that the last to end is a small one. Raises UserError.

        A layer that comes as several blobs is made of each: all of them must be it.
        """
        jobs: dict[Part, list[str]] = {part: [] for part in blobs}
        for diff_id, part in layers:
            jobs.setdefault(part, []).append(diff_id)
        order = sorted(jobs, key=lambda part: -part.size)
        with (
            Workers() if layers else nullcontext() as workers,
            ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool,
        ):
            for _ in pool.map(lambda part: self._make(part, jobs[part], workers), order):
                pass

    def _make(self, part: Part, diff_ids: list[str], workers: Workers | None) -> None:
        copied = 0 if part.is_ours else part.size
        path = part.keep(self.work / f"blob-{part.digest[7:]}")
        with self._lock:
            self.blobs[part.digest] = path
            self._done += copied
            if copied:
                self._progress(self._done)
        for diff_id in diff_ids:
            target = self.work / f"layer-{diff_id[7:]}-{part.digest[7:19]}"
            what = self.called[diff_id]
            meta = unpack(path, target, self._limits, workers, what=what)
            if meta.diff_id != diff_id:
                raise configs.broken(f"{what}: a layer should be {diff_id} and is {meta.diff_id}")
            self.layers[diff_id] = target
