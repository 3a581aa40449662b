"""Pulls beside docker and podman: the same registry, the same images, in turn, in one run.

    python benchmarks/pull.py             five turns each (a minute or two)
    python benchmarks/pull.py --quick     one turn, pystack and docker only
    python benchmarks/pull.py --json FILE

Everything lies on a tmpfs, the registry's data and every side's, so that the disk does not decide. dockerd is
a private one with the machine's loopback; each turn begins with empty stores on all sides. `load` is measured
beside what GNU tar takes to unpack the same layer; a pull of what is up to date by the requests it makes.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.measure import Series, timed  # noqa: E402
from tests.kit import layered, registries  # noqa: E402
from tests.kit.archives import CONFIG, LAYER, MANIFEST, dumps  # noqa: E402
from tests.kit.programs import program  # noqa: E402
from tests.kit.registries import Registry  # noqa: E402

TURNS = 5
SERVICES = ("redis", "nginx", "python", "postgres")
TMPFS = Path("/dev/shm")
_START_LIMIT = 30.0


class Bench:
    """The sides, and what was measured: `series` beside docker, `podman` by key."""

    def __init__(self, folder: Path, registry: Registry, dockerd: Path | None) -> None:
        self.folder = folder
        self.registry = registry
        self.dockerd = dockerd
        self.series: dict[str, Series] = {}
        self.podman: dict[str, list[float]] = {}

    def pystack(self, *words: str) -> float:
        return timed([*program(), "--root", str(self.folder / "root"), *words], os.environ, self.folder)

    def docker(self, *words: str) -> float:
        environ = {**os.environ, "DOCKER_HOST": f"unix://{self.dockerd}"}
        return timed(["docker", *words], environ, self.folder)

    def with_podman(self, *words: str) -> float:
        places = ("--root", str(self.folder / "podman"), "--runroot", str(self.folder / "podman-run"))
        return timed(["podman", *places, "--cgroup-manager", "cgroupfs", *words], os.environ, self.folder)

    def row(self, key: str, title: str) -> Series:
        return self.series.setdefault(key, Series(title=title))

    def turn(self, key: str, title: str, image: str, *, podman: bool) -> None:
        """One pull on each side, from nothing."""
        name = self.registry.name(image)
        row = self.row(key, title)
        row.ours.append(self.pystack("pull", "-q", name))
        shutil.rmtree(self.folder / "root")
        if self.dockerd is not None:
            row.theirs.append(self.docker("pull", "-q", name))
            self.docker("rmi", "-f", name)
        if podman:
            took = self.with_podman("pull", "-q", "--tls-verify=false", name)
            self.podman.setdefault(key, []).append(took)
            self.with_podman("rmi", "-f", name)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="pulls beside docker and podman")
    parser.add_argument("--quick", action="store_true", help="one turn, pystack and docker only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures down as well")
    options = parser.parse_args(arguments)
    bench = measure_pulls(quick=options.quick)
    for key, row in bench.series.items():
        print(line(row, bench.podman.get(key, ())))
    if options.json:
        rows = {
            key: {"ours": row.ours, "theirs": row.theirs, "podman": bench.podman.get(key, [])}
            for key, row in bench.series.items()
        }
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def line(row: Series, podman: Sequence[float]) -> str:
    """One row of the table."""
    text = f"{row.title:<44} {row.our_median:8.2f} {row.unit}"
    if row.their_median is not None:
        text += f"   beside {row.their_median:.2f} ({row.ratio:.1f} times)"
    if podman:
        text += f"   podman {sorted(podman)[len(podman) // 2]:.2f}"
    return text


def measure_pulls(*, quick: bool) -> Bench:
    """Run everything once. Raises RuntimeError when a side fails."""
    turns = 1 if quick else TURNS
    podman = not quick and shutil.which("podman") is not None
    with ExitStack() as exits:
        place = exits.enter_context(tempfile.TemporaryDirectory(dir=TMPFS if TMPFS.is_dir() else None))
        folder = Path(place)
        registry = exits.enter_context(registries.running(folder / "registry"))
        dockerd = exits.enter_context(private_dockerd(folder)) if shutil.which("dockerd") else None
        bench = Bench(folder, registry, dockerd)
        base = layered.blobs("debian")
        put(registry, "bench/one:1", base)
        five = base if quick else [*base, *(layered.blobs(name)[-1] for name in SERVICES)]
        if len(five) > 1:
            put(registry, "bench/five:1", five)
        for _ in range(turns):
            bench.turn("pull_one", f"pull of one layer ({_size(base)})", "bench/one:1", podman=podman)
            if len(five) > 1:
                title = f"pull of {len(five)} layers ({_size(five)})"
                bench.turn("pull_five", title, "bench/five:1", podman=podman)
        _up_to_date(bench)
        _load(bench, base[0], turns)
    return bench


def put(registry: Registry, image: str, blobs: Sequence[bytes]) -> None:
    """An image of these layers, by hand."""
    repository = image.partition(":")[0]
    diff_ids = [f"sha256:{hashlib.sha256(gzip.decompress(blob)).hexdigest()}" for blob in blobs]
    config = dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    )
    rows = [
        {"mediaType": f"{LAYER}+gzip", "digest": registry.put_blob(repository, blob), "size": len(blob)}
        for blob in blobs
    ]
    head = {"mediaType": CONFIG, "digest": registry.put_blob(repository, config), "size": len(config)}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": head, "layers": rows}
    registry.put_manifest(image, dumps(manifest), MANIFEST)


def _up_to_date(bench: Bench) -> None:
    name = bench.registry.name("bench/one:1")
    bench.pystack("pull", "-q", name)
    before = len(bench.registry.log())
    row = bench.row("pull_current", "pull of what is up to date")
    row.ours.append(bench.pystack("pull", "-q", name))
    time.sleep(0.2)  # until the registry has written its log
    requests = bench.row("pull_requests", "requests of that")
    requests.unit = "requests"
    requests.ours.append(float(sum("/v2/" in one for one in bench.registry.log()[before:])))
    shutil.rmtree(bench.folder / "root")


def _load(bench: Bench, blob: bytes, turns: int) -> None:
    """`load` of an archive beside `tar xzf` of the layer in it."""
    archive = layered.save("debian", bench.folder / "image.tar")
    (bench.folder / "layer.tar.gz").write_bytes(blob)
    row = bench.row("load", "load, beside tar xzf of the same layer")
    for _ in range(turns):
        row.ours.append(bench.pystack("load", "-q", "-i", str(archive)))
        shutil.rmtree(bench.folder / "root")
        (bench.folder / "unpacked").mkdir()
        command = ["tar", "xzf", "layer.tar.gz", "-C", "unpacked"]
        row.theirs.append(timed(command, os.environ, bench.folder))
        shutil.rmtree(bench.folder / "unpacked")


def _size(blobs: Sequence[bytes]) -> str:
    return f"{sum(map(len, blobs)) / 1e6:.0f} MB"


@contextlib.contextmanager
def private_dockerd(folder: Path) -> Iterator[Path]:
    """A dockerd that has no network of its own making and runs no container; its socket."""
    home = folder / "dockerd"
    home.mkdir()
    address = home / "socket"
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "dockerd"]
    command += [
        "--host",
        f"unix://{address}",
        "--data-root",
        str(home / "data"),
        "--exec-root",
        str(home / "run"),
    ]
    command += ["--pidfile", str(home / "pid"), "--bridge=none", "--iptables=false", "--ip6tables=false"]
    command += ["--ip-forward=false", "--ip-masq=false", "--storage-driver=overlay2"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(address, process, home / "log")
        yield address
    finally:
        process.kill()
        process.wait()


def _wait_for(address: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT
    environ = {**os.environ, "DOCKER_HOST": f"unix://{address}"}
    while time.monotonic() < deadline and process.poll() is None:
        if address.exists():
            done = subprocess.run(["docker", "version"], env=environ, capture_output=True, check=False)
            if done.returncode == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"dockerd does not start:\n{log.read_text(errors='replace')[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
