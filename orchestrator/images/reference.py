"""Names of images.

`[host[:port]/]path[:tag][@digest]`, as the distribution specification and Docker's reference grammar have
it: the first part is a host only if it holds "." or ":", has an upper-case letter or is "localhost"; no
host means docker.io, and there a single name lives below library/.
"""

from __future__ import annotations

import re

from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass

DEFAULT_HOST = "docker.io"
DEFAULT_TAG = "latest"
_LIBRARY = "library/"
_NAME_LIMIT = 255

_HOST = re.compile(
    r"(?:\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*)(?::[0-9]{1,5})?"
)
_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-f]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A full name: every part that has a default is filled in. `tag` is "" only beside a digest."""

    host: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.host}/{self.path}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}{'@' + self.digest if self.digest else ''}"

    @property
    def familiar(self) -> str:
        """The short form that people type: no docker.io, no library/; the tag stays."""
        return familiar_repository(self.host, self.path) + str(self)[len(self.repository) :]


def parse(text: str) -> Reference:
    """The full name that `text` stands for. Raises UserError when it is not a name of an image."""
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _invalid(text, "after @ comes sha256: and 64 hexadecimal digits")
    name, tag = _split_tag(name)
    if tag is not None and not _TAG.fullmatch(tag):
        raise _invalid(text, "a tag has at most 128 letters, digits, _, . and -")
    if tag is None and is_digest(f"sha256:{name}"):
        raise _invalid(text, "64 hexadecimal digits are an id, not a name")
    host, path = _split_host(name)
    if not is_host(host):
        raise _invalid(text, f"{host!r} is not the name of a registry")
    if any(not _PART.fullmatch(part) for part in path.split("/")):
        wrong = "repository name must be lowercase" if path != path.lower() else ""
        raise _invalid(text, wrong)
    if len(path) > _NAME_LIMIT:
        raise _invalid(text, f"a repository name has at most {_NAME_LIMIT} characters")
    if tag is None:
        tag = "" if digest else DEFAULT_TAG
    return Reference(host=host, path=path, tag=tag, digest=digest)


def familiar(name: str) -> str:
    """The short form of a full or familiar name."""
    return parse(name).familiar


def familiar_repository(host: str, path: str) -> str:
    """The short form of a repository's name."""
    if host != DEFAULT_HOST:
        return f"{host}/{path}".rstrip("/")
    return path.removeprefix(_LIBRARY) if path.count("/") == 1 else path


def is_host(text: str) -> bool:
    """Whether `text` may be the name of a registry: host[:port]."""
    port = text.rpartition(":")[2]
    return _HOST.fullmatch(text) is not None and not (port.isdigit() and int(port) > 65535)


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def is_id_prefix(text: str) -> bool:
    """Whether `text` may be a full or short image id (without "sha256:")."""
    return _HEX.fullmatch(text) is not None


def _split_tag(name: str) -> tuple[str, str | None]:
    """A colon begins a tag only after the last slash; before it, it begins a port."""
    head, colon, tail = name.rpartition(":")
    if not colon or "/" in tail:
        return name, None
    return head, tail


def _split_host(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if slash and is_host:
        host, path = first, rest
    else:
        host, path = DEFAULT_HOST, name
    if host == "index.docker.io":
        host = DEFAULT_HOST
    if host == DEFAULT_HOST and "/" not in path:
        path = _LIBRARY + path
    return host, path


def _invalid(text: str, why: str) -> UserError:
    message = f"invalid reference format: {text!r}" + (f": {why}" if why else "")
    return UserError(message, exit_code=ExitCode.IMAGE)
