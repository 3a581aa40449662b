"""Which files, which project directory, which variables, which name: Compose's rules."""

from __future__ import annotations

import pytest

from orchestrator.model.errors import ExitCode
from orchestrator.stackfile.discover import Located, discover, locate
from orchestrator.stackfile.load import Given, load
from orchestrator.stackfile.problem import StackfileError
from tests.unit.stackfile.given import Disk

STACK = "services: {web: {image: x}}\n"


def located(
    texts: dict[str, str], cwd: str = "/p/app", env: dict[str, str] | None = None, **said: object
) -> Located:
    return locate(Disk(texts=texts), cwd=cwd, environment=env or {}, **said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        (["compose.yaml", "stack.yml"], "stack.yml"),
        (["stack.yaml", "compose.yaml"], "stack.yaml"),
        (["docker-compose.yml", "compose.yml"], "compose.yml"),
        (["docker-compose.yaml", "docker-compose.yml"], "docker-compose.yml"),
    ],
)
def test_the_order_of_names(present: list[str], chosen: str) -> None:
    assert discover(Disk(texts={f"/p/{name}": "" for name in present}), "/p") == (f"/p/{chosen}",)


def test_parents_are_looked_through() -> None:
    found = located({"/p/stack.yml": STACK}, cwd="/p/a/b")
    assert (found.sources[0].path, found.working_dir) == ("/p/stack.yml", "/p")


def test_the_override_beside_the_file_is_added_whatever_its_name() -> None:
    found = discover(Disk(texts={"/p/compose.yaml": "", "/p/docker-compose.override.yml": ""}), "/p")
    assert found == ("/p/compose.yaml", "/p/docker-compose.override.yml")


def test_no_override_is_added_to_files_that_are_named() -> None:
    found = located({"/p/app/a.yml": STACK, "/p/app/stack.override.yml": STACK}, paths=["a.yml"])
    assert [source.path for source in found.sources] == ["a.yml"]


def test_several_candidates_are_told() -> None:
    found = located({"/p/app/stack.yml": STACK, "/p/app/compose.yaml": STACK})
    assert "compose.yaml" in found.warnings[0].message


def test_no_file_at_all_is_an_error_with_its_own_exit_code() -> None:
    with pytest.raises(StackfileError) as caught:
        located({})
    assert caught.value.exit_code == ExitCode.FILE_NOT_FOUND
    assert "-f FILE" in caught.value.problems[0].hint


def test_a_named_file_that_is_not_there() -> None:
    with pytest.raises(StackfileError, match=r"nope\.yml: there is no such file") as caught:
        located({}, paths=["nope.yml"])
    assert caught.value.exit_code == ExitCode.FILE_NOT_FOUND


def test_the_project_directory_is_that_of_the_first_file() -> None:
    found = located(
        {"/p/x/a.yml": STACK, "/p/y/b.yml": STACK, "/p/x/.env": "A=1"}, paths=["../x/a.yml", "../y/b.yml"]
    )
    assert found.working_dir == "/p/x"
    assert found.dotenv == {"A": "1"}


def test_the_project_directory_can_be_named() -> None:
    found = located({"/p/x/a.yml": STACK, "/q/.env": "A=1"}, paths=["/p/x/a.yml"], project_directory="/q")
    assert (found.working_dir, found.dotenv) == ("/q", {"A": "1"})


def test_env_files_replace_the_default_one_and_later_ones_win() -> None:
    texts = {"/p/app/stack.yml": STACK, "/p/app/.env": "A=0\nC=0", "/p/app/a": "A=1\nB=1", "/p/app/b": "B=2"}
    assert located(texts, env_files=["a", "b"]).dotenv == {"A": "1", "B": "2"}
    assert located(texts, env={"COMPOSE_ENV_FILES": "a,b"}).dotenv == {"A": "1", "B": "2"}
    assert located(texts, env={"COMPOSE_DISABLE_ENV_FILE": "1"}).dotenv == {}


@pytest.mark.parametrize(
    ("said", "read"), [("1", False), ("T", False), ("true", False), ("0", True), ("", True)]
)
def test_the_default_env_file_is_turned_off_as_go_reads_yes_and_no(said: str, read: bool) -> None:
    texts = {"/p/app/stack.yml": STACK, "/p/app/.env": "A=0"}
    assert located(texts, env={"COMPOSE_DISABLE_ENV_FILE": said}).dotenv == ({"A": "0"} if read else {})


def test_a_word_that_is_neither_yes_nor_no_is_refused() -> None:
    with pytest.raises(StackfileError, match="COMPOSE_DISABLE_ENV_FILE is 'off'"):
        located({"/p/app/stack.yml": STACK, "/p/app/.env": "A=0"}, env={"COMPOSE_DISABLE_ENV_FILE": "off"})


