"""After our own death: find again what is there, from records, the keeper, and the kernel.

Nothing is believed that the kernel contradicts: a run is alive only if the keeper says so or its pid still
has the start time that was written down in this boot.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os

from orchestrator.engines.local import alive, clock, ends, output, records, restoring, storage
from orchestrator.engines.local.containers import Containers
from orchestrator.engines.local.keeper import Keeper
from orchestrator.engines.local.places import Places
from orchestrator.engines.local.records import Boot, Built, RunRecord
from orchestrator.engines.local.shared import Shared
from orchestrator.engines.local.table import Live, Wires
from orchestrator.engines.local.trouble import note, report
from orchestrator.kernel import cgroups
from orchestrator.model.errors import EngineError
from orchestrator.model.frozen import replace
from orchestrator.model.observation import Container, NetworkState, Run, State


async def recover(containers: Containers, shared: Shared, keeper: Keeper) -> None:
    """Fill the table. Half-made things that nobody has a record of are taken away."""
    places, table = shared.places, shared.table
    present = shared.wiring.our_links()
    for network in records.networks(places.networks):
        if shared.wiring.bridge_of(network) in present or _make_again(shared, network):
            table.networks[network.name] = network
        else:
            places.network(network.name).unlink(missing_ok=True)
    shared.wiring.remove_strangers()
    for volume in storage.volumes(places):
        table.volumes[volume.name] = volume
        shared.watching.follow_volume(volume)
    in_order = _was_shut_down(places)
    for built in records.containers(places.stacks):
        _find(shared, keeper, built)
        _settle(places, table.containers[built.container.id].container, in_order=in_order)
    for live in list(table.containers.values()):
        await _take_up(containers, shared, keeper, live)
    kept = _sweep(shared)
    unknown = [key for key in keeper.stored if key.partition(":")[2] not in kept]
    try:
        await keeper.discard(*unknown)
        await shared.wiring.sync()
    except EngineError as error:
        report(error)


def _make_again(shared: Shared, network: NetworkState) -> bool:
    """A bridge that went with the machine, or was deleted: containers keep the addresses they have on it.

    False when its range belongs to somebody else by now, or the kernel does not want it.
    """
    wanted = ipaddress.ip_network(network.subnet)
    if any(wanted.overlaps(ipaddress.ip_network(one)) for one in shared.wiring.ranges_in_use()):
        return False
    try:
        shared.wiring.make_bridge(network)
    except (EngineError, OSError) as error:
        report(error)
        return False
    return True


def _find(shared: Shared, keeper: Keeper, built: Built) -> None:
    """Into the table in the moment in which its run is judged: an exit told of later finds it there."""
    container = built.container
    group = f"{shared.places.cgroup}/{container.stack}/{container.id}"
    kept = keeper.runs.get(container.id)
    if kept is None and not (shared.places.bundle(container.id) / "config.json").exists():
        # Somebody has deleted the run directory. With it, a process without a record was never started.
        kept = cgroups.first(shared.hierarchies, group)
    run, pidfd = _latest_run(shared.places, container, kept)
    if run is not None and pidfd is not None:
        run = replace(run, paused=cgroups.frozen(shared.hierarchies, group))
    else:
        _end(shared, group)  # a next run must not meet what is left of one that nobody knows of
    live = Live(built=built, container=replace(container, run=run), pidfd=pidfd)
    shared.table.add(live)
    shared.watching.follow_home(live)
    shared.files.follow(live.container)


def _was_shut_down(places: Places) -> bool:
    """Whether the machine's last life has ended in order; that this one has is taken back."""
    ended = records.read_or_none(places.shutdown, Boot)
    if ended is not None and ended.id == clock.boot_id():
        places.shutdown.unlink(missing_ok=True)
        return False
    last = records.read_or_none(places.boot, Boot)
    return ended is not None and last is not None and ended.id == last.id


def _settle(places: Places, container: Container, *, in_order: bool) -> None:
    if container.run is None or not container.run.before_boot:
        return
    try:
        if storage.settle_layers(places.container(container.stack, container.id), in_order=in_order):
            note(f"container {container.name}: what it had written is given up: no shutdown was in order")
    except OSError as error:
        report(error)


