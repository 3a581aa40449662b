"""What others make of an image: its root, path by path, by umoci, by Docker, by GNU tar, and under a real overlay.

All give a Tree as tests.kit.archives.tree_of does: path -> (mode, uid, gid, mtime in ns, content or target and
link group, extended attributes).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import docker
from benchmarks.docker import Docker
from tests.kit.archives import Image, oci_layout
from tests.kit.programs import REPOSITORY

Tree = dict[str, tuple[object, ...]]

_MERGED = """
import ctypes, os, pickle, sys
from pathlib import Path
from tests.kit.archives import tree_of
libc = ctypes.CDLL(None, use_errno=True)
jobs, target, more = pickle.load(sys.stdin.buffer)
found = {}
for name, lowers in jobs.items():
    options = f"lowerdir={lowers}{more}".encode()
    if libc.mount(b"overlay", target.encode(), b"overlay", 1, options) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), lowers)
    found[name] = tree_of(Path(target))
    libc.umount2(target.encode(), 2)
sys.stdout.buffer.write(pickle.dumps(found))
"""


def merged(
    stacks: Mapping[str, Sequence[Path]], place: Path, *, more: str = "", enter: Sequence[str] = ()
) -> dict[str, Tree]:
    """Name -> the tree of its layers, topmost first, as the kernel shows it under an overlay.

    `place` is a directory to work in, made for it; `more` are further options of the mount; `enter` is what makes the
    namespace that it happens in.
    """
    place.mkdir()
    short: dict[Path, str] = {}
    for lower in dict.fromkeys(lower for lowers in stacks.values() for lower in lowers):
        # The string of options has a limit.
        short[lower] = f"{place}/l{len(short)}"
        Path(short[lower]).symlink_to(lower)
    (place / "empty").mkdir()
    (place / "root").mkdir()
    # One directory alone is no overlay.
    jobs = {
        name: ":".join([*(short[one] for one in lowers), f"{place}/empty"]) for name, lowers in stacks.items()
    }
    done = subprocess.run(
        [*(enter or ["unshare", "--mount"]), sys.executable, "-c", _MERGED],
        input=pickle.dumps((jobs, f"{place}/root", more)),
        cwd=REPOSITORY,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found = pickle.loads(done.stdout)
    assert isinstance(found, dict)
    return found


# --- umoci --------------------------------------------------------------------------------------------------


def layout(
    images: dict[str, Image], place: Path, packed: Mapping[str, Sequence[bytes]] | None = None
) -> Path:
    """An OCI layout's directory with the images by these names; `packed` as oci_layout has it."""
    place.mkdir(parents=True)
    named = [Image(image.layers, image.run, (name,), image.more) for name, image in images.items()]
    path = place.with_suffix(".tar")
    path.write_bytes(oci_layout(*named, packed=packed))
    with tarfile.open(path) as archive:
        archive.extractall(place, filter="fully_trusted")
    path.unlink()
    return place


def by_umoci(images: Path, name: str, place: Path) -> Path:
    """The directory that umoci unpacks an image of a layout into."""
    done = subprocess.run(
        ["umoci", "unpack", "--image", f"{images}:{name}", str(place)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return place / "rootfs"


# --- GNU tar ------------------------------------------------------------------------------------------------


_PACKED = {
    b"\x1f\x8b": "--gzip",
    b"BZ": "--bzip2",
    b"\xfd7": "--xz",
    b"\x28\xb5": "--zstd",
    b"\x50\x2a": "--zstd",
}


def by_tar(layers: Sequence[bytes], place: Path) -> Path:
    """Layers without whiteouts, one over the other, by GNU tar."""
    place.mkdir()
    place.chmod(0o755)
    command = ["tar", "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-f", "-", "-C"]
    for content in layers:
        more = [_PACKED[content[:2]]] if content[:2] in _PACKED else []
        done = subprocess.run([*command, str(place), *more], input=content, capture_output=True)
        assert done.returncode == 0, done.stderr
    return place


# --- Docker -------------------------------------------------------------------------------------------------


def no_docker() -> str:
    """Why Docker can't be asked, or ""."""
    lacking = [name for name in ("dockerd", "containerd", "runc") if shutil.which(name, path=_PATH) is None]
    return f"{', '.join(lacking)} not installed (docker.io)" if lacking else ""


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@contextlib.contextmanager
def dockerd() -> Iterator[Docker]:
    """A Docker of the suite's own, which keeps its layers for overlayfs; gone with all it made."""
    # Its sockets' paths may not be long.
    with (
        tempfile.TemporaryDirectory(prefix="docker-", dir="/tmp") as folder,
        docker.running(Path(folder)) as found,
    ):
        yield found


def load_to_docker(found: Docker, archive: bytes) -> str:
    """What Docker finds wrong with an archive, or ""."""
    answer = found.request("POST", "/images/load?quiet=1", iter([archive]))
    return str(answer["error"]) if isinstance(answer, dict) and "error" in answer else ""


def layers_of_docker(found: Docker, name: str) -> list[Path]:
    """The directories of an image's layers, topmost first."""
    data = found.request("GET", f"/images/{name}/json")
    assert isinstance(data, dict)
    driver = data["GraphDriver"]
    assert driver["Name"] == "overlay2", driver
    rows = [driver["Data"]["UpperDir"], *filter(None, driver["Data"].get("LowerDir", "").split(":"))]
    return [Path(row) for row in rows]
