"""A digest of exactly those fields whose change requires a new container (or network, or volume).

What counts follows docker compose: not the number of replicas, not dependencies, not profiles, not pull
policy, and (other than there) not how updates go; everything a process could notice does, including the
content of configs and environment files.
"""

from __future__ import annotations

import hashlib
import json

from orchestrator.model import codec
from orchestrator.model.stack import Network, Service, Volume

_NOT_COUNTED = (
    "name",
    "replicas",
    "depends_on",
    "pull_policy",
    "drain",
    "build",
    "deploy",
    "oneoff",
    "remove_on_exit",
    "place",
)


def of_service(service: Service) -> str:
    fields = codec.encode(service)
    assert isinstance(fields, dict)
    return _digest({key: value for key, value in fields.items() if key not in _NOT_COUNTED})


def joined(*parts: str) -> str:
    """One for several."""
    return _digest(list(parts))


def differing(before: Service, after: Service) -> tuple[str, ...]:
    """The keys of services.NAME in a stack file in which two definitions differ for the fingerprint.

    Of a mapping, its own keys: environment.DEBUG. Values are not told: some are secret.
    """
    old, new = _without_places(codec.encode(before)), _without_places(codec.encode(after))
    assert isinstance(old, dict)
    assert isinstance(new, dict)
    found: list[str] = []
    for key in sorted({*old, *new} - {*_NOT_COUNTED}):
        one, other = old.get(key), new.get(key)
        if one == other:
            continue
        word = _KEYS.get(key, key)
        parts = _parts(one, other)
        found += [f"{word}.{part}" for part in parts] or [word]
    return tuple(sorted(found))


_KEYS = {"root": "image", "mounts": "volumes", "resources": "deploy.resources"}
"""Field of a service -> its key in a stack file, where that is another word."""


def _parts(one: object, other: object) -> list[str]:
    """The keys in which two plain mappings differ; none for what is not such."""
    if not isinstance(one or {}, dict) or not isinstance(other or {}, dict):
        return []
    old, new = dict(one or {}), dict(other or {})  # type: ignore[call-overload]
    if "is" in old or "is" in new:
        return []
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


def of_network(network: Network) -> str:
    fields = codec.encode(network)
    assert isinstance(fields, dict)
    return _digest({key: value for key, value in fields.items() if key not in ("key", "place")})


def of_volume(volume: Volume) -> str:
    fields = codec.encode(volume)
    assert isinstance(fields, dict)
    return _digest({key: value for key, value in fields.items() if key not in ("key", "place")})


def _digest(value: object) -> str:
    text = json.dumps(_without_places(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _without_places(value: object) -> object:
    """Where in a file something was written is no part of what it means."""
    if isinstance(value, dict):
        return {key: _without_places(part) for key, part in value.items() if key != "place"}
    if isinstance(value, list):
        return [_without_places(part) for part in value]
    return value