def _end(shared: Shared, group: str) -> None:
    with contextlib.suppress(cgroups.CgroupError):
        if cgroups.populated(shared.hierarchies, group):
            cgroups.kill(shared.hierarchies, group)


async def _take_up(containers: Containers, shared: Shared, keeper: Keeper, live: Live) -> None:
    """Its network, its ports and its output again. What is wrong with one container is no other's harm."""
    try:
        await _fetch(keeper, live)
        if live.container.state is State.RUNNING:
            group = f"{shared.places.cgroup}/{live.container.stack}/{live.container.id}"
            restoring.restore(shared, live, group)
            shared.wiring.resume(live)
            shared.wiring.connect_again(live)
            shared.wiring.attach_again(live)
            if live.kept:
                shared.wiring.serve_names(live)
            output.follow(shared, live)
            containers.readiness.follow(live)
            await containers.keep(live)
            containers.watch(live)
            containers.send_stopping(live)  # who was about to send it may have been killed
        else:
            await containers.drain(live)
    except (OSError, EngineError) as error:
        report(error)
    if live.container.state is not State.RUNNING:
        if live.terminal is not None:
            os.close(live.terminal)
            live.terminal = None
        live.finished.set()


async def _fetch(keeper: Keeper, live: Live) -> None:
    """What the keeper holds of it. Copies of the FIFOs are not needed here: they have names."""
    container_id = live.container.id
    terminal = await keeper.fetch(f"terminal:{container_id}")
    live.terminal = terminal[0] if terminal else None
    fds = await keeper.fetch(f"held:{container_id}")
    for fd in fds[: len(output.OUTPUTS)]:
        os.close(fd)
    wires = fds[len(output.OUTPUTS) :]
    if wires:
        live.wires = Wires(namespace=wires[0], resolver=tuple(wires[1:]))
    live.kept = bool(fds)


def _latest_run(places: Places, container: Container, kept_pid: int | None) -> tuple[Run | None, int | None]:
    """The run as it stands now, with a pidfd when it is alive."""
    bundle = places.bundle(container.id)
    record = records.read_or_none(bundle / "run.json", RunRecord) or records.read_or_none(
        places.container(container.stack, container.id) / "run.json", RunRecord
    )
    if record is None:
        return None, None
    run = record.run
    if record.boot_id != clock.boot_id():
        # `started` stays: by it orders know the runs that they found under way (Intent.under_way).
        return replace(run, finished=clock.now(), before_boot=True, pid=0), None
    if run.finished is not None:
        return run, None
    ended = records.exit_of(bundle)
    if ended is not None and ended[2] == clock.boot_id():
        return replace(run, finished=max(ended[1], run.started), exit_code=ended[0]), None
    pid, pidfd = alive.find(bundle, kept_pid)
    if pidfd is not None:
        return replace(run, pid=pid), pidfd
    if run.pid == 0 and not (bundle / "pid.json").exists():
        return None, None
    return replace(run, finished=clock.now(), exit_code=ends.told(bundle)), None


def _sweep(shared: Shared) -> set[str]:
    """Take away what was begun and never written down: directories without a record, processes of theirs.

    Returns the ids of what stays. What a newer version has written down is not ours to judge.
    """
    places, kept = shared.places, set(shared.table.containers)
    homes = list(places.stacks.glob("*/containers/*"))
    kept |= {home.name for home in homes if records.is_newer(home / "container.json")}
    groups = {f"{places.cgroup}/{home.parts[-3]}/{home.name}" for home in homes}
    for group in groups.union(cgroups.listing(shared.hierarchies, places.cgroup)):
        if group.rpartition("/")[2] not in kept:
            with contextlib.suppress(cgroups.CgroupError):
                cgroups.kill(shared.hierarchies, group)
                cgroups.remove(shared.hierarchies, group)
    for home in homes:
        if home.name not in kept and shared.hierarchies.mode == "none":
            alive.kill(places.bundle(home.name))
    for directory in (*homes, *places.bundles.glob("*")):
        if directory.name not in kept:
            with contextlib.suppress(OSError):
                storage.remove_layers(directory)
    return kept
