"""`--change` instructions, as `docker import` takes them, applied to the run part of a config.

Source: Dockerfile reference. One instruction a text; comments, continuation lines and variables are the
Dockerfile parser's, not ours.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from orchestrator.model.errors import UserError

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?")
_FLAG = re.compile(r"--([a-z-]+)=(\S+)\s*")
_HEALTH_FLAGS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
    "retries": "Retries",
}

Config = dict[str, Any]


def apply(config: Config, instructions: Iterable[str]) -> Config:
    """A new run config (Docker's field names) with the instructions carried out. Raises UserError."""
    changed = dict(config)
    for text in instructions:
        word, _, rest = text.strip().partition(" ")
        change = _CHANGES.get(word.upper())
        if change is None:
            known = ", ".join(sorted(_CHANGES))
            raise UserError(
                f"{word!r:.40} is not an instruction that can be applied here", hint=f"one of {known}"
            )
        if not rest.strip():
            raise UserError(f"{word.upper()} needs an argument")
        try:
            change(changed, rest.strip())
        except ValueError as error:
            raise UserError(f"{word.upper()} {rest.strip():.80}: {error}") from None
    return changed


def _words(text: str) -> list[str] | None:
    """The exec form, a JSON list of texts; None for anything else."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except ValueError:
        return None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return None
    return words


def _argv(text: str) -> list[str]:
    words = _words(text)
    return ["/bin/sh", "-c", text] if words is None else words


def _pairs(text: str) -> list[tuple[str, str]]:
    """`key=value ...` with shell quotes, or the old `key the rest of the line`."""
    first = text.split(None, 1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise ValueError("needs key=value")
        return [(first[0], first[1])]
    pairs = [word.partition("=") for word in shlex.split(text)]
    if any(not equals or not key for key, equals, _ in pairs):
        raise ValueError("needs key=value")
    return [(key, value) for key, _, value in pairs]


def _command(config: Config, text: str) -> None:
    config["Cmd"] = _argv(text)


def _entrypoint(config: Config, text: str) -> None:
    """A new entry point makes the command that was meant for the old one void."""
    config["Entrypoint"] = _argv(text)
    config.pop("Cmd", None)


def _environment(config: Config, text: str) -> None:
    rows = dict(row.partition("=")[::2] for row in config.get("Env") or ())
    rows.update(_pairs(text))
    config["Env"] = [f"{key}={value}" for key, value in rows.items()]


def _labels(config: Config, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(text))}


def _user(config: Config, text: str) -> None:
    config["User"] = text


def _working_dir(config: Config, text: str) -> None:
    base = config.get("WorkingDir") or "/"
    config["WorkingDir"] = text if text.startswith("/") else f"{base.rstrip('/')}/{text}"


def _expose(config: Config, text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in text.split():
        match = _PORT.fullmatch(word)
        if match is None:
            raise ValueError(f"{word!r} is not PORT[-PORT][/PROTOCOL]")
        low, high = int(match[1]), int(match[2] or match[1])
        if not 0 < low <= high <= 65535:
            raise ValueError(f"{word!r} is not a range of ports")
        ports.update({f"{port}/{match[3] or 'tcp'}": {} for port in range(low, high + 1)})
    config["ExposedPorts"] = ports


def _volume(config: Config, text: str) -> None:
    paths = _words(text) or text.split()
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _stop_signal(config: Config, text: str) -> None:
    config["StopSignal"] = text


def _on_build(config: Config, text: str) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or ()), text]


def _healthcheck(config: Config, text: str) -> None:
    check: Config = {}
    while match := _FLAG.match(text):
        field = _HEALTH_FLAGS.get(match[1])
        if field is None:
            raise ValueError(f"unknown flag --{match[1]}")
        check[field] = int(match[2]) if field == "Retries" else _nanoseconds(match[2])
        text = text[match.end() :]
    kind, _, command = text.partition(" ")
    words = _words(command.strip())
    if kind.upper() == "NONE" and not command:
        check["Test"] = ["NONE"]
    elif kind.upper() != "CMD" or not command.strip():
        raise ValueError("needs NONE, or CMD and a command")
    else:
        check["Test"] = ["CMD-SHELL", command.strip()] if words is None else ["CMD", *words]
    config["Healthcheck"] = check


def _nanoseconds(text: str) -> int:
    """A Go duration: 1m30s."""
    if not text or _DURATION.sub("", text):
        raise ValueError(f"{text!r} is not a duration")
    return int(sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text)))


_CHANGES: dict[str, Callable[[Config, str], None]] = {
    "CMD": _command,
    "ENTRYPOINT": _entrypoint,
    "ENV": _environment,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _labels,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _working_dir,
}
