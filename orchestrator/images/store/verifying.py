"""Whether everything in the store is what it is called: each blob is hashed, each layer is unpacked once more
beside itself and compared, each repair is made once more.

`mend` puts right what the store itself can: a layer whose blob is sound is replaced, what is damaged is taken
away so that the next `load` or `pull` brings it. Nobody else collects garbage of what is looked at.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.images import config as configs
from orchestrator.images import reference as references
from orchestrator.images import scratch, trees
from orchestrator.images.config import ImageConfig
from orchestrator.images.layers import meta
from orchestrator.images.layers.unpacking import Limits, unpack
from orchestrator.images.layers.workers import Workers
from orchestrator.images.store import comparing, index, repairs
from orchestrator.images.store.content import MANIFEST_LIMIT, Store
from orchestrator.images.store.index import Entry
from orchestrator.model.errors import UserError
from orchestrator.model.frozen import dataclass, field, replace

Progress = Callable[[int, int], None]
"""Told how many blobs and layers have been looked at, and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is not as it should be."""

    what: str
    """As "blob sha256:..." or "layer sha256:..."."""
    problem: str
    images: tuple[str, ...] = ()
    """Familiar names, or ids, of the images that need it."""
    mended: bool = False
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was looked at, and what was found."""

    images: int
    blobs: int
    layers: int
    size: int
    """Bytes of the blobs."""
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What images need, with the images by whom: names below blobs/sha256, layers by diff_id."""

    blobs: dict[str, dict[str, None]] = field(default_factory=dict)
    layers: dict[str, dict[str, None]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    """Digest of a blob that a layer was unpacked from, by diff_id."""
    chains: dict[tuple[str, ...], dict[str, None]] = field(default_factory=dict)


def verify(
    store: Store,
    *,
    mend: bool = False,
    busy: Collection[str] = (),
    progress: Progress = lambda _done, _total: None,
) -> Report:
    """Look at everything. `mend` leaves layers of images in `busy` alone (ids, of running containers).

    Raises UserError when the store cannot be read at all.
    """
    index_fault = None
    try:
        entries = store.entries()
    except UserError as error:
        if not mend:
            raise
        entries = store.entries(mend=True)
        names = tuple(references.familiar(entry.name) for entry in entries if entry.name)
        problem = error.message.partition(": ")[2]
        index_fault = Fault(what="index.json", problem=problem, images=names, mended=True)
    wanted = _needs(store, entries)
    running = frozenset(diff_id for one in busy for diff_id in _diff_ids(store, one))
    with store.lease() as lease, store.scratch() as work:
        lease.keep(*(f"sha256:{name}" for name in wanted.blobs), *wanted.layers)
        report = _Round(store, wanted, work, mend=mend, busy=running, progress=progress).all(entries)
    return report if index_fault is None else replace(report, faults=(index_fault, *report.faults))


def _needs(store: Store, entries: Iterable[Entry]) -> _Wanted:
    wanted = _Wanted()
    for entry in entries:
        label = references.familiar(entry.name) if entry.name else entry.id[:19]
        wanted.blobs.setdefault(entry.manifest[7:], {})[label] = None
        wanted.blobs.setdefault(entry.id[7:], {})[label] = None
        blobs = _layer_blobs(store, entry.manifest)
        for digest in blobs:
            wanted.blobs.setdefault(digest[7:], {})[label] = None
        diff_ids = _diff_ids(store, entry.id)
        for diff_id in diff_ids:
            wanted.layers.setdefault(diff_id, {})[label] = None
        if len(blobs) == len(diff_ids):
            wanted.sources.update(zip(diff_ids, blobs, strict=True))
        wanted.chains.setdefault(diff_ids, {})[label] = None
    return wanted


def _layer_blobs(store: Store, manifest: str) -> list[str]:
    try:
        content = store.blob(manifest, limit=MANIFEST_LIMIT)
        data = configs.read_json(content, manifest, limit=MANIFEST_LIMIT)
    except UserError:
        return []
    return index.digests(data.get("layers"))


def _diff_ids(store: Store, image_id: str) -> tuple[str, ...]:
    try:
        parsed: ImageConfig = configs.parse(store.blob(image_id, limit=configs.CONFIG_LIMIT), image_id)
    except UserError:
        return ()
    return parsed.diff_ids


class _Round:
    """One look at everything."""

    def __init__(
        self,
        store: Store,
        wanted: _Wanted,
        work: Path,
        *,
        mend: bool,
        busy: frozenset[str],
        progress: Progress,
    ) -> None:
        self._store = store
        self._wanted = wanted
        self._work = work
        self._mend = mend
        self._busy = busy
        self._progress = progress
        self._workers: Workers | None = None
        self._done = self._total = 0
        self._size = 0
        self._rotten: set[str] = set()
        """Blobs that are gone or have another digest."""
        self._bad: set[str] = set()
        """Layers that are gone or damaged, and could not be mended."""

    def all(self, entries: Collection[Entry]) -> Report:
        names = sorted({*_blob_names(self._store), *self._wanted.blobs})
        self._total = len(names) + len(self._wanted.layers)
        with contextlib.ExitStack() as stack:
            if self._wanted.layers:
                self._workers = stack.enter_context(Workers())
            pool = stack.enter_context(ThreadPoolExecutor(max_workers=os.cpu_count() or 1))
            faults = [one for one in pool.map(self._blob, names) if one is not None]
            faults += [one for one in pool.map(self._layer, sorted(self._wanted.layers)) if one is not None]
        faults += [fault for chain in self._wanted.chains if (fault := self._repair(chain)) is not None]
        faults += self._catalog()
        return Report(
            images=len({entry.id for entry in entries}),
            blobs=len(names),
            layers=len(self._wanted.layers),
            size=self._size,
            faults=tuple(faults),
        )

    def _tick(self) -> None:
        self._done += 1
        self._progress(self._done, self._total)

    # --- blobs -----------------------------------------------------------------------------------

    def _blob(self, name: str) -> Fault | None:
        path = self._store.blob_path(f"sha256:{name}")
        images = tuple(self._wanted.blobs.get(name, ()))
        digest = hashlib.sha256()
        try:
            with open(path, "rb", buffering=0) as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
                    self._size += len(piece)
            problem = "" if digest.hexdigest() == name else f"its content is sha256:{digest.hexdigest()[:12]}"
        except FileNotFoundError:
            problem = "gone"
        except OSError as error:
            problem = str(error.strerror)
        self._tick()
        if not problem or (problem == "gone" and not images):
            return None  # what nobody needs may have been collected just now
        self._rotten.add(name)
        if self._mend and problem != "gone":
            self._take_away(path)
        advice = "load or pull it again" if images else ""
        return Fault(what=f"blob sha256:{name}", problem=problem, images=images, advice=advice)

    # --- layers ----------------------------------------------------------------------------------

    def _layer(self, diff_id: str) -> Fault | None:
        source = self._wanted.sources.get(diff_id, "")
        fresh = self._work / f"layer-{diff_id[7:]}"
        sound = bool(source) and source[7:] not in self._rotten
        problem = self._look(diff_id, source, fresh) if sound else self._glance(diff_id)
        fault: Fault | None = None
        if problem:
            mended, advice = self._replace(diff_id, fresh if sound else None)
            if not mended:
                self._bad.add(diff_id)
            images = tuple(self._wanted.layers[diff_id])
            fault = Fault(
                what=f"layer {diff_id}", problem=problem, images=images, mended=mended, advice=advice
            )
        trees.discard(str(fresh))
        self._tick()
        return fault

    def _look(self, diff_id: str, source: str, fresh: Path) -> str:
        """What is wrong with a layer, by what its blob unpacks to; that is left at `fresh`."""
        try:
            made = unpack(self._store.blob_path(source), fresh, Limits(), self._workers)
        except UserError as error:
            return error.message
        if made.diff_id != diff_id:
            return f"its blob unpacks to {made.diff_id[:19]}"
        return self._glance(diff_id) or self._compare(diff_id, fresh, made.implied)

    def _compare(self, name: str, fresh: Path, implied: Collection[str]) -> str:
        place = self._store.layer_path(name)
        try:
            return comparing.difference(fresh / "fs", place / "fs", undated=implied)
        except OSError as error:
            return f"{error.filename}: {error.strerror}"

    def _glance(self, diff_id: str) -> str:
        """What is seen to be wrong without the blob."""
        place = self._store.layer_path(diff_id)
        if not place.is_dir():
            return "gone"
        if not (place / "fs").is_dir():
            return "its files are gone"
        try:
            known = meta.read_meta(place)
        except UserError as error:
            return error.message.partition(": ")[2]
        return "" if known.diff_id == diff_id else f"its record says {known.diff_id[:19]}"

    def _replace(self, diff_id: str, fresh: Path | None) -> tuple[bool, str]:
        """Put a layer that was just unpacked where a bad one is. Returns whether, and what else to do."""
        if not self._mend:
            return False, ""
        if diff_id in self._busy:
            return False, "a container runs on it: stop it and try again"
        place = self._store.layer_path(diff_id)
        if fresh is None or not fresh.is_dir():
            self._take_away(place)
            return False, "load or pull it again"
        scratch.sync_tree(fresh)
        self._take_away(place, fresh)
        return True, ""

    # --- the rest --------------------------------------------------------------------------------

    def _repair(self, chain: tuple[str, ...]) -> Fault | None:
        """Repairs where layers meet are made anew, when all layers are there."""
        if not chain or not self._bad.isdisjoint(chain):
            return None
        name = f"fix-{index.chain_id(chain)[7:]}"
        try:
            made = repairs.make_all([chain], {}, self._store, self._work).get(index.chain_id(chain))
        except UserError as error:
            return Fault(what="layers", problem=error.message, images=tuple(self._wanted.chains[chain]))
        place = self._store.layer_path(f"sha256:{name}")
        if made is None:
            problem = "not needed" if place.exists() else ""
        elif not (place / "fs").is_dir():
            problem = "gone"
        else:
            problem = self._compare(f"sha256:{name}", made, ())
        if not problem:
            return None
        mended = self._mend and self._busy.isdisjoint(chain)
        if mended:
            self._take_away(place, made)
        return Fault(
            what=f"repair {name[4:16]} of layers",
            problem=problem,
            images=tuple(self._wanted.chains[chain]),
            mended=mended,
        )

    def _catalog(self) -> list[Fault]:
        problem = self._store.check_catalog(mend=self._mend)
        if not problem:
            return []
        return [Fault(what="store.db", problem=problem, mended=self._mend)]

    def _take_away(self, place: Path, instead: Path | None = None) -> None:
        """Into the scratch directory, which goes in the end; `instead` comes in its place."""
        with self._store.locked():
            if place.exists():
                os.rename(place, self._work / f"bad-{place.name}")
            if instead is not None:
                os.rename(instead, place)


def _blob_names(store: Store) -> list[str]:
    """What is not a blob is none of ours: a temporary name of a process that was killed, for the sweeper."""
    place = store.root / "blobs" / "sha256"
    names = os.listdir(place) if place.is_dir() else []
    return [name for name in names if references.is_digest(f"sha256:{name}")]
