"""Pulling: whatever the line and the registry do, what is asked for arrives whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import trio
import zstandard

from orchestrator.images.registry.backoff import Patience
from orchestrator.images.store.content import Store
from orchestrator.images.transfer.arriving import Step
from orchestrator.images.transfer.pulling import Pulled, open_pulling
from orchestrator.model.errors import PystackError
from tests.kit import faults as wrong
from tests.kit.archives import Entry, Image, dumps, layer
from tests.kit.faults import Faults, digest_of
from tests.kit.patience import patient
from tests.kit.programs import program
from tests.kit.registries import Registry, fresh
from tests.kit.tokens import SERVICE

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("state_root")]

NOISE = random.Random(5).randbytes(3 << 20)
SMALL = layer(Entry("etc/"), Entry("etc/motd", b"hello"))
LARGE = layer(Entry("usr/"), Entry("usr/noise", NOISE))
IMAGE = Image((SMALL, LARGE), {"Cmd": ["sh"]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "images")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to wait between tries."""
    monkeypatch.setattr(Patience, "delay", lambda _self, failed, **_: 0.0 if failed < 5 else None)


def pull(
    store: Store, name: str, *, steps: list[Step] | None = None, platform: str = "", **environment: str
) -> Pulled:
    async def main() -> Pulled | PystackError:
        async with open_pulling(store, tell=(steps if steps is not None else []).append) as pulling:
            try:
                return await pulling.pull(
                    name, environment={"HOME": "/nonexistent", **environment}, platform=platform
                )
            except PystackError as error:
                return error

    found = trio.run(main)
    if isinstance(found, PystackError):
        raise found
    return found


def files(store: Store, image: str) -> dict[str, bytes]:
    """Regular files of an image."""
    found: dict[str, bytes] = {}
    for lower in reversed(store.layers(image)):
        for path in sorted(lower.rglob("*")):
            if path.is_file():
                found[str(path.relative_to(lower))] = path.read_bytes()
    return found


def blob_of(plain: bytes) -> bytes:
    return gzip.compress(plain, 1, mtime=0)


def is_tidy(store: Store) -> bool:
    """Nothing lies about that is no image's."""
    return not any(
        any((store.root / name).iterdir()) for name in ("tmp", "partial") if (store.root / name).exists()
    )


# --- what should be -------------------------------------------------------------------------------


def test_an_image_arrives_with_its_files_its_digest_and_its_blobs(
    store: Store, open_registry: Registry
) -> None:
    name = f"{fresh()}:1"
    digest = open_registry.seed(name, IMAGE)
    steps: list[Step] = []
    pulled = pull(store, open_registry.name(name), steps=steps)
    assert (pulled.digest, pulled.fresh) == (digest, True)
    assert files(store, pulled.id) == {"etc/motd": b"hello", "usr/noise": NOISE}
    image = store.demand(open_registry.name(name))
    assert image.repo_digests == (f"{open_registry.name(name)[:-2]}@{digest}",)
    assert image.manifest == digest
    assert {step.state for step in steps if step.layer == steps[-1].layer} >= {"waiting", "done"}
    assert all(step.image == open_registry.name(name) for step in steps)
    assert is_tidy(store)


def test_what_is_up_to_date_takes_one_request_and_a_digest_none(store: Store, shelf: Faults) -> None:
    digest = shelf.put_image("a/b:1", IMAGE)
    pull(store, shelf.name("a/b:1"))
    by_digest = shelf.name(f"a/b@{digest}")
    shelf.clear()
    assert not pull(store, shelf.name("a/b:1")).fresh
    assert [(one.method, one.path) for one in shelf.requests] == [("HEAD", "/v2/a/b/manifests/1")]
    assert not pull(store, by_digest).fresh
    assert len(shelf.requests) == 1


def test_a_name_that_moved_brings_only_what_is_new(store: Store, shelf: Faults) -> None:
    shelf.put_image("a/b:1", IMAGE)
    before = pull(store, shelf.name("a/b:1"))
    other = layer(Entry("new", b"x"))
    shelf.put_image("a/b:1", Image((SMALL, LARGE, other)))
    shelf.clear()
    steps: list[Step] = []
    after = pull(store, shelf.name("a/b:1"), steps=steps)
    assert after.fresh
    assert shelf.sent("blobs") < len(blob_of(other)) + 2000
    assert [step.state for step in steps].count("here") == 2
    assert store.demand(before.id).names == ()
    assert store.demand(shelf.name("a/b:1")).id == after.id


