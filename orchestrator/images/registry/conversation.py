"""How a registry and its mirrors are spoken to: in which order, by which scheme, as whom, how patiently."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

from orchestrator.images import reference as references
from orchestrator.images.registry import backoff, blame, credentials, hosts
from orchestrator.images.registry.backoff import Patience
from orchestrator.images.registry.blame import RegistryError, UnavailableError
from orchestrator.images.registry.credentials import Credential, Warn
from orchestrator.images.registry.hosts import Endpoint, Settings
from orchestrator.images.registry.tokens import Tokens
from orchestrator.images.registry.transport import (
    BrokenOffError,
    NotSpokenError,
    Request,
    Response,
    Timing,
    Transport,
    same_host,
)
from orchestrator.model.frozen import replace

_FEW = 10
"""Requests that Docker Hub still allows, below which it is worth a word."""

T = TypeVar("T")


class Conversation:
    """One registry's. Any number of tasks may use it at once."""

    def __init__(
        self,
        host: str,
        settings: Settings,
        transport: Transport,
        *,
        environment: Mapping[str, str],
        warn: Warn,
        timing: Timing,
        patience: Patience,
        credential: Credential | None,
    ) -> None:
        self.host = host
        self.timing = timing
        self.patience = patience
        self._settings = settings
        self._transport = transport
        self._environment = environment
        self._warn = warn
        self._warned: set[str] = set()
        self._credential = credential
        self._credentials: dict[tuple[str, str], Credential | None] = {}
        self._schemes: dict[str, str] = {}
        self._tokens = Tokens(transport.send, self._find, timing)

    def origin(self, path: str) -> Endpoint:
        """The registry itself, where things are written. Raises UserError when it is blocked."""
        return hosts.endpoints(self._settings, self.host, path)[-1]

    def _places(self, path: str, *, digest: bool) -> list[Endpoint]:
        """Whom to ask for a manifest by tag, or for what has a digest and can be checked."""
        needed = hosts.PULL if digest else hosts.RESOLVE
        places = hosts.endpoints(self._settings, self.host, path)
        return [place for place in places if needed in place.capabilities]

    async def _anywhere(
        self,
        path: str,
        ask: Callable[[Endpoint], Awaitable[T]],
        *,
        digest: bool,
        first: Endpoint | None = None,
    ) -> T:
        """Mirrors are tried once each, the registry itself patiently. Its error is the one that counts."""
        places = self._places(path, digest=digest)
        if first is not None and first in places:
            places = places[places.index(first) :]
        for place in places[:-1]:
            try:
                return await ask(place)
            except RegistryError as error:
                self._warn_once(f"mirror {place.host}: {error.message.partition(': ')[2] or error.message}")
        return await self.patiently(lambda: ask(places[-1]))

    async def patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Again after what may pass: no connection, 429, 5xx. Raises the last error."""
        failed = 0
        while True:
            try:
                return await ask()
            except UnavailableError as error:
                failed += 1
                delay = self.patience.delay(
                    failed, chance=self.timing.chance(), retry_after=error.retry_after
                )
                if delay is None or not error.passing:
                    raise
                await self.timing.sleep(delay)

    async def call(self, endpoint: Endpoint, request: Request, *scopes: str) -> Response:
        """One request at one place, with who we are; `request.url` is a path, or a URL of that place.

        A 401 is answered once, and a second time when a token was good but not for this. Raises what sending
        raises; any status is returned.
        """
        wanted = frozenset(scopes)
        if "://" in request.url and not same_host(request.url, endpoint.host):
            # An upload may go to a storage elsewhere, which is none of our credentials' business either.
            return await self._transport.send(request)
        header = await self._tokens.ready(endpoint, wanted)
        response = await self._speak(endpoint, request, header)
        for _ in range(2):
            # What the target of a redirect asks is none of our credentials' business.
            if response.status != 401 or response.moved:
                break
            challenge = response.header("www-authenticate")
            scheme = urlsplit(response.url).scheme
            better = await self._tokens.answer(endpoint, scheme, challenge, wanted, sent=header)
            if not better or better == header:
                break
            header = better
            response = await self._speak(endpoint, request, header)
        return response

    async def _speak(self, endpoint: Endpoint, request: Request, header: str) -> Response:
        """Find out once whether http or https is spoken where both may be. Certificates that are not trusted
        never lead to plain http.
        """
        given = {**request.headers, "Authorization": header} if header else request.headers
        known = self._schemes.get(endpoint.host)
        schemes = (known,) if known else endpoint.schemes
        kept: Response | UnavailableError | None = None
        for scheme in schemes:
            url = self._url(endpoint, scheme, request.url)
            try:
                answer = await self._transport.send(replace(request, url=url, headers=given))
            except (NotSpokenError, BrokenOffError) as error:
                if isinstance(error, BrokenOffError) and kept is None:
                    kept = error
                failure = error
                continue
            if scheme == "http" and "https" in schemes[schemes.index(scheme) + 1 :] and _may_want_tls(answer):
                kept = answer
                continue
            self._schemes[endpoint.host] = scheme
            return answer
        if isinstance(kept, Response):
            return kept
        raise kept or failure

    def _url(self, endpoint: Endpoint, scheme: str, url: str) -> str:
        if "://" in url:
            return url
        if endpoint.namespace:
            url += f"{'&' if '?' in url else '?'}{urlencode({'ns': endpoint.namespace})}"
        return f"{scheme}://{endpoint.host}{quote(url, safe='/:?&=@+,%~')}"

    def _scheme(self, endpoint: Endpoint) -> str:
        return self._schemes.get(endpoint.host, endpoint.schemes[0])

    async def _find(self, endpoint: Endpoint) -> Credential | None:
        if self._credential is not None and not endpoint.mirror:
            return self._credential
        key = (endpoint.account, endpoint.path)
        if key not in self._credentials:
            self._credentials[key] = await credentials.find(
                self._environment, endpoint.account, endpoint.path, self._warn_once
            )
        return self._credentials[key]

    def failure(self, response: Response, what: str) -> Exception:
        """The error for an answer that is not the one hoped for."""
        wait = backoff.retry_after(response.header("retry-after"), now=self.timing.now())
        return blame.of_status(response.status, response.content, what, host=self.host, retry_after=wait)

    def name(self, path: str, reference: str) -> str:
        """How people call it; `reference` may be ""."""
        mark = "" if not reference else ("@" if references.is_digest(reference) else ":")
        return references.familiar_repository(self.host, path) + mark + reference

    def _heed_rate(self, response: Response) -> None:
        left = response.header("ratelimit-remaining").partition(";")[0].strip()
        if left.isdigit() and int(left) < _FEW:
            self._warn_once(
                f"{self.host} allows {int(left)} more pulls for now; `pystack login` raises the limit"
            )

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)


def _may_want_tls(response: Response) -> bool:
    """What servers of TLS say to plain http (Go's net/http, nginx, Apache); to HEAD, no more than 400."""
    return response.status == 400 and (not response.content or b"HTTPS" in response.content[:1024])
