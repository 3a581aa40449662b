"""What the user wants of a stack right now: the file, and what the commands since have said about it.

This record is the whole of the user's will. `up`, `down`, `start`, `stop`, `restart` and `run` do nothing
but write a new one and ring the bell.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from orchestrator.model.frozen import dataclass, field
from orchestrator.model.stack import Service, Stack


class Wanted(StrEnum):
    """What should be true of a service's containers."""

    RUNNING = "running"
    STOPPED = "stopped"
    """Containers are kept but no process runs (`stop`)."""
    CREATED = "created"
    """Containers exist, started or not (`create`, `up --no-start`)."""
    ABSENT = "absent"
    """No container (`down`, `rm`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What the user wants of one service.

    Counters only grow, so that an order is carried out once, also over crashes: each run remembers the
    turn it began in, each container the generation it was made in.
    """

    wanted: Wanted = Wanted.RUNNING
    turn: int = 0
    """A container whose last run began in an earlier turn and has ended is started again (`up`, `start`)."""
    under_way: tuple[float, ...] = ()
    """When the runs began for which the turn is carried out already: those that were under way as it was
    ordered, and one-shots that had succeeded."""
    insists: bool = False
    """One-shots that have succeeded run again all the same (`up NAME`, `start NAME`)."""
    restart_turn: int = 0
    """A run that began in an earlier turn is stopped and started again (`restart`)."""
    restart_because: str = ""
    """Why, when it was not the user who asked for it."""
    generation: int = 0
    """A container of an earlier generation is replaced (`--force-recreate`)."""
    keep_stale: bool = False
    """A changed definition does not replace existing containers (`--no-recreate`)."""
    stop_timeout: float | None = None
    """Replaces stop_grace_period, in seconds (`-t`)."""
    remove_volumes: bool = False
    """With `absent`: anonymous volumes go with their containers (`rm -v`)."""
    asked: float = 0.0
    """When `up` or `run` last asked for it (boot time): images that are to be refreshed are checked once
    after that."""
    ignore_dependencies: bool = False
    """`--no-deps`: start without waiting for anybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """What containers of a service were made of: a definition and an image ("" for a root that is none)."""

    service: Service
    fingerprint: str
    image_id: str
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """An update of one service by steps (`deploy.update_config`), or its way back: how far it has come.

    Decided by the planner, and written down before it is acted on: what an observation can't show (when a
    container was first good, who has failed) is known after a crash, and a verdict once reached stays.
    """

    kind: Literal["update", "rollback"] = "update"
    outcome: Literal["", "paused", "done"] = ""
    """"": under way. Whatever it is, the next `up` begins anew."""
    because: str = ""
    """Why it was paused, or why there is a rollback."""
    fingerprint: str | None = None
    """What is being brought out, with `image_id` and `generation`; None: not looked at yet."""
    image_id: str = ""
    generation: int = 0
    before: Edition | None = None
    """What the service goes back to if this fails: the latest that has come through."""
    total: int = 0
    """Containers that were to be replaced when it began."""
    slots: tuple[int, ...] = ()
    """Theirs: start-first, no new container gets one of these numbers."""
    turn: int = 0
    """The turn (`Intent.turn`) in which it began."""
    began: float = 0.0
    """Boot time; 0 after the machine was restarted."""
    ready: Mapping[str, float] = field(default_factory=dict)
    """Container id -> when it was first found good; 0 for who was there before."""
    failed: Mapping[str, float] = field(default_factory=dict)
    """Container name -> when it was found to have failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The stack as last resolved, with an Intent for each service the user has ever asked for.

    A service of the stack without an Intent was never asked for and is left as it is. A container whose
    service is in neither `stack.services` nor `stack.disabled` is an orphan.
    """

    stack: Stack
    intents: Mapping[str, Intent] = field(default_factory=dict)
    began: float = 0.0
    """When the stack was first wanted after it was last taken down (boot time). Anonymous volumes belong to
    one such life: they outlive their containers, but the next `up` after a `down` gets new ones."""
    remove_orphans: bool = False
    repair: bool = True
    """What is changed behind our back is put right; else it is only reported (`--no-repair`)."""
    down: bool = False
    """Networks go as well, when the last container is gone, and then the stack is forgotten."""
    remove_volumes: bool = False
    """With `down`: named and anonymous volumes go too, external ones never."""
    stop_timeout: float | None = None
    """For `down`: seconds of grace for every container, orphans included."""
    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    """Service -> its latest update by steps."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """Service -> id of the image it was rolled back to, whatever its reference names meanwhile."""
