"""What the planner says: do this now, this waits and why, look again then."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model.action import Action
from orchestrator.model.desired import Rollout
from orchestrator.model.frozen import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Something wanted that can't be done now.

    `failed` says that waiting alone won't help: the user must change something (an image that is not
    here, a dependency that is unhealthy). The reconciler still acts if the reason goes away.
    """

    target: str
    because: str
    failed: bool = False
    exit_code: int = 1
    hint: str = ""
    """Where the user may look, or what would help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`wake_at` is boot time in seconds; None: nothing will change by time alone."""

    actions: tuple[Action, ...] = ()
    waits: tuple[Wait, ...] = ()
    wake_at: float | None = None
    warnings: tuple[str, ...] = ()
    """Sentences for the user, each worth saying once (an optional dependency that failed, orphans)."""
    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    """Service -> what is to be written down of its update before more is done (`updates.accept`)."""

    @property
    def settled(self) -> bool:
        """Nothing to do, and nothing that waits for something still on its way."""
        return not self.actions and not self.rollouts and all(wait.failed for wait in self.waits)
