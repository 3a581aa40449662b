"""What the files of this machine say about registries: mirrors, insecure hosts, certificates.

    ~/.config/pystack/registries.toml, /etc/pystack/registries.toml      ours
    ~/.config/containers/registries.conf, /etc/containers/registries.conf (and registries.conf.d)   podman's
    /etc/docker/daemon.json                                              insecure-registries, registry-mirrors

The first two have podman's form (containers-registries.conf(5), version 2); ours knows some keys more.
The table with the longest prefix of a name speaks for it; of equal ones the first that was read. For
certificates see `tls_for`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.images import reference as references
from orchestrator.images.registry.proxies import is_loopback
from orchestrator.images.registry.tls import Tls
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass

HUB = "registry-1.docker.io"
"""Where docker.io really answers."""
PULL, RESOLVE, PUSH = "pull", "resolve", "push"
_SIZE_LIMIT = 1 << 20
_MIRROR_LIMIT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A place that is asked for one repository."""

    host: str
    """host[:port]: what certificates and credentials are looked up by."""
    schemes: tuple[str, ...]
    """Tried in this order until one is spoken there."""
    path: str
    """The repository, as it is called there."""
    capabilities: frozenset[str]
    account: str
    """The name credentials are kept under."""
    namespace: str = ""
    """The registry that a caching mirror stands for here (containerd's ?ns=)."""
    mirror: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A place that has copies. `location` is host[:port][/path]."""

    location: str
    scheme: str = ""
    insecure: bool = False
    capabilities: frozenset[str] = frozenset((PULL, RESOLVE))
    namespace: bool = False
    tls: Tls = Tls()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is said about all names that begin with `prefix`."""

    prefix: str
    location: str
    source: str
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()
    tls: Tls = Tls()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that the files say. `certificates` are directories that have one directory a host."""

    rules: tuple[Rule, ...] = ()
    certificates: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()


def load(environment: Mapping[str, str], etc: Path = Path("/etc")) -> Settings:
    """Read the files. Raises UserError for one that is broken."""
    config = config_home(environment)
    rules: list[Rule] = []
    for path in _files(environment, config, etc):
        text = _read(path)
        if text is not None:
            rules += parse(text, str(path))
    rules += of_dockerd(_read(etc / "docker" / "daemon.json") or "", str(etc / "docker" / "daemon.json"))
    return Settings(
        rules=tuple(rules),
        certificates=tuple(
            str(path)
            for path in (
                config / "containers" / "certs.d",
                etc / "containers" / "certs.d",
                etc / "docker" / "certs.d",
            )
        ),
        roots=tuple(environment[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if environment.get(name)),
    )


def config_home(environment: Mapping[str, str]) -> Path:
    """Where the user's own settings are."""
    home = environment.get("HOME") or os.path.expanduser("~")
    return Path(environment.get("XDG_CONFIG_HOME") or f"{home}/.config")


def endpoints(settings: Settings, host: str, path: str) -> tuple[Endpoint, ...]:
    """The places to ask for a repository, in order; the last is the registry itself.

    Raises UserError when it is blocked.
    """
    rule = _rule_for(settings, f"{host}/{path}")
    if rule is None:
        return (_origin(settings, host, path, insecure=False),)
    if rule.blocked:
        raise UserError(f"{rule.prefix} is blocked in {rule.source}", exit_code=ExitCode.IMAGE)
    rest = f"{host}/{path}"[_matched(rule.prefix, f"{host}/{path}") :].strip("/")
    found = [_mirror(settings, one, rest, host) for one in rule.mirrors]
    if rule.location:
        host, path = _split(rule.location, rest)
    return (*found, _origin(settings, host, path, insecure=rule.insecure))


def tls_for(settings: Settings, host: str) -> Tls:
    """Certificates for host[:port], wherever it comes up: as registry, mirror, token server or target of
    a redirect.

    In each of the directories, HOST or HOST:PORT holds *.crt (trusted beside the system's), and pairs of
    *.cert and *.key to show (dockerd's form). Raises UserError for a pair that is not whole.
    """
    base = Tls(roots=settings.roots)
    for rule in settings.rules:
        if host in (_host_of(rule.location), _host_of(rule.prefix)):
            base = _joined(base, rule.tls, insecure=rule.insecure)
        for mirror in rule.mirrors:
            if host == _host_of(mirror.location):
                base = _joined(base, mirror.tls, insecure=mirror.insecure)
    for directory in settings.certificates:
        found = _certificates(Path(directory) / host)
        base = _joined(base, found, insecure=False)
    return base


