"""Names and groups of our interfaces: computed, stable, at most 15 bytes (IFNAMSIZ), never another's.

Names start with the state root's own prefix, so two state roots, or a leftover of one, are told apart.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache

_LOWEST_GROUP = 1 << 20


@lru_cache(maxsize=64)
def tag(state_root: str) -> str:
    """Four letters for a state root (its absolute path); everything of ours in the kernel bears them."""
    return _short(4, state_root)


def prefix(tag: str) -> str:
    """What the names of all interfaces of a state root start with."""
    return f"ps{tag}"


def bridge(tag: str, network: str, segment: int = 0) -> str:
    """The first bridge of a network, by its name on the machine, or one of its further segments."""
    if segment:
        return f"{segments(tag)}{_short(8, network, str(segment))}"
    return f"{prefix(tag)}b{_short(8, network)}"


def segments(tag: str) -> str:
    """What the names of all further bridges start with."""
    return f"{prefix(tag)}s"


def trunk(tag: str, network: str, segment: int) -> tuple[str, str]:
    """The veth that joins a further bridge to the one above: its end there, and its end here."""
    name = _short(8, network, str(segment))
    return f"{prefix(tag)}d{name}", f"{prefix(tag)}u{name}"


def port(tag: str, container: str, network: str) -> str:
    """The host's end of the veth that connects a container (by id) to a network."""
    return f"{ports(tag)}{_short(8, container, network)}"


def ports(tag: str) -> str:
    """What the names of all containers' links start with."""
    return f"{prefix(tag)}v"


def group(tag: str, name: str) -> int:
    """An interface group for `delete_group`: 31 bits, far from 0 (the default) and from hand-made ones."""
    digest = hashlib.sha256(f"{tag}\0{name}".encode()).digest()
    return _LOWEST_GROUP + int.from_bytes(digest[:8], "big") % (0x7FFFFFFF - _LOWEST_GROUP)


@lru_cache(maxsize=4096)
def _short(length: int, *parts: str) -> str:
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return base64.b32encode(digest).decode().lower()[:length]
