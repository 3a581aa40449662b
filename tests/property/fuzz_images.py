"""Whatever the bytes: members of a tar or a TarError, a manifest, index or config or a UserError; nothing else.

    python -m tests.property.fuzz_images --count 100000 --seed 7

Within 2 s of processor time and 300 MiB, in a process of its own (tests/property/test_fuzz_images.py, tests/nightly).
Inputs are right archives and documents with some bytes changed: flipped, cut, repeated, moved, numbers made extreme,
sums put right again so that the change is looked at. Prints the input that breaks the promise.
"""

from __future__ import annotations

import argparse
import bz2
import copy
import gzip
import io
import json
import lzma
import resource
import signal
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from types import FrameType

import zstandard

from orchestrator.images import config as configs
from orchestrator.images.layers import tar
from orchestrator.images.layers.inflate import InflateError, Inflater
from orchestrator.images.layers.tar import relative
from orchestrator.images.registry import manifests
from orchestrator.model.errors import UserError
from tests.kit.archives import CONFIG, INDEX, LAYER, MANIFEST, Entry, dumps, layer

SECONDS = 2.0
MEMORY = 300 << 20
DIGEST = "sha256:" + "ab" * 32


class TooSlow(BaseException):
    """No `except Exception` may swallow it."""


# --- right ones -------------------------------------------------------------------------------------------


def _tars() -> list[bytes]:
    entries = (
        Entry("./"),
        Entry("d/", pax={"SCHILY.xattr.user.a": "b", "mtime": "1.5"}),
        Entry("d/" + "n" * 150, b"content" * 99, uid=3_000_000),
        Entry("l", link="t" * 120),
        Entry("h", hardlink="d/x"),
        Entry("n", type=tarfile.CHRTYPE, device=(1, 3)),
        Entry("d/.wh.x"),
    )
    made = [layer(*entries)]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for entry in entries:
            archive.addfile(entry.header, io.BytesIO(entry.content))
    made.append(out.getvalue())
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9000"}
    made.append(layer(Entry("s", b"1\n0\n512\n".ljust(512, b"\0") + b"x" * 512, pax=sparse)))
    old = {"GNU.sparse.map": "0,100,5000,100", "GNU.sparse.size": "9000"}
    made.append(layer(Entry("s", b"x" * 200, pax=old)))
    return made


def _documents() -> list[tuple[bytes, str]]:
    head = {"mediaType": CONFIG, "digest": DIGEST, "size": 99}
    row = {
        "mediaType": f"{LAYER}+gzip",
        "digest": DIGEST,
        "size": 5,
        "annotations": {"a": "b"},
        "urls": ["http://x"],
    }
    platform = {"os": "linux", "architecture": "arm", "variant": "v7"}
    return [
        (dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": head, "layers": [row, row]}), MANIFEST),
        (
            dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": INDEX,
                    "manifests": [{**row, "mediaType": MANIFEST, "platform": platform}] * 2,
                }
            ),
            INDEX,
        ),
    ]


def _configs() -> list[bytes]:
    run = {
        "Env": ["A=1", "PATH=/bin"],
        "Cmd": ["sh", "-c", "x"],
        "Entrypoint": None,
        "User": "a:b",
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/v": {}},
        "Labels": {"a": "b"},
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1_000_000_000, "Retries": 3},
        "StopSignal": "SIGQUIT",
    }
    data = {
        "architecture": "amd64",
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    }
    return [dumps({**data, "history": [{"created_by": "x", "empty_layer": True}]})]


PACKERS: Sequence[Callable[[bytes], bytes]] = (gzip.compress, bz2.compress, lzma.compress, zstandard.compress)
EXTREMES = (
    b"\x80" + b"\xff" * 11,
    b"\xff" * 12,
    b"77777777777\0",
    b"-0000000001\0",
    b" " * 12,
    b"\0" * 12,
    b"9" * 12,
)
WORDS = (
    *(b"null", b"true", b"-1", b"1e999", b"[]", b"{}", b'""', b"[[[[[[[[", b'{"a":' * 50, b"9" * 400, b"NaN"),
    *(
        b'"\\u0000"',
        b'"\\ud800"',
        b'"sha256:x"',
        b'"mediaType"',
        b'"manifests"',
        b'"config"',
        b"\xff",
        b"1.5",
        b",",
    ),
)


# --- changes ----------------------------------------------------------------------------------------------


def changed(raw: bytes, random: Random, words: Sequence[bytes]) -> bytes:
    data = bytearray(raw)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data) + 1)
        match random.randrange(7):
            case 0 if at < len(data):
                data[at] = random.randrange(256)
            case 1:
                data[at : at + random.randint(1, 40)] = b""
            case 2:
                del data[at:]
            case 3:
                data[at:at] = data[at : at + random.randint(1, 600)] * random.randint(1, 3)
            case 4:
                data[at:at] = random.choice(words)
            case _:
                word = random.choice(words)
                data[at : at + len(word)] = word
        if not data:
            return b""
    return bytes(data)


