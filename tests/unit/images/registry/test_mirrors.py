"""Mirrors, proxies, and other ways to the same blob."""

from __future__ import annotations

import pytest

from orchestrator.images.registry.blame import DeniedError, NotFoundError, UnavailableError
from orchestrator.images.registry.manifests import Descriptor
from tests.kit.faults import Drop, Faults, Spoil, Status, digest_of
from tests.kit.registries import Registry
from tests.unit.images.registry.conftest import IMAGE, Client, seeded

BASIC = Status(401, headers={"WWW-Authenticate": 'Basic realm="x"'})


@pytest.fixture
def mirror() -> Faults:
    with Faults().serving() as proxy:
        yield proxy


def mirrored(client: Client, origin: Faults, mirror: Faults, more: str = "") -> None:
    client.settings(
        f'[[registry]]\nprefix = "{origin.host}"\n[[registry.mirror]]\nlocation = "{mirror.host}/copy"\n{more}'
    )


async def test_a_mirror_is_asked_first_and_its_blobs_as_well(
    client: Client, shelf: Faults, mirror: Faults
) -> None:
    digest = mirror.put_image("copy/app:1", IMAGE)
    mirrored(client, shelf, mirror, "ns = true")
    async with client.open(shelf.host) as registry:
        found = await registry.manifest("app", "1")
        assert found.digest == digest
        source = await registry.source("app", digest, origin=found.endpoint)
        assert source.url == f"{mirror.url}/v2/copy/app/blobs/{digest}?ns=localhost%3A{shelf.port}"
        blob = Descriptor(media_type="x", digest=IMAGE.id, size=len(IMAGE.config))
        assert await registry.blob("app", blob, limit=9999, origin=found.endpoint) == IMAGE.config
    assert shelf.requests == []
    assert mirror.requests[0].path.endswith(f"?ns=localhost%3A{shelf.port}")


@pytest.mark.parametrize("wrong", [Drop(), Status(503), Status(404), Status(401), Status(403), Spoil(at=20)])
async def test_what_a_mirror_cant_give_the_registry_does(
    client: Client, shelf: Faults, mirror: Faults, wrong: Drop
) -> None:
    mirror.put_image("copy/app:1", IMAGE)
    digest = shelf.put_image("app:1", IMAGE)
    mirror.add(wrong)
    mirrored(client, shelf, mirror)
    async with client.open(shelf.host) as registry:
        assert (await registry.manifest("app", "1")).digest == digest
        assert (await registry.manifest("app", digest)).digest == digest
    assert client.slept == []
    assert len(client.said) == 1
    assert client.said[0].startswith(f"mirror {mirror.host}: ")


async def test_a_mirror_that_is_gone_costs_no_pause(client: Client, shelf: Faults) -> None:
    digest = shelf.put_image("app:1", IMAGE)
    client.settings(f'[[registry]]\nprefix = "{shelf.host}"\n[[registry.mirror]]\nlocation = "localhost:9"')
    async with client.open(shelf.host) as registry:
        assert (await registry.head("app", "1")).digest == digest
    assert client.slept == []


async def test_the_error_that_is_told_is_the_registrys_own(
    client: Client, shelf: Faults, mirror: Faults
) -> None:
    mirror.add(Status(500))
    mirrored(client, shelf, mirror)
    async with client.open(shelf.host) as registry:
        with pytest.raises(NotFoundError, match=f"manifest for {shelf.host}/app:1 not found"):
            await registry.manifest("app", "1")


async def test_a_mirror_gets_its_own_credentials_only(client: Client, shelf: Faults, mirror: Faults) -> None:
    client.log_in(shelf.host, "ann:origins")
    mirror.put_image("copy/app:1", IMAGE)
    shelf.put_image("app:1", IMAGE)
    mirrored(client, shelf, mirror)
    mirror.add(BASIC)
    shelf.add(BASIC, times=1)
    async with client.open(shelf.host) as registry:
        await registry.manifest("app", "1")
    assert not [one for one in mirror.requests if "Authorization" in one.headers]
    assert "Authorization" in shelf.requests[-1].headers
    client.log_in(mirror.host, "bob:mirrors")
    mirror.clear()
    mirror.add(BASIC, times=1)
    async with client.open(shelf.host) as registry:
        await registry.manifest("app", "1")
    assert mirror.requests[-1].headers["Authorization"] == "Basic Ym9iOm1pcnJvcnM="


async def test_a_mirror_by_digest_only_is_not_asked_for_tags(
    client: Client, shelf: Faults, mirror: Faults
) -> None:
    mirror.put_image("copy/app:1", IMAGE)
    digest = shelf.put_image("app:1", IMAGE)
    mirrored(client, shelf, mirror, 'pull-from-mirror = "digest-only"')
    async with client.open(shelf.host) as registry:
        await registry.manifest("app", "1")
        assert mirror.requests == []
        await registry.manifest("app", digest)
        assert len(mirror.requests) == 1


