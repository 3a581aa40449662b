"""Credentials in docker's and podman's files, and helper programs."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from orchestrator.images.registry import credentials
from orchestrator.images.registry.credentials import Credential
from orchestrator.model.errors import UserError

# A helper in shell: it notes how it was called, and answers what is in a file beside it.
HELPER = """#!/bin/sh
cd "$(dirname "$0")"
input=$(cat)
echo "$1 $input" >> log
case "$1" in
get) if [ -e answer ]; then cat answer; else echo "credentials not found in native keychain"; exit 1; fi ;;
store) echo "$input" > answer ;;
erase) rm -f answer ;;
esac
"""


def auth(pair: str) -> dict[str, str]:
    return {"auth": base64.b64encode(pair.encode()).decode()}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home/.docker").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "PATH": f"{home}/bin:/usr/bin:/bin", "XDG_RUNTIME_DIR": str(home / "run")}


def docker(home: Path, **data: Any) -> Path:
    path = home / ".docker/config.json"
    path.write_text(json.dumps(data))
    return path


def helper(home: Path, name: str, text: str = HELPER) -> Path:
    folder = home / "bin"
    folder.mkdir(exist_ok=True)
    path = folder / f"docker-credential-{name}"
    path.write_text(text)
    path.chmod(0o755)
    return folder


async def find(environment: dict[str, str], host: str, path: str = "team/app") -> Credential | None:
    said: list[str] = []
    found = await credentials.find(environment, host, path, said.append)
    assert not said
    return found


@pytest.mark.parametrize(
    "key",
    ["r.example", "https://r.example", "https://r.example/v1/", "http://r.example/v2/", "r.example/v1/"],
)
async def test_an_entry_speaks_for_its_host_however_the_key_is_written(
    home: Path, environment: dict[str, str], key: str
) -> None:
    docker(home, auths={"other": auth("x:y"), key: auth("ann:p:ä ss")})
    assert await find(environment, "r.example") == Credential(username="ann", password="p:ä ss")
    assert await find(environment, "r.example:443") is None


@pytest.mark.parametrize(
    "key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"]
)
async def test_docker_hub_has_many_names(home: Path, environment: dict[str, str], key: str) -> None:
    docker(home, auths={key: auth("ann:secret")})
    found = await find(environment, "docker.io", "library/redis")
    assert found is not None
    assert found.username == "ann"


async def test_tokens_of_an_entry(home: Path, environment: dict[str, str]) -> None:
    docker(home, auths={"a": {**auth("ann:"), "identitytoken": "I"}, "b": {"registrytoken": "R"}, "c": {}})
    assert await find(environment, "a") == Credential(username="ann", identity_token="I")
    assert await find(environment, "b") == Credential(registry_token="R")
    assert await find(environment, "c") is None


async def test_docker_config_moves_the_file(home: Path, environment: dict[str, str]) -> None:
    (home / "elsewhere").mkdir()
    (home / "elsewhere/config.json").write_text(json.dumps({"auths": {"r": auth("x:y")}}))
    docker(home, auths={"r": auth("ann:secret")})
    found = await find({**environment, "DOCKER_CONFIG": str(home / "elsewhere")}, "r")
    assert found == Credential(username="x", password="y")


async def test_the_longest_part_of_a_name_wins(home: Path, environment: dict[str, str]) -> None:
    path = home / "run/containers/auth.json"
    path.parent.mkdir(parents=True)
    rows = {"r": auth("all:1"), "r/team": auth("team:2"), "r/team/app": auth("app:3"), "r/te": auth("no:4")}
    path.write_text(json.dumps({"auths": rows}))
    names = {}
    for name in ("team/app", "team/other", "team/app/deeper", "tea", "x"):
        found = await find(environment, "r", name)
        assert found is not None
        names[name] = found.username
    assert names == {
        "team/app": "app",
        "team/other": "team",
        "team/app/deeper": "app",
        "tea": "all",
        "x": "all",
    }


async def test_files_are_asked_in_order(home: Path, environment: dict[str, str]) -> None:
    chosen, podman = home / "chosen.json", home / "run/containers/auth.json"
    podman.parent.mkdir(parents=True)
    podman.write_text(json.dumps({"auths": {"r": auth("podman:1"), "only": auth("podman:1")}}))
    docker(home, auths={"r": auth("docker:1")})
    chosen.write_text(json.dumps({"auths": {"r": auth("chosen:1")}}))
    assert (await find(environment, "only") or Credential()).username == "podman"
    assert (await find(environment, "r") or Credential()).username == "docker"
    assert (
        await find({**environment, "REGISTRY_AUTH_FILE": str(chosen)}, "r") or Credential()
    ).username == "chosen"


async def test_a_helper_of_the_host_is_asked_by_name(home: Path, environment: dict[str, str]) -> None:
    folder = helper(home, "mine")
    (folder / "answer").write_text('{"ServerURL": "r", "Username": "ann", "Secret": "s"}')
    docker(home, credHelpers={"r": "mine"}, auths={"r": auth("stale:1")})
    assert await find(environment, "r") == Credential(username="ann", password="s")
    assert (folder / "log").read_text() == "get r\n"
    (folder / "answer").unlink()
    assert (await find(environment, "r") or Credential()).username == "stale"


async def test_the_store_for_all_hosts_comes_last_and_may_know_an_identity_token(
    home: Path, environment: dict[str, str]
) -> None:
    folder = helper(home, "all")
    (folder / "answer").write_text('{"ServerURL": "x", "Username": "<token>", "Secret": "I"}')
    docker(home, credsStore="all", auths={"https://index.docker.io/v1/": {}, "r": auth("ann:1")})
    assert await find(environment, "docker.io") == Credential(identity_token="I")
    assert (folder / "log").read_text() == "get https://index.docker.io/v1/\n"
    assert await find(environment, "r") == Credential(username="ann", password="1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "docker-credential-bad is not installed"),
        ("#!/bin/sh\necho the keyring is locked; exit 1\n", "failed: the keyring is locked"),
        ("#!/bin/sh\nexit 3\n", "failed: exit code 3"),
        ("#!/bin/sh\necho nonsense\n", "can't be read"),
        ("#!/bin/sh\necho '[]'\n", "can't be read"),
        ("no program", "Exec format error"),
    ],
)
async def test_a_helper_that_fails_is_warned_of_and_public_images_still_come(
    home: Path, environment: dict[str, str], text: str | None, words: str
) -> None:
    if text is not None:
        helper(home, "bad", text)
    docker(home, credsStore="bad")
    said: list[str] = []
    assert await credentials.find(environment, "r", "app", said.append) is None
    assert len(said) == 1
    assert words in said[0]


async def test_a_helpers_name_is_no_path(home: Path, environment: dict[str, str]) -> None:
    docker(home, credsStore="../../evil")
    said: list[str] = []
    assert await credentials.find(environment, "r", "app", said.append) is None
    assert "not the name of a credential helper" in said[0]


@pytest.mark.parametrize(("content", "words"), [("[1]", "not a JSON object"), ("{", "not a JSON object")])
async def test_a_broken_file_is_told(
    home: Path, environment: dict[str, str], content: str, words: str
) -> None:
    (home / ".docker/config.json").write_text(content)
    with pytest.raises(UserError, match=words):
        await find(environment, "r")
    with pytest.raises(UserError, match=words):
        await credentials.keep(environment, "r", Credential(username="a", password="b"))
    assert (home / ".docker/config.json").read_text() == content


async def test_a_broken_entry_is_told_without_its_secret(home: Path, environment: dict[str, str]) -> None:
    docker(home, auths={"r": {"auth": "bm9jb2xvbg=="}, "fine": auth("a:b")})
    with pytest.raises(UserError, match="not the base64 form") as caught:
        await find(environment, "r")
    assert "bm9j" not in str(caught.value)
    assert await find(environment, "fine") is not None


async def test_keeping_leaves_the_rest_of_the_file_as_it_was(home: Path, environment: dict[str, str]) -> None:
    path = docker(
        home, auths={"other": auth("x:y"), "https://r/v1/": auth("old:1")}, psFormat="x", plugins={"a": {}}
    )
    path.chmod(0o644)
    kept = await credentials.keep(environment, "r", Credential(username="ann", password="p:w"))
    assert kept == credentials.Kept(where=str(path), plain=True)
    assert json.loads(path.read_text()) == {
        "auths": {"other": auth("x:y"), "r": auth("ann:p:w")},
        "psFormat": "x",
        "plugins": {"a": {}},
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["config.json"]
    assert await find(environment, "r") == Credential(username="ann", password="p:w")


async def test_keeping_makes_what_is_missing_and_follows_a_link(
    home: Path, environment: dict[str, str]
) -> None:
    real = home / "dotfiles/docker.json"
    real.parent.mkdir()
    real.write_text("")
    (home / ".docker/config.json").symlink_to(real)
    await credentials.keep(environment, "docker.io", Credential(username="ann", password="p"))
    assert (home / ".docker/config.json").is_symlink()
    assert list(json.loads(real.read_text())["auths"]) == ["https://index.docker.io/v1/"]
    fresh = {**environment, "DOCKER_CONFIG": str(home / "new/place")}
    await credentials.keep(fresh, "r", Credential(username="ann", password="p"))
    assert stat.S_IMODE((home / "new/place").stat().st_mode) == 0o700


async def test_an_identity_token_is_kept_in_place_of_the_password(
    home: Path, environment: dict[str, str]
) -> None:
    await credentials.keep(
        environment, "r", Credential(username="ann", password="secret", identity_token="I")
    )
    text = (home / ".docker/config.json").read_text()
    assert json.loads(text)["auths"]["r"] == {**auth("ann:"), "identitytoken": "I"}
    assert await find(environment, "r") == Credential(username="ann", identity_token="I")


async def test_a_helper_keeps_and_forgets_and_the_file_has_no_secret(
    home: Path, environment: dict[str, str]
) -> None:
    folder = helper(home, "mine")
    path = docker(home, credsStore="mine")
    kept = await credentials.keep(environment, "r", Credential(username="ann", password="secret"))
    assert kept == credentials.Kept(where="credential helper mine", plain=False)
    assert json.loads(path.read_text()) == {"credsStore": "mine", "auths": {"r": {}}}
    assert json.loads((folder / "answer").read_text()) == {
        "ServerURL": "r",
        "Username": "ann",
        "Secret": "secret",
    }
    assert await find(environment, "r") == Credential(username="ann", password="secret")
    assert await credentials.forget(environment, "r")
    assert not (folder / "answer").exists()
    assert json.loads(path.read_text()) == {"credsStore": "mine", "auths": {}}
    assert not await credentials.forget(environment, "r")


async def test_forgetting_takes_the_host_out_of_every_file(home: Path, environment: dict[str, str]) -> None:
    podman = home / "run/containers/auth.json"
    podman.parent.mkdir(parents=True)
    podman.write_text(json.dumps({"auths": {"r": auth("a:b"), "r/team": auth("c:d")}}))
    path = docker(home, auths={"https://r/v1/": auth("a:b"), "s": auth("e:f")})
    assert await credentials.forget(environment, "r")
    assert json.loads(podman.read_text()) == {"auths": {"r/team": auth("c:d")}}
    assert json.loads(path.read_text()) == {"auths": {"s": auth("e:f")}}
    assert not await credentials.forget(environment, "r")


def test_a_credential_never_shows_its_secrets() -> None:
    shown = repr(Credential(username="ann", password="p1", identity_token="p2", registry_token="p3"))
    assert "ann" in shown
    assert not any(secret in shown for secret in ("p1", "p2", "p3"))
