"""What happens to a stack, as a value."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.engines.simulated import Faults, Program
from orchestrator.model.frozen import dataclass, field

HEALING = 600.0
"""Seconds of peace that a stack has to converge in at the end, unless the scenario says otherwise."""
DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """The process of a service's container dies. `slot` None: of every one."""

    at: float
    service: str
    slot: int | None = None
    exit_code: int = 137

    def __str__(self) -> str:
        which = f"{self.service}-{self.slot}" if self.slot is not None else self.service
        return f"kill {which} (exit {self.exit_code})"


@dataclass(frozen=True, slots=True, kw_only=True)
class KillSupervisor:
    """The supervisor dies in the middle of whatever it does, and comes back `absent` seconds later."""

    at: float
    absent: float = 1.0

    def __str__(self) -> str:
        return f"kill the supervisor for {self.absent:g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerCut:
    """Every process dies, the supervisor too; records stay."""

    at: float
    absent: float = 10.0

    def __str__(self) -> str:
        return f"power cut for {self.absent:g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lose:
    """A container, or a network of the stack, is gone from one moment to the next."""

    at: float
    service: str = ""
    network: str = ""

    def __str__(self) -> str:
        return (
            f"remove network {self.network}" if self.network else f"remove the containers of {self.service}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody says: up, stop, start or restart of some services (none named: of all), or down."""

    at: float
    command: str
    services: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.command, *self.services))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Somebody changes how many containers services have, and says up."""

    at: float
    replicas: Mapping[str, int]

    def __str__(self) -> str:
        return " ".join(("scale", *(f"{name}={count}" for name, count in self.replicas.items())))


Event = Kill | KillSupervisor | PowerCut | Lose | Order | Scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Times are seconds since `up` was said."""

    lasts: float = DAY
    """Then nothing breaks any more, and the stack has `healing` seconds to converge."""
    healing: float = HEALING
    programs: Mapping[str, Program] = field(default_factory=dict)
    """By service; others run until told and are healthy."""
    faults: Faults = field(default_factory=Faults)
    events: tuple[Event, ...] = ()
    """In order of time."""
