"""`--change` instructions, as `docker commit` and `docker import` take them, applied to a config's run part.

Source: Dockerfile reference. Each text is a little Dockerfile: comments, continuation lines, several
instructions, variables of the environment where the reference has them replaced (images/wording).
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from posixpath import normpath
from typing import Any

from orchestrator.images.wording import expand, split
from orchestrator.model.errors import UserError

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?")
_FLAG = re.compile(r"--([a-z-]+)=(\S+)\s*")
_REALTIME = re.compile(r"(SIG)?RTM(IN|AX)([+-]\d{1,2})?")
_HEALTH_FLAGS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
    "retries": "Retries",
}
_NOT_LATER = ("ONBUILD", "FROM", "MAINTAINER")

Config = dict[str, Any]


def apply(config: Config, instructions: Iterable[str]) -> Config:
    """A new run config (Docker's field names) with the instructions carried out. Raises UserError."""
    changed = dict(config)
    has_command = False
    for text in instructions:
        lines = list(_lines(text))
        if not lines:
            raise UserError(f"{text!r:.40} is not an instruction that can be applied here", hint=_known())
        for line in lines:
            word, rest = _parted(line)
            before = changed.get("Cmd")
            try:
                _CHANGES[word](changed, rest)
            except ValueError as error:
                raise UserError(f"{word} {rest:.80}: {error}") from None
            if word == "ENTRYPOINT" and has_command:
                changed["Cmd"] = before  # that of an old entry point goes, a new one stays
            has_command |= word == "CMD"
    return changed


def _parted(line: str) -> tuple[str, str]:
    word, *rest = line.split(None, 1)
    if word.upper() not in _CHANGES:
        raise UserError(f"{word!r:.40} is not an instruction that can be applied here", hint=_known())
    if not rest:
        raise UserError(f"{word.upper()} needs an argument")
    return word.upper(), rest[0].strip()


def _known() -> str:
    return f"one of {', '.join(sorted(_CHANGES))}"


def _lines(text: str) -> Iterator[str]:
    """Instructions: without comments and empty lines, and with what is continued joined."""
    joined = ""
    for line in text.split("\n"):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        if line.rstrip().endswith("\\"):
            joined += line.rstrip()[:-1]
            continue
        yield (joined + line).strip()
        joined = ""
    if joined.strip():
        yield joined.strip()


def _environment_of(config: Config) -> dict[str, str]:
    return dict(row.partition("=")[::2] for row in config.get("Env") or ())


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


def _argv(config: Config, text: str) -> list[str]:
    words = _words(text)
    return [*(config.get("Shell") or ("/bin/sh", "-c")), text] if words is None else words


def _pairs(config: Config, text: str) -> list[tuple[str, str]]:
    """`key=value ...`, or the old `key the rest of the line`."""
    variables = _environment_of(config)
    first = text.split(None, 1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise ValueError("needs key=value")
        return [(expand(first[0], variables), expand(first[1], variables))]
    # The names in a line all mean what they meant before it.
    pairs = [word.partition("=") for word in split(text, variables)]
    if any(not equals or not key for key, equals, _ in pairs):
        raise ValueError("needs key=value")
    return [(key, value) for key, _, value in pairs]


def _command(config: Config, text: str) -> None:
    config["Cmd"] = _argv(config, text)


def _entrypoint(config: Config, text: str) -> None:
    """A new entry point makes the command that was meant for the old one void."""
    config["Entrypoint"] = _argv(config, text)
    config.pop("Cmd", None)


def _environment(config: Config, text: str) -> None:
    rows = _environment_of(config)
    rows.update(_pairs(config, text))
    config["Env"] = [f"{key}={value}" for key, value in rows.items()]


def _labels(config: Config, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(config, text))}


def _user(config: Config, text: str) -> None:
    config["User"] = expand(text, _environment_of(config))


def _working_dir(config: Config, text: str) -> None:
    path = expand(text, _environment_of(config))
    base = config.get("WorkingDir") or "/"
    config["WorkingDir"] = "/" + normpath(path if path.startswith("/") else f"{base}/{path}").lstrip("/")


def _expose(config: Config, text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in split(text, _environment_of(config)):
        match = _PORT.fullmatch(word)
        if match is None:
            raise ValueError(f"{word!r} is not PORT[-PORT][/PROTOCOL]")
        low, high = int(match[1]), int(match[2] or match[1])
        if not 0 < low <= high <= 65535:
            raise ValueError(f"{word!r} is not a range of ports")
        ports.update({f"{port}/{match[3] or 'tcp'}": {} for port in range(low, high + 1)})
    config["ExposedPorts"] = ports


def _volume(config: Config, text: str) -> None:
    words = _words(text)
    paths = split(text, _environment_of(config)) if words is None else words
    if not paths or not all(paths):
        raise ValueError("needs a path")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _stop_signal(config: Config, text: str) -> None:
    name = expand(text, _environment_of(config))
    known = name.isdecimal() and 0 < int(name) < 65
    named = {one.name for one in signal.Signals}
    if not known and name not in named and f"SIG{name}" not in named and not _REALTIME.fullmatch(name):
        raise ValueError("not a signal")
    config["StopSignal"] = name


def _on_build(config: Config, text: str) -> None:
    word = text.split(None, 1)[0].upper()
    if word in _NOT_LATER:
        raise ValueError(f"{word} can't be put off")
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
    if kind.upper() == "NONE" and not command and not check:
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
