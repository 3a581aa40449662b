"""The content store: images by name and id, their blobs, their layers unpacked once each.

    ROOT/oci-layout, index.json       an OCI layout that other tools can read; ref.name is the full name
    ROOT/blobs/sha256/HEX             manifests, configs, layers as they came (push and save are exact)
    ROOT/layers/HEX/{fs,meta.json}    one layer unpacked, by the digest of its tar (diff_id)
    ROOT/layers/fix-HEX/{fs,meta.json} repairs where layers meet, by the digest of the whole chain
    ROOT/tmp/                         work in flight
    ROOT/leases/                      what living processes are about to use (see leases)
    ROOT/partial/                     blobs that have arrived in part (see partials)
    ROOT/store.db                     when and what registries were asked (see catalog)
    ROOT/lock

An image's id is the digest of its config, as with Docker. Layers are keyed by diff_id, not by chain: equal
layers over different bases are stored once and can be unpacked in any order. Everything is put in
place under the lock, blobs first, index.json last; a reader needs no lock.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from orchestrator.images import config as configs
from orchestrator.images import reference as references
from orchestrator.images import scratch
from orchestrator.images.config import ImageConfig
from orchestrator.images.layers import meta
from orchestrator.images.store import collecting, index, leases, partials, rebuilding, removal
from orchestrator.images.store.catalog import Catalog, Pull
from orchestrator.images.store.index import Entry, NewImage, StoredImage
from orchestrator.images.store.leases import Lease
from orchestrator.images.store.removal import ImageUser, Pruned, Removal
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass, replace

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST_LIMIT = 4 << 20
_INDEX_LIMIT = 64 << 20
_BACKUP = "index.json.before"
_CACHE_LIMIT = 256
_LAYER = re.compile("layer-[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What nobody has brought: `add` did nothing."""

    blobs: tuple[str, ...]
    layers: tuple[str, ...]


