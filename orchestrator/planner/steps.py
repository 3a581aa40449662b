"""A rehearsal as a list of steps that can be kept and compared. Pure.

Two rehearsals are the same when they do the same in the same order. What differs each time by itself (ids,
which are made of the time, and when things happen) does not count; names, addresses, ports, images and
definitions do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.model import codec
from orchestrator.model.action import Action, CreateContainer, RoutePorts
from orchestrator.model.desired import Desired
from orchestrator.model.frozen import dataclass, replace
from orchestrator.planner.rehearse import Line

_PASSING = frozenset({"id", "because", "run_started"})
_NAMES_ONLY = frozenset({"peers", "anonymous_volumes"})
"""Mappings of which the values are made of ids or of the time: their keys say enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that is to be done, or is refused. `digest` is of the whole action."""

    target: str
    verb: str
    because: str
    digest: str

    def __str__(self) -> str:
        return f"{self.verb} {self.target} ({self.because})"


def steps(lines: Iterable[Line]) -> tuple[Step, ...]:
    """The steps of a rehearsal, in order."""
    lines = tuple(lines)
    made = {line.action.id: line.action.name for line in lines if isinstance(line.action, CreateContainer)}
    return tuple(
        Step(target=line.target, verb=line.verb, because=line.because, digest=_of(line, made))
        for line in lines
    )


def _of(line: Line, made: Mapping[str, str]) -> str:
    """What is refused is the same as long as it is refused for the same reason."""
    return digest(line.action, made) if line.action is not None else _digest(line.because)


def digest(action: Action, made: Mapping[str, str]) -> str:
    """Of everything in an action that does not differ each time by itself. `made`: names of the containers
    that are to be made, by the ids of this rehearsal."""
    if isinstance(action, RoutePorts):
        action = replace(action, members=tuple(sorted(made.get(one, one) for one in action.members)))
    fields = codec.encode(action)
    assert isinstance(fields, dict)
    kept = {
        key: sorted(value) if key in _NAMES_ONLY and isinstance(value, dict) else value
        for key, value in fields.items()
        if key not in _PASSING
    }
    return _digest(kept)


def base(desired: Desired | None) -> str:
    """Of what was wanted before: a plan is one for this."""
    return "" if desired is None else _digest(codec.encode(desired))


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def departure(planned: Sequence[Step], now: Sequence[Step]) -> str:
    """In what the first step differs that differs, in words; "" when none does."""
    for number, (was, is_) in enumerate(zip(planned, now, strict=False), 1):
        if (was.target, was.verb, was.digest) == (is_.target, is_.verb, is_.digest):
            continue
        if (was.target, was.verb) == (is_.target, is_.verb):
            return f"step {number}, {was}, would be another one now ({is_.because})"
        return f"step {number} was {was}, and would be {is_} now"
    if len(planned) > len(now):
        return f"step {len(now) + 1}, {planned[len(now)]}, is not needed any more"
    if len(now) > len(planned):
        return f"another step would follow: {now[len(planned)]}"
    return ""