def parse(text: str, source: str) -> Iterator[Rule]:
    """The rules of one file. Raises UserError."""
    import tomllib

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{source}: {error}", exit_code=ExitCode.USAGE) from None
    rows = data.get("registry", [])
    if not isinstance(rows, list):
        raise _wrong(source, "write [[registry]], with two brackets")
    for row in rows:
        yield _rule(row, source)


def of_dockerd(text: str, source: str) -> Iterator[Rule]:
    """What dockerd's settings say. They are for another program, so whatever can't be read there is passed
    over; networks among the insecure registries are, too.
    """
    import json

    try:
        data = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return
    if not isinstance(data, dict):
        return
    for host in _texts(data.get("insecure-registries")):
        if references.is_host(host):
            yield Rule(prefix=host, location="", source=source, insecure=True)
    mirrors = []
    for url in _texts(data.get("registry-mirrors"))[:_MIRROR_LIMIT]:
        scheme, parted, location = url.partition("://")
        if parted and scheme in ("http", "https") and references.is_host(_host_of(location)):
            mirrors.append(Mirror(location=location.rstrip("/"), scheme=scheme))
    if mirrors:
        yield Rule(prefix=references.DEFAULT_HOST, location="", source=source, mirrors=tuple(mirrors))


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


# --- one table ------------------------------------------------------------------------------------


def _rule(row: object, source: str) -> Rule:
    if not isinstance(row, dict):
        raise _wrong(source, "write [[registry]], with two brackets")
    location = _text(row, "location", source)
    prefix = _text(row, "prefix", source) or location
    if not prefix:
        raise _wrong(source, 'a [[registry]] needs a prefix, for example prefix = "docker.io"')
    mirrors = row.get("mirror", [])
    if not isinstance(mirrors, list) or len(mirrors) > _MIRROR_LIMIT:
        raise _wrong(source, f"write at most {_MIRROR_LIMIT} [[registry.mirror]], with two brackets")
    by_digest = _flag(row, "mirror-by-digest-only", source)
    return Rule(
        prefix=prefix.rstrip("/"),
        location=location.rstrip("/"),
        source=source,
        insecure=_flag(row, "insecure", source),
        blocked=_flag(row, "blocked", source),
        mirrors=tuple(_mirror_of(one, source, by_digest=by_digest) for one in mirrors),
        tls=_tls(row, source),
    )


def _mirror_of(row: object, source: str, *, by_digest: bool) -> Mirror:
    if not isinstance(row, dict):
        raise _wrong(source, "write [[registry.mirror]], with two brackets")
    location = _text(row, "location", source)
    scheme, parted, rest = location.partition("://")
    if parted and scheme not in ("http", "https"):
        raise _wrong(source, f"a mirror is asked by http or https, not {scheme!r:.40}")
    location = (rest if parted else location).rstrip("/")
    if not location or not references.is_host(_host_of(location)):
        raise _wrong(source, f"a mirror's location is host[:port][/path], not {location!r:.80}")
    which = _text(row, "pull-from-mirror", source)
    if which == "digest-only" or (by_digest and not which):
        capabilities = frozenset((PULL,))
    elif which == "tag-only":
        capabilities = frozenset((RESOLVE,))
    elif which in ("", "all"):
        capabilities = _capabilities(row, source)
    else:
        raise _wrong(source, f"pull-from-mirror is all, digest-only or tag-only, not {which!r:.40}")
    return Mirror(
        location=location,
        scheme=scheme if parted else "",
        insecure=_flag(row, "insecure", source) or _flag(row, "skip-verify", source),
        capabilities=capabilities,
        namespace=_flag(row, "ns", source),
        tls=_tls(row, source),
    )


def _capabilities(row: dict[str, Any], source: str) -> frozenset[str]:
    given = row.get("capabilities", [PULL, RESOLVE])
    if not isinstance(given, list) or not set(map(str, given)) <= {PULL, RESOLVE, PUSH}:
        raise _wrong(source, "capabilities is a list of pull, resolve and push")
    return frozenset(given)


def _tls(row: dict[str, Any], source: str) -> Tls:
    ca = row.get("ca", [])
    extra = [ca] if isinstance(ca, str) else ca
    certificate, key = _text(row, "cert", source), _text(row, "key", source)
    if not isinstance(extra, list) or not all(isinstance(one, str) for one in extra):
        raise _wrong(source, "ca is the name of a file, or a list of such")
    if bool(certificate) != bool(key):
        raise _wrong(source, "cert and key come together")
    return Tls(extra=tuple(extra), pairs=((certificate, key),) if certificate else ())


