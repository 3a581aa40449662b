"""The plan in the making."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model.action import Action, verb
from orchestrator.model.desired import Rollout
from orchestrator.model.observation import Failure
from orchestrator.model.plan import Plan, Wait

FIRST_RETRY = 0.2
LONGEST_RETRY = 30.0
WORTH_SAYING = 6
"""After so many failures in a row (about six seconds) the user is told, though we go on trying."""


class Draft:
    """Collects actions, waits and warnings of one pass.

    What is under way is left alone, and what failed lately waits for its next try: both in one place, so
    that no rule can forget it.
    """

    def __init__(self, now: float, in_flight: Mapping[str, Action], failures: Mapping[str, Failure]) -> None:
        self.now = now
        self._in_flight = in_flight
        self._failures = failures
        self._actions: dict[str, Action] = {}
        self._waits: dict[str, Wait] = {}
        self._warnings: dict[str, None] = {}
        self._rollouts: dict[str, Rollout] = {}
        self._wake_at: float | None = None

    def act(self, action: Action) -> None:
        """Ask for `action` now, or say why it has to wait for its next try."""
        target = action.target
        if target in self._in_flight or target in self._actions:
            return
        failure = self._failures.get(target)
        if failure is None or failure.verb not in ("", verb(action)) or not self._held_up(failure):
            self._actions[target] = action

    def _held_up(self, failure: Failure) -> bool:
        if not failure.retryable:
            self.refuse(failure.target, failure.because, failure.exit_code, failure.hint)
            return True
        due = failure.at + (LONGEST_RETRY if failure.lasting else retry_delay(failure.count))
        if due <= self.now:
            return False
        self.wake(due)
        hopeless = failure.lasting or failure.count >= WORTH_SAYING
        again = "still trying" if hopeless else f"trying again in {due - self.now:.1f} s"
        because = f"{failure.because}; {again} (failed {failure.count}x)"
        self._waits[failure.target] = Wait(
            target=failure.target,
            because=failure.because if failure.lasting else because,
            failed=hopeless,
            exit_code=failure.exit_code,
            hint=failure.hint,
        )
        return True

    def wait(self, target: str, because: str) -> None:
        self._waits.setdefault(target, Wait(target=target, because=because))

    def refuse(self, target: str, because: str, exit_code: int = 1, hint: str = "") -> None:
        """Waiting alone won't help."""
        self._waits[target] = Wait(
            target=target, because=because, failed=True, exit_code=exit_code, hint=hint
        )

    def refusal(self, target: str) -> Wait | None:
        found = self._waits.get(target)
        return found if found is not None and found.failed else None

    def warn(self, sentence: str) -> None:
        self._warnings[sentence] = None

    def note(self, service: str, rollout: Rollout) -> None:
        """How far the update of `service` has come, to be written down."""
        self._rollouts[service] = rollout

    def wake(self, at: float) -> None:
        self._wake_at = at if self._wake_at is None else min(self._wake_at, at)

    def finish(self) -> Plan:
        for target, action in self._in_flight.items():
            if not target.startswith("probe:"):
                self.wait(target, f"{verb(action)} is under way")
        return Plan(
            actions=tuple(self._actions.values()),
            waits=tuple(self._waits.values()),
            wake_at=self._wake_at,
            warnings=tuple(self._warnings),
            rollouts=self._rollouts,
        )


def retry_delay(count: int) -> float:
    """Seconds between the `count`-th failure in a row and the next try."""
    return float(min(FIRST_RETRY * 2 ** min(count - 1, 20), LONGEST_RETRY))
