"""Who we are at a registry: what docker's and podman's files and their helper programs keep.

Looked up in this order, the first that knows the host is believed:
    $REGISTRY_AUTH_FILE
    $DOCKER_CONFIG/config.json, else ~/.docker/config.json
    $XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json
and in each file: the helper that `credHelpers` names for the host, its entry in `auths`, the helper of
`credsStore`. An entry may be for a part of a host only (podman's `host/team/app`); the longest wins.

Formats: docker-config-json of Docker's CLI, containers-auth.json(5), and the protocol of
docker-credential-helpers.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from orchestrator.images import reference as references
from orchestrator.images import scratch
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass

HUB_KEY = "https://index.docker.io/v1/"
_HUB_NAMES = frozenset(("index.docker.io", "registry-1.docker.io", "docker.io"))
_IDENTITY = "<token>"
"""The user name under which a helper keeps an identity token."""
_NOT_FOUND = "credentials not found in native keychain"
_SIZE_LIMIT = 4 << 20
_HELPER_SECONDS = 30.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One of: user name and password, an identity token (buys bearer tokens), a registry token (is one)."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credential(username={self.username!r}, ...)"

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Where something was stored. `plain` says that anybody who can read the file can use it."""

    where: str
    plain: bool


# --- reading --------------------------------------------------------------------------------------


async def find(environment: Mapping[str, str], host: str, path: str, warn: Warn) -> Credential | None:
    """The credential for a repository; `path` is "" for the registry as a whole.

    A helper that can't be run is warned of, not fatal: public images need none. Raises UserError for a file
    that is broken.
    """
    for file in files(environment):
        data = _load(file)
        if data is None:
            continue
        found = await _find_in(data, file, environment, host, path, warn)
        if found is not None:
            return found
    return None


def files(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Every place to look, in order."""
    found = [docker_file(environment)]
    if environment.get("REGISTRY_AUTH_FILE"):
        found.insert(0, Path(environment["REGISTRY_AUTH_FILE"]))
    if environment.get("XDG_RUNTIME_DIR"):
        found.append(Path(environment["XDG_RUNTIME_DIR"]) / "containers" / "auth.json")
    elif os.geteuid() == 0:
        found.append(Path("/run/containers/0/auth.json"))
    config = environment.get("XDG_CONFIG_HOME") or f"{_home(environment)}/.config"
    found.append(Path(config) / "containers" / "auth.json")
    return tuple(found)


def docker_file(environment: Mapping[str, str]) -> Path:
    base = environment.get("DOCKER_CONFIG") or f"{_home(environment)}/.docker"
    return Path(base) / "config.json"


def lookup(auths: object, host: str, path: str) -> tuple[str, dict[str, Any]] | None:
    """The entry of `auths` that speaks for a repository, with its key. Pure.

    A key with a scheme stands for its host, whatever path follows (`https://index.docker.io/v1/`).
    """
    if not isinstance(auths, dict):
        return None
    known: dict[str, tuple[str, dict[str, Any]]] = {}
    for key, entry in auths.items():
        if isinstance(entry, dict) and _says_something(entry):
            known.setdefault(scope_of(key), (key, entry))
    name = f"{host}/{path}".strip("/")
    while name:
        if name in known:
            return known[name]
        name = name.rpartition("/")[0]
    return None


def scope_of(key: str) -> str:
    """What a key of `auths` stands for: host[:port], or host[:port]/path."""
    scheme, parted, rest = key.partition("://")
    name = rest.partition("/")[0] if parted else re.sub(r"/v[12]/?$", "", scheme).rstrip("/")
    host, slash, path = name.partition("/")
    return f"{references.DEFAULT_HOST if host in _HUB_NAMES else host}{slash}{path}"


def decode(entry: Mapping[str, Any], where: str) -> Credential:
    """Raises UserError, which never shows the secret."""
    texts = {key: value for key, value in entry.items() if isinstance(value, str)}
    username, password = texts.get("username", ""), texts.get("password", "")
    if texts.get("auth"):
        try:
            pair = base64.b64decode(texts["auth"], validate=False).decode()
        except (binascii.Error, ValueError):
            pair = ""
        username, colon, password = pair.partition(":")
        if not colon:
            raise UserError(
                f"{where}: `auth` is not the base64 form of USER:PASSWORD",
                exit_code=ExitCode.IMAGE,
                hint="log in again: `pystack login`",
            )
        password = password.rstrip("\0")
    return Credential(
        username=username,
        password=password,
        identity_token=texts.get("identitytoken", ""),
        registry_token=texts.get("registrytoken", ""),
    )


def _says_something(entry: Mapping[str, Any]) -> bool:
    return any(entry.get(key) for key in ("auth", "identitytoken", "registrytoken", "username"))


async def _find_in(
    data: dict[str, Any], file: Path, environment: Mapping[str, str], host: str, path: str, warn: Warn
) -> Credential | None:
    helper = _helper_for(data, host)
    if helper:
        found = await _ask(helper, server_key(host), environment, warn)
        if found is not None:
            return found
    entry = lookup(data.get("auths"), host, path)
    if entry is not None:
        return decode(entry[1], f"{file}: {entry[0]}")
    store = data.get("credsStore")
    if isinstance(store, str) and store and store != helper:
        return await _ask(store, server_key(host), environment, warn)
    return None


# --- writing --------------------------------------------------------------------------------------


async def keep(environment: Mapping[str, str], host: str, credential: Credential) -> Kept:
    """Store a credential: with the helper that is set up for the host, else in the file. Raises UserError."""
    file = _written_file(environment)
    data = _load(file) or {}
    helper = _helper_for(data, host) or _text(data.get("credsStore"))
    key = server_key(host)
    if helper:
        token = credential.identity_token
        message = {
            "ServerURL": key,
            "Username": _IDENTITY if token else credential.username,
            "Secret": token or credential.password,
        }
        await _run(helper, "store", json.dumps(message).encode(), environment)
        entry: dict[str, str] = {}
    else:
        password = "" if credential.identity_token else credential.password
        pair = f"{credential.username}:{password}".encode()
        entry = {"auth": base64.b64encode(pair).decode()}
        if credential.identity_token:
            entry["identitytoken"] = credential.identity_token
    auths = data.get("auths")
    others = _others(auths, host) if isinstance(auths, dict) else {}
    _save(file, {**data, "auths": {**others, key: entry}})
    return Kept(where=f"credential helper {helper}" if helper else str(file), plain=not helper)


async def forget(environment: Mapping[str, str], host: str) -> bool:
    """Take a host's credential out of every file and helper; whether there was one. Raises UserError."""
    known = False
    for file in files(environment):
        data = _load(file)
        if data is None:
            continue
        auths = data.get("auths")
        helper = _helper_for(data, host) or _text(data.get("credsStore"))
        if helper:
            known = await _erase(helper, server_key(host), environment) or known
        if isinstance(auths, dict) and len(_others(auths, host)) != len(auths):
            known = True
            _save(file, {**data, "auths": _others(auths, host)})
    return known


def server_key(host: str) -> str:
    """What a host is called in files and by helpers."""
    return HUB_KEY if host == references.DEFAULT_HOST else host


def _others(auths: dict[str, Any], host: str) -> dict[str, Any]:
    """The entries that are not for the whole of `host`."""
    return {key: entry for key, entry in auths.items() if scope_of(key) != host}


def _written_file(environment: Mapping[str, str]) -> Path:
    chosen = environment.get("REGISTRY_AUTH_FILE")
    return Path(chosen) if chosen else docker_file(environment)


def _load(file: Path) -> dict[str, Any] | None:
    """None when there is no such file."""
    try:
        with open(file, "rb") as opened:
            content = opened.read(_SIZE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}", exit_code=ExitCode.NOT_PERMITTED) from None
    if not content.strip():
        return {}
    try:
        data = json.loads(content) if len(content) <= _SIZE_LIMIT else None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise UserError(
            f"{file}: not a JSON object", hint="it is Docker's or podman's, and was left as it is"
        )
    return data


def _save(file: Path, data: dict[str, Any]) -> None:
    """Whole or not at all, for nobody but its owner to read; a link stays one. Unknown keys are kept."""
    target = Path(os.path.realpath(file))
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch.write_file(target, json.dumps(data, indent="\t").encode() + b"\n", mode=0o600)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}", exit_code=ExitCode.NOT_PERMITTED) from None


