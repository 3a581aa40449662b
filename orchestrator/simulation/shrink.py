"""The shortest scenario that breaks the same law: fewer events, fewer kinds of faults, plainer programs.

Greedy: what can go without the law holding again goes, until nothing more can (delta debugging with one
change at a time; Zeller and Hildebrandt 2002). Two breaches are the same when their sentences agree but for
names of containers and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from orchestrator.engines.simulated import Faults, Program
from orchestrator.model.frozen import fields, replace
from orchestrator.model.stack import Stack
from orchestrator.simulation.play import Played, play
from orchestrator.simulation.scenario import Scenario

_PARTICULARS = re.compile(r"\S*[0-9]\S*")
"""Words with a digit in them: names of containers, times."""
MOST_PLAYS = 200


def shrink(stack: Stack, played: Played, *, go_on: Callable[[], bool]) -> Played:
    """The shortest play found that breaks the law `played` broke. `go_on` is asked before each try."""
    law = kind(played.broken)
    best = played
    for _ in range(MOST_PLAYS):
        shorter = _step(stack, best, law, go_on)
        if shorter is None:
            return best
        best = shorter
    return best


def _step(stack: Stack, best: Played, law: str, go_on: Callable[[], bool]) -> Played | None:
    for scenario in simpler(best.scenario, best.ended):
        if not go_on():
            return None
        found = play(stack, scenario, best.seed)
        if found.broken and kind(found.broken) == law:
            return found
    return None


def kind(broken: str) -> str:
    """Which law a sentence tells of: what it says but for names and numbers. Pure."""
    return _PARTICULARS.sub("#", broken)


def simpler(scenario: Scenario, ended: float) -> Iterator[Scenario]:
    """Scenarios that are one step shorter or plainer, the greatest steps first. Pure."""
    if ended < scenario.lasts:
        events = tuple(event for event in scenario.events if event.at <= ended)
        yield replace(scenario, lasts=ended, events=events)
    half = len(scenario.events) // 2
    if half > 1:
        yield replace(scenario, events=scenario.events[half:])
        yield replace(scenario, events=scenario.events[:half])
    for number in range(len(scenario.events)):
        yield replace(scenario, events=scenario.events[:number] + scenario.events[number + 1 :])
    usual = Faults()
    for one in fields(Faults):
        if getattr(scenario.faults, one.name) != getattr(usual, one.name):
            yield replace(scenario, faults=replace(scenario.faults, **{one.name: getattr(usual, one.name)}))
    for name, program in scenario.programs.items():
        if program != Program():
            yield replace(
                scenario, programs={key: one for key, one in scenario.programs.items() if key != name}
            )
    if scenario.lasts > 1.0 and not scenario.events:
        yield replace(scenario, lasts=scenario.lasts / 2)
