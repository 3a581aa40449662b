"""Search: Docker Hub's own index, or any registry's list of repositories."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from orchestrator.images import reference as references
from orchestrator.images.registry import blame, hosts
from orchestrator.images.registry.blame import BrokenAnswerError, DeniedError, NotFoundError
from orchestrator.images.registry.client import open_registry
from orchestrator.images.registry.credentials import Warn
from orchestrator.images.registry.transport import Request, Transport
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import dataclass

HUB_INDEX = "https://index.docker.io"
USUAL_LIMIT = 25
_MOST = 100
"""Rows that Docker Hub gives at once."""
_TEXT_LIMIT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A repository; `stars` and `official` are known of Docker Hub's only."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False


def split(term: str) -> tuple[str, str]:
    """The registry and the words of a search term: `localhost:5000/red` looks for red there. Pure."""
    first, slash, rest = term.partition("/")
    is_host = ":" in first or (slash and ("." in first or first == "localhost"))
    if is_host and references.is_host(first):
        return (references.DEFAULT_HOST if first == "index.docker.io" else first), rest
    return references.DEFAULT_HOST, term


async def search(term: str, environment: Mapping[str, str], *, limit: int, warn: Warn) -> list[Hit]:
    """Repositories whose name fits. Raises UserError and what blame.RegistryError lists."""
    host, words = split(term)
    if host == references.DEFAULT_HOST and not words.strip():
        raise UserError(
            "Docker Hub is searched for words",
            exit_code=ExitCode.USAGE,
            hint="pystack search WORDS, or pystack search HOST/ for all of a registry",
        )
    if host == references.DEFAULT_HOST:
        return await hub(words, environment, limit=limit)
    async with open_registry(host, environment, warn=warn) as registry:
        try:
            names = await registry.catalog()
        except (DeniedError, NotFoundError) as error:
            raise DeniedError(
                f"{host} does not list its repositories to us: {error.message}",
                exit_code=ExitCode.IMAGE,
                hint="the tags of one that you know: `pystack search --list-tags NAME`",
            ) from None
    found = sorted(name for name in names if words.lower() in name.lower())
    return [Hit(name=f"{host}/{name}") for name in found[:limit]]


async def tags(name: str, environment: Mapping[str, str], *, limit: int, warn: Warn) -> list[str]:
    """The tags of a repository, by its name with or without one of them."""
    reference = references.parse(name)
    async with open_registry(reference.host, environment, warn=warn) as registry:
        return (await registry.tags(reference.path))[:limit]


async def hub(words: str, environment: Mapping[str, str], *, limit: int, index: str = HUB_INDEX) -> list[Hit]:
    """Docker Hub's index, best known first."""
    settings = hosts.load(environment, Path("/etc"))
    url = f"{index}/v1/search?{urlencode({'q': words, 'n': min(max(limit, 1), _MOST)})}"
    async with Transport(environment, lambda host: hosts.tls_for(settings, host)) as transport:
        response = await transport.send(Request(method="GET", url=url, limit=4 << 20))
    if response.status != 200:
        raise blame.of_status(response.status, response.content, "search", host=references.DEFAULT_HOST)
    return hits(response.content)[:limit]


def hits(content: bytes) -> list[Hit]:
    """Docker Hub's answer. Raises BrokenAnswerError. Pure."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None
    rows = data.get("results") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise BrokenAnswerError("search: the answer is not a list", exit_code=ExitCode.IMAGE)
    return [_hit(row) for row in rows if isinstance(row, dict) and isinstance(row.get("name"), str)]


def filtered(found: Sequence[Hit], filters: Sequence[str]) -> list[Hit]:
    """Those that `stars=N` and `is-official=BOOL` leave. Raises UserError. Pure."""
    kept = list(found)
    for text in filters:
        key, _, value = text.partition("=")
        if key == "stars" and value.isascii() and value.isdigit():
            kept = [hit for hit in kept if hit.stars >= int(value)]
        elif key == "is-official" and value.lower() in ("true", "1", "false", "0"):
            kept = [hit for hit in kept if hit.official == (value.lower() in ("true", "1"))]
        else:
            raise UserError(
                f"invalid filter {text!r:.80}",
                exit_code=ExitCode.USAGE,
                hint="write stars=N or is-official=true",
            )
    return kept


def _hit(row: Mapping[str, Any]) -> Hit:
    stars, words = row.get("star_count"), row.get("description")
    return Hit(
        name=str(row["name"])[:_TEXT_LIMIT],
        description=" ".join(words.split())[:_TEXT_LIMIT] if isinstance(words, str) else "",
        stars=stars if isinstance(stars, int) else 0,
        official=row.get("is_official") is True,
    )
