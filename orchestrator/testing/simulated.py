"""A stack file under a virtual clock, for tests: no root, no image, a day in seconds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from orchestrator.cli.scope import Scope
from orchestrator.cli.simulate import breach
from orchestrator.model.stack import Stack
from orchestrator.simulation.play import Played, play
from orchestrator.simulation.scenario import Scenario
from orchestrator.simulation.script import understand
from orchestrator.simulation.shrink import shrink
from orchestrator.stackfile.read import Source

HOUR = 3600.0


class SimulatedStack:
    """One stack file. Made by the fixture `simulated_stack`."""

    def __init__(self, path: Path, *, profiles: tuple[str, ...] = ()) -> None:
        """Raises StackfileError when the file is wrong."""
        self.path = path
        self._scope = Scope(file=(str(path),), profile=profiles)
        self.stack: Stack = self._scope.load(warn=False).stack

    def scenario(self, text: str) -> Scenario:
        """A scenario as files tell it (docs/simulation.md). Raises StackfileError."""
        return understand(Source(path="scenario", text=text), self.stack, load=self._load)

    def _load(self, other: str) -> Stack:
        """Another file of the same stack; its path counts from that of the first."""
        beside = self._scope.beside(str(self.path.parent / other), name=self.stack.name)
        return beside.load(warn=False).stack

    def play(self, scenario: Scenario | str | None = None, *, seed: int = 1) -> Played:
        """One play; what it ended with is for the test to judge. None: an hour in which all goes well."""
        return play(self.stack, self._scenario(scenario), seed)

    def check(self, scenario: Scenario | str | None = None, *, seeds: Iterable[int] = range(1, 21)) -> None:
        """Play every seed. Raises AssertionError with the shortest history of the first that breaks a law."""
        understood = self._scenario(scenario)
        for seed in seeds:
            played = play(self.stack, understood, seed)
            if played.broken:
                raise AssertionError(breach(played, shrink(self.stack, played, go_on=lambda: True)))

    def _scenario(self, scenario: Scenario | str | None) -> Scenario:
        if scenario is None:
            return Scenario(lasts=HOUR)
        return self.scenario(scenario) if isinstance(scenario, str) else scenario
