"""The words of errors, as users see them: tests/golden/stackfile/messages/messages.txt.

Each entry is `## name`, a stack file, a line `--`, and what is said about it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.model.errors import ExitCode
from orchestrator.stackfile.load import demand_runnable
from orchestrator.stackfile.problem import MAX_PROBLEMS, StackfileError
from tests.unit.stackfile.given import loaded, refused, web

GOLDEN = Path(__file__).parents[2] / "golden/stackfile/messages/messages.txt"


def entries() -> list[tuple[str, str, str]]:
    found = []
    for entry in GOLDEN.read_text().split("## ")[1:]:
        name, _, rest = entry.partition("\n")
        text, _, says = rest.partition("\n--\n")
        found.append((name, text + "\n", says.rstrip("\n")))
    return found


@pytest.mark.parametrize(("name", "text", "says"), entries(), ids=[entry[0] for entry in entries()])
def test_messages(name: str, text: str, says: str) -> None:
    with pytest.raises(StackfileError) as caught:
        demand_runnable(loaded(text, files={"bad.env": "A=1\nB C=2\n"}))
    assert str(caught.value) == says
    assert caught.value.exit_code == ExitCode.INVALID_STACK


def test_problems_come_in_the_order_of_the_file() -> None:
    problems = refused(web("zzz: 1\naaa: 2"), web("user: 1"))
    assert [str(problem.place) for problem in problems] == ["1.yml:4:11", "stack.yml:4:5", "stack.yml:5:5"]


def test_no_more_than_twenty_problems_are_shown() -> None:
    assert len(refused(web("".join(f"k{n}: 1\n" for n in range(50))))) == MAX_PROBLEMS


def test_a_problem_carries_its_place_path_and_code() -> None:
    (problem,) = refused(web("ports: ['a:b']"))
    assert (problem.code, problem.path) == ("E013", "services.web.ports[0]")
    assert problem.place is not None
    assert (problem.place.line, problem.place.column, problem.place.end_column) == (4, 13, 18)


def test_warnings_carry_their_place() -> None:
    (warned,) = loaded(web("use_api_socket: true")).warnings
    assert str(warned).startswith("stack.yml:4:5: warning: services.web.use_api_socket is not supported yet")


def test_an_unset_variable_is_told_once() -> None:
    warned = loaded(web("user: '$NOPE'\nhostname: '$NOPE'")).warnings
    assert len(warned) == 1
    assert "NOPE" in warned[0].message


def test_what_is_off_or_unused_is_not_judged() -> None:
    """A service whose profile is off may ask for things that are not supported."""
    text = web("", "  off: {build: ., profiles: [dev], platform: a/b}\nnetworks: {n: {driver: macvlan}}\n")
    assert loaded(text).warnings == ()