def test_an_image_that_lost_a_layer_is_mended(store: Store, shelf: Faults) -> None:
    from orchestrator.images import trees

    shelf.put_image("a/b:1", IMAGE)
    image = pull(store, shelf.name("a/b:1")).id
    trees.discard(str(store.layer_path(digest_of(SMALL))))
    assert not Store(store.root).has_layer(digest_of(SMALL))
    pull(Store(store.root), shelf.name("a/b:1"))
    assert files(Store(store.root), image)["etc/motd"] == b"hello"
    assert is_tidy(store)


def test_two_names_at_once_fetch_what_they_share_once(store: Store, shelf: Faults) -> None:
    shelf.put_image("a/b:1", IMAGE)
    shelf.put_image("a/c:1", Image((LARGE,)))
    shelf.shelf = {path.replace("/a/c/", "/a/b/"): one for path, one in shelf.shelf.items()}
    shelf.put_manifest("a/b", "2", shelf.shelf["/v2/a/b/manifests/1"].content)
    pulled: list[Pulled] = []

    async def main() -> None:
        async with open_pulling(store) as pulling, trio.open_nursery() as nursery:

            async def one(name: str) -> None:
                pulled.append(await pulling.pull(name, environment={"HOME": "/nonexistent"}))

            for name in ("a/b:1", "a/b:2"):
                nursery.start_soon(one, shelf.name(name))

    trio.run(main)
    assert len(pulled) == 2
    assert shelf.count("GET", f"blobs/{digest_of(blob_of(LARGE))}") == 1


@pytest.mark.parametrize("pack", [bytes, zstandard.compress])
def test_layers_may_be_plain_or_zstd(store: Store, shelf: Faults, pack: Callable[[bytes], bytes]) -> None:
    blob = pack(LARGE)
    data = {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [digest_of(LARGE)]}}
    put(shelf, "a/b:1", dumps(data), {"digest": shelf.put_blob("a/b", blob), "size": len(blob)})
    pulled = pull(store, shelf.name("a/b:1"))
    assert files(store, pulled.id) == {"usr/noise": NOISE}


def put(shelf: Faults, name: str, config: bytes, *rows: Mapping[str, object]) -> str:
    """A manifest as the test wants it."""
    repository, _, tag = name.rpartition(":")
    head = {"digest": shelf.put_blob(repository, config), "size": len(config)}
    data = {
        "schemaVersion": 2,
        "mediaType": wrong.MANIFEST,
        "config": {"mediaType": wrong.CONFIG, **head},
        "layers": [{"mediaType": wrong.LAYER + "+gzip", **row} for row in rows],
    }
    return shelf.put_manifest(repository, tag, dumps(data))


def test_with_tls_and_a_password_from_the_users_files(
    store: Store, secure_registry: Registry, tmp_path: Path
) -> None:
    name = f"{fresh()}:1"
    secure_registry.seed(name, IMAGE)
    assert secure_registry.authority
    assert secure_registry.account
    home = tmp_path / "home"
    (home / ".docker").mkdir(parents=True)
    auth = wrong_basic(*secure_registry.account)
    (home / ".docker" / "config.json").write_bytes(dumps({"auths": {secure_registry.host: {"auth": auth}}}))
    pulled = pull(
        store,
        secure_registry.name(name),
        HOME=str(home),
        SSL_CERT_FILE=str(secure_registry.authority.ca),
    )
    assert files(store, pulled.id)["etc/motd"] == b"hello"


def wrong_basic(user: str, password: str) -> str:
    from tests.kit.registries import basic

    return basic(user, password).removeprefix("Basic ")


def test_with_tokens_that_run_out_between_layers(
    store: Store, token_registry: Registry, tmp_path: Path
) -> None:
    name = f"{fresh()}:1"
    token_registry.seed(name, IMAGE)
    assert token_registry.tokens
    home = tmp_path / "home"
    (home / ".docker").mkdir(parents=True)
    auths = {token_registry.host: {"auth": wrong_basic("ann", "secret")}}
    (home / ".docker" / "config.json").write_bytes(dumps({"auths": auths}))
    with Faults(token_registry).serving() as proxy:
        (home / ".docker" / "config.json").write_bytes(
            dumps({"auths": {**auths, proxy.host: {"auth": wrong_basic("ann", "secret")}}})
        )
        challenge = f'Bearer realm="{token_registry.tokens.realm}",service="{SERVICE}"'
        proxy.add(wrong.Status(401, headers={"WWW-Authenticate": challenge}), "/blobs/", times=2)
        pulled = pull(store, proxy.name(name), HOME=str(home))
    assert files(store, pulled.id)["usr/noise"] == NOISE


