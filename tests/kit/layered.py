"""Real images of several layers, made on this machine from Debian packages: what a registry has to offer.

    debian:bookworm (and :latest)   a minbase by mmdebstrap, some 90 packages whose scripts have run
    redis:7 postgres:15 nginx:1 python:3   the services of tests/kit/images.py as one layer on top of it;
                                    also by the tag :debian, as examples/10-shop asks for them

They lie in one OCI layout outside the repository, made once a set of package versions, and are pushed by skopeo:

    with registries.running(folder) as registry:
        layered.publish(registry, "redis", "nginx")     # localhost:PORT/library/redis:7 ...

    python -m tests.kit.layered             make all, say where they are
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from isal import igzip

from orchestrator.images import changes
from tests.kit import images
from tests.kit.archives import CONFIG, INDEX, LAYER, MANIFEST, Json, dumps
from tests.kit.images import RECIPES, Recipe
from tests.kit.registries import Registry

FORMAT = 1
"""Part of every key: raise it when this file makes something else of the same packages."""
BASE = "debian"
TAGS: Mapping[str, tuple[str, ...]] = {
    "debian": ("bookworm", "latest"),
    "redis": ("7", "debian"),
    "postgres": ("15", "debian"),
    "nginx": ("1", "debian"),
    "python": ("3", "debian"),
}
_MINBASE = Recipe(reference=f"{BASE}:bookworm", packages=("?essential", "apt"))
_LEFT_OUT = ("doc", "man", "locale", "info", "lintian")
_CREATED = "2024-01-01T00:00:00Z"


def main() -> int:
    for name in TAGS:
        begun = time.monotonic()
        layout(name)
        print(f"{name} is made ({time.monotonic() - begun:.1f} s)", flush=True)
    print(_home())
    return 0


def publish(registry: Registry, *names: str) -> dict[str, str]:
    """Push these images (all) under library/ by all their tags; NAME:TAG -> digest."""
    chosen = names or tuple(TAGS)
    pushed = {}
    for name, place in layouts(chosen).items():
        for tag in TAGS[name]:
            image = f"library/{name}:{tag}"
            target = f"docker://{registry.name(image)}"
            registry.skopeo("copy", *registry.flags("dest"), f"oci:{place}:{name}", target)
            pushed[f"{name}:{tag}"] = registry.digest(image)
    return pushed


def layout(name: str) -> Path:
    """The OCI layout that has the image by the bare name, made now if the cache has none."""
    return layouts([name])[name]


def layouts(names: Sequence[str]) -> dict[str, Path]:
    """The same for several, which are made side by side."""
    home = _home()
    with images.locked(home / "lock"):
        base = _base(home)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            made = pool.map(lambda name: base if name == BASE else _upon(base, RECIPES[name], home), names)
            return dict(zip(names, made, strict=True))


def save(name: str, path: Path) -> Path:
    """The image as an archive at `path`, in the form of `docker save`, its layers compressed."""
    place = layout(name)
    manifest = _manifest(place)
    files = [manifest["config"]["digest"], *(row["digest"] for row in manifest["layers"])]
    names = [f"{digest[7:]}" for digest in files]
    table = [{"Config": names[0], "RepoTags": [f"{name}:{TAGS[name][0]}"], "Layers": names[1:]}]
    with tarfile.open(path, "w") as archive:
        for digest, inside in zip(files, names, strict=True):
            archive.add(_blob(place, digest), inside)
        content = dumps(table)
        head = tarfile.TarInfo("manifest.json")
        head.size = len(content)
        archive.addfile(head, io.BytesIO(content))
    return path


def blobs(name: str) -> list[bytes]:
    """The image's layers as they are stored, lowest first."""
    place = layout(name)
    return [_blob(place, row["digest"]).read_bytes() for row in _manifest(place)["layers"]]


def _manifest(place: Path) -> Any:
    index = json.loads((place / "index.json").read_bytes())
    return json.loads(_blob(place, index["manifests"][0]["digest"]).read_bytes())


def _home() -> Path:
    path = images.cache() / "layered"
    path.mkdir(exist_ok=True, mode=0o700)
    return path


# --- the base ---------------------------------------------------------------------------------------------


