"""Who we are to an endpoint: what goes into the Authorization header, and when something else must.

Bearer tokens follow Docker's token authentication (distribution: "Token Authentication Specification" and
"OAuth2 token authentication"). A token is kept for its host and scopes until shortly before it expires.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlencode, urlsplit

import trio

from orchestrator.images.registry import blame, challenges
from orchestrator.images.registry.challenges import Challenge
from orchestrator.images.registry.credentials import Credential
from orchestrator.images.registry.hosts import Endpoint
from orchestrator.images.registry.transport import Request, Response, Timing
from orchestrator.model.frozen import dataclass

CLIENT = "pystack"
_USUAL_LIFE = 60.0
_LONGEST_LIFE = 3600.0
_MARGIN = 5.0
"""Seconds before its end that a token is no longer used."""
_ANSWER_LIMIT = 1 << 20
_NO_POST = frozenset((401, 404, 405))
"""Token servers that know no POST answer so (GCR 404, Artifactory 401)."""

Send = Callable[[Request], Awaitable[Response]]
Find = Callable[[Endpoint], Awaitable[Credential | None]]


def scope(path: str, *actions: str) -> str:
    """What is needed for a repository: `repository:a/b:pull,push`."""
    return f"repository:{path}:{','.join(actions)}"


def merged(scopes: Iterable[str]) -> frozenset[str]:
    """One scope a resource, its actions in order: registries name them in any, and twice. Pure."""
    actions: dict[str, set[str]] = {}
    for one in scopes:
        resource, _, listed = one.rpartition(":")
        actions.setdefault(resource, set()).update(listed.split(","))
    return frozenset(f"{resource}:{','.join(sorted(listed))}" for resource, listed in actions.items())


def covers(had: frozenset[str], wanted: frozenset[str]) -> bool:
    """Whether a token for the scopes `had` is good for `wanted`. Pure."""
    return merged(had | wanted) == merged(had)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    header: str
    scopes: frozenset[str]
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What a token server gave."""

    token: str
    seconds: float
    refresh: str = ""


class Tokens:
    """What is known of every host that has asked who we are. `find` looks up credentials."""

    def __init__(self, send: Send, find: Find, timing: Timing) -> None:
        self._send = send
        self._find = find
        self._timing = timing
        self._tokens: dict[tuple[str, str], list[_Token]] = {}
        self._basic: set[tuple[str, str]] = set()
        self._ways: dict[tuple[str, str], tuple[str, Challenge]] = {}
        """Hosts that want tokens: who gives them."""
        self._locks: dict[tuple[str, str], trio.Lock] = {}
        self.offline = False
        """Whether to ask for a refresh token as well, to be kept after this program."""
        self.refresh = ""
        """That one, when a server gave it."""

    async def header(self, endpoint: Endpoint, scopes: frozenset[str]) -> str:
        """What to send along without having been asked, "" for nothing."""
        key = _key(endpoint)
        if key in self._basic:
            credential = await self._find(endpoint)
            return credential.basic if credential is not None and credential.password else ""
        now = self._timing.clock()
        live = [token for token in self._tokens.get(key, ()) if token.until > now]
        self._tokens[key] = live
        return next((token.header for token in live if covers(token.scopes, scopes)), "")

    async def ready(self, endpoint: Endpoint, scopes: frozenset[str]) -> str:
        """Like `header`, but a host that is known to want a token is not asked without one."""
        key = _key(endpoint)
        known = await self.header(endpoint, scopes)
        if known or not scopes or key not in self._ways:
            return known
        async with self._locks.setdefault(key, trio.Lock()):
            known = await self.header(endpoint, scopes)
            if known:
                return known
            scheme, challenge = self._ways[key]
            try:
                credential = await self._find(endpoint)
                issued = await self._fetch(endpoint, scheme, challenge, merged(scopes), credential)
            except blame.RegistryError:
                # The registry itself may say more about it.
                del self._ways[key]
                return ""
            return self._remember(endpoint, issued, merged(scopes))

    async def answer(
        self, endpoint: Endpoint, scheme: str, challenge: str, scopes: frozenset[str], *, sent: str
    ) -> str:
        """What to send after a 401; "" when there is nothing better than `sent`. Raises as sending does."""
        found = challenges.parse(challenge)
        bearer = next((one for one in found if one.scheme == "bearer" and one.parameters.get("realm")), None)
        wanted = merged(scopes | bearer.scopes) if bearer else scopes
        # Many who are refused at once need one answer.
        async with self._locks.setdefault(_key(endpoint), trio.Lock()):
            known = await self.header(endpoint, wanted)
            if known and known != sent:
                return known
            credential = await self._find(endpoint)
            if bearer is not None:
                if credential is not None and credential.registry_token:
                    header = f"Bearer {credential.registry_token}"
                    return "" if sent == header else header
                self._forget(endpoint, sent)
                issued = await self._fetch(endpoint, scheme, bearer, wanted, credential)
                self._ways[_key(endpoint)] = (scheme, bearer)
                return self._remember(endpoint, issued, wanted)
        if credential is None or not any(one.scheme == "basic" for one in found):
            return ""
        header = credential.basic
        if sent == header or not credential.password:
            return ""
        self._basic.add(_key(endpoint))
        return header

    def _forget(self, endpoint: Endpoint, header: str) -> None:
        """A token that was refused is not sent again."""
        key = _key(endpoint)
        self._tokens[key] = [one for one in self._tokens.get(key, []) if one.header != header]

    def _remember(self, endpoint: Endpoint, issued: Issued, scopes: frozenset[str]) -> str:
        header = f"Bearer {issued.token}"
        until = self._timing.clock() + max(issued.seconds - _MARGIN, 1.0)
        self._tokens.setdefault(_key(endpoint), []).append(_Token(header=header, scopes=scopes, until=until))
        return header

    async def _fetch(
        self,
        endpoint: Endpoint,
        scheme: str,
        challenge: Challenge,
        scopes: frozenset[str],
        credential: Credential | None,
    ) -> Issued:
        realm = challenge.parameters["realm"]
        _check_realm(realm, scheme, endpoint)
        service = challenge.parameters.get("service", "")
        found = await fetch(
            self._send,
            realm,
            service,
            scopes,
            credential,
            account=endpoint.account,
            offline=self.offline and credential is not None,
        )
        self.refresh = found.refresh or self.refresh
        return found


