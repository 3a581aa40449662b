"""The options of `up`: numbers of replicas, and what contradicts what."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.cli.arrange import arrange
from orchestrator.cli.up import check, scales
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.stack import HostRoot, Service, Stack

STACK = Stack(
    name="shop",
    services={
        "web": Service(name="web", root=HostRoot()),
        "db": Service(name="db", root=HostRoot(), container_name="the-db"),
    },
)


def test_scale_sets_the_number_of_one_service_only() -> None:
    arranged = arrange(STACK, scales(("web=3",)))

    assert {name: service.replicas for name, service in arranged.services.items()} == {"web": 3, "db": 1}
    assert arrange(STACK, {}) is STACK
    assert arrange(STACK, {"db": 0}).services["db"].replicas == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("wbe=1",), "no such service: wbe"),
        (("db=2",), "container_name"),
        (("web",), "SERVICE=N"),
        (("web=-1",), "SERVICE=N"),
        (("=2",), "SERVICE=N"),
    ],
)
def test_a_scale_that_cannot_be_is_told(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        arrange(STACK, scales(given))


@pytest.mark.parametrize(
    "wrong",
    [
        {"force_recreate": True, "no_recreate": True},
        {"abort_on_exit": True, "abort_on_failure": True},
        {"both_attach": True, "attaching": True},
        {"wait": True, "abort_on_exit": True},
        {"wait": True, "attaching": True},
        {"detach": True, "abort_on_failure": True},
        {"detach": True, "attaching": True},
    ],
)
def test_options_that_contradict_each_other_are_refused(wrong: dict[str, bool]) -> None:
    options: dict[str, Any] = dict.fromkeys(
        (
            "detach",
            "wait",
            "attaching",
            "abort_on_exit",
            "abort_on_failure",
            "both_attach",
            "force_recreate",
            "no_recreate",
        ),
        False,
    )
    check(**options)
    with pytest.raises(UserError, match="cannot be combined") as caught:
        check(**{**options, **wrong})
    assert caught.value.exit_code is ExitCode.USAGE