def _base(home: Path) -> Path:
    """A layout with the minbase, and beside its blobs what the layers on top need to know of it."""
    chosen = images.resolved(_MINBASE, images.cache())
    path = home / f"{BASE}-{images.digest_of(FORMAT, chosen)[:16]}"
    if path.exists():
        return path
    partial = _partial(path)
    suite = Path("/etc/os-release").read_text().partition("VERSION_CODENAME=")[2].split()[0]
    tar = partial / "layer.tar"
    excludes = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    # What is synced here is thrown away at once: in memory it costs nothing.
    room = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}
    images.run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            "--dpkgopt=force-unsafe-io",
            *excludes,
            suite,
            str(tar),
        ],
        environ={**os.environ, **room, "SOURCE_DATE_EPOCH": "1704067200"},
    )
    with tarfile.open(tar) as archive:
        for member, name in (
            ("./var/lib/dpkg/status", "status"),
            ("./etc/passwd", "passwd"),
            ("./etc/group", "group"),
        ):
            found = archive.extractfile(member)
            assert found
            (partial / name).write_bytes(found.read())
    _write(partial, BASE, [_layer(tar, partial)], {"Cmd": ["bash"], "Env": [_PATH]})
    _settle(partial, path, f"{BASE}-{'?' * 16}")
    return path


_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


# --- layers on top ----------------------------------------------------------------------------------------


def _upon(base: Path, recipe: Recipe, home: Path) -> Path:
    """A layout with the recipe's image: the base's layer, and one with its packages' files."""
    chosen = images.resolved(recipe, images.cache(), status=base / "status")
    path = home / f"{recipe.name}-{images.digest_of(FORMAT, repr(recipe), base.name, chosen)[:16]}"
    if path.exists():
        return path
    partial = _partial(path)
    root = partial / "root"
    images.merge(root)
    for archive in images.downloaded(chosen, images.cache() / "packages"):
        images.extract(archive, root)
    (root / "etc").mkdir(exist_ok=True)
    for name, row in (("passwd", "{0}:x:{1}:{1}::/:/bin/sh\n"), ("group", "{0}:x:{1}:\n")):
        users = "".join(row.format(*user) for user in recipe.users.items())
        (root / "etc" / name).write_text((base / name).read_text() + users)
    images.furnish(recipe, root)
    for name in images.MERGED:
        # The base has them; here they were for the packages that still say /bin.
        (root / name).unlink()
    tar = partial / "layer.tar"
    packing = ["tar", "--sort=name", "--numeric-owner", "--format=posix", "--xattrs"]
    packing += ["--pax-option=delete=atime,delete=ctime"]
    images.run([*packing, "-C", str(root), "-cf", str(tar), *sorted(os.listdir(root))])
    shutil.rmtree(root)
    below = json.loads((base / "parts.json").read_text())
    for row in below:
        os.link(_blob(base, row["digest"]), _blob(partial, row["digest"]))
    run = changes.apply({"Env": [_PATH]}, recipe.changes)
    _write(partial, recipe.name, [*below, _layer(tar, partial)], run)
    _settle(partial, path, f"{recipe.name}-{'?' * 16}")
    return path


# --- layouts ----------------------------------------------------------------------------------------------


def _partial(path: Path) -> Path:
    """Everything is made beside `path`, then renamed: a half-made image is never taken for a whole one."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "blobs/sha256").mkdir(parents=True)
    return partial


def _settle(partial: Path, path: Path, stale: str) -> None:
    for old in path.parent.glob(stale):
        shutil.rmtree(old)
    partial.rename(path)


def _layer(tar: Path, place: Path) -> dict[str, object]:
    """Compress the layer into the layout's blobs; its descriptor, with the diff_id beside."""
    packed = place / "layer.tar.gz"
    with tar.open("rb") as source, igzip.IGzipFile(packed, "wb", 2, mtime=0) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    found: dict[str, object] = {
        "mediaType": f"{LAYER}+gzip",
        "digest": _hashed(packed),
        "size": packed.stat().st_size,
        "diff_id": _hashed(tar),
    }
    packed.rename(_blob(place, str(found["digest"])))
    tar.unlink()
    return found


def _write(place: Path, name: str, layers: Sequence[Mapping[str, object]], run: Json) -> None:
    """Config, manifest and index of a layout whose layers are there."""
    history = [
        {"created": _CREATED, "created_by": f"packages of {kind}"} for kind in (BASE, name)[: len(layers)]
    ]
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "created": _CREATED,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [row["diff_id"] for row in layers]},
        "history": history,
    }
    rows = [{key: value for key, value in row.items() if key != "diff_id"} for row in layers]
    head = {"mediaType": CONFIG, **_put(place, dumps(config))}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": head, "layers": rows}
    notes = {"org.opencontainers.image.ref.name": name}
    entry = {"mediaType": MANIFEST, **_put(place, dumps(manifest)), "annotations": notes}
    (place / "index.json").write_bytes(dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}))
    (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (place / "parts.json").write_bytes(dumps(list(layers)))


def _put(place: Path, content: bytes) -> Json:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    _blob(place, digest).write_bytes(content)
    return {"digest": digest, "size": len(content)}


def _blob(place: Path, digest: str) -> Path:
    return place / "blobs/sha256" / digest.removeprefix("sha256:")


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


if __name__ == "__main__":
    sys.exit(main())
