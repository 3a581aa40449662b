"""The record beside an unpacked layer.

A layer directory holds `fs` (the files, with overlayfs' marks for what is deleted) and `meta.json`.
"""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.images import config as configs
from orchestrator.model import codec
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
    blob: str = ""
    """Digest of the blob that it came in by, when it came from a registry."""
    format: int = 1


def write_meta(layer: Path, meta: Meta) -> None:
    (layer / "meta.json").write_text(json.dumps(codec.encode(meta)))


def read_meta(layer: Path) -> Meta:
    """The record of an unpacked layer. Raises UserError when it is gone or unreadable."""
    try:
        return codec.decode(Meta, json.loads((layer / "meta.json").read_bytes()))
    except FileNotFoundError:
        problem = "its record is gone" if layer.is_dir() else "it is not in the store"
    except OSError as error:
        problem = str(error.strerror)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        problem = f"its record is damaged ({str(error)[:80]})"
    raise configs.damaged(f"layer sha256:{layer.name[:12]}: {problem}")
