"""`volume` and `volumes`: what is listed, what is shown, what is refused, and by which exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.paths import Paths
from orchestrator.cli.volumes import details, select
from orchestrator.model.errors import UserError
from tests.unit.cli import command
from tests.unit.cli.scripted import Scripted, Talk


def row(name: str, *users: str, key: str = "", **labels: str) -> dict[str, Any]:
    return {
        "name": name,
        "driver": "local",
        "stack": "shop",
        "key": key,
        "mountpoint": f"/v/{name}/_data",
        "created": "2026-11-22T14:00:00Z",
        "labels": labels,
        "options": {},
        "users": list(users),
    }


ROWS = [row("shop_data", "shop-db-1", key="data", kept="yes"), row("0a1b"), row("other", key="o")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "stack.yml").write_text("name: shop\nservices: {web: {image: x}}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ((), ["shop_data", "0a1b", "other"]),
        (("dangling=true",), ["0a1b", "other"]),
        (("dangling=false",), ["shop_data"]),
        (("name=o",), ["shop_data", "other"]),
        (("label=kept",), ["shop_data"]),
        (("label=kept=no",), []),
        (("dangling=true", "name=0a"), ["0a1b"]),
    ],
)
def test_filters_narrow_the_list(filters: tuple[str, ...], names: list[str]) -> None:
    assert [found["name"] for found in select(ROWS, filters)] == names


def test_a_filter_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match="'size=3' is no filter"):
        select(ROWS, ("size=3",))


def test_inspect_has_docker_s_fields() -> None:
    assert details(ROWS[0]) == {
        "CreatedAt": "2026-11-22T14:00:00Z",
        "Driver": "local",
        "Labels": {"kept": "yes"},
        "Mountpoint": "/v/shop_data/_data",
        "Name": "shop_data",
        "Options": None,
        "Scope": "local",
        "UsedBy": ["shop-db-1"],
    }


def answer(talk: Talk) -> None:
    """As a supervisor that has ROWS: of these, only those without users can be removed."""
    request = talk.request
    if request["verb"] == "volumes":
        talk.end(ROWS)
        return
    users = {found["name"]: found["users"] for found in ROWS}
    told: dict[str, Any] = {"removed": [], "errors": [], "gained": 2048}
    for name in request["names"]:
        if users[name]:
            message = f"remove {name}: volume is in use by container {users[name][0]}"
            told["errors"].append({"name": name, "message": message, "exit_code": 7})
        else:
            told["removed"].append(name)
    talk.end(told)


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (("volume", "ls"), "DRIVER    VOLUME NAME\nlocal     shop_data\nlocal     0a1b\nlocal     other\n"),
        (("volume", "ls", "-q", "-f", "name=shop"), "shop_data\n"),
        (("volumes", "-q"), "shop_data\n0a1b\nother\n"),
        (("volume", "prune", "-f"), "Deleted Volumes:\n0a1b\n\nTotal reclaimed space: 2.05kB\n"),
        (("volume", "prune", "-af"), "Deleted Volumes:\n0a1b\nother\n\nTotal reclaimed space: 2.05kB\n"),
    ],
)
def test_what_is_printed(root: Path, words: tuple[str, ...], out: str) -> None:
    with Scripted(Paths.find(str(root), {}), answer):
        assert command.run(root, *words)[:2] == (0, out)


def test_one_in_use_is_refused_by_name_and_the_others_go(root: Path) -> None:
    with Scripted(Paths.find(str(root), {}), answer):
        code, out, err = command.run(root, "volume", "rm", "shop_data", "other")
    assert (code, out) == (7, "other\n")
    assert err == "error: remove shop_data: volume is in use by container shop-db-1\n"


def test_inspect_names_those_that_there_are_not(root: Path) -> None:
    with Scripted(Paths.find(str(root), {}), answer):
        code, out, err = command.run(root, "volume", "inspect", "other", "none")
    assert (code, [found["Name"] for found in json.loads(out)]) == (1, ["other"])
    assert err == "error: get none: no such volume\n"


def test_pruning_asks_first(root: Path) -> None:
    with Scripted(Paths.find(str(root), {}), answer) as server:
        code, out, err = command.run(root, "volume", "prune")
    assert (code, out) == (0, "")
    assert err.startswith("WARNING! This will remove anonymous local volumes")
    assert server.requests == []


def test_half_a_command_names_the_whole_ones(root: Path) -> None:
    code, _, err = command.run(root, "volume")
    assert code == 2
    assert "`pystack volume prune`" in err
