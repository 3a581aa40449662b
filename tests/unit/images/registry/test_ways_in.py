"""Passwords, tokens and certificates, at docker-registry and a token server."""

from __future__ import annotations

import json

import pytest

from orchestrator.images.registry import blame, tokens
from orchestrator.images.registry.blame import BrokenAnswerError, DeniedError, NotFoundError, UntrustedError
from orchestrator.images.registry.client import Manifest
from orchestrator.images.registry.credentials import Credential
from orchestrator.images.registry.transport import Request
from orchestrator.model.errors import UserError
from tests.kit import registries
from tests.kit.faults import Faults, Redirect, Status, digest_of
from tests.kit.registries import Registry, fresh
from tests.kit.servers import Authority
from tests.unit.images.registry.conftest import IMAGE, Client, seeded

# --- TLS and Basic --------------------------------------------------------------------------------


async def test_a_password_over_tls_of_a_ca_of_ones_own(client: Client, secure_registry: Registry) -> None:
    path, digest = seeded(secure_registry)
    assert secure_registry.authority
    client.trust(secure_registry.host, secure_registry.authority.ca)
    client.log_in(secure_registry.host, "ann:p:ä ss")
    async with client.open(secure_registry.host) as registry:
        assert (await registry.head(path, "1")).digest == digest
        source = await registry.source(path, digest)
        assert source.url.startswith("https://")
        assert source.headers["Authorization"].startswith("Basic ")
        assert "Basic" not in repr(source)


async def test_a_wrong_password_is_refused_and_sent_once(client: Client, secure_registry: Registry) -> None:
    assert secure_registry.authority
    with Faults(secure_registry, authority=secure_registry.authority).serving() as faults:
        client.trust(faults.host, secure_registry.authority.ca)
        client.log_in(faults.host, "ann:wrong")
        async with client.open(faults.host) as registry:
            with pytest.raises(DeniedError, match="requested access to the resource is denied"):
                await registry.head("x", "1")
        assert ["Authorization" in one.headers for one in faults.requests] == [False, True]


async def test_a_certificate_that_nobody_vouches_for_never_leads_to_plain_http(
    client: Client, secure_registry: Registry
) -> None:
    before = len(secure_registry.log())
    client.log_in(secure_registry.host, "ann:p:ä ss")
    async with client.open(secure_registry.host) as registry:
        with pytest.raises(UntrustedError, match="certificate not trusted") as caught:
            await registry.head("x", "1")
    assert f"certs.d/{secure_registry.host}/ca.crt" in caught.value.hint
    assert client.slept == []
    assert not [line for line in secure_registry.log()[before:] if "/v2/" in line]


async def test_ssl_cert_file_takes_the_place_of_the_systems_authorities(
    client: Client, secure_registry: Registry
) -> None:
    assert secure_registry.authority
    client.log_in(secure_registry.host, "ann:p:ä ss")
    environment = {"SSL_CERT_FILE": str(secure_registry.authority.ca)}
    async with client.open(secure_registry.host, environment) as registry:
        await registry.greet()


async def test_a_host_declared_insecure_is_taken_with_any_certificate(
    client: Client, secure_registry: Registry
) -> None:
    client.settings(f'[[registry]]\nprefix = "{secure_registry.host}"\ninsecure = true')
    client.log_in(secure_registry.host, "ann:p:ä ss")
    async with client.open(secure_registry.host) as registry:
        await registry.greet()