def test_a_named_env_file_is_read_though_the_default_one_is_off() -> None:
    texts = {"/p/app/stack.yml": STACK, "/p/app/.env": "A=0", "/p/app/e": "A=1"}
    off = {"COMPOSE_DISABLE_ENV_FILE": "1"}
    assert located(texts, env=off, env_files=["e"]).dotenv == {"A": "1"}
    assert located(texts, env=off | {"COMPOSE_ENV_FILES": "e"}).dotenv == {"A": "1"}


def test_of_two_override_files_docker_composes_first_is_taken_and_both_are_told() -> None:
    """The order of the endings is another than that of the stack files."""
    texts = dict.fromkeys(
        ["/p/app/compose.yml", "/p/app/compose.override.yaml", "/p/app/compose.override.yml"], STACK
    )
    found = located(texts)
    assert [source.path for source in found.sources] == ["compose.yml", "compose.override.yml"]
    assert "compose.override.yaml" in found.warnings[0].message


def test_the_separator_of_compose_file_may_stand_in_dotenv_too() -> None:
    texts = {
        "/p/app/.env": "COMPOSE_FILE=a.yml|b.yml\nCOMPOSE_PATH_SEPARATOR=|\n",
        "/p/app/a.yml": STACK,
        "/p/app/b.yml": STACK,
    }
    assert [source.path for source in located(texts).sources] == ["a.yml", "b.yml"]


def test_standard_input_may_stand_between_files() -> None:
    found = located({"-": STACK, "/p/x/a.yml": STACK}, paths=["/p/x/a.yml", "-"])
    assert ([source.path for source in found.sources], found.working_dir) == (["/p/x/a.yml", "-"], "/p/x")


def test_an_env_file_that_is_not_there() -> None:
    with pytest.raises(StackfileError, match="nope"):
        located({"/p/app/stack.yml": STACK}, env_files=["nope"])


def test_an_env_file_with_an_error_names_its_line() -> None:
    with pytest.raises(StackfileError, match=r"e:2:1: error\[E022\]"):
        located({"/p/app/stack.yml": STACK, "/p/app/e": "A=1\nB C=2"}, env_files=["e"])


def test_compose_file_names_the_files_also_from_dotenv() -> None:
    texts = {
        "/p/app/.env": "COMPOSE_FILE=x/a.yml:b.yml\nV=here",
        "/p/app/x/a.yml": STACK,
        "/p/app/b.yml": STACK,
    }
    found = located(texts | {"/p/app/x/.env": "V=there\nW=1"})
    assert [source.path for source in found.sources] == ["x/a.yml", "b.yml"]
    assert found.working_dir == "/p/app/x"
    assert (found.dotenv["V"], found.dotenv["W"]) == ("here", "1")


def test_the_environment_wins_over_dotenv() -> None:
    texts = {"/p/app/.env": "COMPOSE_FILE=a.yml", "/p/app/a.yml": STACK, "/p/app/b.yml": STACK}
    assert located(texts, env={"COMPOSE_FILE": "b.yml"}).sources[0].path == "b.yml"


def test_the_name_comes_from_the_command_line_then_the_environment() -> None:
    texts = {"/p/app/stack.yml": STACK, "/p/app/.env": "COMPOSE_PROJECT_NAME=dot"}
    assert located(texts, name="flag", env={"COMPOSE_PROJECT_NAME": "os"}).name == "flag"
    assert located(texts, env={"COMPOSE_PROJECT_NAME": "os"}).name == "os"
    assert located(texts).name == "dot"
    assert located(texts, env={"COMPOSE_PROJECT_NAME": ""}).name is None


def test_profiles_of_the_command_line_replace_those_of_the_environment() -> None:
    texts = {"/p/app/stack.yml": STACK}
    env = {"COMPOSE_PROFILES": "test, debug"}
    assert located(texts, env=env).profiles == ("test", "debug")
    assert located(texts, env=env, profiles=["p"]).profiles == ("p",)


def test_standard_input_is_a_file_of_the_current_directory() -> None:
    found = located({"-": STACK}, paths=["-"])
    assert (found.sources[0].text, found.working_dir) == (STACK, "/p/app")


def test_what_is_located_can_be_loaded() -> None:
    texts = {"/p/app/stack.yml": "services: {web: {image: '${I}'}}", "/p/app/.env": "I=busybox"}
    found = located(texts)
    stack = load(
        found.sources,
        Given(
            files=Disk(texts=texts),
            environment={},
            working_dir=found.working_dir,
            name=found.name,
            profiles=found.profiles,
            dotenv=found.dotenv,
        ),
    ).stack
    assert stack.name == "app"
    assert stack.services["web"].root.reference == "busybox"  # type: ignore[union-attr]
