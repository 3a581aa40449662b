"""`plan`: what `up` would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.paths import Paths
from orchestrator.cli.plan import render
from tests.unit.cli import command
from tests.unit.cli.scripted import Scripted, Talk

BODY = "name: shop\nservices:\n  web:\n    image: nginx:1\n"


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


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"lines": [], "waits": []}, 0),
        ({"lines": [{"at": 0, "target": "network:n", "verb": "create", "because": "missing"}]}, 2),
        ({"lines": [], "waits": [{"target": "container:x", "because": "no image y", "failed": True}]}, 1),
        ({"lines": [], "waits": [{"target": "container:x", "because": "db is not healthy yet"}]}, 0),
    ],
)
def test_the_exit_code_says_whether_there_is_something_to_do(
    tmp_path: Path, told: dict[str, Any], code: int
) -> None:
    (tmp_path / "stack.yml").write_text(BODY)
    with Scripted(Paths.find(str(tmp_path), {}), lambda talk: talk.end(told)):
        assert command.run(tmp_path, "plan", "--format", "json")[0] == code


def test_plan_asks_with_the_options_of_up(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(BODY)

    def answer(talk: Talk) -> None:
        talk.end({"lines": [], "waits": [], "warnings": ["careful"]})

    with Scripted(Paths.find(str(tmp_path), {}), answer) as server:
        code, out, err = command.run(tmp_path, "plan", "--force-recreate", "--scale", "web=2", "web")

    assert (code, out, err) == (0, "Nothing to do.\n", "warning: careful\n")
    (request,) = server.requests
    assert request["stack"]["services"]["web"]["replicas"] == 2
    assert (request["verb"], request["force_recreate"], request["services"]) == ("plan", True, ["web"])
