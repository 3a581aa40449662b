"""An image's run defaults as a frozen value.

Source: OCI image specification, config.md; the Healthcheck and Shell fields are Docker's extension of it.
The JSON comes from whoever made the image: every field is checked before it is believed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import uname
from typing import Any

from orchestrator.images import reference
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass, field
from orchestrator.model.stack import Healthcheck

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
CONFIG_LIMIT = 8 << 20
PARTS_LIMIT = 200_000
"""Values in one document: each costs up to 200 bytes of memory, and three in the text."""
LAYER_LIMIT = 500
"""Lower directories that one overlay takes (Linux, fs/overlayfs/params.h: OVL_MAX_STACK)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image says about running it.

    Empty and None mean "not said". `size` is the sum of its unpacked layers' bytes, `created` RFC 3339.
    """

    id: str
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    user: str = ""
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    """As "80/tcp"."""
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str | None = None
    healthcheck: Healthcheck | None = None
    architecture: str = ""
    os: str = ""
    variant: str = ""
    created: str = ""
    author: str = ""
    size: int = 0
    diff_ids: tuple[str, ...] = ()
    """Digests of the uncompressed layers, lowest first."""


def parse(text: bytes, image_id: str) -> ImageConfig:
    """Read a config blob. Raises UserError when it is not the config of an image that can be run."""
    data = read_json(text, f"config of image {image_id[:19]}", limit=CONFIG_LIMIT)
    run = _mapping(data.get("config"), "config")
    return ImageConfig(
        id=image_id,
        environment=_environment(_texts(run.get("Env"), "Env") or ()),
        command=_texts(run.get("Cmd"), "Cmd"),
        entrypoint=_texts(run.get("Entrypoint"), "Entrypoint"),
        user=_text(run.get("User"), "User"),
        working_dir=_text(run.get("WorkingDir"), "WorkingDir"),
        exposed_ports=_keys(run.get("ExposedPorts"), "ExposedPorts"),
        volumes=_keys(run.get("Volumes"), "Volumes"),
        labels=_labels(run.get("Labels")),
        stop_signal=_text(run.get("StopSignal"), "StopSignal") or None,
        healthcheck=_healthcheck(run.get("Healthcheck")),
        architecture=_text(data.get("architecture"), "architecture"),
        os=_text(data.get("os"), "os"),
        variant=_text(data.get("variant"), "variant"),
        created=_text(data.get("created"), "created"),
        author=_text(data.get("author"), "author"),
        diff_ids=_diff_ids(data.get("rootfs")),
    )


def read_json(text: bytes, what: str, *, limit: int) -> dict[str, Any]:
    """A JSON object of at most `limit` bytes. Raises UserError."""
    if len(text) > limit:
        raise broken(f"{what} is larger than {limit >> 20} MiB")
    if too_many_parts(text):
        raise broken(f"{what} has more than {PARTS_LIMIT} parts")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise broken(f"{what} is not JSON: {str(error)[:120]}") from None
    if not isinstance(data, dict):
        raise broken(f"{what} is not a JSON object")
    return data


def too_many_parts(text: bytes) -> bool:
    """Whether a JSON document has more values than anybody needs; signs in texts count, too."""
    return sum(map(text.count, (b"{", b"[", b","))) > PARTS_LIMIT or text.count(b'"') > 8 * PARTS_LIMIT


def architecture() -> str:
    """This machine's, in Go's words, as image configs have it."""
    machine = uname().machine
    return _ARCHITECTURES.get(machine, machine)


def damaged(problem: str) -> UserError:
    """What is said of a store that has lost something, and the way out."""
    hint = "`pystack image verify` tells all that is wrong, with --repair it mends what it can"
    return UserError(problem, exit_code=ExitCode.IMAGE, hint=hint)


def broken(why: str) -> UserError:
    return UserError(f"broken image: {why}", exit_code=ExitCode.IMAGE)


def _mapping(value: object, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise broken(f"{name} is not an object")
    return value


def _text(value: object, name: str) -> str:
    if value is None:
        return ""
    # NUL ends a C string: what follows would be checked by us and never seen by the kernel.
    if not isinstance(value, str) or "\0" in value:
        raise broken(f"{name} is not a text: {value!r:.60}")
    return value


def _texts(value: object, name: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise broken(f"{name} is not a list")
    return tuple(_text(part, name) for part in value)


def _keys(value: object, name: str) -> tuple[str, ...]:
    return tuple(sorted(_text(key, name) for key in _mapping(value, name)))


def _environment(rows: tuple[str, ...]) -> dict[str, str]:
    """A row without "=" sets nothing; the last row of a name wins."""
    pairs = (row.partition("=") for row in rows)
    return {name: value for name, equals, value in pairs if equals and name}


def _labels(value: object) -> dict[str, str]:
    return {_text(key, "Labels"): _text(text, "Labels") for key, text in _mapping(value, "Labels").items()}


def _diff_ids(value: object) -> tuple[str, ...]:
    ids = _texts(_mapping(value, "rootfs").get("diff_ids"), "diff_ids") or ()
    if any(not reference.is_digest(one) for one in ids):
        raise broken("a diff_id is not a sha256 digest")
    if len(ids) > LAYER_LIMIT:
        raise broken(f"{len(ids)} layers, at most {LAYER_LIMIT} can be mounted")
    return ids


def _healthcheck(value: object) -> Healthcheck | None:
    """Docker counts in nanoseconds, and 0 means "inherit"."""
    if value is None:
        return None
    row = _mapping(value, "Healthcheck")
    test = _texts(row.get("Test"), "Healthcheck.Test") or None
    if test and test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise broken(f"Healthcheck.Test begins with {test[0]!r:.40}")
    if test and test[0] == "NONE":
        return Healthcheck(disable=True)
    return Healthcheck(
        test=test,
        interval=_seconds(row.get("Interval")),
        timeout=_seconds(row.get("Timeout")),
        retries=_count(row.get("Retries")) or None,
        start_period=_seconds(row.get("StartPeriod")),
        start_interval=_seconds(row.get("StartInterval")),
    )


def _count(value: object) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise broken(f"a health check field is not a count: {value!r:.40}")
    return value


def _seconds(value: object) -> float | None:
    return _count(value) / 1e9 or None
