"""push, login, logout, search: what they print, and what they say when it goes wrong."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from orchestrator.cli import registry as commands
from orchestrator.cli.registry import Board, line
from orchestrator.cli.scope import Scope
from orchestrator.images.registry import search as searching
from orchestrator.images.registry.blame import BrokenAnswerError, DeniedError
from orchestrator.images.registry.search import Hit
from orchestrator.images.transfer.push import Layer
from orchestrator.model.errors import ExitCode, UserError
from tests.kit.archives import Entry, Image, dumps, layer
from tests.kit.faults import Faults, Html, Say, Status
from tests.kit.registries import Registry, fresh
from tests.unit.cli import command

DIGEST = "sha256:" + "5f70bf18a086" + "0" * 52
IMAGE = Image((layer(Entry("etc/motd", b"hello")),), run={"Cmd": ["sh"]})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def scope(home: Path) -> Scope:
    return Scope(root=str(home / "root"))


@pytest.fixture
def stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What is written to this file comes from standard input."""
    path = tmp_path / "stdin"
    path.touch()
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        yield path


def log_in(home: Path, host: str, username: str | None, password: str | None, *, pipe: bool = False) -> int:
    return commands.login(scope(home), server=host, username=username, password=password, password_stdin=pipe)


def kept(home: Path) -> dict[str, object]:
    data = json.loads((home / ".docker/config.json").read_text())["auths"]
    assert isinstance(data, dict)
    return data


# --- push -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        (Layer(digest=DIGEST, state="waiting"), "5f70bf18a086: Waiting"),
        (
            Layer(digest=DIGEST, state="pushing", sent=1_500_000, size=3_000_000),
            "5f70bf18a086: Pushing 1.5MB/3MB",
        ),
        (Layer(digest=DIGEST, state="pushed"), "5f70bf18a086: Pushed"),
        (Layer(digest=DIGEST, state="exists"), "5f70bf18a086: Layer already exists"),
        (
            Layer(digest=DIGEST, state="mounted", detail="library/redis"),
            "5f70bf18a086: Mounted from library/redis",
        ),
    ],
)
def test_a_layers_fate_is_told_in_dockers_words(layer: Layer, shown: str) -> None:
    assert line(layer) == shown


def test_more_layers_than_rows_are_counted() -> None:
    layers = [Layer(digest=DIGEST, state="pushed")] * 30 + [Layer(digest=DIGEST, state="pushing")] * 5
    assert commands.fitting(layers, 4) == ["5f70bf18a086: Pushing 0B/0B"] * 3 + ["30 of 35 layers are there"]
    assert len(commands.fitting(layers, 35)) == 35


def test_off_a_terminal_a_layer_has_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with Board(live=False, quiet=False) as board:
        for state in ("waiting", "pushing", "pushing", "pushed"):
            board.take(Layer(digest=DIGEST, state=state))  # type: ignore[arg-type]
    assert capfd.readouterr().out == "5f70bf18a086: Pushed\n"
    with Board(live=False, quiet=True) as board:
        board.take(Layer(digest=DIGEST, state="pushed"))
    assert capfd.readouterr().out == ""


def test_on_a_terminal_the_table_ends_with_what_became_of_all(capfd: pytest.CaptureFixture[str]) -> None:
    with Board(live=True, quiet=False) as board:
        for state in ("waiting", "pushing", "exists"):
            board.take(Layer(digest=DIGEST, state=state))  # type: ignore[arg-type]
        board.warn("something")
    out, err = capfd.readouterr()
    assert out.rindex("Layer already exists") > out.rindex("Waiting")
    assert "something" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root unpacks images")
def test_push_prints_layers_digest_and_size(
    home: Path, open_registry: Registry, capfd: pytest.CaptureFixture[str]
) -> None:
    tree = home / "tree"
    tree.mkdir()
    (tree / "file").write_text("x")
    path = fresh()
    name = open_registry.name(f"{path}:1")
    assert command.run(home / "root", "import", str(tree), name, cwd=home)[0] == 0
    assert commands.push(scope(home), names=(name,), all_tags=False, quiet=False) == 0
    head, pushed, digest = capfd.readouterr().out.splitlines()
    assert head == f"The push refers to repository [{open_registry.name(path)}]"
    assert pushed.endswith(": Pushed")
    assert digest.startswith(f"1: digest: {open_registry.digest(f'{path}:1')} size: ")
    assert commands.push(scope(home), names=(name, name), all_tags=False, quiet=True) == 0
    assert capfd.readouterr().out == f"{name}\n" * 2
    code, out, err = command.run(home / "root", "push", name, open_registry.name("not/there"), cwd=home)
    assert (code, out) == (6, "")
    assert err.startswith("error: An image does not exist locally with the tag: ")


# --- login and logout -----------------------------------------------------------------------------


