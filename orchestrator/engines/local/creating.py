"""A container is built: its directory, its files, its record. Nothing of it runs yet."""

from __future__ import annotations

from orchestrator.engines.local import clock, records, storage
from orchestrator.engines.local.records import Built, Mounted
from orchestrator.engines.local.shared import Shared
from orchestrator.engines.local.table import Changed, Live
from orchestrator.model.action import CreateContainer, occupant
from orchestrator.model.observation import VolumeState
from orchestrator.model.stack import VolumeMount


async def create(shared: Shared, action: CreateContainer) -> None:
    """Repeatable. Raises EngineError."""
    table, places = shared.table, shared.places
    if action.id in table.containers:
        return
    home = places.container(action.stack, action.id)
    anonymous: list[VolumeState] = []

    def write() -> Built:
        container = occupant(action, created=clock.now(), created_at=clock.wall())
        storage.check_binds(container)
        names = action.anonymous_volumes.values()
        anonymous.extend(storage.create_anonymous(places, name, action.stack) for name in names)
        try:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            storage.write_files(home, container)
            own = storage.take_copies(home, container)
            built = Built(container=own, volumes=_mounted(action), networks=action.networks)
            records.write(home / "container.json", built)
            return built
        except OSError:
            # The next try has another id: nobody would ever find this directory again.
            storage.remove_layers(home)
            raise

    built = await shared.in_thread(write)
    for volume in anonymous:
        table.volumes.setdefault(volume.name, volume)
        shared.watching.follow_volume(volume)
    live = Live(built=built, container=built.container)
    table.add(live)
    shared.watching.follow_home(live)
    shared.files.follow(built.container)
    table.feed.publish(Changed(kind="container", container=built.container))


def _mounted(action: CreateContainer) -> tuple[Mounted, ...]:
    named = {
        mount.target: action.volumes[mount.source]
        for mount in action.service.mounts
        if isinstance(mount, VolumeMount) and mount.source is not None
    }
    return (
        *(Mounted(target=target, volume=name) for target, name in named.items()),
        *(
            Mounted(target=target, volume=name, anonymous=True)
            for target, name in action.anonymous_volumes.items()
        ),
    )