async def fetch(
    send: Send,
    realm: str,
    service: str,
    scopes: frozenset[str],
    credential: Credential | None,
    *,
    account: str,
    offline: bool = False,
) -> Issued:
    """Ask a token server. `offline` asks for a refresh token as well, to be kept. Raises DeniedError and
    what sending does; `account` is the registry's name for that.
    """
    response = None
    if credential is not None and credential.identity_token:
        response = await send(_post(realm, service, scopes, credential))
        if response.status in _NO_POST and credential.username and credential.password:
            response = None
    if response is None:
        response = await send(_get(realm, service, scopes, credential, offline=offline))
    where = urlsplit(realm).hostname or realm
    if response.status != 200:
        what = f"token from {where}"
        if response.status in (400, 401, 403):
            raise blame.denied(what, blame.said(response.status, response.content), host=account)
        raise blame.of_status(response.status, response.content, what, host=where)
    return issued(response.content, where)


def issued(content: bytes, where: str) -> Issued:
    """Read a token server's answer. Raises BrokenAnswerError. Pure."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None
    token = (data.get("token") or data.get("access_token")) if isinstance(data, dict) else None
    # It goes into a header: whatever could end one would let the server write the rest of the request.
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token:
        raise blame.BrokenAnswerError(f"the token server {where} gave no token")
    seconds, refresh = data.get("expires_in"), data.get("refresh_token")
    good = isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0
    return Issued(
        token=token,
        seconds=min(float(seconds), _LONGEST_LIFE) if good else _USUAL_LIFE,
        refresh=refresh if isinstance(refresh, str) else "",
    )


def _get(
    realm: str, service: str, scopes: frozenset[str], credential: Credential | None, *, offline: bool
) -> Request:
    query: list[tuple[str, str]] = [("service", service)] if service else []
    query += [("scope", one) for one in sorted(scopes)]
    headers = {}
    if credential is not None and credential.username and credential.password:
        query.append(("account", credential.username))
        headers["Authorization"] = credential.basic
    query.append(("client_id", CLIENT))
    if offline:
        query.append(("offline_token", "true"))
    url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
    return Request(method="GET", url=url, headers=headers, limit=_ANSWER_LIMIT)


def _post(realm: str, service: str, scopes: frozenset[str], credential: Credential) -> Request:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": credential.identity_token,
        "service": service,
        "scope": " ".join(sorted(scopes)),
        "client_id": CLIENT,
    }
    return Request(
        method="POST",
        url=realm,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        content=urlencode(form).encode(),
        private=True,
        limit=_ANSWER_LIMIT,
    )


def _check_realm(realm: str, scheme: str, endpoint: Endpoint) -> None:
    """Passwords go there: it must be https, unless the registry itself is asked in plain http."""
    try:
        parts = urlsplit(realm)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme in ("https", scheme) and parts.hostname:
        return
    raise blame.BrokenAnswerError(
        f"{endpoint.host} names a token server that is not asked by https: {realm[:200]}",
    )


def _key(endpoint: Endpoint) -> tuple[str, str]:
    """Credentials may be for a part of a host, so what was learned at one account's name stays there."""
    return endpoint.host, endpoint.account
