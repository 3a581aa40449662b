"""What a command that copies files must know of a container, and the promise that it does not start then.

The copying itself is the command's: it has a process of its own for it (images/files). A container that is
started while another mount of its upper directory is alive would share that directory with it, which
overlayfs calls undefined (Linux, overlayfs.rst, "Sharing and copying layers"); so a start waits a while for
the loan's end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio

from orchestrator.engines.local import bundle, runtimes, storage
from orchestrator.engines.local.bundle import Ground
from orchestrator.engines.local.etc import etc_files
from orchestrator.engines.local.shared import Shared
from orchestrator.engines.local.table import Live
from orchestrator.model.errors import EngineError, ExitCode
from orchestrator.model.observation import Container, State

WAIT_SECONDS = 10.0
Json = dict[str, Any]


@contextlib.contextmanager
def lent(live: Live) -> Iterator[None]:
    """While somebody has the container's files."""
    if live.loans == 0:
        live.returned = trio.Event()
    live.loans += 1
    try:
        yield
    finally:
        live.loans -= 1
        if live.loans == 0:
            live.returned.set()


async def returned(live: Live) -> None:
    """Wait until nobody has them. Raises EngineError when that takes too long; the start is tried again."""
    if live.loans:
        with trio.move_on_after(WAIT_SECONDS):
            await live.returned.wait()
    if live.loans:
        raise EngineError(f"container {live.container.name}: its files are being copied", retryable=True)


def view(shared: Shared, live: Live) -> Json:
    """The container's root and what is bound into it, for whoever wants to see its files as it sees them.

    Blocks. Raises EngineError: the image has gone, a bind's source is not there; OSError.
    """
    container, places = live.container, shared.places
    service = container.definition
    root = storage.root_of(shared.store, places, container)
    mounted = {mounted.target: mounted.volume for mounted in live.built.volumes}
    ground = Ground(
        places=places,
        image=root.image,
        root=root.layers,
        volumes=storage.volume_directories(container, mounted, shared.table.volumes),
        written_files=_written(places.container(container.stack, container.id), container),
        etc=_etc(shared, live),
        seeds=storage.seeds(places, container, mounted),
        init="/dev/null" if service.init else None,
    )
    about = bundle.launch(container, ground)
    rows = bundle.mounts(container, ground)
    runs = container.state is State.RUNNING
    return {
        "root": about["root"],
        "seed": [] if runs else about["seed"],
        "subpaths": about["subpaths"],
        "mounts": [row for row in rows if row["type"] == "bind" and row["destination"] != bundle.INIT],
        "targets": [row["destination"] for row in rows],
        "readonly": service.read_only,
        "mountpoint": str(places.bundle(container.id) / "rootfs"),
    }


def _written(home: Path, container: Container) -> dict[str, str]:
    """Configs and secrets that are files of ours (storage.write_files)."""
    return {mount.target: str(path) for mount, path in storage.own_files(home, container).items()}


def _etc(shared: Shared, live: Live) -> dict[str, str]:
    """/etc/hosts and its like, as they were in its last run."""
    home = shared.places.bundle(live.container.id) / "etc"
    if home.is_dir() or live.container.state is State.RUNNING:
        return {f"/etc/{name}": str(home / name) for name in ("hosts", "hostname", "resolv.conf")}
    home.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return etc_files(shared.places, live.container, None, shared.table.networks)


def demand_reachable(shared: Shared, live: Live) -> None:
    """The files of a running container that is no plain process of this kernel can't be seen from here."""
    service = live.container.definition
    if not service.runtime or live.container.state is not State.RUNNING:
        return
    group = f"{shared.places.cgroup}/{live.container.stack}/{live.container.id}"
    found = runtimes.find(service, shared.hierarchies, group)
    if found is not None and not found.enter:
        raise EngineError(
            f"container {live.container.name}: its files can't be reached while it runs with runtime "
            f"{service.runtime}",
            exit_code=ExitCode.FAILED,
            hint="stop it first",
            retryable=False,
        )
