"""What happens to a stack, as a value."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.engines.simulated import Faults, Program, Pull
from orchestrator.model.frozen import dataclass, field
from orchestrator.model.stack import Stack

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
    oom: bool = False
    """The kernel did it, for want of memory."""

    def __str__(self) -> str:
        which = f"{self.service}-{self.slot}" if self.slot is not None else self.service
        return f"kill {which} (exit {self.exit_code}{', out of memory' if self.oom else ''})"


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
    """A service's containers, a network, a volume or an image is gone from one moment to the next."""

    at: float
    service: str = ""
    network: str = ""
    volume: str = ""
    image: str = ""

    def __str__(self) -> str:
        for word in ("network", "volume", "image"):
            if getattr(self, word):
                return f"remove {word} {getattr(self, word)}"
        return f"remove the containers of {self.service}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """Another image has come under a name that services use."""

    at: float
    image: str

    def __str__(self) -> str:
        return f"image {self.image} is another one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """For a while every action of a kind fails (a full disk, a registry that is away)."""

    at: float
    verb: str
    lasts: float = 5.0

    def __str__(self) -> str:
        return f"every {self.verb} fails for {self.lasts:g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody says: up, stop, start, restart, kill or rm of some services (none named: of all), or
    down; with the options that the command has."""

    at: float
    command: str
    services: tuple[str, ...] = ()
    stack: Stack | None = None
    """With `up`: the file says this from now on."""
    timeout: float | None = None
    volumes: bool = False
    force_recreate: bool = False
    no_recreate: bool = False
    no_deps: bool = False
    remove_orphans: bool = False

    def __str__(self) -> str:
        options = ("volumes", "force_recreate", "no_recreate", "no_deps", "remove_orphans")
        words = [f"--{name.replace('_', '-')}" for name in options if getattr(self, name)]
        words += [f"-t {self.timeout:g}"] if self.timeout is not None else []
        words += ["(a changed file)"] if self.stack is not None else []
        return " ".join((self.command, *self.services, *words))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Somebody changes how many containers services have, and says up."""

    at: float
    replicas: Mapping[str, int]

    def __str__(self) -> str:
        return " ".join(("scale", *(f"{name}={count}" for name, count in self.replicas.items())))


Event = Kill | KillSupervisor | PowerCut | Lose | NewImage | Fail | Order | Scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Times are seconds since `up` was said."""

    lasts: float = DAY
    """Then nothing breaks any more, and the stack has `healing` seconds to converge."""
    healing: float = HEALING
    programs: Mapping[str, Program] = field(default_factory=dict)
    """By service; others run until told and are healthy."""
    faults: Faults = field(default_factory=Faults)
    images: Mapping[str, Pull] = field(default_factory=dict)
    """By reference: those that are not here at the beginning. All others are."""
    cured: bool = False
    """When nothing breaks any more, programs don't either: every service has to be at rest."""
    farewell: bool = False
    """After all that somebody says `down -v`, and nothing may be left."""
    events: tuple[Event, ...] = ()
    """In order of time."""
