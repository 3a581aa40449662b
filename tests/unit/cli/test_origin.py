"""`config --explain`: where a value comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli import command

FILES = {
    "compose.yml": """include: [inc/db.yml]
services:
  web:
    extends: {file: base.yml, service: app}
    image: nginx:${TAG:-1.2}
    environment: {B: two}
    ports: ["8080:80"]
""",
    "base.yml": "services:\n  app:\n    image: base\n    environment: [B=one, C=three]\n",
    "inc/db.yml": "services:\n  db: {image: pg}\n",
    "compose.override.yml": "services:\n  web:\n    image: !override nginx:9\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "inc").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def explained(root: Path, path: str) -> list[str]:
    code, out, err = command.run(root, "config", "--explain", path, env={"TAG": "2"})
    assert (code, err) == (0, "")
    return out.splitlines()


def test_every_step_has_its_place_and_what_it_said(root: Path) -> None:
    assert explained(root, "services.web.image") == [
        'services.web.image: "nginx:9"',
        '  base.yml:3:12              written here; extended by service web in compose.yml:4: "base"',
        '  compose.yml:5:12           replaces what was there: "nginx:${TAG:-1.2}"',
        '                             variables filled in; TAG from the environment: "nginx:2"',
        '  compose.override.yml:3:12  !override replaces what was there: "nginx:9"',
    ]
    assert explained(root, "services.db.image") == [
        'services.db.image: "pg"',
        '  inc/db.yml:2:15  written here; included from compose.yml:1: "pg"',
    ]


def test_a_variable_without_a_value_takes_the_place_of_one_with_a_value(root: Path) -> None:
    (root / "compose.override.yml").write_text("services:\n  web:\n    environment: {C: }\n")

    assert explained(root, "services.web.environment.C")[-1] == (
        "  compose.override.yml:3:19  replaces what was there: null"
    )


def test_below_a_mapping_every_value_has_its_place(root: Path) -> None:
    lines = explained(root, "services.web")
    below = lines[lines.index("") + 1 :]

    assert sorted(line.split(maxsplit=1)[1] for line in below) == [
        'services.web.environment.B: "two"',
        'services.web.environment.C: "three"',
        'services.web.image: "nginx:9"',
        "services.web.networks.default: null",
        'services.web.ports[0]: {"mode": "ingress", "target": 80, "published": "8080", "protocol": "tcp"}',
    ]
    assert {line.split()[0] for line in below} == {
        "compose.yml:6:22",
        "base.yml:4:26",
        "compose.override.yml:3:12",
        "(default)",
        "compose.yml:7:13",
    }


def test_the_same_for_programs(root: Path) -> None:
    _, out, _ = command.run(root, "config", "--explain", "services.web.environment", "--format", "json")
    story = json.loads(out)

    assert story["value"] == {"B": "two", "C": "three"}
    assert [(step["step"], step["file"], step["line"]) for step in story["steps"]] == [
        ("written", "base.yml", 4),
        ("merged", "compose.yml", 6),
    ]
    assert story["steps"][0]["via"] == ["extended by service web in compose.yml:4"]
    assert {row["path"]: (row["file"], row["value"]) for row in story["below"]} == {
        "services.web.environment.B": ("compose.yml", "two"),
        "services.web.environment.C": ("base.yml", "three"),
    }


def test_a_path_that_is_not_there_has_a_neighbour(root: Path) -> None:
    code, out, err = command.run(root, "config", "--explain", "services.web.imag")

    assert (code, out) == (2, "")
    assert "did you mean 'services.web.image'?" in err
