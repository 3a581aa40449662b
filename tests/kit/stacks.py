"""Builders that read like stack files.

stack("shop", db=service(image="db", healthcheck=check()), web=service(after="db"))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.model import effects, names
from orchestrator.model.action import Action, ProbeContainer, SignalContainer
from orchestrator.model.desired import Desired, Intent, Wanted
from orchestrator.model.observation import ImageState, Observation
from orchestrator.model.sections import Deploy, Update
from orchestrator.model.stack import (
    Attachment,
    Dependency,
    Healthcheck,
    HostRoot,
    ImageRoot,
    Network,
    Port,
    RestartPolicy,
    Service,
    Stack,
    Subnet,
    Volume,
    VolumeMount,
)
from orchestrator.planner.plan import plan
from orchestrator.planner.rollouts import accept


def service(
    *,
    image: str = "",
    after: str | tuple[str, ...] | Mapping[str, str] = (),
    restart: str = "no",
    ports: tuple[str | Port, ...] = (),
    networks: tuple[str | Attachment, ...] = ("default",),
    volumes: tuple[str, ...] = (),
    **fields: Any,
) -> Service:
    """A service without a name; `stack` gives it one.

    `after`: names of dependencies, or name -> "started" | "healthy" | "completed" | "logged", with "?" appended for an
    optional one and "!" for restart: true. `ports`: "8080:80", "8000-8010:80/udp", ":80" (any).
    `volumes`: "data:/path", or "/path" for an anonymous one.
    """
    return Service(
        name="",
        root=ImageRoot(reference=image) if image else HostRoot(),
        depends_on=dependencies(after),
        restart=policy(restart),
        ports=tuple(one if isinstance(one, Port) else port(one) for one in ports),
        networks=tuple(n if isinstance(n, Attachment) else Attachment(network=n) for n in networks)
        if "network_mode" not in fields
        else (),
        mounts=tuple(mount(text) for text in volumes),
        **fields,
    )


def dependencies(after: str | tuple[str, ...] | Mapping[str, str]) -> tuple[Dependency, ...]:
    if isinstance(after, str):
        after = (after,)
    if not isinstance(after, Mapping):
        after = dict.fromkeys(after, "started")
    conditions: dict[str, Any] = {
        "started": "service_started",
        "healthy": "service_healthy",
        "completed": "service_completed_successfully",
        "logged": "service_log_ready",
    }
    return tuple(
        Dependency(
            service=name,
            condition=conditions[word.rstrip("?!")],
            required="?" not in word,
            restart="!" in word,
        )
        for name, word in after.items()
    )


def policy(text: str) -> RestartPolicy:
    """As in Compose: "no", "always", "unless-stopped", "on-failure", "on-failure:3"."""
    condition, _, most = text.partition(":")
    return RestartPolicy(condition=condition, max_attempts=int(most) if most else None)  # type: ignore[arg-type]


def port(text: str) -> Port:
    text, _, protocol = text.partition("/")
    published, _, target = text.rpartition(":")
    ip, _, published = published.rpartition(":")
    low, _, high = published.partition("-")
    span = (int(low), int(high or low)) if low else (0, 0)
    return Port(target=int(target), published=span, host_ip=ip, protocol=protocol or "tcp")  # type: ignore[arg-type]


def mount(text: str) -> VolumeMount:
    source, _, target = text.rpartition(":")
    return VolumeMount(source=source or None, target=target)


def check(**fields: Any) -> Healthcheck:
    return Healthcheck(test=("CMD", "true"), **{"interval": 1.0, "timeout": 1.0, "retries": 2, **fields})


def steps(rollback: Mapping[str, Any] | None = None, **fields: Any) -> Deploy:
    """deploy.update_config, and rollback_config if given: service(deploy=steps(order="start-first"))."""
    back = Update(**rollback) if rollback is not None else None
    return Deploy(update=Update(**fields), rollback=back)


def network(subnet: str = "", **fields: Any) -> Network:
    subnets = (Subnet(subnet=subnet),) if subnet else ()
    return Network(key="", name="", subnets=subnets, **fields)


def volume(**fields: Any) -> Volume:
    return Volume(key="", name="", **fields)


def stack(
    name: str = "shop",
    /,
    *,
    networks: Mapping[str, Network] | None = None,
    volumes: Mapping[str, Volume] | None = None,
    disabled: tuple[str, ...] = (),
    **services: Service,
) -> Stack:
    """Networks and volumes that services mention are declared with their defaults when they are not given."""
    named = {key: replace(found, name=key) for key, found in services.items()}
    all_networks = dict(networks or {})
    all_volumes = dict(volumes or {})
    for found in named.values():
        for attachment in found.networks:
            all_networks.setdefault(attachment.network, network())
        for mounted in found.mounts:
            if isinstance(mounted, VolumeMount) and mounted.source is not None:
                all_volumes.setdefault(mounted.source, volume())
    return Stack(
        name=name,
        services=named,
        networks={
            key: replace(n, key=key, name=n.name or names.scoped_name(name, key))
            for key, n in all_networks.items()
        },
        volumes={
            key: replace(v, key=key, name=v.name or names.scoped_name(name, key))
            for key, v in all_volumes.items()
        },
        disabled=disabled,
    )


def up(wish: Stack, *only: str, turn: int = 1, **fields: Any) -> Desired:
    """What `up` writes: every service (or `only` these) wanted running in `turn`."""
    intents = {name: Intent(turn=turn, **fields) for name in only or wish.services}
    return Desired(stack=wish, intents=intents)


def down(wish: Stack, **fields: Any) -> Desired:
    return Desired(stack=wish, intents={}, down=True, **fields)


def wanting(desired: Desired, name: str, **fields: Any) -> Desired:
    """`desired` with another intent for one service: wanting(d, "web", wanted="stopped", turn=2)."""
    if "wanted" in fields:
        fields["wanted"] = Wanted(fields["wanted"])
    before = desired.intents.get(name, Intent())
    return replace(desired, intents={**desired.intents, name: replace(before, **fields)})


def nothing(*images: str, at: float = 0.0, **fields: Any) -> Observation:
    """A machine with nothing of ours on it but these images."""
    return Observation(at=at, images={name: ImageState(id=f"sha256:{name}") for name in images}, **fields)


def apply_all(world: Observation, actions: Iterable[Action], now: float) -> Observation:
    """The world after `actions`; whoever is told to stop ends at once."""
    for action in actions:
        world = effects.expect(world, action, now)
        if isinstance(action, SignalContainer) and action.stopping:
            world = effects.expect_exit(world, action.id, now, 128 + action.signal)
    return world


def converge(desired: Desired, world: Observation, now: float = 100.0) -> Observation:
    """The world when the planner is content, or waits for programs only: everything succeeds at once, time
    passes only to wait."""
    idle = 0
    for _ in range(1000):
        decided = plan(desired, world, now)
        if decided.rollouts:
            desired = accept(desired, decided.rollouts)
            continue
        probing = all(isinstance(action, ProbeContainer) for action in decided.actions)
        idle = idle + 1 if probing else 0
        if decided.settled or idle > 20 or not (decided.actions or decided.wake_at):
            return world
        if not decided.actions and decided.wake_at is not None:
            now = decided.wake_at
        world = apply_all(world, decided.actions, now)
        now += 0.001
    raise AssertionError(f"no end: {decided}")
