"""What steers pulls: the words of `pull_policy`, and what a user's environment says. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SECONDS = {"w": 7 * 86400.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_PERIODS = {"always": 0.0, "refresh": 0.0, "daily": 86400.0, "weekly": 7 * 86400.0}


def period(policy: str) -> float | None:
    """Seconds after which the registry is asked again; None: an image that is here is good for ever."""
    if policy.startswith("every_"):
        parts = re.findall(r"([0-9]+)([wdhms])", policy.removeprefix("every_"))
        return sum(float(count) * _SECONDS[unit] for count, unit in parts)
    return _PERIODS.get(policy)


KEPT = (
    "HOME",
    "PATH",
    "USER",
    "DOCKER_CONFIG",
    "REGISTRY_AUTH_FILE",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "CONTAINERS_REGISTRIES_CONF",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    *(name for word in ("http", "https", "all", "no") for name in (f"{word}_proxy", f"{word.upper()}_PROXY")),
)
"""Of a user's environment: what says where credentials, certificates and proxies are."""


def kept(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of a user's environment that pulling needs, and no more."""
    return {name: environment[name] for name in KEPT if name in environment}
