"""Builders of image archives: what `docker save` writes, in its old and its new form, and OCI layouts.

base = layer(Entry("etc/motd", b"hello"), Entry("tmp/", mode=0o1777))
docker_save(Image((base,), tags=("hello:1",)))
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a layer's tar. A name that ends in "/" is a directory; `link` makes a symbolic link."""

    name: str
    content: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 1_700_000_000
    link: str = ""
    hardlink: str = ""
    type: bytes = b""
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str] = field(default_factory=dict)

    @property
    def header(self) -> tarfile.TarInfo:
        info = tarfile.TarInfo(self.name.rstrip("/") or "./")
        info.type = self.type or self._type()
        info.mode = self.mode or (0o755 if info.type == tarfile.DIRTYPE else 0o644)
        info.uid, info.gid, info.mtime = self.uid, self.gid, self.mtime
        info.size = len(self.content)
        info.linkname = self.link or self.hardlink
        info.devmajor, info.devminor = self.device
        info.pax_headers = dict(self.pax)
        return info

    def _type(self) -> bytes:
        if self.name.endswith("/"):
            return tarfile.DIRTYPE
        if self.link:
            return tarfile.SYMTYPE
        return tarfile.LNKTYPE if self.hardlink else tarfile.REGTYPE


def layer(*entries: Entry) -> bytes:
    """A tar of the entries in their order, nothing added."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            archive.addfile(entry.header, io.BytesIO(entry.content))
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class Image:
    """Layers as plain tars, lowest first, run defaults in Docker's field names, and names."""

    layers: tuple[bytes, ...]
    run: Json = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    more: Json = field(default_factory=dict)
    """Further fields of the config, or others for those made here."""

    @property
    def config(self) -> bytes:
        data = {
            "architecture": "amd64",
            "os": "linux",
            "config": dict(self.run),
            "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in self.layers]},
            **self.more,
        }
        return json.dumps(data).encode()

    @property
    def id(self) -> str:
        return digest(self.config)


def docker_save(*images: Image, packed: Mapping[str, Sequence[bytes]] | None = None) -> bytes:
    """The form of Docker 1.10 to 24: ID/layer.tar, HEX.json, and manifest.json at the end.

    `packed`: by an image's first tag how its layers come, if not as they are.
    """
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    homes: dict[bytes, str] = {}
    table = []
    for image in images:
        names = []
        forms = (packed or {}).get(image.tags[0] if image.tags else "") or image.layers
        for place, content in enumerate(forms):
            folder = hashlib.sha256(f"{image.id} {place}".encode()).hexdigest()
            files[f"{folder}/VERSION"] = b"1.0"
            files[f"{folder}/json"] = b"{}"
            if content in homes:
                links[f"{folder}/layer.tar"] = f"../{homes[content]}/layer.tar"
            else:
                homes[content] = folder
                files[f"{folder}/layer.tar"] = content
            names.append(f"{folder}/layer.tar")
        files[f"{image.id[7:]}.json"] = image.config
        row = {"Config": f"{image.id[7:]}.json", "RepoTags": list(image.tags) or None, "Layers": names}
        table.append(row)
    files["manifest.json"] = dumps(table)
    files["repositories"] = b"{}"
    return pack(files, links)


def docker_save_of_old(*images: Image, names: bool = True) -> bytes:
    """The form before Docker 1.10: every layer an image of its own, and `repositories`."""
    files: dict[str, bytes] = {}
    table: dict[str, dict[str, str]] = {}
    for image in images:
        parent = ""
        for place, content in enumerate(image.layers):
            one = hashlib.sha256(parent.encode() + content).hexdigest()
            top = place == len(image.layers) - 1
            described = {
                "id": one,
                **({"parent": parent} if parent else {}),
                "created": f"2015-06-0{place + 1}T00:00:00Z",
                "container_config": {"Cmd": ["/bin/sh", "-c", f"step {place}"]},
                "config": dict(image.run) if top else {},
                "architecture": "amd64",
                "os": "linux",
                "Size": len(content),
                **image.more,
            }
            files[f"{one}/VERSION"] = b"1.0"
            files[f"{one}/json"] = dumps(described)
            files[f"{one}/layer.tar"] = content
            parent = one
        for tag in image.tags:
            repository, _, version = tag.partition(":")
            table.setdefault(repository, {})[version or "latest"] = parent
    if names:
        files["repositories"] = dumps(table)
    return pack(files)


