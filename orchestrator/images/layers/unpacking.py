"""Unpacking layers: starts the worker and believes it only as far as the digests go."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from orchestrator.images import config as configs
from orchestrator.images.layers.meta import Meta, write_meta
from orchestrator.images.layers.workers import Workers
from orchestrator.model import codec
from orchestrator.model.errors import EngineError, ExitCode
from orchestrator.model.frozen import dataclass

_ANSWER_LIMIT = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one layer may hold at most: bytes of its tar and of its files, and entries."""

    max_bytes: int = 256 << 30
    max_entries: int = 10_000_000


def unpack(
    blob: Path, layer: Path, limits: Limits, workers: Workers | None = None, *, what: str = "layer"
) -> Meta:
    """Unpack the tar `blob`, compressed or not, into the new directory `layer`.

    `what` is how errors call it. Blocks; from a trio program call it in a worker thread. Raises UserError
    when the archive is bad, EngineError when the machine could not do it.
    """
    if workers is None:
        with Workers() as own:
            return unpack(blob, layer, limits, own, what=what)
    order = {**orders(layer, limits), "path": os.fspath(blob)}
    with workers.begin() as line:
        line.sendall(json.dumps(order).encode() + b"\n")
        with line.makefile("rb") as lines:
            answer = b""
            while said := lines.readline(_ANSWER_LIMIT):
                answer = said
    data = understand(answer)
    if data.get("kind") == "machine":
        raise EngineError(f"unpacking {what}: {data['error']}", exit_code=ExitCode.IMAGE, retryable=False)
    if "error" in data:
        raise configs.broken(f"{what}: {data['error']}")
    return keep(layer, data)


def orders(layer: Path, limits: Limits) -> dict[str, object]:
    """The beginning of an order; makes the directory that it is about."""
    (layer / "fs").mkdir(parents=True)
    (layer / "fs").chmod(0o755)
    return {
        "target": os.fspath(layer / "fs"),
        "max_bytes": limits.max_bytes,
        "max_entries": limits.max_entries,
    }


def keep(layer: Path, data: dict[str, Any], *, blob: str = "") -> Meta:
    """Write down what the worker found out; `blob` is the digest of what it has unpacked."""
    known = {key: data[key] for key in ("diff_id", "size", "entries", "implied", "links", "opaque_root")}
    meta = codec.decode(Meta, {**known, "blob": blob})
    write_meta(layer, meta)
    return meta


def understand(answer: bytes) -> dict[str, Any]:
    """The last line that a worker wrote, which is its result. Raises EngineError."""
    try:
        data = json.loads(answer)
    except ValueError:
        last = answer.decode(errors="replace").strip() or "it left without a word"
        raise EngineError(f"the unpacking worker failed: {last[:400]}", retryable=False) from None
    assert isinstance(data, dict)
    if "signal" in data:
        name = signal.Signals(data["signal"]).name
        raise EngineError(f"unpacking was killed by {name}", retryable=True)
    return data


def unpack_all(blobs: Mapping[str, Path], work: Path, limits: Limits) -> dict[str, Path]:
    """Unpack layers side by side; `blobs` are by the diff_id that each must turn out to have.

    Returns the layer directories by diff_id. Raises UserError when a digest does not fit.
    """
    made = {diff_id: work / f"layer-{diff_id[7:]}" for diff_id in blobs}
    # The largest first, so that the last to end is a small one.
    order = sorted(blobs, key=lambda diff_id: -blobs[diff_id].stat().st_size)
    if not order:
        return made
    with Workers() as workers, ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:

        def one(diff_id: str) -> Meta:
            return unpack(blobs[diff_id], made[diff_id], limits, workers)

        for diff_id, meta in zip(order, pool.map(one, order), strict=True):
            if meta.diff_id != diff_id:
                raise configs.broken(f"a layer should be {diff_id} and is {meta.diff_id}")
    return made
