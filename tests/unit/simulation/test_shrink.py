"""What is left of a scenario when all that does not matter is taken out."""

from __future__ import annotations

from orchestrator.engines.simulated import Faults, Program
from orchestrator.simulation.scenario import Kill, PowerCut, Scenario
from orchestrator.simulation.shrink import simpler

RICH = Scenario(
    lasts=100.0,
    faults=Faults(late=0.1, retryable=0.2),
    programs={"db": Program(crashes_every=5.0)},
    events=tuple(Kill(at=float(at), service="web") for at in range(10, 50, 10)),
)


def test_each_step_is_shorter_or_plainer_and_all_can_go() -> None:
    """By steps alone a scenario becomes one in which nothing happens."""
    scenario, steps = RICH, 0
    while scenario.events or scenario.programs or scenario.faults != Faults():
        scenario = next(simpler(scenario, scenario.lasts))
        steps += 1
    assert steps <= 8
    halves = list(simpler(RICH, 100.0))
    assert halves[0].events == RICH.events[2:]
    assert halves[1].events == RICH.events[:2]


def test_what_comes_after_the_breach_goes_first() -> None:
    first = next(simpler(RICH, 25.0))
    assert first.lasts == 25.0
    assert first.events == RICH.events[:2]


def test_a_single_event_is_tried_without() -> None:
    one = Scenario(lasts=10.0, events=(PowerCut(at=1.0),))
    assert [found.events for found in simpler(one, 10.0)] == [()]
