"""What is not as it should be: one difference between what is desired and what is there."""

from __future__ import annotations

from orchestrator.model.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A row of `drift`, and what `events` tells when it was put right."""

    target: str
    """As an action's: "container:shop-web-1", "network:shop_default", "volume:shop_data", "firewall"."""
    what: str
    """Of the target: "memory.max", "address on shop_default", "config app.conf"."""
    wanted: str
    found: str
    because: str
    """The same as a sentence: "its address on network shop_default was removed"."""
    stack: str = ""
    service: str = ""
    id: str = ""
    """Of the container; "" when it is about none."""
    mendable: bool = True
    """Whether we put it right by ourselves; else the user has to."""


def lost_volume(name: str, lost: str) -> str:
    """What who needs the volume is refused with. `lost`: what became of it."""
    return f"volume {name}: {lost}; it is not made anew empty"


def lost_hint(name: str, path: str) -> str:
    return (
        f"put {path} back, and all goes on; "
        f"or `pystack volume rm {name}` once nobody uses it, to begin with an empty one"
    )
