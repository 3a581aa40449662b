"""Random histories: stacks, wishes, faults and crashes from a seed.

Phase one breaks things; the engine watches the laws. Phase two heals: then the stack converges within a
bound of virtual time. A seed that fails is printed by pytest and repeats.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import trio

from orchestrator.engines.simulated import Faults, Program
from orchestrator.model.desired import Desired, Wanted
from orchestrator.model.observation import State
from orchestrator.model.plan import Plan
from orchestrator.model.stack import OfService, Service, Stack
from orchestrator.planner.plan import plan
from tests.kit.stacks import check, down, service, stack, up
from tests.simulation.stage import Stage, play

import os

SEEDS = [int(x) for x in os.environ["S"].split()]
CONDITIONS = ("started", "started!", "healthy", "completed", "started?", "healthy?")


def random_stack(chance: random.Random) -> Stack:
    names = [f"s{number}" for number in range(chance.randint(1, 7))]
    services: dict[str, Service] = {}
    for number, name in enumerate(names):
        earlier = names[:number]
        after = {n: chance.choice(CONDITIONS) for n in earlier if chance.random() < 0.35}
        shared = chance.choice(earlier) if earlier and chance.random() < 0.15 else ""
        fields: dict[str, object] = {}
        if shared:
            fields["network_mode"] = OfService(service=shared)
        services[name] = service(
            after=after,
            restart=chance.choice(["no", "always", "on-failure", "on-failure:2", "unless-stopped"]),
            ports=() if shared else tuple(chance.choice(["", ":80", "9000-9020:81"]).split()),
            networks=chance.choice([("default",), ("default", "back"), ("back",)]),
            volumes=chance.choice([(), ("data:/d",), ("/scratch",)]),
            healthcheck=check(interval=chance.choice([0.5, 2.0])),
            replicas=chance.choice([0, 1, 1, 1, 2, 3]),
            stop_grace_period=chance.choice([0.0, 0.5, 3.0]),
            user=chance.choice([None, "1", "2"]),
            **fields,  # type: ignore[arg-type]
        )
    return stack(**services)


def random_program(chance: random.Random, completes: bool) -> Program:
    exits = chance.choice([None, None, 0.1, 1.0, 12.0])
    return Program(
        exits_after=chance.choice([0.1, 1.0]) if completes else exits,
        exit_codes=(0,) if completes else chance.choice([(0,), (1,), (1, 0), (1, 1, 0)]),
        ends_within=chance.choice([0.01, 0.3, None]),
        probes=chance.choice([(0,), (1, 0), (1, 1, 1, 0)]),
        probe_takes=chance.choice([0.01, 0.2, 1.5]),
    )


def random_wish(chance: random.Random, turn: int) -> Desired:
    wish = random_stack(chance)
    if chance.random() < 0.15:
        return down(wish, remove_orphans=True, remove_volumes=chance.random() < 0.5)
    desired = up(wish, turn=turn)
    intents = dict(desired.intents)
    for name in desired.intents:
        if chance.random() < 0.15:
            intents[name] = replace(
                intents[name], wanted=Wanted(chance.choice(["stopped", "absent", "created"]))
            )
        if chance.random() < 0.15:
            intents[name] = replace(intents[name], generation=turn)
        if chance.random() < 0.15:
            intents[name] = replace(intents[name], restart_turn=turn)
    return replace(desired, intents=intents, remove_orphans=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_laws_hold_and_in_the_end_it_converges(seed: int) -> None:
    chance = random.Random(seed)
    faults = Faults(
        retryable=chance.choice([0.0, 0.05, 0.3]),
        late=chance.choice([0.0, 0.05, 0.2]),
        delay=(0.0, chance.choice([0.001, 0.05, 0.5])),
        observe_delay=(0.0, chance.choice([0.0, 0.01, 0.1])),
    )
    completes = chance.random() < 0.5
    programs = {f"s{n}": random_program(chance, completes) for n in range(8)}

    async def scene() -> None:
        stage = Stage(desired=random_wish(chance, 1), seed=seed, programs=programs, faults=faults)
        turn = 1
        for _ in range(chance.randint(1, 4)):
            async with stage.supervisor():
                for _ in range(chance.randint(0, 3)):
                    await trio.sleep(chance.choice([0.0, 0.01, 0.1, 1.0, 10.0]))
                    turn += 1
                    stage.want(random_wish(chance, turn))
                    if chance.random() < 0.1:
                        stage.engine.power_cut()
                await trio.sleep(chance.random() * chance.choice([0.02, 0.5, 20.0]))
            # Here the supervisor was killed, with whatever it was doing.
            await trio.sleep(chance.choice([0.0, 5.0]))
        stage.engine.faults = Faults()
        final = random_wish(chance, turn + 1)
        stage.desired = final
        async with stage.supervisor():
            await _calm(stage)
        stage.check()
        _as_wished(stage, final)

    play(scene, seed)


async def _calm(stage: Stage) -> None:
    """Until nothing but restarts by policy and probes is left to come."""
    for _ in range(60):
        await trio.sleep(5.0)
        view = stage.loop.view
        assert view is not None
        left = _unexcused(view.plan)
        busy = [a for a in view.plan.actions if not a.target.startswith("probe:")]
        if not left and not busy:
            return
    raise AssertionError(f"after 300 s: {left} {busy}")


def _unexcused(decided: Plan) -> list[str]:
    """Waits that are neither caused by programs which never come to rest, nor by others that are."""
    words = ("restarting", "trying again", "has not completed yet", "is not healthy yet", "does not run")
    waiting = {w.target: w.because for w in decided.waits if not w.failed and "under way" not in w.because}
    excused: set[str] = set()
    while True:
        more = {
            target
            for target, because in waiting.items()
            if any(word in because for word in words)
            or any(because == f"{name.split('-')[1]} is not started yet" for name in excused)
        }
        if more == excused:
            return [f"{target}: {because}" for target, because in waiting.items() if target not in excused]
        excused = more


def _as_wished(stage: Stage, final: Desired) -> None:
    world = stage.engine.world
    if final.down:
        assert world.containers == ()
        assert world.networks == {}
        return
    counts: dict[str, int] = {}
    for container in world.containers:
        counts[container.service] = counts.get(container.service, 0) + 1
        intent = final.intents[container.service]
        if intent.wanted in ("stopped", "absent", "created"):
            assert intent.wanted != "absent"
            assert intent.wanted == "created" or container.state is not State.RUNNING
        else:
            wanted = final.stack.services[container.service]
            assert container.definition.user == wanted.user
            assert container.addresses.keys() == {f"shop_{a.network}" for a in wanted.networks}
    refused = {w.target for w in plan(final, stage.engine.world, stage.now()).waits if w.failed}
    for name, wanted in final.stack.services.items():
        if final.intents[name].wanted == "running" and not refused:
            assert counts.get(name, 0) == wanted.replicas
