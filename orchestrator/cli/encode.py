"""The canonical form as Docker Compose's JSON has it: not all that its YAML has, and some things unsaid.

Its JSON encoder leaves out extensions (`x-...`) except those at the top, and `models`; it writes some absent
things as null or {} (measured with 2.40.3). Programs that read one should be able to read the other. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAMED = frozenset("services networks volumes configs secrets models depends_on ulimits".split())
"""Below these keys stand names of the user's own, and below each name a body."""
_FREE = frozenset(
    "additional_contexts annotations args driver_opts environment extra_hosts labels options storage_opt"
    " sysctls".split()
)
"""Below these keys stand keys of the user's own with plain values."""
_OURS = frozenset({"x-condition", "x-http", "x-log-ready", "x-on-change", "x-rootfs", "x-tcp"})
"""Extensions that mean something here."""


def encoded(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree for json.dumps."""
    said = {key: value if _extension(key) else _part(key, value) for key, value in tree.items()}
    said.pop("models", None)
    for network in _bodies(said.get("networks")):
        network.setdefault("ipam", {})
    for service in _bodies(said.get("services")):
        _service(service)
    return said


def _service(service: dict[str, Any]) -> None:
    service.setdefault("command", None)
    service.setdefault("entrypoint", None)
    deploy = service.get("deploy")
    if isinstance(deploy, dict):
        deploy.setdefault("resources", {})
        deploy.setdefault("placement", {})
    for group in (service.get("blkio_config") or {}).values():
        if isinstance(group, list):
            group[:] = [{key.capitalize(): value for key, value in item.items()} for item in group]
    for mount in service.get("volumes") or ():
        bind = mount.get("bind") if isinstance(mount, dict) else None
        if isinstance(bind, dict) and bind.get("create_host_path") is False:
            del bind["create_host_path"]
    limits = service.get("ulimits") or {}
    for name, limit in limits.items():
        if limit == 0:
            limits[name] = {}
        elif isinstance(limit, dict):
            limits[name] = {key: value for key, value in limit.items() if value != 0}
    for trigger in (service.get("develop") or {}).get("watch") or ():
        trigger.setdefault("exec", {}).setdefault("command", None)


def _bodies(named: Any) -> Iterator[dict[str, Any]]:
    for body in (named or {}).values():
        if isinstance(body, dict):
            yield body


def _part(key: str, value: Any) -> Any:
    """A copy of what stands below `key`, without extensions."""
    if isinstance(value, list):
        return [_part("", item) for item in value]
    if not isinstance(value, dict):
        return value
    if key in _FREE:
        return dict(value)
    if key in _NAMED:
        return {name: _part("", body) for name, body in value.items()}
    return {name: _part(name, body) for name, body in value.items() if not _extension(name)}


def _extension(key: str) -> bool:
    return key.startswith("x-") and key not in _OURS
