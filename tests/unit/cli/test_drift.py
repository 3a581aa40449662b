"""`drift` and `repair`, and plans that are kept in a file."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orchestrator.api.paths import Paths
from orchestrator.cli import saved
from orchestrator.cli.drift import render
from orchestrator.model.errors import UserError
from tests.unit.cli import command
from tests.unit.cli.scripted import Scripted, Talk

BODY = "name: shop\nservices:\n  web:\n    image: nginx:1\n"
SCHEMA = json.loads((Path(__file__).parents[3] / "schemas" / "plan.json").read_text())
LIMIT = {
    "target": "container:shop-web-1",
    "service": "web",
    "what": "memory.max",
    "wanted": "67108864",
    "found": "max",
    "because": "memory.max was changed from 67108864 to max",
    "mendable": True,
}
STEP = {"target": "network:shop_default", "verb": "create", "because": "missing", "digest": "0" * 64}
TOLD = {"lines": [], "waits": [], "warnings": [], "base": "", "steps": [STEP]}


def told(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"stack": "shop", "repair": True, "differences": list(rows), "file": [], **more}


def test_drift_is_a_table() -> None:
    assert render(told(LIMIT)).splitlines() == [
        "TARGET                 WHAT         SHOULD BE   IS        BECAUSE",
        "container:shop-web-1   memory.max   67108864    max       memory.max was changed from 67108864 to max",
    ]
    assert render(told()) == "No drift.\n"


@pytest.mark.parametrize(("answer", "code"), [(told(), 0), (told(LIMIT), 2)])
def test_the_exit_code_says_whether_there_is_drift(tmp_path: Path, answer: dict[str, Any], code: int) -> None:
    (tmp_path / "stack.yml").write_text(BODY)
    with Scripted(Paths.find(str(tmp_path), {}), lambda talk: talk.end(answer)) as server:
        done, out, err = command.run(tmp_path, "drift", "--format", "json", "web")
    assert (done, json.loads(out), err) == (code, answer, "")
    (request,) = server.requests
    assert (request["verb"], request["stack"], request["services"]) == ("drift", "shop", ["web"])
    assert list(request["file"]["services"]) == ["web"]


def test_what_can_not_be_told_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(BODY)
    code, out, err = command.run(tmp_path, "drift")
    assert (code, out) == (1, "")
    assert "nothing is wanted of stack shop" in err


def test_a_file_that_has_changed_and_a_repair_that_is_off_are_said(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(BODY)
    answer = told(file=["service web: command"], repair=False)
    with Scripted(Paths.find(str(tmp_path), {}), lambda talk: talk.end(answer)):
        code, out, err = command.run(tmp_path, "drift")
    assert (code, out) == (0, "No drift.\n")
    assert "the stack file has changed since the last up: service web: command" in err
    assert "nothing is repaired (--no-repair)" in err


def test_without_a_file_the_name_is_enough(tmp_path: Path) -> None:
    with Scripted(Paths.find(str(tmp_path), {}), lambda talk: talk.end(told())) as server:
        assert command.run(tmp_path, "-p", "shop", "drift")[0] == 0
    assert server.requests[0]["file"] is None


@pytest.mark.parametrize(("words", "on"), [((), True), (("--off",), False)])
def test_repair_is_switched(tmp_path: Path, words: tuple[str, ...], on: bool) -> None:
    (tmp_path / "stack.yml").write_text(BODY)
    with Scripted(Paths.find(str(tmp_path), {}), lambda talk: talk.end()) as server:
        assert command.run(tmp_path, "repair", *words)[0] == 0
    (request,) = server.requests
    assert (request["verb"], request["stack"], request["on"]) == ("repair", "shop", on)


# --- plans in files --------------------------------------------------------------------------------------


def plan_into(tmp_path: Path, *words: str) -> Path:
    (tmp_path / "stack.yml").write_text(BODY)
    with Scripted(
        Paths.find(str(tmp_path), {}), lambda talk: talk.end({**TOLD, "lines": [{**STEP, "at": 0}]})
    ):
        assert command.run(tmp_path, "plan", "--out", "plan.json", *words)[0] == 2
    return tmp_path / "plan.json"


def test_a_plan_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    path = plan_into(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    jsonschema.validate(json.loads(path.read_text()), SCHEMA)
    assert sorted(one.name for one in tmp_path.glob("plan*")) == ["plan.json"]


def test_up_asks_for_what_the_plan_says(tmp_path: Path) -> None:
    """The stack file is not read again."""
    path = plan_into(tmp_path, "--force-recreate", "web")
    kept = json.loads(path.read_text())
    (tmp_path / "stack.yml").unlink()

    def answer(talk: Talk) -> None:
        talk.send({"event": "accepted"})
        talk.end()

    with Scripted(Paths.find(str(tmp_path), {}), answer) as server:
        code, _, err = command.run(tmp_path, "up", "-d", "--plan", "plan.json")
    assert (code, err) == (0, "")
    request = next(one for one in server.requests if one["verb"] == "up")
    assert request["stack"] == kept["stack"]
    assert request["plan"] == {"base": "", "steps": [STEP]}
    assert (request["services"], request["force_recreate"], request["repair"]) == (["web"], True, True)


@pytest.mark.parametrize(
    "words", [("web",), ("--force-recreate",), ("--scale", "web=2"), ("--no-repair",), ("--no-start",)]
)
def test_what_the_plan_has_said_is_not_said_again(tmp_path: Path, words: tuple[str, ...]) -> None:
    code, _, err = command.run(tmp_path, "up", "-d", "--plan", "plan.json", *words)
    assert code == 2
    assert "--plan says already which services, and how" in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no plan"),
        ("{", "is no plan"),
        ("[]", "is no plan"),
        ('{"format": 1}', "is damaged, or was changed by hand"),
        ('{"format": 2}', "was written by a newer pystack"),
        ("[" * 100_000, "is no plan"),
    ],
)
def test_a_file_that_is_no_plan(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as wrong:
        saved.read(str(path))
    assert str(path) in wrong.value.message


def test_a_plan_that_was_changed_by_hand(tmp_path: Path) -> None:
    path = plan_into(tmp_path)
    assert saved.read(str(path))["steps"] == [STEP]
    path.write_text(path.read_text().replace("nginx:1", "nginx:2"))
    with pytest.raises(UserError, match="is damaged, or was changed by hand"):
        saved.read(str(path))


@pytest.mark.parametrize(
    "part",
    [
        {"stack": {"name": 5}},
        {"options": []},
        {"options": {"plan": {}}},
        {"steps": 5},
        {"steps": [{"verb": 5}]},
    ],
    ids=["stack", "list", "other", "steps", "step"],
)
def test_a_plan_with_a_right_sum_that_makes_no_sense(tmp_path: Path, part: dict[str, Any]) -> None:
    path = plan_into(tmp_path)
    kept = json.loads(path.read_text())
    options = part.get("options", kept["options"])
    request = {**kept, **part, "options": dict.fromkeys(saved.OPTIONS)}
    whole = {**saved.document({**request, **request["options"]}, TOLD), "options": options}
    whole["steps"] = part.get("steps", whole["steps"])
    whole["sum"] = saved._sum({name: value for name, value in whole.items() if name != "sum"})
    path.write_text(json.dumps(whole))
    code, _, err = command.run(tmp_path, "up", "-d", "--plan", "plan.json")
    assert code == 1
    assert "plan.json can't be understood" in err


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError) as wrong:
        saved.read(str(tmp_path / "no.json"))
    assert wrong.value.exit_code == 14


def test_what_is_fetched_ahead_is_no_other_plan_and_what_else_moves_is() -> None:
    kept = [
        ("image:x", "pull"),
        ("container:a", "create"),
        ("container:b", "probe"),
        ("container:b", "start"),
    ]
    steps = [{"target": target, "verb": verb} for target, verb in kept]
    assert saved._done(steps) == saved._done([steps[3], steps[1]])
    assert saved._done(steps) != saved._done(steps[:3])
    assert saved._done(steps) != saved._done([*steps, {"target": "container:c", "verb": "remove"}])
