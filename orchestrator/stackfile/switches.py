"""The steps of loading that `config` can be told to leave out: docker compose's --no-... options."""

from __future__ import annotations

from orchestrator.model.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """Which steps are done. A Stack comes of a load only when all are."""

    interpolate: bool = True
    """Fill in variables. Without: every service and section is there, as it was written, names and paths
    aside.
    """
    normalise: bool = True
    """Names, the network `default`, dependencies that follow from other keys."""
    paths: bool = True
    """Make paths absolute."""
    consistency: bool = True
    """Demand that what is named is defined."""
    environment: bool = True
    """Read env files, and take variables without a value from the environment."""


ALL = Switches()
