"""`save`: images into an archive that docker, podman, skopeo and `load` read.

It is an OCI layout with docker's manifest.json beside it, as docker itself has written it since version 25.
Blobs are the very bytes that came, each once, however many images share it; equal images make equal archives.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.images import config as configs
from orchestrator.images import reference as references
from orchestrator.images.layers import tar
from orchestrator.images.layers.tar import BLOCK, DIRECTORY, Member
from orchestrator.images.store.content import INDEX, MANIFEST, Store
from orchestrator.images.store.index import REF_NAME, StoredImage, digests
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass

_CONTAINERD_NAME = "io.containerd.image.name"
_PIECE = 8 << 20
_SPARE_FILES = 64
"""Descriptors that the process needs besides one a blob."""

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An image to save, and the full names that it keeps."""

    image: StoredImage
    names: tuple[str, ...]


def choose(store: Store, word: str) -> list[Chosen]:
    """What is meant: a name with a tag is that name, one without is every tag of its repository (as with
    docker), an id or a digest is the image without any name.

    Raises UserError.
    """
    return [Chosen(image=image, names=(name,) if name else ()) for image, name in _meant(store, word)]


def merged(chosen: Sequence[Chosen]) -> list[Chosen]:
    """Each image once, with all its names."""
    found: dict[str, Chosen] = {}
    for one in chosen:
        before = found.get(one.image.id)
        names = (*(before.names if before else ()), *one.names)
        found[one.image.id] = Chosen(image=one.image, names=tuple(dict.fromkeys(names)))
    return list(found.values())


def _meant(store: Store, word: str) -> list[tuple[StoredImage, str]]:
    with contextlib.suppress(UserError):
        wanted = references.parse(word)
        if not wanted.digest and word.rpartition("/")[2].find(":") < 0:
            start = f"{wanted.repository}:"
            every = [
                (image, name) for image in store.images() for name in image.names if name.startswith(start)
            ]
            if every:
                return sorted(every, key=lambda pair: pair[1])
    image = store.demand(word)
    try:
        full = str(references.parse(word))
    except UserError:
        full = ""
    return [(image, full if full in image.names else "")]


def save(store: Store, chosen: Sequence[Chosen], out: int, progress: Progress = lambda _: None) -> None:
    """Write the archive to the descriptor `out`; `progress` is told how many bytes of blobs are in it.

    Raises UserError before anything is written when a part of an image is missing, and OSError when writing
    fails.
    """
    done = 0
    with contextlib.ExitStack() as stack:
        tables = [_parts(store, one) for one in chosen]
        needed = list(dict.fromkeys(digest for _, parts in tables for digest in parts))
        _allow_files(len(needed))
        # A blob that is open stays, whoever removes the image meanwhile.
        opened = {digest: _open(store, digest, stack) for digest in needed}
        for content in _archive(chosen, tables, opened):
            if isinstance(content, bytes):
                _write(out, content)
            else:
                _copy(opened[content.digest], out, content.size, lambda moved: progress(done + moved))  # noqa: B023
                done += content.size


def _parts(store: Store, one: Chosen) -> tuple[dict[str, Any], list[str]]:
    """An image's manifest, and the digests of everything it needs: manifest, config, layers."""
    manifest = store.manifest(one.image.manifest)
    layers = digests(manifest.get("layers"))
    return manifest, [one.image.manifest, *digests([manifest.get("config")]), *layers]


def _open(store: Store, digest: str, stack: contextlib.ExitStack) -> int:
    try:
        fd = os.open(store.blob_path(digest), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UserError(
            f"broken image: blob {digest[:19]} is not here any more",
            exit_code=ExitCode.IMAGE,
            hint="`pystack image verify` looks for more of this; pull or load the image again",
        ) from None
    stack.callback(os.close, fd)
    return fd


def _allow_files(count: int) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


# --- the archive ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blob:
    digest: str
    size: int


def _archive(
    chosen: Sequence[Chosen], tables: Sequence[tuple[dict[str, Any], list[str]]], opened: Mapping[str, int]
) -> Iterator[bytes | _Blob]:
    """The archive piece by piece. What tells of its contents comes first: a reader of a pipe can plan."""
    sizes = {digest: os.fstat(fd).st_size for digest, fd in opened.items()}
    yield from _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    yield from _file("index.json", _json(_index(chosen, tables, sizes)))
    yield from _file(
        "manifest.json", _json([_row(one, parts) for one, (_, parts) in zip(chosen, tables, strict=True)])
    )
    for name in ("blobs/", "blobs/sha256/"):
        yield tar.header(Member(name=name.encode(), kind=DIRECTORY, mode=0o755))
    for digest in sorted(opened):
        size = sizes[digest]
        yield tar.header(Member(name=_place(digest).encode(), size=size))
        yield _Blob(digest=digest, size=size)
        yield bytes(-size % BLOCK)
    yield bytes(2 * BLOCK)


def _file(name: str, content: bytes) -> Iterator[bytes]:
    yield tar.header(Member(name=name.encode(), size=len(content)))
    yield content + bytes(-len(content) % BLOCK)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _place(digest: str) -> str:
    return f"blobs/sha256/{digest[7:]}"


def _index(
    chosen: Sequence[Chosen], tables: Sequence[tuple[dict[str, Any], list[str]]], sizes: Mapping[str, int]
) -> dict[str, Any]:
    """index.json: a descriptor a name."""
    rows = []
    for one, (manifest, _) in zip(chosen, tables, strict=True):
        head = {
            "mediaType": manifest.get("mediaType") or MANIFEST,
            "digest": one.image.manifest,
            "size": sizes[one.image.manifest],
        }
        for name in one.names:
            notes = {_CONTAINERD_NAME: name, REF_NAME: name.rpartition(":")[2]}
            rows.append({**head, "annotations": notes})
        if not one.names:
            rows.append(head)
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": rows}


def _row(one: Chosen, parts: Sequence[str]) -> dict[str, Any]:
    """One image in docker's manifest.json."""
    return {
        "Config": _place(parts[1]),
        "RepoTags": [references.familiar(name) for name in one.names] or None,
        "Layers": [_place(digest) for digest in parts[2:]],
    }


# --- writing -------------------------------------------------------------------------------------


def _copy(source: int, out: int, size: int, progress: Progress) -> None:
    """Let the kernel move the bytes, where it can."""
    done = 0
    while done < size:
        try:
            moved = os.sendfile(out, source, done, min(size - done, _PIECE))
        except BlockingIOError:
            _wait(out)
            continue
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            # Into a file that is opened for appending, for one: by hand.
            piece = os.pread(source, min(size - done, 1 << 20), done)
            _write(out, piece)
            moved = len(piece)
        if not moved:
            raise configs.broken("a blob is shorter than it was a moment ago")
        done += moved
        progress(done)


def _write(out: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        try:
            view = view[os.write(out, view) :]
        except BlockingIOError:
            _wait(out)


def _wait(out: int) -> None:
    import select

    waiting = select.poll()
    waiting.register(out, select.POLLOUT)
    waiting.poll()