def test_a_password_of_standard_input_is_tried_and_kept(
    home: Path, token_registry: Registry, stdin: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert token_registry.tokens
    stdin.write_text("secret\n")
    assert log_in(home, token_registry.host, "ann", None, pipe=True) == 0
    out, err = capfd.readouterr()
    assert out == "Login Succeeded\n"
    assert f"kept unencrypted in {home}/.docker/config.json" in err
    # The token server gave a refresh token, which is kept in place of the password.
    (entry,) = kept(home).values()
    assert entry == {
        "auth": base64.b64encode(b"ann:").decode(),
        "identitytoken": next(
            token for token, user in token_registry.tokens.refresh.items() if user == "ann"
        ),
    }
    assert (
        commands.login(
            scope(home), server=token_registry.host, username=None, password=None, password_stdin=False
        )
        == 0
    )
    out, err = capfd.readouterr()
    assert (out, err) == ("Login Succeeded\n", "Authenticating with existing credentials...\n")
    assert commands.logout(scope(home), server=token_registry.host) == 0
    assert commands.logout(scope(home), server=token_registry.host) == 0
    host = token_registry.host
    assert capfd.readouterr().out == f"Removing login credentials for {host}\nNot logged in to {host}\n"
    assert kept(home) == {}


def test_a_password_over_tls_is_kept_as_docker_does(
    home: Path, secure_registry: Registry, capfd: pytest.CaptureFixture[str]
) -> None:
    assert secure_registry.authority
    trusted = home / ".config/containers/certs.d" / secure_registry.host
    trusted.mkdir(parents=True)
    (trusted / "ca.crt").write_bytes(secure_registry.authority.ca.read_bytes())
    with pytest.raises(DeniedError) as caught:
        log_in(home, secure_registry.host, "ann", "wrong")
    assert caught.value.message == (
        f"login at {secure_registry.host}: unauthorized: incorrect username or password "
        "(authentication required)"
    )
    assert caught.value.hint == ""
    assert not (home / ".docker").exists()
    assert log_in(home, secure_registry.host, "ann", "p:ä ss") == 0
    assert kept(home) == {secure_registry.host: {"auth": base64.b64encode("ann:p:ä ss".encode()).decode()}}
    assert "a password on the command line is seen by all users" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("username", "password", "pipe", "words"),
    [
        ("ann", "x", True, "mutually exclusive"),
        (None, None, True, "Must provide --username with --password-stdin"),
        ("ann", None, True, "password is empty"),
        ("", "x", False, "username is empty"),
        ("ann", None, False, "Cannot perform an interactive login from a non TTY device"),
    ],
)
def test_a_wrong_use_of_login_is_told(
    home: Path,
    stdin: Path,
    monkeypatch: pytest.MonkeyPatch,
    username: str | None,
    password: str | None,
    pipe: bool,
    words: str,
) -> None:
    stdin.write_text("\n")
    monkeypatch.setattr("orchestrator.cli.say.is_terminal", lambda _: False)
    with pytest.raises(UserError, match=words) as caught:
        log_in(home, "r.example", username, password, pipe=pipe)
    assert caught.value.exit_code is ExitCode.USAGE


def test_on_a_terminal_name_and_password_are_asked_for_and_only_the_name_is_shown(
    home: Path, token_registry: Registry
) -> None:
    terminal = command.OnTerminal(home, "login", token_registry.host)
    try:
        terminal.until(b"Username: ")
        terminal.type(b"ann\n")
        terminal.until(b"Password: ")
        terminal.type(b"secret\n")
        terminal.until(b"Login Succeeded")
        assert terminal.end() == 0
        assert b"ann" in terminal.shown
        assert b"secret" not in terminal.shown
        assert terminal.restored
    finally:
        terminal.close()
    assert token_registry.host in kept(home)


