"""Whose waiting a command tells of."""

from __future__ import annotations

import pytest

from orchestrator.api.telling import concerns
from orchestrator.model.desired import Desired
from orchestrator.model.plan import Plan, Wait
from orchestrator.reconciler.loop import View
from tests.kit.stacks import converge, down, nothing, service, stack, up, wanting

WISH = stack(db=service(), web=service())
UP = up(WISH)
THERE = converge(UP, nothing())


def view(desired: Desired, *, there: bool) -> View:
    return View(number=1, revision=1, desired=desired, observation=THERE if there else nothing(), plan=Plan())


@pytest.mark.parametrize("there", [True, False])
def test_a_command_about_some_services_tells_of_these_alone(there: bool) -> None:
    """Also of containers that are still to be made."""
    seen, wait = view(UP, there=there), Wait(target="container:shop-web-1", because="db is unhealthy")
    assert concerns(seen, wait, ("web",), starting=True)
    assert concerns(seen, wait, (), starting=True)
    assert not concerns(seen, wait, ("db",), starting=True)


def test_a_stop_does_not_care_for_what_could_not_be_started() -> None:
    wait = Wait(target="container:shop-web-1", because="db is not healthy", failed=True)
    assert not concerns(view(wanting(UP, "db", wanted="stopped"), there=True), wait, ("db",), starting=False)
    assert not concerns(view(UP, there=True), wait, (), starting=False)
    for leaving in (wanting(UP, "web", wanted="absent"), down(WISH)):
        assert concerns(view(leaving, there=True), wait, (), starting=False)


def test_networks_and_volumes_are_everybody_s_business() -> None:
    wait = Wait(target="network:shop_default", because="no range is free", failed=True)
    assert concerns(view(UP, there=True), wait, ("db",), starting=False)
