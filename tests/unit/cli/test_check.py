"""`config` and `plan`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from orchestrator.api.paths import Paths
from orchestrator.cli.check import render
from tests.unit.cli import command
from tests.unit.cli.scripted import Scripted, Talk

BODY = """
name: shop
services:
  web:
    image: nginx:1
    depends_on: [db]
    ports: ["8080:80"]
  db:
    image: postgres:16
    volumes: ["data:/data"]
    command: echo $$HOME
  debug:
    image: busybox
    profiles: [tools]
volumes:
  data:
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "stack.yml").write_text(BODY)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (("--services",), "db\nweb\n"),
        (("--volumes",), "data\n"),
        (("--networks",), "default\n"),
        (("--images",), "nginx:1\npostgres:16\n"),
        (("--profiles",), "tools\n"),
        (("-q",), ""),
    ],
)
def test_one_aspect_is_a_list_of_names(root: Path, words: tuple[str, ...], out: str) -> None:
    code, got, err = command.run(root, "config", *words)

    assert (code, sorted(got.split()), err) == (0, sorted(out.split()), "")


def test_what_is_printed_is_the_stack_and_can_be_loaded_again(root: Path) -> None:
    _, text, _ = command.run(root, "config")
    again = root / "again.yml"
    again.write_text(text)

    assert yaml.safe_load(text)["services"]["db"]["command"] == ["echo", "$$HOME"]
    assert command.run(root, "config", "-f", str(again))[1] == text
    assert json.loads(command.run(root, "config", "--format", "json")[1]) == yaml.safe_load(text)


def test_named_services_come_with_what_they_need(root: Path) -> None:
    def services(*words: str) -> set[str]:
        return set(yaml.safe_load(command.run(root, "config", *words)[1])["services"])

    assert services("web") == {"web", "db"}
    assert services("db") == {"db"}
    assert services("debug") == {"debug"}


def test_it_may_go_to_a_file(root: Path) -> None:
    assert command.run(root, "config", "-o", "out.yml") == (0, "", "")
    assert yaml.safe_load((root / "out.yml").read_text())["name"] == "shop"


def test_fingerprints_change_with_the_service_and_only_then(root: Path) -> None:
    _, before, _ = command.run(root, "config", "--hash", "*")
    (root / "stack.yml").write_text(BODY.replace("nginx:1", "nginx:2"))
    _, after, _ = command.run(root, "config", "--hash", "*")
    _, one, _ = command.run(root, "config", "--hash", "db")

    old, new = (dict(line.split() for line in text.splitlines()) for text in (before, after))
    assert old["db"] == new["db"] == one.split()[1]
    assert old["web"] != new["web"]


def test_the_environment_is_that_of_interpolation(root: Path) -> None:
    (root / ".env").write_text("FROM_FILE=1\nBOTH=file\n")
    _, out, _ = command.run(root, "config", "--environment", env={"BOTH": "outside"})

    assert {"FROM_FILE=1", "BOTH=outside"} <= set(out.splitlines())


def test_what_is_wrong_is_told_with_its_place(root: Path) -> None:
    (root / "stack.yml").write_text(BODY.replace("image: nginx:1", "imge: nginx:1"))
    code, out, err = command.run(root, "config")

    assert (code, out) == (15, "")
    assert "stack.yml:5:5: error[" in err
    assert "image" in err


def test_a_plan_is_lines_in_columns_and_what_cannot_be_done() -> None:
    told = {
        "lines": [
            {"at": 0, "target": "network:shop_default", "verb": "create", "because": "missing"},
            {"at": 1.444, "target": "container:shop-web-1", "verb": "start", "because": "db is healthy"},
        ],
        "waits": [{"target": "container:x", "because": "no image y", "failed": True}],
    }

    assert render(told).splitlines() == [
        "0.00  network:shop_default  create  missing",
        "1.44  container:shop-web-1  start   db is healthy",
        "cannot  container:x  no image y",
    ]
    assert render({}) == "Nothing to do.\n"


def test_plan_asks_with_the_options_of_up(root: Path) -> None:
    def answer(talk: Talk) -> None:
        talk.end({"lines": [], "waits": [], "warnings": ["careful"]})

    with Scripted(Paths.find(str(root), {}), answer) as server:
        code, out, err = command.run(root, "plan", "--force-recreate", "--scale", "web=2", "web")

    assert (code, out, err) == (0, "Nothing to do.\n", "warning: careful\n")
    (request,) = server.requests
    assert request["stack"]["services"]["web"]["replicas"] == 2
    assert (request["verb"], request["force_recreate"], request["services"]) == ("plan", True, ["web"])
