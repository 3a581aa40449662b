"""The record beside an unpacked layer.

A layer directory holds `fs` (the files, with overlayfs' marks for what is deleted) and `meta.json`.
"""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.model import codec
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What is known of an unpacked layer; `size` is the bytes of its files.

    `implied` are directories that the archive uses without listing them, `links` hard links whose target
    only a lower layer can have, both relative to the root; `opaque_root` hides every layer below.
    """

    diff_id: str
    size: int = 0
    entries: int = 0
    implied: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    opaque_root: bool = False
    format: int = 1


def write_meta(layer: Path, meta: Meta) -> None:
    (layer / "meta.json").write_text(json.dumps(codec.encode(meta)))


def read_meta(layer: Path) -> Meta:
    """The record of an unpacked layer. Raises UserError when it is gone or unreadable."""
    try:
        return codec.decode(Meta, json.loads((layer / "meta.json").read_bytes()))
    except (OSError, ValueError) as error:
        hint = "load or import the image again"
        raise UserError(f"layer {layer.name[:12]}: {error}", exit_code=ExitCode.IMAGE, hint=hint) from error
