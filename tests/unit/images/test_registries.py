"""The registries of the kit are what tests of ours take them for; asked by skopeo and by Python's own client."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import time
from pathlib import Path

import pytest

from tests.kit import leaks, registries
from tests.kit.archives import Entry, Image, layer, oci_layout
from tests.kit.faults import (
    Chunked,
    Cut,
    CutUpload,
    Drop,
    Endless,
    Faults,
    Html,
    Length,
    NoRange,
    Redirect,
    Resize,
    Say,
    Slow,
    Spoil,
    Stall,
    Status,
)
from tests.kit.registries import Registry, basic, fresh
from tests.kit.servers import Authority
from tests.kit.tokens import TokenServer

MOTD = Image((layer(Entry("etc/motd", b"hello")),), run={"Cmd": ["sh"]}, tags=("motd:1",))


def test_what_skopeo_pushes_skopeo_finds(open_registry: Registry) -> None:
    name = f"{fresh()}:1"
    digest = open_registry.seed(name, MOTD)
    flags = open_registry.flags()
    seen = json.loads(
        open_registry.skopeo("inspect", "--no-tags", *flags, f"docker://{open_registry.name(name)}")
    )
    assert seen["Digest"] == digest
    assert open_registry.manifest(name)["config"]["digest"] == MOTD.id
    assert open_registry.blob(MOTD.id).read_bytes() == MOTD.config


def test_the_secure_one_wants_a_password_and_its_certificate_is_our_cas(secure_registry: Registry) -> None:
    name = f"{fresh()}:1"
    secure_registry.seed(name, MOTD, oci=False)
    assert secure_registry.ask("GET", "/v2/", account=("ann", "wrong")).status == 401
    assert secure_registry.ask("GET", "/v2/").status == 200
    with pytest.raises(AssertionError, match="certificate signed by unknown authority"):
        registries.skopeo("inspect", "--no-tags", "--no-creds", f"docker://{secure_registry.name(name)}")
    flags = [*secure_registry.flags()[:2], "--creds", "ann:wrong"]
    with pytest.raises(AssertionError, match=r"authentication required|unauthorized"):
        registries.skopeo("inspect", "--no-tags", *flags, f"docker://{secure_registry.name(name)}")


def test_a_registry_can_demand_a_clients_certificate(tmp_path: Path, authority: Authority) -> None:
    folder = tmp_path / "registry"
    with registries.running(folder, authority=authority, client_certificates=True) as registry:
        registry.seed("a:1", MOTD)
        bare = tmp_path / "bare"
        bare.mkdir()
        (bare / "ca.crt").write_bytes(authority.ca.read_bytes())
        with pytest.raises(AssertionError, match=r"certificate required|bad certificate"):
            registries.skopeo(
                "inspect", "--no-creds", "--cert-dir", str(bare), f"docker://{registry.name('a:1')}"
            )


def test_tokens_are_for_what_was_asked_and_to_whom_it_belongs(token_registry: Registry) -> None:
    tokens = token_registry.tokens
    assert tokens
    repository = fresh("public")
    token_registry.seed(f"{repository}:1", MOTD)
    assert {one.user for one in tokens.requests} == {"ann"}
    assert (f"repository:{repository}:pull,push",) in [one.scopes for one in tokens.requests]
    tokens.reset()
    public = f"docker://{token_registry.name(repository)}:1"
    registries.skopeo("inspect", "--no-tags", "--tls-verify=false", "--no-creds", public)
    assert {(one.user, one.scopes) for one in tokens.requests} == {("", (f"repository:{repository}:pull",))}
    private = f"docker://{token_registry.name('private-bob/x')}:1"
    with pytest.raises(AssertionError, match=r"denied|unauthorized"):
        registries.skopeo("inspect", "--no-tags", "--tls-verify=false", "--creds", "ann:secret", private)
    token_registry.tokens.lifetime = -100
    with pytest.raises(AssertionError, match=r"unauthorized|authentication required|invalid"):
        registries.skopeo("inspect", "--no-tags", "--tls-verify=false", "--no-creds", public)


def test_tokens_by_post_and_refreshed(token_registry: Registry) -> None:
    tokens = token_registry.tokens
    assert tokens

    def post(form: str) -> tuple[int, dict[str, str]]:
        return _post(tokens, form)

    status, got = post(
        "grant_type=password&username=bob&password=other&service=s&client_id=me&scope=repository:x:pull"
    )
    assert (status, got["scope"]) == (200, "repository:x:pull")
    status, again = post(
        f"grant_type=refresh_token&refresh_token={got['refresh_token']}&service=s&scope=repository:x:pull"
    )
    assert status == 200
    assert post("grant_type=password&username=bob&password=no")[0] == 401
    tokens.post = False
    assert post("grant_type=password&username=bob&password=other")[0] == 404
    assert [one.grant_type for one in tokens.requests] == [
        "password",
        "refresh_token",
        "password",
        "password",
    ]
    assert tokens.requests[0].client_id == "me"
    bearer = {"Authorization": f"Bearer {again['access_token']}"}
    assert token_registry.ask("GET", "/v2/x/tags/list", headers=bearer).status == 404
    assert token_registry.ask("GET", "/v2/y/tags/list", headers=bearer).status == 401


def _post(tokens: TokenServer, form: str) -> tuple[int, dict[str, str]]:
    host = tokens.realm.split("/")[2]
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request("POST", "/token", form, {"Content-Type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    data = json.loads(answer.read())
    connection.close()
    return answer.status, data


def test_nothing_is_left_of_a_registry(tmp_path: Path, authority: Authority) -> None:
    with leaks.nothing_left():
        begun = time.monotonic()
        with registries.running(tmp_path / "a", authority=authority, users={"a": "b"}) as registry:
            assert registry.ask("GET", "/v2/").status == 200
        assert time.monotonic() - begun < 5
    with socket.socket() as trial:
        assert trial.connect_ex(("127.0.0.1", registry.port)) != 0


# --- the proxy --------------------------------------------------------------------------------------------

CONTENT = b"0123456789" * 10_000


@pytest.fixture(scope="module")
def blob(open_registry: Registry) -> str:
    return f"/v2/kit/faults/blobs/{open_registry.put_blob('kit/faults', CONTENT)}"


def ask(
    faults: Faults, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes, str]:
    """Status, headers, body, and why the body ended early."""
    connection = http.client.HTTPConnection("127.0.0.1", faults.port, timeout=5)
    try:
        connection.request(
            method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        try:
            got = answer.read(1_000_000)
        except ConnectionResetError:
            return answer.status, answer.headers, b"", "cut"
        # Python tells nobody when it was asked for so many bytes and the body is shorter than said.
        return answer.status, answer.headers, got, "cut" if answer.length else ""
    finally:
        connection.close()


def test_without_faults_all_goes_through_and_is_counted(faults: Faults, blob: str) -> None:
    assert ask(faults, blob)[2] == CONTENT
    status, headers, body, _ = ask(faults, blob, Range="bytes=99990-")
    assert (status, headers["Content-Range"], body) == (206, "bytes 99990-99999/100000", CONTENT[-10:])
    assert ask(faults, blob, "HEAD")[1]["Content-Length"] == "100000"
    assert (faults.count("GET", "/blobs/"), faults.count(), faults.sent()) == (2, 3, 100_010)
    assert faults.requests[1].headers["Range"] == "bytes=99990-"


def test_skopeo_pushes_and_pulls_through_it(faults: Faults, tmp_path: Path) -> None:
    name = fresh()
    (tmp_path / "motd.tar").write_bytes(oci_layout(MOTD))
    plain = ["--dest-tls-verify=false", "--src-tls-verify=false"]
    registries.skopeo("copy", *plain, f"oci-archive:{tmp_path}/motd.tar", f"docker://{faults.name(name)}:1")
    registries.skopeo("copy", *plain, f"docker://{faults.name(name)}:1", f"dir:{tmp_path}/out")
    assert faults.registry
    assert (
        hashlib.sha256((tmp_path / "out/manifest.json").read_bytes()).hexdigest()
        == faults.registry.digest(f"{name}:1")[7:]
    )
    assert faults.count("PUT", "/manifests/1") == 1


def test_answers_that_are_errors(faults: Faults, blob: str) -> None:
    faults.add(Status(429, retry_after="3"), "/blobs/", times=1)
    faults.add(Html(), "/blobs/", times=1, skip=1)
    faults.add(Drop(), "/blobs/", times=1, skip=2)
    status, headers, body, _ = ask(faults, blob)
    assert (status, headers["Retry-After"], json.loads(body)["errors"][0]["code"]) == (
        429,
        "3",
        "TOOMANYREQUESTS",
    )
    status, headers, body, _ = ask(faults, blob)
    assert (status, headers["Content-Type"], body[:6]) == (502, "text/html", b"<html>")
    with pytest.raises(http.client.RemoteDisconnected):
        ask(faults, blob)
    assert ask(faults, blob)[2] == CONTENT


def test_bodies_that_are_not_what_they_should_be(faults: Faults, blob: str) -> None:
    def under(fault: object) -> tuple[str | None, bytes, str]:
        faults.clear()
        faults.add(fault, "/blobs/")  # type: ignore[arg-type]
        status, headers, body, why = ask(faults, blob)
        assert status == 200
        return headers["Content-Length"], body, why

    assert under(Cut(after=1234)) == ("100000", CONTENT[:1234], "cut")
    assert under(Cut(after=0)) == ("100000", b"", "cut")
    assert under(Cut(after=10, reset=True))[2] == "cut"
    assert under(Spoil()) == ("100000", CONTENT[:-1] + b"8", "")
    assert under(Spoil(at=70_000)) == ("100000", CONTENT[:70_000] + b"1" + CONTENT[70_001:], "")
    assert under(Resize(by=-5)) == ("99995", CONTENT[:-5], "")
    assert under(Resize(by=70_000)) == ("170000", CONTENT + bytes(70_000), "")
    assert under(Length(by=10)) == ("100010", CONTENT, "cut")
    assert under(Length(by=-10)) == ("99990", CONTENT[:-10], "")
    assert under(Chunked()) == (None, CONTENT, "")
    assert under(Endless())[1] == CONTENT + bytes(900_000)
    assert under(Say(body=b"x", media_type="text/plain")) == ("1", b"x", "")
    assert faults.sent() == 1
    begun = time.monotonic()
    assert under(Slow(rate=400_000, wait=0.1))[1] == CONTENT
    assert 0.3 < time.monotonic() - begun < 3


def test_a_stall_ends_with_the_proxy(open_registry: Registry, blob: str) -> None:
    with Faults(open_registry).serving() as faults:
        faults.add(Stall(after=10))
        with socket.create_connection(("127.0.0.1", faults.port), timeout=5) as client:
            client.sendall(f"GET {blob} HTTP/1.1\r\nHost: {faults.host}\r\n\r\n".encode())
            got = b""
            while not got.endswith(b"0123456789"):
                got += client.recv(1000)
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.recv(1)


def test_redirects_to_itself_and_to_another_host(faults: Faults, blob: str) -> None:
    with Faults(faults.registry, address="127.0.0.2").serving() as other:
        faults.add(Redirect(other.url + "{path}"), "/blobs/", times=1)
        faults.add(Redirect("http://{host}{path}?{number}"), "/blobs/", skip=1)
        status, headers, _, _ = ask(faults, blob, Authorization="Bearer x")
        assert (status, headers["Location"]) == (307, f"http://127.0.0.2:{other.port}{blob}")
        connection = http.client.HTTPConnection("127.0.0.2", other.port, timeout=5)
        connection.request("GET", blob, headers={"authorization": "secret"})
        assert connection.getresponse().read() == CONTENT
        connection.close()
        assert other.requests[0].headers["Authorization"] == "secret"
    assert ask(faults, blob)[1]["Location"] == f"http://127.0.0.1:{faults.port}{blob}?2"


def test_ranges_that_are_ignored_or_wrong(faults: Faults, blob: str) -> None:
    faults.add(NoRange(), times=1)
    faults.add(NoRange(wrong=True), skip=1)
    assert ask(faults, blob, Range="bytes=10-")[0] == 200
    status, headers, _, _ = ask(faults, blob, Range="bytes=10-")
    assert (status, headers["Content-Range"]) == (206, "bytes 9-99999/100000")


def test_an_upload_is_cut_and_this_registry_wants_it_from_the_beginning(faults: Faults) -> None:
    """The state in its addresses says how much it has, and it has more: version 2.8 forgets such an upload."""
    status, headers, _, _ = ask(faults, "/v2/kit/uploads/blobs/uploads/", "POST", b"")
    assert (status, headers["Location"].startswith(f"http://127.0.0.1:{faults.port}/")) == (202, True)
    place = headers["Location"].partition(str(faults.port))[2]
    faults.add(CutUpload(after=50_000), method="PATCH", times=1)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        ask(faults, place, "PATCH", CONTENT, Content_Type="application/octet-stream")
    assert faults.requests[-1].received == 50_000
    assert ask(faults, place)[0] in (204, 404)
    status, headers, _, _ = ask(faults, "/v2/kit/uploads/blobs/uploads/", "POST", b"")
    place = headers["Location"].partition(str(faults.port))[2]
    status, headers, _, _ = ask(faults, place, "PATCH", CONTENT, Content_Type="application/octet-stream")
    assert (status, headers["Range"]) == (202, "0-99999")


def test_the_shelf_is_a_registry_that_says_what_it_is_told(shelf: Faults, tmp_path: Path) -> None:
    digest = shelf.put_image("a/b:1", MOTD)
    plain = ["--src-tls-verify=false", "--src-no-creds"]
    registries.skopeo("copy", *plain, f"docker://{shelf.name('a/b')}@{digest}", f"dir:{tmp_path}/out")
    wrong = shelf.put_blob("a/b", b"other", digest=MOTD.id)
    assert ask(shelf, f"/v2/a/b/blobs/{wrong}")[2] == b"other"
    with pytest.raises(AssertionError, match=r"does not match|unexpected EOF|expected"):
        registries.skopeo("copy", *plain, f"docker://{shelf.name('a/b')}:1", f"dir:{tmp_path}/out2")
    assert ask(shelf, "/v2/none/manifests/1")[0] == 404


def test_the_shelf_takes_uploads_and_knows_after_a_break_how_much_it_has(
    shelf: Faults, tmp_path: Path
) -> None:
    place = ask(shelf, "/v2/a/blobs/uploads/", "POST", b"")[1]["Location"]
    shelf.add(CutUpload(after=50_000), method="PATCH", times=1)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        ask(shelf, place, "PATCH", CONTENT)
    status, headers, _, _ = ask(shelf, place)
    assert (status, headers["Range"]) == (204, "0-49999")
    assert ask(shelf, place, "PATCH", CONTENT, Content_Range="0-99999")[0] == 416
    status, headers, _, _ = ask(shelf, place, "PATCH", CONTENT[50_000:], Content_Range="50000-99999")
    assert (status, headers["Range"]) == (202, "0-99999")
    digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    assert ask(shelf, f"{place}?digest={digest[:-1]}", "PUT", b"")[0] == 400
    assert ask(shelf, f"{place}?digest={digest}", "PUT", b"")[0] == 201
    assert ask(shelf, f"/v2/a/blobs/{digest}")[2] == CONTENT
    (tmp_path / "motd.tar").write_bytes(oci_layout(MOTD))
    plain = ["--dest-tls-verify=false", "--dest-no-creds"]
    registries.skopeo("copy", *plain, f"oci-archive:{tmp_path}/motd.tar", f"docker://{shelf.name('b')}:1")
    assert json.loads(ask(shelf, "/v2/b/manifests/1")[2])["config"]["digest"] == MOTD.id


def test_it_is_what_a_clients_http_proxy_may_be(faults: Faults, open_registry: Registry, blob: str) -> None:
    assert ask(faults, f"{open_registry.url}{blob}")[2] == CONTENT
    with socket.create_connection(("127.0.0.1", faults.port), timeout=5) as client:
        client.sendall(f"CONNECT localhost:{open_registry.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        client.sendall(f"GET {blob} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        got = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert got.endswith(CONTENT)
    assert [one.method for one in faults.requests] == ["GET", "CONNECT"]


def test_basic_credentials_are_as_the_standard_says() -> None:
    assert basic("ann", "x") == "Basic YW5uOng="