# --- helper programs ------------------------------------------------------------------------------


def _helper_for(data: Mapping[str, Any], host: str) -> str:
    helpers = data.get("credHelpers")
    if not isinstance(helpers, dict):
        return ""
    for key, name in helpers.items():
        if scope_of(key) == host:
            return _text(name)
    return ""


async def _ask(helper: str, server: str, environment: Mapping[str, str], warn: Warn) -> Credential | None:
    try:
        output = await _run(helper, "get", server.encode(), environment)
    except UserError as error:
        if _NOT_FOUND not in error.message:
            warn(f"{error.message}; going on without it")
        return None
    try:
        data = json.loads(output)
        username, secret = data["Username"], data["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        warn(f"docker-credential-{helper} gave an answer that can't be read; going on without it")
        return None
    if not isinstance(username, str) or not isinstance(secret, str) or not secret:
        return None
    if username == _IDENTITY:
        return Credential(identity_token=secret)
    return Credential(username=username, password=secret)


async def _erase(helper: str, server: str, environment: Mapping[str, str]) -> bool:
    try:
        await _run(helper, "get", server.encode(), environment)
    except UserError as error:
        if _NOT_FOUND in error.message:
            return False
        raise
    await _run(helper, "erase", server.encode(), environment)
    return True


async def _run(helper: str, verb: str, message: bytes, environment: Mapping[str, str]) -> bytes:
    """What the helper prints. Raises UserError with its complaint, which it prints to standard output."""
    name = f"docker-credential-{helper}"
    if not _HELPER_NAME.fullmatch(helper):
        raise UserError(f"{helper!r:.80} is not the name of a credential helper")
    program = _on_path(name, environment)
    if not program:
        raise UserError(
            f"the credential helper {name} is not installed", exit_code=ExitCode.COMMAND_NOT_FOUND
        )
    try:
        with trio.fail_after(_HELPER_SECONDS):
            done = await trio.run_process(
                [program, verb],
                stdin=message,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=dict(environment),
            )
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from None
    except trio.TooSlowError:
        raise UserError(f"{name} gave no answer in {_HELPER_SECONDS:.0f} s") from None
    if done.returncode != 0:
        words = done.stdout.decode(errors="replace").strip()[:300]
        raise UserError(f"{name} {verb} failed: {words or f'exit code {done.returncode}'}")
    return bytes(done.stdout)


def _on_path(name: str, environment: Mapping[str, str]) -> str:
    import shutil

    return shutil.which(name, path=environment.get("PATH", os.defpath)) or ""


def _home(environment: Mapping[str, str]) -> str:
    return environment.get("HOME") or os.path.expanduser("~")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
