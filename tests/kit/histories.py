"""Histories from a seed: a stack, what somebody says of it, what breaks, and when. Pure.

The same seed is the same history as long as this file is as it is; what once failed is kept as a value, in
tests/golden/histories.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.engines.simulated import Faults, Program, Pull
from orchestrator.model import codec
from orchestrator.model.frozen import replace as changed
from orchestrator.model.graph import needs
from orchestrator.model.sections import InitContainer
from orchestrator.model.stack import (
    Attachment,
    OfService,
    RestartPolicy,
    Service,
    Stack,
)
from orchestrator.simulation.scenario import (
    Event,
    Fail,
    Kill,
    KillSupervisor,
    Lose,
    NewImage,
    Order,
    PowerCut,
    Scale,
    Scenario,
)
from tests.kit.stacks import check, network, policy, port, service, stack, steps

CONDITIONS = (
    "started",
    "started",
    "started!",
    "healthy",
    "healthy!",
    "completed",
    "started?",
    "healthy?",
    "completed?",
)
POLICIES = ("no", "always", "always", "on-failure", "on-failure:2", "unless-stopped")
IMAGES = ("", "", "app", "db", "tool")
LATER = ("late:1", "late:2")
"""Images that are not here at the beginning."""


@dataclass(frozen=True, kw_only=True)
class History:
    """`why`: of one that is kept, what it once broke."""

    seed: int
    stack: Stack
    scenario: Scenario
    why: str = ""


def history(seed: int) -> History:
    """The history that a seed stands for."""
    chance = random.Random(seed)
    first = _stack(chance)
    lasts = chance.choice([1.0, 5.0, 15.0, 40.0])
    delay = chance.choice([0.001, 0.05, 0.5, 3.0])
    scenario = Scenario(
        lasts=lasts,
        healing=600.0,
        cured=chance.random() < 0.6,
        farewell=True,
        programs={f"s{n}": _program(chance) for n in range(7) if chance.random() < 0.7},
        faults=Faults(
            retryable=chance.choice([0.0, 0.0, 0.05, 0.3]),
            permanent=0.0,
            late=chance.choice([0.0, 0.0, 0.05, 0.2]),
            delay=(0.0, delay),
            observe_delay=(0.0, chance.choice([0.0, 0.0, 0.01, 0.1])),
        ),
        images={
            name: Pull(takes=chance.choice([0.1, 3.0]), fails=chance.choice([0, 0, 2])) for name in LATER
        },
        events=_events(chance, first, lasts),
    )
    return History(seed=seed, stack=first, scenario=scenario)


# --- stacks ----------------------------------------------------------------------------------------------


def _stack(chance: random.Random) -> Stack:
    names = [f"s{number}" for number in range(chance.choice([1, 2, 2, 3, 3, 4, 5, 6]))]
    services: dict[str, Service] = {}
    for number, name in enumerate(names):
        services[name] = _service(chance, names[:number], number)
    return _whole(chance, services)


def _whole(chance: random.Random, services: dict[str, Service]) -> Stack:
    networks = {}
    if chance.random() < 0.3:
        networks["back"] = network(chance.choice(["10.9.0.0/24", "10.8.0.0/24"]))
    disabled = ("off",) if chance.random() < 0.2 else ()
    return stack("shop", networks=networks, disabled=disabled, **services)


def _service(chance: random.Random, earlier: list[str], number: int) -> Service:
    after = {name: chance.choice(CONDITIONS) for name in earlier if chance.random() < 0.35}
    shared = chance.choice(earlier) if earlier and chance.random() < 0.12 else ""
    fields: dict[str, Any] = {}
    if shared:
        word = chance.choice(["network_mode", "pid", "ipc"])
        fields[word] = OfService(service=shared)
    made = service(
        image=chance.choice((*IMAGES, *LATER)) if chance.random() < 0.6 else "",
        after=after,
        ports=() if "network_mode" in fields else _ports(chance, number),
        networks=chance.choice([("default",), ("default",), ("default", "back"), ("back",), ()]),
        volumes=chance.choice([(), (), ("data:/d",), (f"own{number}:/d", "/scratch"), ("/scratch",)]),
        healthcheck=_check(chance),
        replicas=chance.choice([0, 1, 1, 1, 1, 2, 3]),
        stop_grace_period=chance.choice([0.0, 0.5, 3.0, 10.0]),
        stop_signal=chance.choice([None, None, "SIGINT"]),
        user=chance.choice([None, "1"]),
        pull_policy=chance.choice(["", "", "", "always", "never", "missing"]),
        **fields,
    )
    made = replace(made, restart=_policy(chance), deploy=_deploy(chance), pre_start=_steps(chance))
    if chance.random() < 0.08 and made.replicas < 2:
        made = replace(made, container_name=f"the-{number}")
    return made


def _ports(chance: random.Random, number: int) -> tuple[str, ...]:
    """Each service has numbers of its own, and room for as many containers as there may be."""
    base = 9000 + 100 * number
    return chance.choice(
        [
            (),
            (),
            (":80",),
            (f"{base + 70}:80",),
            (f"{base}-{base + 20}:80",),
            (":80", f"{base + 30}-{base + 60}:81/udp"),
        ]
    )


def _deploy(chance: random.Random) -> Any:
    """update_config, for some."""
    if chance.random() < 0.75:
        return None
    return steps(
        parallelism=chance.choice([0, 1, 2]),
        delay=chance.choice([0.0, 0.0, 1.0]),
        order=chance.choice(["start-first", "stop-first"]),
        monitor=chance.choice([0.0, 2.0]),
        failure_action=chance.choice(["pause", "continue", "rollback"]),
        max_failure_ratio=chance.choice([0.0, 0.5]),
    )


def _steps(chance: random.Random) -> tuple[InitContainer, ...]:
    """pre_start, for few."""
    if chance.random() < 0.9:
        return ()
    return tuple(
        InitContainer(command=(f"step{number}",), per_replica=chance.random() < 0.3)
        for number in range(chance.choice([1, 1, 2]))
    )


def _check(chance: random.Random) -> Any:
    if chance.random() < 0.4:
        return None
    return check(
        interval=chance.choice([0.5, 2.0, 5.0, 30.0]),
        retries=chance.choice([1, 2, 3]),
        start_period=chance.choice([0.0, 0.0, 3.0]),
    )


def _policy(chance: random.Random) -> RestartPolicy:
    found = policy(chance.choice(POLICIES))
    if chance.random() < 0.15:
        found = changed(found, delay=chance.choice([0.0, 0.5, 5.0]), window=chance.choice([None, 2.0]))
    if chance.random() < 0.2:
        found = changed(found, unhealthy=chance.choice(["restart", "recreate"]))
    return found


def _program(chance: random.Random) -> Program:
    return Program(
        starts_in=chance.choice([0.0, 0.0, 0.5, 5.0]),
        exits_after=chance.choice([None, None, None, 0.1, 1.0, 12.0]),
        exit_codes=chance.choice([(0,), (1,), (1, 0), (1, 1, 0)]),
        ends_within=chance.choice([0.01, 0.3, 5.0, None]),
        probes=chance.choice([(0,), (0,), (1, 0), (1, 1, 1, 0), (0, 0, 1)]),
        probe_takes=chance.choice([0.01, 0.01, 0.2, 1.5]),
        refuses=(127, "not found") if chance.random() < 0.04 else None,
        crashes_every=chance.choice([None, None, None, 3.0, 20.0]),
        healthy_after=chance.choice([0.0, 0.0, 4.0]),
        hangs_after=chance.choice([None, None, None, 8.0]),
    )


# --- what happens ----------------------------------------------------------------------------------------


def _events(chance: random.Random, first: Stack, lasts: float) -> tuple[Event, ...]:
    times = sorted(
        chance.choice([chance.random() * lasts, chance.random() * min(lasts, 2.0)])
        for _ in range(chance.randint(0, 9))
    )
    found: list[Event] = []
    current = first
    for at in times:
        event, current = _event(chance, round(at, 3), current)
        found.append(event)
    if chance.random() < 0.25:
        found.append(Order(at=lasts * 0.999, command="down", volumes=chance.random() < 0.5))
    return tuple(found)


def _event(chance: random.Random, at: float, current: Stack) -> tuple[Event, Stack]:
    """What happens, and what the file says from then on."""
    one = chance.choice(tuple(current.services))
    kind = chance.choice(KINDS)
    match kind:
        case "edit":
            then = _edit(chance, current)
            return Order(at=at, command="up", stack=then, **_flags(chance)), then
        case "other":
            then = _stack(chance)
            return Order(at=at, command="up", stack=then, remove_orphans=chance.random() < 0.7), then
        case "scale":
            count = chance.randint(0, 3)
            if current.services[one].container_name:
                count = min(count, 1)
            services = {**current.services, one: replace(current.services[one], replicas=count)}
            return Scale(at=at, replicas={one: count}), replace(current, services=services)
        case "up" | "order" | "down":
            return _order(chance, at, kind, current), current
        case _:
            return _trouble(chance, at, kind, current, one), current


def _order(chance: random.Random, at: float, kind: str, current: Stack) -> Order:
    names = tuple(current.services)
    some = tuple(sorted(chance.sample(names, chance.randint(1, len(names)))))
    if kind == "up":
        return Order(at=at, command="up", services=some, **_flags(chance))
    if kind == "down":
        timeout = chance.choice([None, 0.0, 2.0])
        return Order(at=at, command="down", volumes=chance.random() < 0.3, timeout=timeout)
    command = chance.choice(["stop", "start", "restart", "restart", "kill", "rm"])
    return Order(
        at=at,
        command=command,
        services=some,
        timeout=chance.choice([None, None, 0.0, 1.0]) if command in ("stop", "restart") else None,
        volumes=command == "rm" and chance.random() < 0.5,
        no_deps=command == "restart" and chance.random() < 0.3,
    )


def _trouble(chance: random.Random, at: float, kind: str, current: Stack, one: str) -> Event:
    match kind:
        case "kill":
            code = chance.choice([0, 1, 42, 137])
            oom = code == 137 and chance.random() < 0.5
            return Kill(at=at, service=one, slot=chance.choice([None, 1]), exit_code=code, oom=oom)
        case "supervisor":
            return KillSupervisor(at=at, absent=chance.choice([0.0, 0.5, 5.0]))
        case "power":
            return PowerCut(at=at, absent=chance.choice([0.0, 5.0]))
        case "fail":
            verb = chance.choice(["create", "start", "remove", "stop", "probe", "pull"])
            return Fail(at=at, verb=verb, lasts=chance.choice([0.5, 10.0]))
        case "image":
            return NewImage(at=at, image=chance.choice(IMAGES[2:]))
        case _:
            return _loss(chance, at, current, one)


KINDS = (
    *("edit", "edit", "edit", "other", "scale", "up", "up", "order", "order", "order", "down"),
    *("kill", "kill", "kill", "supervisor", "supervisor", "power", "fail", "image", "lose", "lose"),
)


def _loss(chance: random.Random, at: float, current: Stack, one: str) -> Event:
    kind = chance.choice(["service", "network", "volume", "image"])
    if kind == "network" and current.networks:
        return Lose(at=at, network=chance.choice(sorted(current.networks)))
    if kind == "volume" and current.volumes:
        return Lose(at=at, volume=chance.choice(sorted(current.volumes)))
    if kind == "image":
        return Lose(at=at, image=chance.choice([*IMAGES[2:], *LATER]))
    return Lose(at=at, service=one)


def _flags(chance: random.Random) -> dict[str, Any]:
    flags: dict[str, Any] = {"remove_orphans": chance.random() < 0.5}
    roll = chance.random()
    if roll < 0.15:
        flags["force_recreate"] = True
    elif roll < 0.25:
        flags["no_recreate"] = True
    if chance.random() < 0.1:
        flags["no_deps"] = True
    if chance.random() < 0.15:
        flags["timeout"] = chance.choice([0.0, 1.0])
    return flags


def _edit(chance: random.Random, current: Stack) -> Stack:
    """The file after somebody has changed something in it."""
    services = dict(current.services)
    name = chance.choice(sorted(services))
    before = services[name]
    earlier = [other for other in services if other < name]
    number = int(name[1:])
    match chance.choice(
        ["user", "user", "again", "new", "gone", "network", "ports", "policy", "check", "grace"]
    ):
        case "user":
            services[name] = replace(before, user=f"{chance.randint(1, 9)}")
        case "again":
            services[name] = replace(_service(chance, earlier, number), name=name)
        case "new":
            number = max(int(one[1:]) for one in services) + 1
            if number < 7:
                services[f"s{number}"] = _service(chance, sorted(services), number)
        case "gone" if not _needed(current, name) and len(services) > 1:
            del services[name]
        case "network" if before.networks:
            services[name] = replace(
                before, networks=(Attachment(network=chance.choice(["default", "back", "side"])),)
            )
        case "ports" if before.ports:
            services[name] = replace(before, ports=tuple(port(text) for text in _ports(chance, number)))
        case "policy":
            services[name] = replace(before, restart=_policy(chance))
        case "check" if not _needed(current, name):
            services[name] = replace(before, healthcheck=_check(chance))
        case _:
            services[name] = replace(before, stop_grace_period=chance.choice([0.0, 1.0, 4.0]))
    return _whole(chance, services)


def _needed(current: Stack, name: str) -> bool:
    return any(one.service == name for service in current.services.values() for one in needs(service))


# --- kept ones -------------------------------------------------------------------------------------------


def read(path: Path) -> History:
    """A history that is kept."""
    told = json.loads(path.read_text())
    return History(
        seed=told["seed"],
        why=told["why"],
        stack=codec.decode(Stack, told["stack"]),
        scenario=codec.decode(Scenario, told["scenario"]),
    )


def write(found: History, path: Path) -> None:
    told = {
        "why": found.why,
        "seed": found.seed,
        "stack": codec.encode(found.stack),
        "scenario": codec.encode(found.scenario),
    }
    path.write_text(json.dumps(told, indent=1) + "\n")


def shorten(found: History, seconds: float) -> History:
    """A history that breaks the same law with less: fewer events and faults, and fewer services."""
    import time

    from orchestrator.simulation.play import play
    from orchestrator.simulation.shrink import kind, shrink

    end = time.monotonic() + seconds
    law = kind(play(found.stack, found.scenario, found.seed).broken)
    for name in reversed(tuple(found.stack.services)):
        fewer = _without(found, name)
        if fewer is not None and kind(play(fewer.stack, fewer.scenario, fewer.seed).broken) == law:
            found = fewer
    played = play(found.stack, found.scenario, found.seed)
    shortest = shrink(found.stack, played, go_on=lambda: time.monotonic() < end)
    return replace(found, scenario=shortest.scenario, why=shortest.broken)


def _without(found: History, name: str) -> History | None:
    """The history as if a service had never been in any file; None where others need it."""
    stacks = [
        found.stack,
        *(one.stack for one in found.scenario.events if isinstance(one, Order) and one.stack),
    ]
    if any(_needed(one, name) or set(one.services) == {name} for one in stacks):
        return None
    events: list[Event] = []
    for event in found.scenario.events:
        match event:
            case Kill() | Lose() if event.service == name:
                pass
            case Scale() if name in event.replicas:
                pass
            case Order():
                then = _taken_out(event.stack, name) if event.stack is not None else None
                left = tuple(one for one in event.services if one != name)
                events.append(changed(event, stack=then, services=left))
            case _:
                events.append(event)
    scenario = changed(found.scenario, events=tuple(events))
    return replace(found, stack=_taken_out(found.stack, name), scenario=scenario)


def _taken_out(whole: Stack, name: str) -> Stack:
    return changed(whole, services={key: one for key, one in whole.services.items() if key != name})


def main(words: list[str]) -> None:
    """SEED: plays it, tells what it breaks, makes it short and keeps it."""
    from orchestrator.cli.simulate import breach
    from orchestrator.simulation.play import play

    found = history(int(words[0]))
    played = play(found.stack, found.scenario, found.seed)
    if not played.broken:
        print(f"seed {found.seed} breaks no law")
        return
    short = shorten(found, 60.0)
    print(breach(played, play(short.stack, short.scenario, short.seed)))
    path = Path(__file__).parents[1] / "golden" / "histories" / f"{found.seed}.json"
    path.parent.mkdir(exist_ok=True)
    write(short, path)
    print(f"kept in {path}")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
