"""`events`: which are shown, and how."""

from __future__ import annotations

import json

import pytest

from orchestrator.cli.events import matches, render

EVENT = {
    "event": "action",
    "stack": "shop",
    "service": "web",
    "id": "abc",
    "time": "2026-11-22T14:00:05.250Z",
    "target": "container:shop-web-1",
    "verb": "start",
    "outcome": "ok",
    "because": "db is healthy",
}


def test_a_line_says_when_what_and_why() -> None:
    line = "2026-11-22T14:00:05.250Z container:shop-web-1 start ok (db is healthy)\n"

    assert render(EVENT, as_json=False) == line
    ours = {k: v for k, v in EVENT.items() if k != "event"}
    theirs = {"type": "container", "action": "start", "attributes": {"name": "shop-web-1"}}
    assert json.loads(render(EVENT, as_json=True)) == {**ours, **theirs}


@pytest.mark.parametrize(
    ("verb", "action"),
    [("remove", "destroy"), ("exit", "die"), ("unhealthy", "health_status: unhealthy"), ("stop", "stop")],
)
def test_an_object_names_the_action_as_docker_compose_does(verb: str, action: str) -> None:
    assert json.loads(render({**EVENT, "verb": verb}, as_json=True))["action"] == action


@pytest.mark.parametrize(
    ("services", "bounds", "shown"),
    [
        ((), ("", ""), True),
        (("web",), ("", ""), True),
        (("we",), ("", ""), False),
        ((), ("2026-11-22T14:00:05.000000000Z", ""), True),
        ((), ("2026-11-22T14:00:06.000000000Z", ""), False),
        ((), ("", "2026-11-22T14:00:05.000000000Z"), False),
        ((), ("", "2026-11-22T14:00:06.000000000Z"), True),
    ],
)
def test_services_and_times_narrow_it(
    services: tuple[str, ...], bounds: tuple[str, str], *, shown: bool
) -> None:
    assert matches(EVENT, services, bounds) == shown
