"""Login and logout: a credential is shown to the registry, and kept only if that likes it."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.images import reference as references
from orchestrator.images.registry import blame, credentials
from orchestrator.images.registry.client import open_registry
from orchestrator.images.registry.credentials import Credential, Kept, Warn
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import replace


def host_of(server: str | None) -> str:
    """The registry that a command line names: `https://HOST/v1/` is an old form, none is Docker Hub."""
    if not server:
        return references.DEFAULT_HOST
    scheme, parted, rest = server.partition("://")
    host = rest.partition("/")[0] if parted and scheme in ("http", "https") else server.rstrip("/")
    if not references.is_host(host):
        raise UserError(
            f"{server!r:.100} is not a registry", exit_code=ExitCode.USAGE, hint="write HOST or HOST:PORT"
        )
    return references.DEFAULT_HOST if credentials.scope_of(host) == references.DEFAULT_HOST else host


async def log_in(host: str, environment: Mapping[str, str], credential: Credential, *, warn: Warn) -> Kept:
    """Try a credential and keep it. Raises DeniedError when the registry does not like it.

    When a token server gives a refresh token, that is kept in place of the password.
    """
    async with open_registry(host, environment, warn=warn, credential=credential) as registry:
        try:
            refresh = await registry.greet(offline=True)
        except blame.DeniedError as error:
            raise blame.DeniedError(
                f"login at {host}: unauthorized: incorrect username or password "
                f"({error.words.removeprefix('unauthorized: ')})",
                exit_code=error.exit_code,
            ) from None
    if refresh and not credential.identity_token:
        credential = replace(credential, identity_token=refresh)
    return await credentials.keep(environment, host, credential)


async def known(host: str, environment: Mapping[str, str], *, warn: Warn) -> Credential | None:
    """What is kept for a registry already."""
    return await credentials.find(environment, host, "", warn)


async def check(host: str, environment: Mapping[str, str], credential: Credential, *, warn: Warn) -> None:
    """Raises DeniedError when a registry does not like a credential, or not any more."""
    async with open_registry(host, environment, warn=warn, credential=credential) as registry:
        await registry.greet()


async def log_out(host: str, environment: Mapping[str, str]) -> bool:
    """Forget the credential of a registry; whether there was one."""
    return await credentials.forget(environment, host)