class Store:
    """The images below one directory. Any number of processes and threads may have one of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._layers = root / "layers"
        self._tmp = root / "tmp"
        self._lock = root / "lock"
        self._catalog = Catalog(root / "store.db", lock=self._lock)
        self._index: tuple[tuple[int, int, int], tuple[Entry, ...]] = ((0, 0, 0), ())
        self._configs: dict[str, ImageConfig] = {}
        self._lowers: dict[str, tuple[Path, ...]] = {}

    # --- reading ---------------------------------------------------------------------------------

    def resolve(self, name: str) -> StoredImage | None:
        """The image that `name` means: a name, name@digest, an id or the beginning of one.

        Raises UserError when the name is malformed or a short id fits several images.
        """
        entries = self._read()
        bare = name.removeprefix("sha256:")
        if name == bare:
            found = self._by_name(entries, name)
            if found is not None:
                return found
        if not references.is_id_prefix(bare):
            return None
        ids = {entry.id for entry in entries if entry.id.startswith(f"sha256:{bare}")}
        if len(ids) > 1:
            raise UserError(f"multiple images found with provided prefix: {bare}", exit_code=ExitCode.IMAGE)
        return index.image_of(entries, ids.pop()) if ids else None

    def demand(self, name: str) -> StoredImage:
        """Like `resolve`, but raises UserError when there is no such image."""
        image = self.resolve(name)
        if image is None:
            raise UserError(f"No such image: {_with_tag(name)}", exit_code=ExitCode.IMAGE)
        return image

    def images(self) -> list[StoredImage]:
        """Every image, in the order of index.json."""
        entries = self._read()
        return [index.image_of(entries, one) for one in dict.fromkeys(entry.id for entry in entries)]

    def config(self, image_id: str) -> ImageConfig:
        """The run defaults of an image that is here. Raises UserError when it is not, or is broken."""
        known = self._configs.get(image_id)
        if known is None:
            parsed = configs.parse(self.blob(image_id, limit=configs.CONFIG_LIMIT), image_id)
            size = sum(collecting.size_of(self.layer_path(diff_id)) for diff_id in parsed.diff_ids)
            known = replace(parsed, size=size)
            if len(self._configs) >= _CACHE_LIMIT:
                self._configs.clear()
            self._configs[image_id] = known
        return known

    def layers(self, image_id: str) -> list[Path]:
        """Lower directories for an overlay, topmost first. Raises UserError when one is not here."""
        known = self._lowers.get(image_id)
        if known is None or not all(os.path.isdir(path) for path in known):
            known = self._find_layers(self.config(image_id))
            if len(self._lowers) >= _CACHE_LIMIT:
                self._lowers.clear()
            self._lowers[image_id] = known
        return list(known)

    def blob(self, digest: str, *, limit: int) -> bytes:
        """A small blob, whole. Raises UserError when it is not here or larger than `limit` bytes."""
        try:
            with open(self.blob_path(digest), "rb") as file:
                content = file.read(limit + 1)
        except FileNotFoundError:
            raise configs.damaged(f"blob {digest[:19]} is not in the store") from None
        if len(content) > limit:
            raise configs.broken(f"{digest[:19]} is larger than {limit >> 20} MiB")
        return content

    def blob_path(self, digest: str) -> Path:
        """Where a blob is, if it is here."""
        if not references.is_digest(digest):
            raise configs.broken(f"{digest!r:.80} is not a sha256 digest")
        return self._blobs / digest[7:]

    def has_layer(self, diff_id: str) -> bool:
        return os.path.isdir(self.layer_path(diff_id))

    def has_blob(self, digest: str) -> bool:
        return os.path.isfile(self.blob_path(digest))

    def last_pull(self, name: str) -> Pull | None:
        """What the registry said when it was last asked for a full name; None: never, or forgotten."""
        return self._catalog.last_pull(name)

    def layer_path(self, diff_id: str) -> Path:
        """Where an unpacked layer is, if it is here."""
        return self._layers / diff_id[7:]

    # --- changing --------------------------------------------------------------------------------

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory on the store's file system for work in flight, gone at the end."""
        self._prepare()
        with scratch.locked(self._lock):
            scratch.sweep(self._tmp)
        with scratch.directory(self._tmp, lock=self._lock) as path:
            yield path

    def lease(self) -> AbstractContextManager[Lease]:
        """What this process is about to use: `keep` digests, and no process collects them as garbage.

        Ends with the block; when that fails, or the process dies, what it named stays for a week.
        """
        self._prepare()
        return leases.lease(self.root / "leases", lock=self._lock)

    def partial(self, digest: str, *, wait: bool = True) -> AbstractContextManager[Path | None]:
        """The file that holds the beginning of a blob, made empty when nothing has arrived yet.

        This block's alone: others wait, or get None with `wait=False`. It stays at the end, to go on from,
        unless `put_blob` has taken it; what nobody adds to is swept after a week.
        """
        self._prepare()
        target = self.blob_path(digest)
        return partials.claimed(self.root / "partial", target.name, lock=self._lock, wait=wait)

    def put_blob(self, digest: str, path: Path, lease: Lease) -> None:
        """Move a file (of `scratch` or `partial`) in place, whose digest the caller has checked.

        Durable before it is visible. When the blob is here already, the file is left where it is.
        """
        self._put(digest, path, self.blob_path(digest), lease, scratch.sync_file)

    def put_layer(self, diff_id: str, directory: Path, lease: Lease) -> None:
        """The same for an unpacked layer: a directory with `fs` and `meta.json`."""
        self._put(diff_id, directory, self.layer_path(diff_id), lease, scratch.sync_tree)

    def _put(
        self, digest: str, source: Path, target: Path, lease: Lease, sync: Callable[[Path], None]
    ) -> None:
        lease.keep(digest)
        if target.exists():
            return
        sync(source)
        with scratch.locked(self._lock):
            _settle([(source, target)])
            scratch.sync_directory(target.parent)

    def note_pull(self, name: str, digest: str, at: float, etag: str = "") -> None:
        """Remember what the registry said of a full name; `at` is in seconds since 1970."""
        self._prepare()
        self._catalog.note_pull(Pull(name=name, digest=digest, at=at, etag=etag))

    def note_origin(self, name: str, digest: str) -> None:
        """A registry now has the image of this full name under `digest`: it was pushed. Raises UserError."""
        self._prepare()
        with scratch.locked(self._lock):
            image = self.demand(name)
            origin = f"{references.parse(name).repository}@{digest}"
            self._write(
                tuple(
                    index.with_origin(one, origin) if (one.id, one.name) == (image.id, name) else one
                    for one in self._read()
                )
            )

    def add(
        self,
        images: Sequence[NewImage],
        *,
        blobs: Mapping[str, Path],
        layers: Mapping[str, Path],
        repairs: Mapping[str, Path],
    ) -> Missing | None:
        """Put images in place; `blobs` and `layers` (by digest) and `repairs` (by chain) are moved here
        from a scratch directory.

        All or nothing. Returns what is missing when a layer or blob is neither brought nor here (another
        process may have removed it since the caller looked): bring it and call again.
        """
        self._prepare()
        scratch.sync_tree(self._tmp)
        with scratch.locked(self._lock):
            lacking = self._lacking(images, blobs, layers)
            if lacking is not None:
                return lacking
            _settle((path, self.blob_path(digest)) for digest, path in blobs.items())
            _settle((path, self.layer_path(diff_id)) for diff_id, path in layers.items())
            _settle((path, self._layers / f"fix-{chain[7:]}") for chain, path in repairs.items())
            for image in images:
                scratch.write_file(self.blob_path(index.digest_of(image.manifest)), image.manifest)
            scratch.sync_directory(self._layers)
            scratch.sync_directory(self._blobs)
            entries = self._read()
            for image in images:
                entries = index.with_image(entries, image)
            self._write(entries)
        return None

    def tag(self, source: str, target: str) -> StoredImage:
        """Give an image a second name; a name that meant another image moves. Raises UserError."""
        name = references.parse(target)
        if name.digest:
            raise UserError("refusing to create a tag with a digest reference", exit_code=ExitCode.IMAGE)
        self._prepare()
        with scratch.locked(self._lock):
            image = self.demand(source)
            entries = self._read()
            model = next(entry for entry in entries if entry.id == image.id)
            self._write(index.with_name(entries, model, str(name)))
        return self.demand(source)

    def remove(
        self,
        name: str,
        *,
        force: bool = False,
        in_use: Callable[[str], Sequence[ImageUser]] = lambda _: (),
    ) -> Removal:
        """Take away a name, or the whole image when it was its last one or an id is given.

        `in_use` names the containers made from an image id. Refused (UserError) in Docker's words; with
        `force` a used image loses its names but stays, for as long as containers need its layers.
        """
        self._prepare()
        with scratch.directory(self._tmp, lock=self._lock) as attic, scratch.locked(self._lock):
            image = self.demand(name)
            by_id = self._by_name(self._read(), name) is None or "@" in name
            users = in_use(image.id)
            gone = image.names if by_id else (str(references.parse(name)),)
            removal.check(image, name, by_id=by_id, force=force, users=users)
            last = set(gone) == set(image.names)
            entries = index.without(self._read(), image.id, gone)
            if last and users:
                entries = (*entries, index.dangling(self._read(), image.id))
            self._write(entries)
            deleted: tuple[str, ...] = ()
            if last and not users:
                moved = collecting.collect(self.root, entries, attic)
                deleted = (image.id, *(f"sha256:{one[6:]}" for one in moved if _LAYER.fullmatch(one)))
        return Removal(untagged=tuple(references.familiar(one) for one in gone), deleted=deleted)

    def sweep(self, *, grace: float = leases.WEEK) -> int:
        """Remove what killed processes left behind: abandoned work, blobs and layers of no image.

        What a dead pull had is kept for `grace` seconds, for another to go on with.
        """
        self._prepare()
        with scratch.directory(self._tmp, lock=self._lock) as attic, scratch.locked(self._lock):
            return scratch.sweep(self._tmp) + len(
                collecting.collect(self.root, self._read(), attic, grace=grace)
            )

    def prune(self, doomed: Callable[[StoredImage], bool]) -> Pruned:
        """Remove every image that is `doomed`, and at once what dead processes left behind, however young."""
        self._prepare()
        with scratch.directory(self._tmp, lock=self._lock) as attic, scratch.locked(self._lock):
            gone = [image for image in self.images() if doomed(image)]
            entries = self._read()
            for image in gone:
                entries = index.without(entries, image.id, image.names)
            if gone:
                self._write(entries)
            scratch.sweep(self._tmp)
            gained = partials.sweep(self.root / "partial", grace=0)
            moved = collecting.collect(self.root, entries, attic, grace=0)
            gained += sum(collecting.size_of(attic / name) for name in moved)
        layers = (f"sha256:{one[6:]}" for one in moved if _LAYER.fullmatch(one))
        return Pruned(
            untagged=tuple(references.familiar(name) for image in gone for name in image.names),
            deleted=(*(image.id for image in gone), *layers),
            gained=gained,
        )

    def entries(self, *, mend: bool = False) -> tuple[Entry, ...]:
        """index.json as values. With `mend` a damaged one is made anew. Raises UserError."""
        if mend:
            self._prepare()
            with scratch.locked(self._lock):
                try:
                    self._read()
                except UserError:
                    self._write(rebuilding.rebuild(self._blobs, self._before()))
        return self._read()

    def locked(self) -> AbstractContextManager[None]:
        """Nobody else changes the store meanwhile."""
        return scratch.locked(self._lock)

    def check_catalog(self, *, mend: bool) -> str:
        """What is wrong with store.db, "" for nothing; with `mend` it is made anew."""
        problem = self._catalog.check()
        if problem and mend:
            self._catalog.forget()
        return problem

    # --- inside ----------------------------------------------------------------------------------

    def _prepare(self) -> None:
        needed = (self._blobs, self._layers, self._tmp, self.root / "oci-layout")
        if all(map(os.path.exists, needed)):
            return
        # 0700: layers hold setuid programs of unknown make, which no other user may reach (CVE-2021-41091).
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (self.root / "blobs", self._blobs, self._layers, self._tmp):
            directory.mkdir(mode=0o700, exist_ok=True)
        with scratch.locked(self._lock):
            if not (self.root / "oci-layout").exists() and not (self.root / "index.json").exists():
                self._write(())
            scratch.write_file(self.root / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')

    def _read(self) -> tuple[Entry, ...]:
        """The descriptors of index.json; parsed again only when the file was replaced.

        No index in a store that was once made is not the same as an empty one: nothing may be collected then.
        """
        path = self.root / "index.json"
        try:
            now = os.stat(path)
        except FileNotFoundError:
            if (self.root / "oci-layout").exists():
                raise configs.damaged(f"{path} is damaged: it is gone") from None
            return ()
        stamp = (now.st_mtime_ns, now.st_ino, now.st_size)
        if stamp != self._index[0]:
            self._index = (stamp, self._parsed(path))
        return self._index[1]

    def _parsed(self, path: Path) -> tuple[Entry, ...]:
        try:
            data = configs.read_json(path.read_bytes(), path.name, limit=_INDEX_LIMIT)
        except UserError as error:
            why = error.message.partition(f"{path.name} ")[2]
            raise configs.damaged(f"{path} is damaged: it {why}") from None
        rows = data.get("manifests")
        if not isinstance(rows, list | None):
            raise configs.damaged(f"{path} is damaged: it has no list of manifests")
        entries = (self._entry(row) for row in rows or () if isinstance(row, dict))
        return tuple(entry for entry in entries if entry is not None)

    def _before(self) -> tuple[Entry, ...]:
        """The index before the last change, if that can be read; the damaged one goes."""
        (self.root / "index.json").unlink(missing_ok=True)
        try:
            return self._parsed(self.root / _BACKUP)
        except (OSError, UserError):
            return ()

    def _entry(self, row: dict[str, Any]) -> Entry | None:
        """Another tool may have written this layout too: what is not an image we can run is passed over."""
        try:
            digest = row["digest"]
            notes = row.get("annotations") or {}
            image_id = notes.get(index.IMAGE_ID) or self.manifest(digest)["config"]["digest"]
            name = notes.get(index.REF_NAME, "")
            full = str(references.parse(name)) if name else ""
        except (KeyError, TypeError, AttributeError, UserError):
            return None
        return Entry(row, image_id, full, digest)

    def manifest(self, digest: str) -> dict[str, Any]:
        """A manifest that is here. Raises UserError."""
        content = self.blob(digest, limit=MANIFEST_LIMIT)
        return configs.read_json(content, f"manifest {digest[:19]}", limit=MANIFEST_LIMIT)

    def _write(self, entries: tuple[Entry, ...]) -> None:
        rows = [entry.descriptor for entry in entries]
        data = {"schemaVersion": 2, "mediaType": INDEX, "manifests": rows}
        path = self.root / "index.json"
        if path.exists():
            (self.root / _BACKUP).unlink(missing_ok=True)
            os.link(path, self.root / _BACKUP)
        scratch.write_file(path, json.dumps(data, indent=1).encode())
        self._index = ((0, 0, 0), ())

    def _by_name(self, entries: tuple[Entry, ...], name: str) -> StoredImage | None:
        try:
            wanted = references.parse(name)
        except UserError:
            if references.is_id_prefix(name):
                return None
            raise
        if wanted.digest:
            ids = [
                entry.id
                for entry in entries
                if wanted.digest in (entry.manifest, entry.origin.rpartition("@")[2])
            ]
        else:
            full = str(wanted)
            ids = [entry.id for entry in entries if entry.name == full]
        return index.image_of(entries, ids[0]) if ids else None

    def _find_layers(self, config: ImageConfig) -> tuple[Path, ...]:
        """Topmost first, each directory once: overlayfs refuses a lower directory given twice, and the
        higher one of two equal layers hides the other."""
        lowers: list[Path] = []
        repair = self._layers / f"fix-{index.chain_id(config.diff_ids)[7:]}" / "fs"
        if os.path.isdir(repair):
            lowers.append(repair)
        for diff_id in dict.fromkeys(reversed(config.diff_ids)):
            path = self.layer_path(diff_id)
            lowers.append(path / "fs")
            known = meta.read_meta(path)
            if not os.path.isdir(path / "fs"):
                raise configs.damaged(f"layer {diff_id[:19]}: its files are gone")
            if known.opaque_root:
                break
        return tuple(lowers)

    def _lacking(
        self, images: Sequence[NewImage], blobs: Mapping[str, Path], layers: Mapping[str, Path]
    ) -> Missing | None:
        need_blobs = {digest for image in images for digest in image.blobs}
        need_layers = {diff_id for image in images for diff_id in image.diff_ids}
        lost_blobs = [one for one in need_blobs if one not in blobs and not self.blob_path(one).exists()]
        lost_layers = [one for one in need_layers if one not in layers and not self.has_layer(one)]
        if not lost_blobs and not lost_layers:
            return None
        return Missing(blobs=tuple(lost_blobs), layers=tuple(lost_layers))


def _with_tag(name: str) -> str:
    try:
        return references.familiar(name)
    except UserError:
        return name


def _settle(moves: Iterable[tuple[Path, Path]]) -> None:
    """Rename into place what is not there yet; equal names mean equal content."""
    for source, target in moves:
        if not target.exists():
            os.rename(source, target)