# --- lines that break -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        wrong.Cut(1 << 20),
        wrong.Cut(1 << 20, reset=True),
        wrong.Drop(),
        wrong.Status(503),
        wrong.Status(429, retry_after="0"),
        wrong.Html(502),
    ],
    ids=lambda fault: type(fault).__name__ + str(getattr(fault, "status", "")),
)
def test_a_line_that_breaks_is_taken_up_where_it_ended(
    store: Store, shelf: Faults, fault: wrong.Fault
) -> None:
    shelf.put_image("a/b:1", IMAGE)
    blob = blob_of(LARGE)
    shelf.add(fault, f"blobs/{digest_of(blob)}", times=2)
    pulled = pull(store, shelf.name("a/b:1"))
    assert files(store, pulled.id)["usr/noise"] == NOISE
    good = [one for one in shelf.asked("GET", f"blobs/{digest_of(blob)}") if one.status in (200, 206)]
    if not getattr(fault, "reset", False):
        # A reset throws away what was still on its way.
        assert sum(one.sent for one in good) <= len(blob) + (2 << 16)
    if isinstance(fault, wrong.Cut):
        assert good[-1].headers["Range"].startswith("bytes=")
        assert good[-1].status == 206
    assert is_tidy(store)


def test_a_second_pull_takes_only_the_remaining_bytes(store: Store, shelf: Faults) -> None:
    shelf.put_image("a/b:1", IMAGE)
    blob = blob_of(LARGE)
    shelf.add(wrong.Cut(2 << 20), f"blobs/{digest_of(blob)}", times=1)
    shelf.add(wrong.Status(404), f"blobs/{digest_of(blob)}", skip=1)
    with pytest.raises(PystackError, match=f"a/b:1: layer {digest_of(blob)[7:19]}"):
        pull(store, shelf.name("a/b:1"))
    assert store.images() == []
    shelf.clear()
    pulled = pull(store, shelf.name("a/b:1"))
    assert files(store, pulled.id) == {"etc/motd": b"hello", "usr/noise": NOISE}
    (again,) = shelf.asked("GET", f"blobs/{digest_of(blob)}")
    assert again.headers["Range"] == f"bytes={2 << 20}-"
    assert again.sent == len(blob) - (2 << 20)
    assert shelf.count("GET", f"blobs/{digest_of(blob_of(SMALL))}") == 0


@pytest.mark.parametrize("fault", [wrong.NoRange(), wrong.NoRange(wrong=True)], ids=["all", "other"])
def test_a_registry_that_knows_no_ranges_gives_all_again(
    store: Store, shelf: Faults, fault: wrong.Fault
) -> None:
    shelf.put_image("a/b:1", IMAGE)
    shelf.add(wrong.Cut(1 << 20), f"blobs/{digest_of(blob_of(LARGE))}", times=1)
    shelf.add(fault, "/blobs/")
    pulled = pull(store, shelf.name("a/b:1"))
    assert files(store, pulled.id)["usr/noise"] == NOISE


def test_a_beginning_that_is_damaged_is_thrown_away(store: Store, shelf: Faults) -> None:
    """A machine that lost power may have zeros where bytes should be."""
    shelf.put_image("a/b:1", IMAGE)
    blob = blob_of(LARGE)
    with store.partial(digest_of(blob)) as partial:
        assert partial
        partial.write_bytes(blob[:1000] + bytes(1 << 20))
    pulled = pull(store, shelf.name("a/b:1"))
    assert files(store, pulled.id)["usr/noise"] == NOISE
    assert [one.status for one in shelf.asked("GET", f"blobs/{digest_of(blob)}")] == [206, 200]


def test_a_layer_that_had_arrived_whole_is_not_fetched_again(store: Store, shelf: Faults) -> None:
    shelf.put_image("a/b:1", IMAGE)
    blob = blob_of(LARGE)
    with store.partial(digest_of(blob)) as partial:
        assert partial
        partial.write_bytes(blob)
    pull(store, shelf.name("a/b:1"))
    assert shelf.count("GET", f"blobs/{digest_of(blob)}") == 0