def oci_layout(
    *images: Image,
    compress: bool = True,
    mixed: bool = False,
    packed: Mapping[str, Sequence[bytes]] | None = None,
) -> bytes:
    """An OCI layout as a tar; `mixed` adds the manifest.json that Docker writes since version 25.

    `packed`: by an image's first tag how its layers come, if not through gzip.
    """
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    rows: list[Json] = []
    table: list[Json] = []
    for image in images:
        head, layers = parts_of(image, files, compress=compress)
        forms = (packed or {}).get(image.tags[0] if image.tags else "")
        if forms:
            layers = [{"mediaType": LAYER + _suffix(form), **put(files, form)} for form in forms]
        manifest = put(
            files, dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": head, "layers": layers})
        )
        for tag in image.tags or ("",):
            notes = {"annotations": {"org.opencontainers.image.ref.name": tag}} if tag else {}
            rows.append({"mediaType": MANIFEST, **manifest, **notes})
        names = [f"blobs/sha256/{str(row['digest'])[7:]}" for row in (head, *layers)]
        table.append({"Config": names[0], "RepoTags": list(image.tags), "Layers": names[1:]})
    files["index.json"] = dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": rows})
    if mixed:
        files["manifest.json"] = dumps(table)
    return pack(files)


def parts_of(image: Image, files: dict[str, bytes], *, compress: bool) -> tuple[Json, list[Json]]:
    """Put config and layers among the blobs; returns their descriptors."""
    head = {"mediaType": CONFIG, **put(files, image.config)}
    if not compress:
        return head, [{"mediaType": LAYER, **put(files, one)} for one in image.layers]
    rows = (put(files, gzip.compress(one, 1, mtime=0)) for one in image.layers)
    return head, [{"mediaType": f"{LAYER}+gzip", **row} for row in rows]


def _suffix(form: bytes) -> str:
    kinds = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd", b"\x50\x2a": "+zstd"}
    return kinds.get(form[:2], "")


def put(files: dict[str, bytes], content: bytes) -> Json:
    """Add a blob; returns the digest and size of its descriptor."""
    files[f"blobs/sha256/{digest(content)[7:]}"] = content
    return {"digest": digest(content), "size": len(content)}


def pack(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    entries = [Entry(name, content) for name, content in files.items()]
    return layer(*entries, *(Entry(name, link=target) for name, target in (links or {}).items()))


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def dumps(data: object) -> bytes:
    return json.dumps(data).encode()


def tree_of(top: Path) -> dict[str, tuple[object, ...]]:
    """Everything below `top` by path: mode, owner, time, content or target and link group, attributes."""
    found: dict[str, tuple[object, ...]] = {}
    groups: dict[int, str] = {}
    waiting: list[Path] = [top]
    while waiting:
        path = waiting.pop()
        now = path.lstat()
        name = os.fsdecode(path.relative_to(top))
        what: object = None
        if stat.S_ISREG(now.st_mode):
            what = (digest(path.read_bytes()), groups.setdefault(now.st_ino, name))
        elif stat.S_ISLNK(now.st_mode):
            what = os.readlink(path)
        elif stat.S_ISDIR(now.st_mode):
            waiting += sorted(path.iterdir(), reverse=True)
        else:
            what = now.st_rdev
        xattrs = tuple(
            (key, os.getxattr(path, key, follow_symlinks=False))
            for key in sorted(os.listxattr(path, follow_symlinks=False))
        )
        found[name] = (now.st_mode, now.st_uid, now.st_gid, now.st_mtime_ns, what, xattrs)
    return found
