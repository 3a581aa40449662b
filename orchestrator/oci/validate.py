"""A document against the grammar: what is wrong is named by its path, what is unknown is left out. Pure."""

from __future__ import annotations

import re

from orchestrator.oci import grammar
from orchestrator.oci.complaint import Complaint

# Semantic versions, as the spec's `ociVersion` is one (semver.org, 2.0.0).
_VERSION = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", re.ASCII
)
_SHOWN = 60


def config(document: object) -> tuple[dict[str, object], list[str]]:
    """config.json -> (what we know of it, the paths of what we don't). Raises Complaint."""
    unknown: list[str] = []
    if not isinstance(document, dict):
        raise Complaint("config.json: not an object")
    _check_version(document.get("ociVersion"))
    found = _object(document, grammar.CONFIG, "", unknown)
    _check_mounts(found)
    _check_limits(found.get("process"), "process.rlimits")
    return found, unknown


def process(document: object) -> tuple[dict[str, object], list[str]]:
    """OCI's `process` of a file of its own, as `exec --process` takes it. Raises Complaint."""
    unknown: list[str] = []
    found = _object(document, grammar.PROCESS, "process", unknown)
    _check_limits(found, "process.rlimits")
    return found, unknown


def resources(document: object) -> tuple[dict[str, object], list[str]]:
    """OCI's `linux.resources` of a file of its own, as `update --resources` takes it. Raises Complaint."""
    unknown: list[str] = []
    return _object(document, grammar.RESOURCES, "resources", unknown), unknown


def _check_version(version: object) -> None:
    if not isinstance(version, str):
        raise Complaint(
            "config.json: ociVersion: missing" if version is None else "config.json: ociVersion: not a string"
        )
    found = _VERSION.fullmatch(version)
    if not found:
        raise Complaint(f"config.json: ociVersion: {_short(version)} is not a semantic version")
    if found[1] != grammar.NEWEST.partition(".")[0]:
        raise Complaint(
            f"config.json: ociVersion: unknown version specified: {version}; known up to {grammar.NEWEST}"
        )


def _check_mounts(found: dict[str, object]) -> None:
    """Relative destinations count from the root: for old configurations (config.md, "Mounts")."""
    mounts = found.get("mounts")
    for index, mount in enumerate(mounts if isinstance(mounts, list) else ()):
        if not mount["destination"]:
            raise _wrong(f"mounts[{index}].destination", "empty")
        if not mount["destination"].startswith("/"):
            mount["destination"] = "/" + mount["destination"]


def _check_limits(process: object, place: str) -> None:
    """A limit that stands there twice has no meaning: config.md, "POSIX process"."""
    limits = process.get("rlimits") if isinstance(process, dict) else None
    names = [limit["type"] for limit in limits] if isinstance(limits, list) else []
    for index, name in enumerate(names):
        if name in names[:index]:
            raise _wrong(f"{place}[{index}].type", f"{name} stands there twice")


def _clean(value: object, form: grammar.Form, place: str, unknown: list[str]) -> object:
    match form:
        case grammar.Text():
            return _text(value, form, place)
        case grammar.Whole():
            return _whole(value, form, place)
        case grammar.Flag():
            if not isinstance(value, bool):
                raise _wrong(place, f"{_short(value)} is neither true nor false")
            return value
        case grammar.OneOf():
            if value not in form.words:
                raise _wrong(place, f"{_short(value)} is none of {', '.join(form.words)}")
            return value
        case grammar.Many():
            if not isinstance(value, list):
                raise _wrong(place, "not a list")
            if len(value) < form.least:
                raise _wrong(place, "empty")
            return [_clean(item, form.of, f"{place}[{index}]", unknown) for index, item in enumerate(value)]
        case grammar.Named():
            return _named(value, form, place, unknown)
        case grammar.Object():
            return _object(value, form, place, unknown)


def _text(value: object, form: grammar.Text, place: str) -> str:
    if not isinstance(value, str):
        raise _wrong(place, f"{_short(value)} is not a string")
    if "\0" in value:
        raise _wrong(place, "holds a NUL")
    if form.absolute and value and not value.startswith("/"):
        raise _wrong(place, f"{_short(value)} is not an absolute path")
    return value


def _whole(value: object, form: grammar.Whole, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(place, f"{_short(value)} is not a whole number")
    if not form.least <= value <= form.most:
        raise _wrong(place, f"{value} is not between {form.least} and {form.most}")
    return value


def _named(value: object, form: grammar.Named, place: str, unknown: list[str]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _wrong(place, "not an object")
    for name in value:
        if not name or "\0" in name:
            raise _wrong(place, f"{_short(name)} is not a name")
        if form.names and name not in form.names:
            raise _wrong(place, f"{_short(name)} is none of {', '.join(form.names)}")
    return {name: _clean(item, form.of, f"{place}.{name}", unknown) for name, item in value.items()}


def _object(value: object, form: grammar.Object, place: str, unknown: list[str]) -> dict[str, object]:
    """null is the same as absent, as in Go."""
    if not isinstance(value, dict):
        raise _wrong(place, "not an object")
    found: dict[str, object] = {}
    for name, item in value.items():
        inner = f"{place}.{name}" if place else name
        if name not in form.fields:
            unknown.append(inner)
        elif item is not None:
            found[name] = _clean(item, form.fields[name], inner, unknown)
    for name in form.required:
        if name not in found:
            raise _wrong(f"{place}.{name}" if place else name, "missing")
    return found


def _wrong(place: str, what: str) -> Complaint:
    return Complaint(
        f"config.json: {place}: {what}" if not place.startswith("resources") else f"{place}: {what}"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
