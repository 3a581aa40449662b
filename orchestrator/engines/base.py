"""The engine port."""

from __future__ import annotations

from typing import Protocol

from orchestrator.model.action import Action
from orchestrator.model.observation import Observation


class Engine(Protocol):
    """A place where the containers of one stack can live."""

    async def observe(self) -> Observation:
        """What is true now. Cheap: called after every event. `failures` is left empty (the loop's)."""
        ...

    async def apply(self, action: Action) -> None:
        """Perform one action; repeatable. Returns when its effect is observable.

        Raises EngineError when the world refuses; then nothing half-done is left that a repetition or a
        removal could not handle.
        """
        ...

    async def changed(self) -> None:
        """Return as soon as something may have changed since the last `observe` began (the bell)."""
        ...