async def test_a_client_certificate_is_shown_to_who_wants_one(
    client: Client, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("mutual")
    with registries.running(folder, authority=authority, client_certificates=True) as wants:
        client.trust(wants.host, authority.ca)
        async with client.open(wants.host) as registry:
            with pytest.raises((UntrustedError, blame.UnavailableError)):
                await registry.greet()
        client.trust(wants.host, authority.client_certificate, authority.client_key)
        async with client.open(wants.host) as registry:
            await registry.greet()


async def test_a_file_that_is_no_certificate_is_named(client: Client, secure_registry: Registry) -> None:
    folder = client.home / ".config/containers/certs.d" / secure_registry.host
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_text("nothing of the kind")
    async with client.open(secure_registry.host) as registry:
        with pytest.raises(UserError, match=r"ca.crt: not a certificate that can be used"):
            await registry.greet()


async def test_https_is_never_left_for_http_by_a_redirect(client: Client, authority: Authority) -> None:
    with Faults(authority=authority).serving() as shelf:
        client.trust(shelf.host, authority.ca)
        client.settings(
            f'[[registry]]\nprefix = "{shelf.host}"\n[[registry.mirror]]\nlocation = "https://{shelf.host}"'
        )
        shelf.add(Redirect("http://elsewhere.example/"), "/manifests/")
        async with client.open(shelf.host) as registry:
            with pytest.raises(BrokenAnswerError, match="from https to plain http"):
                await registry.manifest("app", digest_of(b""))


# --- tokens ---------------------------------------------------------------------------------------


async def test_public_images_come_by_a_token_for_nobody(client: Client, token_registry: Registry) -> None:
    assert token_registry.tokens
    path, digest = seeded(token_registry, "public/")
    async with client.open(token_registry.host) as registry:
        assert (await registry.head(path, "1")).digest == digest
        found = await registry.manifest(path, "1")
        assert isinstance(found, Manifest)
        source = await registry.source(path, digest)
    (one,) = token_registry.tokens.requests
    assert (one.method, one.user, one.scopes) == ("GET", "", (f"repository:{path}:pull",))
    assert one.service == "registry of the suite"
    assert source.headers["Authorization"].startswith("Bearer ")


async def test_a_token_is_used_until_shortly_before_it_expires(
    client: Client, token_registry: Registry
) -> None:
    assert token_registry.tokens
    path, _ = seeded(token_registry)
    client.log_in(token_registry.host, "ann:secret")
    async with client.open(token_registry.host) as registry:
        for seconds, asked in ((0.0, 1), (290.0, 1), (6.0, 2), (1.0, 2)):
            client.seconds += seconds
            await registry.head(path, "1")
            assert len(token_registry.tokens.requests) == asked
    assert {one.user for one in token_registry.tokens.requests} == {"ann"}


async def test_each_right_has_its_token_and_a_larger_one_serves_as_well(
    client: Client, token_registry: Registry
) -> None:
    assert token_registry.tokens
    client.log_in(token_registry.host, "ann:secret")
    path = fresh()
    async with client.open(token_registry.host) as registry:
        place = registry.origin(path)
        head = Request(method="HEAD", url=f"/v2/{path}/blobs/{digest_of(b'')}")
        pull, push = tokens.scope(path, "pull"), tokens.scope(path, "pull", "push")
        for scopes in ((pull,), (push,), (pull,), (pull, push)):
            assert (await registry.call(place, head, *scopes)).status == 404
    assert token_registry.tokens.scopes() == [(pull,), (push,)]


def test_scopes_of_one_resource_are_one() -> None:
    mixed = ("repository:a:5000/b:push,pull", "repository:a:5000/b:pull", "registry:catalog:*")
    assert tokens.merged(mixed) == {"repository:a:5000/b:pull,push", "registry:catalog:*"}
    assert tokens.covers(frozenset(mixed), frozenset(("repository:a:5000/b:pull",)))
    assert not tokens.covers(frozenset(("repository:b:pull",)), frozenset(("repository:b:pull,push",)))
    assert not tokens.covers(frozenset(), frozenset(("repository:b:pull",)))


async def test_a_host_that_wants_tokens_is_asked_without_one_only_once(
    client: Client, token_registry: Registry
) -> None:
    assert token_registry.tokens
    client.log_in(token_registry.host, "ann:secret")
    with Faults(token_registry).serving() as faults:
        client.log_in(faults.host, "ann:secret")
        async with client.open(faults.host) as registry:
            for path in ("one", "two", "three"):
                with pytest.raises(NotFoundError):
                    await registry.head(path, "1")
            client.seconds += 1000
            with pytest.raises(NotFoundError):
                await registry.head("one", "1")
            token_registry.tokens.refuse = 503
            with pytest.raises(blame.UnavailableError, match="token from"):
                await registry.head("four", "1")
        asked = ["Authorization" in one.headers for one in faults.requests]
    assert asked[:5] == [False, True, True, True, True]


async def test_a_token_that_turns_out_too_small_is_asked_for_anew_once(
    client: Client, shelf: Faults, token_registry: Registry
) -> None:
    assert token_registry.tokens
    realm = token_registry.tokens.realm
    shelf.put_image("app:1", IMAGE)
    for number, more in enumerate(("", ',error="insufficient_scope"')):
        challenge = f'Bearer realm="{realm}",service="s",scope="repository:more{number}:pull"{more}'
        shelf.add(Status(401, headers={"WWW-Authenticate": challenge}), skip=number, times=1)
    async with client.open(shelf.host) as registry:
        await registry.head("app", "1")
    assert token_registry.tokens.scopes() == [
        ("repository:app:pull", "repository:more0:pull"),
        ("repository:app:pull", "repository:more1:pull"),
    ]
    shelf.clear()
    challenge = f'Bearer realm="{realm}",service="s",scope="repository:x:pull",error="insufficient_scope"'
    shelf.add(Status(401, headers={"WWW-Authenticate": challenge}))
    async with client.open(shelf.host) as registry:
        with pytest.raises(DeniedError):
            await registry.head("app", "1")
    assert len(shelf.requests) == 3


async def test_an_identity_token_buys_tokens_by_post(client: Client, token_registry: Registry) -> None:
    assert token_registry.tokens
    path, _ = seeded(token_registry)
    token_registry.tokens.named = "access_token"
    identity = next(token for token, user in token_registry.tokens.refresh.items() if user == "ann")
    client.log_in(token_registry.host, "ann:", identitytoken=identity)
    async with client.open(token_registry.host) as registry:
        await registry.head(path, "1")
    (one,) = token_registry.tokens.requests
    assert (one.method, one.grant_type, one.user) == ("POST", "refresh_token", "ann")
    assert (one.client_id, one.scopes) == ("pystack", (f"repository:{path}:pull",))


async def test_a_token_server_without_post_is_asked_by_get(client: Client, token_registry: Registry) -> None:
    assert token_registry.tokens
    path, _ = seeded(token_registry)
    token_registry.tokens.post = False
    known = Credential(username="ann", password="secret", identity_token="I")
    async with client.open(token_registry.host, credential=known) as registry:
        await registry.head(path, "1")
    assert [(one.method, one.user) for one in token_registry.tokens.requests][-1] == ("GET", "ann")


async def test_a_registry_token_is_used_as_it_is(client: Client, token_registry: Registry) -> None:
    assert token_registry.tokens
    path, _ = seeded(token_registry)
    client.log_in(
        token_registry.host, ":", registrytoken=token_registry.tokens.everything(f"/v2/{path}/tags/")
    )
    async with client.open(token_registry.host) as registry:
        await registry.head(path, "1")
    assert token_registry.tokens.requests == []


@pytest.mark.parametrize("pair", ["", "ann:wrong", "bob:other"])
async def test_who_may_not_is_told_to_log_in(client: Client, token_registry: Registry, pair: str) -> None:
    if pair:
        client.log_in(token_registry.host, pair)
    async with client.open(token_registry.host) as registry:
        with pytest.raises(DeniedError, match="requested access to the resource is denied") as caught:
            await registry.manifest("private-ann/app", "1")
    assert f"`pystack login {token_registry.host}`" in caught.value.hint
    assert client.slept == []


async def test_a_token_server_that_is_down_is_waited_for(client: Client, token_registry: Registry) -> None:
    assert token_registry.tokens
    token_registry.tokens.refuse = 503
    async with client.open(token_registry.host) as registry:
        with pytest.raises(blame.UnavailableError, match="token from localhost"):
            await registry.head("x", "1")
    assert len(client.slept) == 4


async def test_a_password_goes_to_no_token_server_without_tls(client: Client, authority: Authority) -> None:
    with Faults(authority=authority).serving() as shelf, Faults().serving() as thief:
        client.trust(shelf.host, authority.ca)
        client.log_in(shelf.host, "ann:secret")
        challenge = f'Bearer realm="{thief.url}/token",service="s"'
        shelf.add(Status(401, headers={"WWW-Authenticate": challenge}))
        async with client.open(shelf.host) as registry:
            with pytest.raises(BrokenAnswerError, match="not asked by https"):
                await registry.head("app", "1")
        assert thief.requests == []


@pytest.mark.parametrize("realm", ["https://[x/", "https://x:99999/", "nonsense", "https://"])
async def test_a_realm_that_is_no_address_is_told(client: Client, shelf: Faults, realm: str) -> None:
    shelf.add(Status(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'}))
    async with client.open(shelf.host) as registry:
        with pytest.raises(BrokenAnswerError, match="not asked by https"):
            await registry.head("app", "1")


async def test_an_identity_token_is_not_taken_to_another_host(client: Client, shelf: Faults) -> None:
    client.log_in(shelf.host, "ann:", identitytoken="I")
    with Faults(address="127.0.0.2").serving() as thief:
        header = f'Bearer realm="{shelf.url}/token",service="s"'
        shelf.add(Status(401, headers={"WWW-Authenticate": header}), "/v2/")
        shelf.add(Redirect(f"{thief.url}/token", status=307), "/token")
        async with client.open(shelf.host) as registry:
            with pytest.raises(BrokenAnswerError, match="to another host with a secret"):
                await registry.head("app", "1")
        assert thief.requests == []


async def test_of_several_challenges_the_one_that_can_be_met_is(
    client: Client, shelf: Faults, token_registry: Registry
) -> None:
    assert token_registry.tokens
    shelf.put_image("app:1", IMAGE)
    client.log_in(shelf.host, "ann:secret")
    header = f'Negotiate, Basic realm="a, b", Bearer realm="{token_registry.tokens.realm}",service="s"'
    shelf.add(Status(401, headers={"WWW-Authenticate": header}), times=1)
    async with client.open(shelf.host) as registry:
        await registry.head("app", "1")
    assert shelf.requests[-1].headers["Authorization"].startswith("Bearer ")
    shelf.clear()
    shelf.add(Status(401, headers={"WWW-Authenticate": 'Negotiate, Basic realm="a, b"'}), times=1)
    async with client.open(shelf.host) as registry:
        await registry.head("app", "1")
        await registry.head("app", "1")
    assert [one.headers.get("Authorization", "")[:6] for one in shelf.requests[-3:]] == [
        "",
        "Basic ",
        "Basic ",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b"<html>",
        b'{"token": 7}',
        b'{"token": ""}',
        b'{"token": "a b"}',
        json.dumps({"token": "a\r\nX-Evil: 1"}).encode(),
        '{"token": "ä"}'.encode(),
        b"[" * 100_000,
    ],
)
def test_what_is_no_token_is_refused(answer: bytes) -> None:
    with pytest.raises(BrokenAnswerError, match=r"auth\.example gave no token"):
        tokens.issued(answer, "auth.example")


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        ("", 60.0),
        (',"expires_in": 300', 300.0),
        (',"expires_in": 1e99', 3600.0),
        (',"expires_in": -5', 60.0),
        (',"expires_in": "x"', 60.0),
        (',"expires_in": true', 60.0),
    ],
)
def test_a_token_lasts_as_long_as_is_said_within_reason(field: str, seconds: float) -> None:
    found = tokens.issued(f'{{"access_token": "T"{field}}}'.encode(), "auth.example")
    assert (found.token, found.seconds) == ("T", seconds)