def changed_tar(raw: bytes, random: Random) -> bytes:
    """Fields of headers, with the sums put right, as well as any byte."""
    data = bytearray(raw)
    for _ in range(random.randint(1, 3)):
        block = random.randrange(max(len(data) // 512, 1)) * 512
        place = block + random.choice((0, 100, 108, 124, 136, 156, 157, 257, 329, 345, 386, 482, 483))
        value = random.choice((*EXTREMES, b"x", b"L", b"K", b"S", b"g", b"1", b"5", random.randbytes(12)))
        if place + len(value) <= len(data):
            data[place : place + len(value)] = value
        data[block + 148 : block + 156] = b" " * 8
        data[block + 148 : block + 156] = b"%06o\0 " % (sum(data[block : block + 512]) & 0o777777)
    return changed(bytes(data), random, EXTREMES) if random.randrange(3) == 0 else bytes(data)


VALUES: tuple[object, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1 << 63,
        1.5,
        1e300,
        "",
        "x",
        "\0",
        "\ud800",
        [],
        {},
        [[]],
        [None],
        {"": None},
        "sha256:" + "0" * 64,
    ),
    *(
        "sha256:../../x",
        MANIFEST,
        INDEX,
        "x" * 5000,
        [{}] * 1001,
        {"digest": DIGEST, "size": -1, "mediaType": LAYER},
    ),
)


def changed_document(raw: bytes, random: Random) -> bytes:
    """One value of it is another, or gone; or any bytes."""
    if random.randrange(4) == 0:
        return changed(raw, random, WORDS)
    data = json.loads(raw)
    for _ in range(random.randint(1, 2)):
        here = data
        while True:
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = random.choice(keys)
            if isinstance(here[key], dict | list) and here[key] and random.randrange(3):
                here = here[key]
                continue
            if random.randrange(5) == 0:
                del here[key]
            else:
                here[key] = copy.deepcopy(random.choice(VALUES))
            break
    return json.dumps(data).encode()


# --- the promise ------------------------------------------------------------------------------------------


def read_tar(raw: bytes) -> str:
    whole = io.BytesIO(raw)
    inflater = Inflater(whole.read, limit=64 << 20)
    source = tar.Source(inflater.fill)
    try:
        for member in tar.members(source):
            relative(member.name)
            assert 0 <= member.size <= 1 << 62
            for _ in source.chunks(member.size):
                pass
    except (tar.TarError, InflateError):
        return "refused"
    finally:
        # A reader of zstd and its source know each other, and the library's half is not collected: one a process
        # is what we have, thousands here would keep their windows.
        if inflater._zstd is not None:
            del inflater._zstd._reader
    return "read"


def read_manifest(raw: bytes, kind: str) -> str:
    try:
        manifests.parse(raw, kind, "x/y:1")
    except UserError as error:
        return "refused" if error.message else "refused without a word"
    return "read"


def read_config(raw: bytes) -> str:
    try:
        configs.parse(raw, DIGEST)
    except UserError as error:
        return "refused" if error.message else "refused without a word"
    return "read"


def attempt(random: Random, show: list[object]) -> str:
    """One input; `show` gets it before it is tried."""
    match random.randrange(5):
        case 0 | 1:
            raw = changed_tar(random.choice(TARS), random)
            show[:] = ["tar", raw]
            return f"tar {read_tar(raw)}"
        case 2:
            raw = changed(random.choice(PACKED), random, EXTREMES)
            show[:] = ["packed", raw]
            return f"packed {read_tar(raw)}"
        case 3:
            document, kind = random.choice(DOCUMENTS)
            raw = changed_document(document, random)
            show[:] = ["manifest", raw, kind]
            return f"manifest {read_manifest(raw, kind)}"
        case _:
            raw = changed_document(random.choice(CONFIGS), random)
            show[:] = ["config", raw]
            return f"config {read_config(raw)}"


TARS, DOCUMENTS, CONFIGS = _tars(), _documents(), _configs()
PACKED = [pack(raw) for raw in TARS for pack in PACKERS]


def run(count: int, seed: int) -> dict[str, object]:
    """Raises what breaks the promise, after it has shown the input."""
    random = Random(seed)
    ends: Counter[str] = Counter()
    slowest = 0.0
    for _ in range(count):
        shown: list[object] = []
        begun = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            ends[attempt(random, shown)] += 1
        except BaseException:
            print(f"input={shown!r}", file=sys.stderr)
            raise
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        slowest = max(slowest, time.process_time() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {"inputs": sum(ends.values()), **ends, "slowest_seconds": round(slowest, 3), "peak_mib": peak}


def _stop(signum: int, frame: FrameType | None) -> None:
    raise TooSlow(f"more than {SECONDS:.0f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="archives and manifests that are none")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=Random().randrange(2**32))
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    signal.signal(signal.SIGPROF, _stop)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    print(json.dumps(run(options.count, options.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