# --- registries that lie ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (wrong.Spoil(100), "wrong digest"),
        (wrong.Spoil(), "wrong digest"),
        (wrong.Resize(5), "bytes where .* belong"),
        (wrong.Resize(-5), "bytes where .* belong"),
        (wrong.Length(7), "bytes where .* belong"),
        (wrong.Length(-7), "bytes where .* belong"),
        (wrong.Endless(), "more than the .* bytes that belong"),
        (wrong.Status(404), "not found"),
        (wrong.Status(403), "denied"),
        (wrong.Redirect("http://{host}{path}?{number}"), "more than 5 redirects"),
        (wrong.Redirect("file:///etc/passwd"), "not a web address"),
        (wrong.Redirect("http://[::1/x"), "not a web address"),
        (wrong.Redirect("http://x:99999/x"), "not a web address"),
        (wrong.Redirect("http://user:secret@{host}/x"), "not a web address"),
        (wrong.Html(200), "bytes where .* belong"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_blob_that_is_not_what_was_promised_is_refused(
    store: Store, shelf: Faults, fault: wrong.Fault, words: str
) -> None:
    """The error names image and layer; nothing of it stays."""
    shelf.put_image("a/b:1", IMAGE)
    blob = digest_of(blob_of(LARGE))
    shelf.add(fault, f"blobs/{blob}")
    with pytest.raises(PystackError, match=f"a/b:1: layer {blob[7:19]}.*{words}") as caught:
        pull(store, shelf.name("a/b:1"))
    assert caught.value.exit_code == 6
    assert "secret" not in str(caught.value)
    assert store.images() == []
    assert not store.has_layer(digest_of(LARGE))
    assert not (store.root / "partial" / blob[7:]).exists()
    assert not any((store.root / "tmp").iterdir())


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        (layer(Entry("../../etc/cron.d/x", b"x")), "name b'../../etc/cron.d/x' leads out"),
        (b"no tar at all" * 1000, "not a tar archive"),
        (LARGE[: 2 << 20], "unexpected end of archive"),
    ],
    ids=["hostile", "no tar", "cut"],
)
def test_a_layer_that_is_hostile_is_refused_by_image_layer_and_entry(
    store: Store, shelf: Faults, plain: bytes, words: str
) -> None:
    shelf.put_image("a/b:1", Image((plain,)))
    with pytest.raises(PystackError, match=f"a/b:1: layer {digest_of(blob_of(plain))[7:19]}: .*{words}"):
        pull(store, shelf.name("a/b:1"))
    assert store.images() == []
    assert is_tidy(store)


def test_a_layer_that_is_another_than_the_config_says_is_refused(store: Store, shelf: Faults) -> None:
    blob = blob_of(LARGE)
    data = {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [digest_of(SMALL)]}}
    put(shelf, "a/b:1", dumps(data), {"digest": shelf.put_blob("a/b", blob), "size": len(blob)})
    with pytest.raises(PystackError, match=r"its content is sha256:\w+, the image's config says"):
        pull(store, shelf.name("a/b:1"))
    assert not store.has_layer(digest_of(SMALL))
    assert is_tidy(store)


def test_layers_that_are_here_are_believed_only_with_the_blobs_they_came_by(
    store: Store, shelf: Faults
) -> None:
    """All that it names is here, and yet its manifest and its config say two things."""
    shelf.put_image("a/b:1", IMAGE)
    pull(store, shelf.name("a/b:1"))
    manifest = json.loads(shelf.shelf["/v2/a/b/manifests/1"].content)
    manifest["layers"].reverse()
    shelf.put_manifest("a/b", "swapped", dumps(manifest))
    with pytest.raises(PystackError, match=r"its content is .* the image's config says"):
        pull(store, shelf.name("a/b:swapped"))
    assert len(store.images()) == 1


