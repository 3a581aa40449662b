"""Histories from seeds: stacks, orders, faults and crashes; the laws hold at every moment, and in the end
the stack is what was asked for, and `down` leaves nothing.

500 of them here; PYSTACK_HISTORIES plays more, from PYSTACK_FIRST_SEED on. A seed that fails is in the name
of its test; `python -m tests.kit.histories SEED` tells it, makes it short and keeps it in tests/golden.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.model import effects
from orchestrator.model.action import Action, ProbeContainer
from orchestrator.model.desired import Desired
from orchestrator.model.observation import Observation
from orchestrator.model.plan import Plan
from orchestrator.planner.plan import plan
from orchestrator.reconciler import loop
from orchestrator.simulation.play import play
from tests.kit.histories import History, history, read

FIRST = int(os.environ.get("PYSTACK_FIRST_SEED", "0"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("PYSTACK_HISTORIES", "500")))
KEPT = sorted((Path(__file__).parents[1] / "golden" / "histories").glob("*.json"))
EVERY = 16
"""Of so many passes, one is asked once more in other words."""

NOTHING: Mapping[str, Action] = {}


class Sceptic:
    """The planner, that now and then is asked the same in another way."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(
        self, desired: Desired, world: Observation, now: float, busy: Mapping[str, Action] = NOTHING
    ) -> Plan:
        decided = plan(desired, world, now, busy)
        unsaid = [one.target for one in (*decided.actions, *decided.waits) if not one.because]
        assert not unsaid, f"{unsaid[0]}: nobody says why"
        self.count += 1
        if self.count % EVERY == 0:
            self.doubt(desired, world, now, busy, decided)
        return decided

    def doubt(
        self, desired: Desired, world: Observation, now: float, busy: Mapping[str, Action], decided: Plan
    ) -> None:
        turned = plan(desired, replace(world, containers=world.containers[::-1]), now, busy)
        assert by_target(turned) == by_target(decided), "the order of containers matters"
        assert turned.wake_at == decided.wake_at
        under_way = {action.target: action for action in decided.actions}
        then = plan(desired, world, now, {**busy, **under_way})
        again = [action.target for action in then.actions if action.target in under_way]
        assert not again, f"{again[0]} is asked for while it is under way"
        for action in decided.actions:
            if not isinstance(action, ProbeContainer):
                once = effects.expect(world, action, now)
                assert effects.expect(once, action, now) == once, f"{action.target}: done twice is not once"


def by_target(decided: Plan) -> dict[str, Action]:
    return {action.target: action for action in decided.actions}


def hold(found: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "plan", Sceptic())
    played = play(found.stack, found.scenario, found.seed)
    assert not played.broken, (
        f"seed {found.seed}: {played.broken}\n  python -m tests.kit.histories {found.seed}"
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_the_laws_hold(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(history(seed), monkeypatch)


@pytest.mark.parametrize("path", KEPT, ids=[path.stem for path in KEPT])
def test_what_once_failed_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(read(path), monkeypatch)
