"""The stack's name without parsing YAML: never another one than the loader would find."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli import peek
from orchestrator.cli.scope import Scope
from orchestrator.model.names import STACK_NAME, normalise_stack_name
from orchestrator.stackfile import discover

BODY = "services:\n  web:\n    image: x\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (BODY, None),
        (f"name: shop\n{BODY}", "shop"),
        (f"{BODY}name: shop\n", "shop"),
        (f"# name: no\n---\nname: 'Shop' # yes\n{BODY}", "Shop"),
        (f'name: "shop"\n{BODY}', "shop"),
        (f"{BODY}x-a:\n  name: inner\n", None),
        (f"name: shop\r\n{BODY}", "shop"),
    ],
)
def test_a_plain_name_is_read(text: str, name: str | None) -> None:
    assert peek.written_name(text.encode()) == name


@pytest.mark.parametrize(
    "text",
    [
        f"name: ${{NAME}}\n{BODY}",
        f"name: $NAME\n{BODY}",
        f"name: 123\n{BODY}",
        f"name: null\n{BODY}",
        f"name: true\n{BODY}",
        f"name:\n  shop\n{BODY}",
        f"name: >\n  shop\n{BODY}",
        f"name: &a shop\n{BODY}",
        f"name: a\nname: b\n{BODY}",
        f'"name": shop\n{BODY}',
        f"? name\n: shop\n{BODY}",
        "{name: shop, services: {}}",
        f"name: a\n{BODY}---\nname: b\n",
        f"%YAML 1.2\n---\nname: a\n{BODY}",
        f"\ufeffname: a\n{BODY}",
        f"\tname: a\n{BODY}",
        f"name: a b\n{BODY}",
        f"name: 'a' b\n{BODY}",
        f"name: x\n{BODY}" + "#" * peek.SIZE_LIMIT,
    ],
)
def test_in_doubt_nothing_is_said(text: str) -> None:
    found = peek.written_name(text.encode())

    assert found is peek.UNSURE or found is None
    assert found is peek.UNSURE or not text.startswith("name")


@given(st.text(max_size=30))
def test_names_are_normalised_and_checked_as_the_loader_does(text: str) -> None:
    assert peek.normalise(text) == normalise_stack_name(text)
    assert peek.allowed(text) == bool(STACK_NAME.fullmatch(text))


def test_the_same_files_are_looked_for() -> None:
    assert peek.CANDIDATES == discover.NAMES
    assert peek.OVERRIDES == discover.OVERRIDES


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder called My Proj.X to stand in, and no variable that matters."""
    for variable in ("COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_ENV_FILES", "COMPOSE_PROFILES"):
        monkeypatch.delenv(variable, raising=False)
    path = tmp_path / "My Proj.X"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.mark.parametrize(
    ("files", "quick"),
    [
        ({"stack.yml": BODY}, True),
        ({"stack.yml": f"name: Shop.1\n{BODY}"}, True),
        ({"stack.yml": f"name: ${{N:-fallback}}\n{BODY}"}, False),
        ({"compose.yaml": f"name: a\n{BODY}", "docker-compose.yml": f"name: b\n{BODY}"}, True),
        ({"stack.yml": f"name: a\n{BODY}", "stack.override.yml": "name: b\n"}, False),
        ({"stack.yml": BODY, ".env": "A=1\n"}, True),
        ({"stack.yml": BODY, ".env": "COMPOSE_PROJECT_NAME=fromenv\n"}, False),
        ({"stack.yml": BODY, ".env": "COMPOSE_FILE=other.yml\n", "other.yml": f"name: o\n{BODY}"}, False),
        ({"../stack.yml": f"name: above\n{BODY}"}, True),
    ],
)
def test_the_quick_answer_is_the_loaders(folder: Path, files: dict[str, str], quick: bool) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    scope = Scope()

    assert (scope._peeked_name() is not None) == quick
    assert scope.name() == scope.load().stack.name


@pytest.mark.parametrize("variable", [None, "COMPOSE_PROJECT_NAME"])
def test_a_name_that_was_said_beats_the_file_and_must_be_proper(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    (folder / "stack.yml").write_text(f"name: a\n{BODY}")

    def scope(name: str) -> Scope:
        if variable:
            monkeypatch.setenv(variable, name)
            return Scope()
        return Scope(project_name=name)

    assert scope("said").name() == "said"
    with pytest.raises(Exception, match="Bad Name"):
        scope("Bad Name").name()


def test_several_files_the_last_name_wins(folder: Path) -> None:
    (folder / "a.yml").write_text(f"name: a\n{BODY}")
    (folder / "b.yml").write_text("name: b\n")
    (folder / "c.yml").write_text(BODY)
    scope = Scope(file=("a.yml", "b.yml", "c.yml"))

    assert scope._peeked_name() == "b" == scope.load().stack.name