def test_who_we_are_is_told_to_nobody_but_the_registry(
    store: Store, secure_registry: Registry, tmp_path: Path
) -> None:
    """Blobs are often at another host, where a redirect with a ticket in its URL leads."""
    assert secure_registry.authority
    assert secure_registry.account
    name = f"{fresh()}:1"
    secure_registry.seed(name, IMAGE)
    home = tmp_path / "home"
    (home / ".docker").mkdir(parents=True)
    with (
        Faults(address="127.0.0.2").serving() as elsewhere,
        Faults(secure_registry, authority=secure_registry.authority).serving() as proxy,
    ):
        auth = {"auth": wrong_basic(*secure_registry.account)}
        (home / ".docker" / "config.json").write_bytes(dumps({"auths": {proxy.host: auth}}))
        for blob in secure_registry.manifest(name)["layers"]:
            content = secure_registry.blob(blob["digest"]).read_bytes()
            elsewhere.shelf[f"/cdn/{blob['digest']}"] = wrong.Shelved(content=content, media_type="x/y")
            proxy.add(wrong.Redirect(f"{elsewhere.url}/cdn/{blob['digest']}"), f"blobs/{blob['digest']}")
        environment = {"HOME": str(home), "SSL_CERT_FILE": str(secure_registry.authority.ca)}
        with pytest.raises(PystackError, match="a redirect from https to http"):
            pull(store, proxy.name(name), **environment)
        assert elsewhere.requests == []
        config = home / ".config" / "pystack"
        config.mkdir(parents=True)
        (config / "registries.toml").write_text(f'[[registry]]\nlocation = "{proxy.host}"\ninsecure = true\n')
        pulled = pull(store, proxy.name(name), **environment)
        assert files(store, pulled.id)["usr/noise"] == NOISE
        assert len(elsewhere.requests) == 2
        assert not any("authorization" in map(str.lower, one.headers) for one in elsewhere.requests)
        assert all("Authorization" in one.headers for one in proxy.asked("GET", "/blobs/"))


# --- interruptions ----------------------------------------------------------------------------------


def test_an_interrupted_pull_leaves_no_process_and_goes_on_by_bytes(store: Store, shelf: Faults) -> None:
    shelf.put_image("a/b:1", IMAGE)
    blob = blob_of(LARGE)
    shelf.add(wrong.Stall(1 << 20), f"blobs/{digest_of(blob)}", times=1)

    async def main() -> None:
        async with open_pulling(store) as pulling, trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: pulling.pull(shelf.name("a/b:1"), environment={"HOME": "/nonexistent"})
            )
            partial = store.root / "partial" / digest_of(blob)[7:]
            while not partial.exists() or partial.stat().st_size < 1 << 20:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert store.images() == []
    assert not any((store.root / "tmp").iterdir())
    pull(store, shelf.name("a/b:1"))
    assert shelf.asked("GET", f"blobs/{digest_of(blob)}")[-1].headers["Range"] == f"bytes={1 << 20}-"


def test_two_processes_that_pull_the_same_share_the_work(tmp_path: Path, shelf: Faults) -> None:
    shelf.put_image("a/b:1", IMAGE)
    blob = digest_of(blob_of(LARGE))
    shelf.add(wrong.Slow(rate=6 << 20), f"blobs/{blob}")
    script = (
        "import sys, trio; from pathlib import Path; from orchestrator.images.transfer.pulling import open_pulling\n"
        "from orchestrator.images.store.content import Store\n"
        "async def main():\n"
        " async with open_pulling(Store(Path(sys.argv[1]))) as one:\n"
        "  print((await one.pull(sys.argv[2], environment={'HOME': '/nonexistent'})).id)\n"
        "trio.run(main)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "images"), shelf.name("a/b:1")]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert {one.communicate() for one in both} == {(f"{IMAGE.id}\n", "")}
    assert shelf.count("GET", f"blobs/{blob}") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_pull_leaves_nothing_half_done_and_the_next_takes_the_rest(
    tmp_path: Path, shelf: Faults, number: signal.Signals
) -> None:
    """The command as users have it; what is sent again is counted by the registry."""
    shelf.put_image("a/b:1", IMAGE)
    blob = blob_of(LARGE)
    shelf.add(wrong.Stall(2 << 20), f"blobs/{digest_of(blob)}", times=1)
    environ = {**os.environ, "HOME": str(tmp_path)}
    command = [*program(), "--root", str(tmp_path), "pull", "-q", shelf.name("a/b:1")]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + patient(20)
    while not (
        any(one.stat().st_size == 2 << 20 for one in tmp_path.rglob(digest_of(blob)[7:]))
        and any(tmp_path.glob("data/images/layers/*/fs/etc/motd"))
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    (partial,) = tmp_path.rglob(digest_of(blob)[7:])
    root = partial.parents[1]
    assert Store(root).images() == []
    shelf.clear()
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert shelf.sent(f"blobs/{digest_of(blob)}") == len(blob) - (2 << 20)
    assert shelf.count("GET", f"blobs/{digest_of(blob_of(SMALL))}") == 0
    assert files(Store(root), IMAGE.id)["usr/noise"] == NOISE
    # A worker of the one that was killed may still have written as the second swept.
    Store(root).sweep()
    assert is_tidy(Store(root))