def _text(row: dict[str, Any], key: str, source: str) -> str:
    value = row.get(key, "")
    if not isinstance(value, str):
        raise _wrong(source, f"{key} is a text")
    return value


def _flag(row: dict[str, Any], key: str, source: str) -> bool:
    value = row.get(key, False)
    if not isinstance(value, bool):
        raise _wrong(source, f"{key} is true or false")
    return value


def _wrong(source: str, why: str) -> UserError:
    return UserError(f"{source}: {why}", exit_code=ExitCode.USAGE)


# --- names ----------------------------------------------------------------------------------------


def _rule_for(settings: Settings, name: str) -> Rule | None:
    fitting = [rule for rule in settings.rules if _matched(rule.prefix, name)]
    # max() keeps the first of equals: ours are read before podman's.
    return max(fitting, key=lambda rule: _matched(rule.prefix, name), default=None)


def _matched(prefix: str, name: str) -> int:
    """How many letters of a name a prefix covers, 0: not its beginning. `*.example.com` covers a host."""
    if prefix.startswith("*."):
        host = name.partition("/")[0]
        return len(host) if host.endswith(prefix[1:]) else 0
    return len(prefix) if name == prefix or name.startswith(f"{prefix}/") else 0


def _split(location: str, rest: str) -> tuple[str, str]:
    host, _, above = location.partition("/")
    return host, "/".join(part for part in (above, rest) if part)


def _host_of(location: str) -> str:
    return location.partition("/")[0]


def _mirror(settings: Settings, mirror: Mirror, rest: str, host: str) -> Endpoint:
    there, path = _split(mirror.location, rest)
    schemes = (mirror.scheme,) if mirror.scheme else _schemes(settings, there, insecure=mirror.insecure)
    return Endpoint(
        host=there,
        schemes=schemes,
        path=path,
        capabilities=mirror.capabilities,
        account=there,
        namespace=host if mirror.namespace else "",
        mirror=True,
    )


def _origin(settings: Settings, host: str, path: str, *, insecure: bool) -> Endpoint:
    return Endpoint(
        host=HUB if host == references.DEFAULT_HOST else host,
        schemes=_schemes(settings, host, insecure=insecure),
        path=path,
        capabilities=frozenset((PULL, RESOLVE, PUSH)),
        account=host,
    )


def _schemes(settings: Settings, host: str, *, insecure: bool) -> tuple[str, ...]:
    """Plain http only where it was declared, or can't leave this machine (Docker's rule); on loopback it
    comes first, since that is what is spoken there nearly always, unless there are certificates for it.
    """
    if not insecure and any(os.path.isdir(f"{one}/{host}") for one in settings.certificates):
        return ("https",)
    if is_loopback(urlsplit(f"//{host}").hostname or ""):
        return ("http", "https")
    return ("https", "http") if insecure else ("https",)


# --- files ----------------------------------------------------------------------------------------


def _files(environment: Mapping[str, str], config: Path, etc: Path) -> Iterator[Path]:
    yield config / "pystack" / "registries.toml"
    yield etc / "pystack" / "registries.toml"
    chosen = environment.get("CONTAINERS_REGISTRIES_CONF")
    if chosen:
        yield Path(chosen)
        return
    for base in (config / "containers", etc / "containers"):
        yield base / "registries.conf"
        try:
            names = sorted(os.listdir(base / "registries.conf.d"))
        except OSError:
            continue
        yield from (base / "registries.conf.d" / name for name in names if name.endswith(".conf"))


def _read(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            content = file.read(_SIZE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", exit_code=ExitCode.USAGE) from None
    try:
        return content[:_SIZE_LIMIT].decode()
    except UnicodeDecodeError:
        raise _wrong(str(path), "it is not UTF-8") from None


def _certificates(directory: Path) -> Tls:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return Tls()
    pairs = []
    for name in names:
        if not name.endswith(".cert"):
            continue
        key = f"{name.removesuffix('.cert')}.key"
        if key not in names:
            raise UserError(
                f"{directory / name}: there is no {key} beside it",
                exit_code=ExitCode.FILE_NOT_FOUND,
                hint="certificates of authorities end in .crt",
            )
        pairs.append((str(directory / name), str(directory / key)))
    return Tls(
        extra=tuple(str(directory / name) for name in names if name.endswith(".crt")), pairs=tuple(pairs)
    )


def _joined(one: Tls, other: Tls, *, insecure: bool) -> Tls:
    return Tls(
        verify=one.verify and not insecure,
        roots=one.roots,
        extra=one.extra + other.extra,
        pairs=one.pairs + other.pairs,
    )
