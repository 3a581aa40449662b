"""Unpacking layers: starts the worker and believes it only as far as the digests go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.images import config as configs
from orchestrator.images.meta import Meta, write_meta
from orchestrator.model import codec
from orchestrator.model.errors import EngineError
from orchestrator.model.frozen import dataclass

_ANSWER_LIMIT = 256 << 20
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from orchestrator.images.apply import main; sys.exit(main(sys.argv[2:]))"
)
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one layer may hold at most: bytes of its tar and of its files, and entries."""

    max_bytes: int = 256 << 30
    max_entries: int = 10_000_000


def unpack(blob: Path, layer: Path, limits: Limits) -> Meta:
    """Unpack the tar `blob`, compressed or not, into the new directory `layer`.

    Blocks; from a trio program call it in a worker thread. Raises UserError when the archive is bad,
    EngineError when the machine could not do it.
    """
    (layer / "fs").mkdir(parents=True)
    (layer / "fs").chmod(0o755)
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, _PACKAGE_ROOT]
    command += [os.fspath(layer / "fs"), str(limits.max_bytes), str(limits.max_entries), str(os.getpid())]
    with (
        open(blob, "rb", buffering=0) as source,
        subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={}, cwd="/"
        ) as worker,
    ):
        try:
            answer, complaint = worker.communicate()
        except BaseException:
            worker.kill()
            raise
    meta = _understand(answer, complaint, worker.returncode)
    write_meta(layer, meta)
    return meta


def _understand(answer: bytes, complaint: bytes, code: int) -> Meta:
    if code < 0:
        raise EngineError(f"unpacking was killed by {signal.Signals(-code).name}", retryable=True)
    if len(answer) > _ANSWER_LIMIT:
        raise configs.broken("too many odd entries in one layer")
    try:
        data = json.loads(answer)
    except ValueError:
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise EngineError(f"the unpacking worker failed: {last[:400]}", retryable=False) from None
    if "error" in data:
        raise configs.broken(f"layer: {data['error']}")
    return codec.decode(Meta, data)


def unpack_all(blobs: Mapping[str, Path], work: Path, limits: Limits) -> dict[str, Path]:
    """Unpack layers side by side; `blobs` are by the diff_id that each must turn out to have.

    Returns the layer directories by diff_id. Raises UserError when a digest does not fit.
    """
    made = {diff_id: work / f"layer-{diff_id[7:]}" for diff_id in blobs}
    # The largest first, so that the last to end is a small one.
    order = sorted(blobs, key=lambda diff_id: -blobs[diff_id].stat().st_size)
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for diff_id, meta in zip(
            order, pool.map(lambda one: unpack(blobs[one], made[one], limits), order), strict=True
        ):
            if meta.diff_id != diff_id:
                raise configs.broken(f"a layer should be {diff_id} and is {meta.diff_id}")
    return made
