"""A digest of exactly those fields whose change requires a new container (or network, or volume).

What counts follows docker compose: not the number of replicas, not dependencies, not profiles, not pull
policy, and (other than there) not how updates go; everything a process could notice does, including the
content of configs and environment files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

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
    return _digest(_counted(fields))


def _counted(fields: Mapping[str, object]) -> dict[str, object]:
    counted = {key: value for key, value in fields.items() if key not in _NOT_COUNTED}
    mounts = counted.get("mounts")
    if isinstance(mounts, list):
        counted["mounts"] = [_counted_mount(mount) for mount in mounts]
    return counted


def _counted_mount(mount: dict[str, object]) -> dict[str, object]:
    """What a file holds that is exchanged in the running container is no reason for another."""
    if "on_change" not in mount:
        return mount
    kept = {key: value for key, value in mount.items() if key not in ("content", "digest")}
    return {**kept, "on_change": True}


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
    old, new = _counted(old), _counted(new)
    found: list[str] = []
    for key in sorted({*old, *new}):
        one, other = old.get(key), new.get(key)
        if one == other:
            continue
        if key == "mounts":
            found += _mounts(one, other)
            continue
        word = _KEYS.get(key, key)
        parts = _parts(one, other)
        found += [f"{word}.{part}" for part in parts] or [word]
    return tuple(sorted(found))


_KEYS = {"root": "image", "resources": "deploy.resources"}
"""Field of a service -> its key in a stack file, where that is another word."""


def _mounts(one: object, other: object) -> list[str]:
    """Configs and secrets by their names, other mounts as one."""
    old, new = _files(one), _files(other)
    found = [" ".join(key) for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return [*found, *(["volumes"] if _others(one) != _others(other) else [])]


def _files(mounts: object) -> dict[tuple[str, str], list[object]]:
    found: dict[tuple[str, str], list[object]] = {}
    for mount in mounts if isinstance(mounts, list) else ():
        if mount["is"] == "FileMount":
            found.setdefault((mount["kind"], mount["name"]), []).append(mount)
    return found


def _others(mounts: object) -> list[object]:
    return [mount for mount in mounts if mount["is"] != "FileMount"] if isinstance(mounts, list) else []


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
