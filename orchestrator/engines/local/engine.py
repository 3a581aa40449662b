"""The engine port for one stack on this machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import trio

from orchestrator.engines.local import asking, clock, probes, rotating, storage
from orchestrator.engines.local.containers import Containers
from orchestrator.engines.local.execs import Execs
from orchestrator.engines.local.places import Places
from orchestrator.engines.local.pulls import Pulls
from orchestrator.engines.local.table import Table
from orchestrator.engines.local.trouble import of_file
from orchestrator.engines.local.wiring import Wiring
from orchestrator.images import reference as references
from orchestrator.images.config import ImageConfig
from orchestrator.images.registry import platforms
from orchestrator.images.registry.platforms import Platform
from orchestrator.images.store.content import Store
from orchestrator.model.action import (
    Action,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    ProbeContainer,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    RoutePorts,
    SignalContainer,
    StartContainer,
    SwapFiles,
)
from orchestrator.model.errors import EngineError, PystackError
from orchestrator.model.frozen import replace
from orchestrator.model.images import period
from orchestrator.model.observation import HeldPort, ImageState, Observation, PublishedPort, Run
from orchestrator.model.stack import ImageRoot, Stack
from orchestrator.model.steps import with_steps

PORTS_FRESH_SECONDS = 0.5


class LocalEngine:
    """`watch` says which stack is desired, so that a look takes in the images and ports that matter to it."""

    def __init__(
        self,
        stack: str,
        table: Table,
        containers: Containers,
        wiring: Wiring,
        execs: Execs,
        store: Store,
        places: Places,
        pulls: Pulls,
    ) -> None:
        self._pulls = pulls
        self._checked: dict[str, float | None] = {}
        """Reference -> when its registry was last asked, for those of which that matters."""
        self._stack = stack
        self._table = table
        self._containers = containers
        self._wiring = wiring
        self._execs = execs
        self._store = store
        self._places = places
        self._desired: Stack | None = None
        self._pins: tuple[str, ...] = ()
        self._ports: tuple[float, tuple[PublishedPort, ...]] = (0.0, ())
        self._bell = table.bell(stack)

    def watch(self, desired: Stack, pins: Iterable[str] = ()) -> None:
        """`pins`: ids of images that services were rolled back to."""
        self._desired = with_steps(desired)
        self._pins = tuple(pins)
        self._checked = {}
        self._ports = (0.0, ())

    # --- observe -----------------------------------------------------------------------------------

    async def observe(self) -> Observation:
        self._bell = self._table.bell(self._stack)
        containers = tuple(live.container for live in self._table.of_stack(self._stack))
        return Observation(
            at=clock.now(),
            containers=containers,
            networks=dict(self._table.networks),
            volumes=dict(self._table.volumes),
            images=self._images(),
            subnets_taken=self._subnets(),
            ports_taken=self._ports_taken(),
            files=self._containers.files.of_stack(self._stack),
            ports_held=self._ports_held(),
            connections=self._connections(),
            deaf=self._deaf(),
        )

    def _images(self) -> dict[str, ImageState]:
        services = self._desired.services.values() if self._desired else ()
        found: dict[str, ImageState] = {}
        for service in services:
            if not isinstance(service.root, ImageRoot):
                continue
            reference = service.root.reference
            image = self._store.resolve(reference) if reference not in found else None
            if image is not None:
                config = self._store.config(image.id)
                if _fits(config, service.platform):
                    found[reference] = _image_state(config)
            if reference in found and period(service.pull_policy) is not None:
                found[reference] = replace(found[reference], checked=self._last_checked(reference))
        for image_id in self._pins:
            with contextlib.suppress(PystackError):  # it has been pruned
                found[image_id] = _image_state(self._store.config(image_id))
        return found

    def _last_checked(self, reference: str) -> float | None:
        """In boot time, to be compared with when the user asked; looked up once for each order of theirs."""
        if reference not in self._checked:
            pull = self._store.last_pull(str(references.parse(reference)))
            self._checked[reference] = clock.now() - (time.time() - pull.at) if pull is not None else None
        return self._checked[reference]

    def _subnets(self) -> tuple[str, ...]:
        """Looked up only while a network of the stack is still to be made."""
        wanted = self._desired.networks.values() if self._desired else ()
        if all(network.name in self._table.networks for network in wanted):
            return ()
        return tuple(self._wiring.ranges_in_use())

    def _ports_taken(self) -> tuple[PublishedPort, ...]:
        """Of other programs, and of containers of any stack that hold theirs. Looked up only while the stack
        may need some. A container that does not run holds none."""
        services = self._desired.services.values() if self._desired else ()
        if not any(service.ports for service in services):
            return ()
        ours = tuple(
            port for live in self._table.containers.values() if live.reserved for port in live.container.ports
        )
        at, others = self._ports
        if time.monotonic() - at > PORTS_FRESH_SECONDS:
            held = {(port.protocol, port.host_port) for port in ours}
            tables = self._wiring.outside.tables()
            others = tuple(port for port in _listening(tables) if (port.protocol, port.host_port) not in held)
            self._ports = (time.monotonic(), others)
        return (*ours, *others)

    def _ports_held(self) -> tuple[HeldPort, ...]:
        services = self._desired.services.values() if self._desired else ()
        if not any(service.ports for service in services):
            return ()
        return tuple(
            HeldPort(port=port, stack=live.container.stack, container=live.container.name)
            for live in self._table.containers.values()
            if live.reserved
            for port in live.container.ports
        )

    def _connections(self) -> dict[str, int]:
        """Of those only that have left the rotation."""
        return {
            live.container.id: self._wiring.publishing.connections(live)
            for live in self._table.of_stack(self._stack)
            if live.reserved and live.container.run is not None and _has_left(live.container.run)
        }

    def _deaf(self) -> frozenset[str]:
        publishing = self._wiring.publishing
        return frozenset(
            live.container.id
            for live in self._table.of_stack(self._stack)
            if live.reserved
            and live.container.healthcheck is None
            and publishing.is_sharing(live)
            and publishing.is_deaf(live)
        )

    async def changed(self) -> None:
        await self._bell.wait()

    # --- apply -------------------------------------------------------------------------------------

    async def apply(self, action: Action) -> None:
        match action:
            case PullImage():
                await self._pull(action)
            case CreateNetwork():
                await self._wiring.create_network(action)
            case RemoveNetwork():
                await self._wiring.remove_network(action.name)
            case CreateVolume():
                await self._create_volume(action)
            case RemoveVolume():
                await self._remove_volume(action.name)
            case RoutePorts():
                await rotating.route(action, self._table, self._wiring, self._containers.note_run)
            case _:
                await self._apply_to_container(action)

    async def _apply_to_container(self, action: Action) -> None:
        match action:
            case CreateContainer():
                await self._containers.create(action)
            case StartContainer():
                await self._containers.start(action)
            case SignalContainer():
                await self._containers.signal(action)
            case SwapFiles():
                await self._containers.swap(action)
            case RemoveContainer():
                await self._containers.remove(action)
            case ProbeContainer():
                await self._probe(action)

    async def _pull(self, action: PullImage) -> None:
        await self._pulls.pull(action.stack, action.reference, action.platform)
        self._checked[action.reference] = clock.now()
        self._table.ring()

    async def _create_volume(self, action: CreateVolume) -> None:
        try:
            state = await trio.to_thread.run_sync(storage.create_volume, self._places, action)
        except OSError as error:
            raise of_file(error, f"volume {action.volume.name}") from error
        self._table.volumes[action.volume.name] = state
        self._containers.watching.follow_volume(state)
        self._table.settle()
        self._table.ring()

    async def _remove_volume(self, name: str) -> None:
        state = self._table.volumes.get(name)
        if state is not None and state.users:
            raise EngineError(f"volume {name} is still in use")
        self._table.going.add(name)
        try:
            await trio.to_thread.run_sync(storage.remove_volume, self._places, name)
        except OSError as error:
            raise of_file(error, f"volume {name}") from error
        finally:
            self._table.going.discard(name)
        self._table.volumes.pop(name, None)
        self._containers.watching.leave_volume(name)
        self._table.ring()

    async def _probe(self, action: ProbeContainer) -> None:
        live = self._table.containers.get(action.id)
        if live is None:
            return
        if action.healthcheck.probe is not None:
            result = await asking.ask(live, action.healthcheck)
            self._containers.probed(live, action.run_started, result, action.healthcheck)
            return
        image: ImageConfig | None = None
        if live.container.image_id:
            image = self._store.config(live.container.image_id)
        result = await probes.probe(self._execs, live, image, action.healthcheck)
        self._containers.probed(live, action.run_started, result, action.healthcheck)


def _has_left(run: Run) -> bool:
    return run.finished is None and run.rotation is not None and not run.rotation.member


def _fits(config: ImageConfig, platform: str | None) -> bool:
    """An image for another platform than the service wants counts as absent (Compose Specification)."""
    if not platform or not config.architecture:
        return True
    present = Platform(os=config.os or "linux", architecture=config.architecture, variant=config.variant)
    return platforms.fits(present, platforms.parse(platform))


def _image_state(config: ImageConfig) -> ImageState:
    return ImageState(
        id=config.id,
        healthcheck=config.healthcheck,
        stop_signal=config.stop_signal,
        volumes=tuple(config.volumes),
    )


_TABLES = (("tcp", "tcp"), ("tcp", "tcp6"), ("udp", "udp"), ("udp", "udp6"))
_LISTEN, _UNCONNECTED = "0A", "07"


def _listening(tables: Path) -> list[PublishedPort]:
    """Host ports with a listener (proc_net(5)); the address is left out, for a clash is about the port."""
    found = []
    for protocol, name in _TABLES:
        try:
            lines = (tables / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] in (_LISTEN, _UNCONNECTED):
                address, _, port = fields[1].rpartition(":")
                found.append(_taken(protocol, address, int(port, 16)))
    return found


def _taken(protocol: str, address: str, port: int) -> PublishedPort:
    """`address` as the kernel prints it: hexadecimal words in host byte order."""
    kind: Literal["tcp", "udp"] = "tcp" if protocol == "tcp" else "udp"
    if len(address) == 8 and address != "00000000":
        octets = bytes.fromhex(address)[::-1]
        host_ip = ".".join(str(octet) for octet in octets)
    else:
        host_ip = ""
    return PublishedPort(host_ip=host_ip, host_port=port, target=0, protocol=kind)