# --- sources for workers --------------------------------------------------------------------------


async def test_a_worker_that_is_refused_gets_credentials_and_then_an_error(
    client: Client, shelf: Faults
) -> None:
    client.log_in(shelf.host, "ann:secret")
    challenge = 'Basic realm="x"'
    async with client.open(shelf.host) as registry:
        first = await registry.source("app", digest_of(b""))
        assert "Authorization" not in first.headers
        second = await registry.renew("app", first, status=401, challenge=challenge)
        assert second.headers["Authorization"].startswith("Basic ")
        with pytest.raises(DeniedError, match="denied"):
            await registry.renew("app", second, status=401, challenge=challenge)
        again = await registry.source("app", digest_of(b"other"))
        assert again.headers == second.headers


async def test_a_workers_token_is_renewed(client: Client, token_registry: Registry) -> None:
    assert token_registry.tokens
    path, _ = seeded(token_registry)
    client.log_in(token_registry.host, "ann:secret")
    challenge = token_registry.ask("GET", "/v2/", headers={"Authorization": "Bearer x"}).headers[
        "WWW-Authenticate"
    ]
    async with client.open(token_registry.host) as registry:
        found = await registry.manifest(path, "1")
        old = await registry.source(path, found.digest)
        new = await registry.renew(path, old, status=401, challenge=challenge)
        assert new.headers != old.headers
        # Another worker with the old one gets what is known by now.
        asked = len(token_registry.tokens.requests)
        assert (await registry.renew(path, old, status=401, challenge=challenge)).headers == new.headers
        assert len(token_registry.tokens.requests) == asked


async def test_a_worker_is_sent_from_a_mirror_to_the_registry(
    client: Client, shelf: Faults, mirror: Faults
) -> None:
    mirrored(client, shelf, mirror)
    digest = digest_of(b"")
    async with client.open(shelf.host) as registry:
        for status in (0, 404, 503, 401, 200):
            first = await registry.source("app", digest)
            assert first.url == f"{mirror.url}/v2/copy/app/blobs/{digest}"
            second = await registry.renew("app", first, status=status, challenge="Basic realm=x")
            assert second.url == f"{shelf.url}/v2/app/blobs/{digest}"
        for status, kind in (
            (0, UnavailableError),
            (503, UnavailableError),
            (404, NotFoundError),
            (403, DeniedError),
        ):
            with pytest.raises(kind):
                await registry.renew("app", second, status=status)


# --- proxies --------------------------------------------------------------------------------------


async def test_plain_http_goes_through_the_proxy_of_the_environment(
    client: Client, open_registry: Registry, shelf: Faults
) -> None:
    path, digest = seeded(open_registry)
    # 0.0.0.0 leads here as well, and is no loopback address, which would be asked without a proxy.
    host = f"0.0.0.0:{open_registry.port}"
    client.settings(f'[[registry]]\nprefix = "{host}"\n[[registry.mirror]]\nlocation = "http://{host}"')
    environment = {"HTTP_PROXY": f"http://name:word@{shelf.host}"}
    async with client.open(host, environment) as registry:
        assert (await registry.head(path, "1")).digest == digest
        source = await registry.source(path, digest)
        assert source.proxy == environment["HTTP_PROXY"]
    assert shelf.requests[0].path == f"http://{host}/v2/{path}/manifests/1"
    assert shelf.requests[0].headers["Proxy-Authorization"] == "Basic bmFtZTp3b3Jk"
    async with client.open(host, {**environment, "NO_PROXY": "0.0.0.0"}) as registry:
        await registry.head(path, "1")
    assert len(shelf.requests) == 1


async def test_https_goes_through_the_proxy_in_a_tunnel(
    client: Client, secure_registry: Registry, shelf: Faults
) -> None:
    host = f"0.0.0.0:{secure_registry.port}"
    client.settings(f'[[registry]]\nprefix = "{host}"\ninsecure = true')
    client.log_in(host, "ann:p:ä ss")
    async with client.open(host, {"https_proxy": shelf.url}) as registry:
        await registry.greet()
    assert {(one.method, one.path) for one in shelf.requests} == {("CONNECT", host)}


@pytest.mark.parametrize("proxy", ["socks5://x:1", "nonsense://x", "http://[bad"])
async def test_a_proxy_of_another_kind_is_named_without_its_secret(client: Client, proxy: str) -> None:
    environment = {"HTTPS_PROXY": proxy.replace("//x", "//name:word@x")}
    async with client.open("r.example", environment) as registry:
        with pytest.raises(Exception, match="proxy") as caught:
            await registry.head("x", "1")
    assert "word" not in str(caught.value)