@pytest.mark.parametrize(
    ("server", "host"),
    [
        (None, "docker.io"),
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("https://r.example:5000/v2/", "r.example:5000"),
        ("localhost:5000/", "localhost:5000"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_a_registry_is_named_in_several_ways(server: str | None, host: str) -> None:
    assert commands.logins.host_of(server) == host


@pytest.mark.parametrize("server", ["r.example/team", "ftp://x", "a b", "-x"])
def test_what_is_no_registry_is_refused(server: str) -> None:
    with pytest.raises(UserError, match="is not a registry"):
        commands.logins.host_of(server)


def test_what_is_no_registry_of_ours_is_told(home: Path, shelf: Faults) -> None:
    shelf.add(Status(404), "/v2/$")
    with pytest.raises(BrokenAnswerError, match="is not a registry that this program understands"):
        log_in(home, shelf.host, "ann", "secret")


# --- signatures -----------------------------------------------------------------------------------


def test_signatures_are_listed_and_said_to_be_unchecked(
    home: Path, shelf: Faults, capfd: pytest.CaptureFixture[str]
) -> None:
    digest = shelf.put_image("app:1", IMAGE)
    name = shelf.name("app:1")
    assert commands.signatures(scope(home), name=name, format=None) == 0
    out, err = capfd.readouterr()
    assert (out, err) == (f"{name} ({digest[:19]}): its registry has no signature or attestation of it\n", "")
    tag = f"{digest.replace(':', '-')}.sig"
    shelf.put_image(f"app:{tag}", IMAGE)
    assert commands.signatures(scope(home), name=name, format=None) == 0
    out, err = capfd.readouterr()
    assert [row.split() for row in out.splitlines()] == [
        ["KIND", "TYPE", "REFERENCE"],
        ["signature", "cosign", tag],
    ]
    assert "was not checked" in err
    assert commands.signatures(scope(home), name=name, format="{{.Kind}}") == 0
    assert capfd.readouterr() == ("signature\n", "")


# --- search ---------------------------------------------------------------------------------------


def look(
    home: Path, term: str, *, tags: bool = False, limit: int | None = None, form: str | None = None
) -> int:
    return commands.search(
        scope(home), term=term, limit=limit, filter=(), no_trunc=False, list_tags=tags, format=form
    )


def test_a_registrys_catalog_and_tags_are_searched(
    home: Path, open_registry: Registry, capfd: pytest.CaptureFixture[str]
) -> None:
    path = fresh("searched")
    for tag in ("1", "2"):
        open_registry.seed(f"{path}:{tag}", IMAGE)
    assert look(home, open_registry.name(path[:-1].upper())) == 0
    rows = capfd.readouterr().out.splitlines()
    assert rows[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert f"{open_registry.name(path)}" in "\n".join(rows)
    assert look(home, open_registry.name(path), form="{{.Name}}") == 0
    assert capfd.readouterr().out == f"{open_registry.name(path)}\n"
    assert look(home, open_registry.name(path), tags=True) == 0
    head, *rows = [row.split() for row in capfd.readouterr().out.splitlines()]
    assert head == ["NAME", "TAG"]
    assert sorted(rows) == [
        [open_registry.name(path), "1"],
        [open_registry.name(path), "2"],
    ]
    assert look(home, f"{open_registry.name(path)}:1", tags=True, limit=1, form="json") == 0
    assert json.loads(capfd.readouterr().out)["Tag"] in ("1", "2")


def test_a_registry_that_lists_nothing_says_what_can_be_done(home: Path, token_registry: Registry) -> None:
    with pytest.raises(DeniedError, match="does not list its repositories to us") as caught:
        look(home, f"{token_registry.host}/x")
    assert "--list-tags" in caught.value.hint


async def test_docker_hub_is_asked_for_words(home: Path, shelf: Faults) -> None:
    rows = [
        {"name": "redis", "description": "A\nstore  of data", "star_count": 13000, "is_official": True},
        {"name": "bitnami/redis", "description": None, "star_count": "x"},
        {"name": 7},
    ]
    shelf.put_manifest("x", "1", b"{}")
    shelf.shelf["/v1/search"] = shelf.shelf["/v2/x/manifests/1"]
    shelf.add(Say(body=dumps({"results": rows})), times=1)
    found = await searching.hub("re dis", {"HOME": str(home)}, limit=25, index=shelf.url)
    assert shelf.requests[0].path == "/v1/search?q=re+dis&n=25"
    assert found == [
        Hit(name="redis", description="A store of data", stars=13000, official=True),
        Hit(name="bitnami/redis"),
    ]
    shelf.add(Html(503))
    with pytest.raises(Exception, match=r"docker\.io answered 503"):
        await searching.hub("x", {"HOME": str(home)}, limit=25, index=shelf.url)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"[" * 100_000])
def test_an_index_that_answers_nonsense_is_told(body: bytes) -> None:
    with pytest.raises(BrokenAnswerError, match="the answer is not a list"):
        searching.hits(body)


@pytest.mark.parametrize(
    ("term", "parts"),
    [
        ("redis", ("docker.io", "redis")),
        ("bitnami/redis", ("docker.io", "bitnami/redis")),
        ("docker.io/redis", ("docker.io", "redis")),
        ("index.docker.io/redis", ("docker.io", "redis")),
        ("localhost/x", ("localhost", "x")),
        ("localhost:5000", ("localhost:5000", "")),
        ("quay.io/team/x", ("quay.io", "team/x")),
        ("redis.io", ("docker.io", "redis.io")),
    ],
)
def test_a_term_may_begin_with_a_registry(term: str, parts: tuple[str, str]) -> None:
    assert searching.split(term) == parts


def test_hits_are_filtered_and_shown_as_docker_does() -> None:
    hits = [Hit(name="redis", description="d" * 60, stars=100, official=True), Hit(name="a/redis", stars=2)]
    assert searching.filtered(hits, ["stars=3"]) == hits[:1]
    assert searching.filtered(hits, ["is-official=false", "stars=2"]) == hits[1:]
    for wrong in ("stars", "stars=x", "is-official=maybe", "color=red", "stars=-1"):
        with pytest.raises(UserError, match="invalid filter"):
            searching.filtered(hits, [wrong])
    rows = commands.table(hits, whole=False).splitlines()
    assert rows[1].split() == ["redis", "d" * 44 + "\N{HORIZONTAL ELLIPSIS}", "100", "[OK]"]
    assert "d" * 60 in commands.table(hits, whole=True)


async def test_docker_hub_wants_words(home: Path) -> None:
    with pytest.raises(UserError, match="Docker Hub is searched for words"):
        await searching.search(" ", {"HOME": str(home)}, limit=25, warn=print)


def test_ctrl_c_in_the_middle_of_work_is_ctrl_c() -> None:
    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        commands.run(work)
