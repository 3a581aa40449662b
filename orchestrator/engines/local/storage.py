"""Volumes and root filesystems: directories of the host that containers are built on. Plain, synchronous.

A fresh volume is "pending": the first container that mounts it (without nocopy) fills it from its image,
in the launcher, below a lock (see kernel/seed).
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.engines.local import clock, records
from orchestrator.engines.local.bundle import HostDevice, RootLayer, Seeding
from orchestrator.engines.local.places import Places
from orchestrator.engines.local.trouble import report
from orchestrator.images import hostroot, trees
from orchestrator.images.config import ImageConfig
from orchestrator.images.store.content import Store
from orchestrator.kernel import digest, owner, pins, syscalls
from orchestrator.model import drift, fingerprint
from orchestrator.model.action import CreateVolume
from orchestrator.model.effects import with_files
from orchestrator.model.errors import EngineError, ExitCode, PystackError
from orchestrator.model.frozen import dataclass, replace
from orchestrator.model.observation import Container, VolumeState
from orchestrator.model.stack import (
    BindMount,
    DirectoryRoot,
    FileMount,
    HostRoot,
    ImageRoot,
    Volume,
    VolumeMount,
)

DATA = "_data"
SEED = "seed"
HOST_TREE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """What the root of a container is made of, with the image's run defaults where there is an image."""

    layers: tuple[RootLayer, ...]
    image: ImageConfig | None = None


# --- volumes ---------------------------------------------------------------------------------------


def create_volume(places: Places, action: CreateVolume) -> VolumeState:
    """Make the directory and its record. Repeatable: what is there stays. One that was there once is never
    made anew: raises EngineError."""
    home = places.volume(action.volume.name)
    try:
        existing = records.read(home / "volume.json", VolumeState)
    except records.DamagedError as error:
        report(error)  # the data is what counts, and it stays; what we know of it is written anew
        existing = None
    known = existing or records.read_or_none(places.known_volume(action.volume.name), VolumeState)
    if known is not None and not Path(known.path).is_dir():
        raise _refusal(known)
    if existing is not None:
        return existing
    data = _device(action.volume) or home / DATA
    home.mkdir(parents=True, exist_ok=True, mode=0o711)
    if data == home / DATA:
        data.mkdir(exist_ok=True)
        _mark_pending(home)
    elif not data.is_dir():
        raise EngineError(f"volume {action.volume.name}: {data} is not a directory", retryable=False)
    state = VolumeState(
        name=action.volume.name,
        path=str(data),
        fingerprint=action.fingerprint,
        stack=action.stack,
        key=action.volume.key,
        created_at=clock.wall(),
        labels=action.volume.labels,
        driver_opts=action.volume.driver_opts,
    )
    records.write(home / "volume.json", state, durable=True)
    _make_known(places, state)
    return state


def _make_known(places: Places, state: VolumeState) -> None:
    places.known_volumes.mkdir(exist_ok=True, mode=0o700)
    records.write(places.known_volume(state.name), state, durable=True)


def volumes(places: Places) -> Iterator[VolumeState]:
    """Every volume written down, also those of which somebody has deleted the directory, record and all."""
    found: set[str] = set()
    for state in records.volumes(places.volumes):
        found.add(state.name)
        if not places.known_volume(state.name).exists():  # from before we kept it there
            with contextlib.suppress(OSError):
                _make_known(places, state)
        yield state if Path(state.path).is_dir() else replace(state, lost=lost(state))
    for path in sorted(places.known_volumes.glob("*.json")):
        known = records.read_or_none(path, VolumeState)
        if known is not None and known.name not in found:
            yield known if Path(known.path).is_dir() else replace(known, lost=lost(known))


def lost(state: VolumeState) -> str:
    return f"its directory {state.path} is gone"


def _refusal(state: VolumeState) -> EngineError:
    message, hint = drift.lost_volume(state.name, lost(state)), drift.lost_hint(state.name, state.path)
    return EngineError(message, retryable=False, hint=hint)


def create_anonymous(places: Places, name: str, stack: str) -> VolumeState:
    """A volume that only one seat of a service knows. Repeatable: its next occupant finds it again."""
    volume = Volume(key="", name=name)
    action = CreateVolume(volume=volume, stack=stack, fingerprint=fingerprint.of_volume(volume))
    return create_volume(places, action)


def _mark_pending(home: Path) -> None:
    seed = home / SEED
    if not seed.exists():
        records.write_bytes(seed, b"pending")


def _device(volume: Volume) -> Path | None:
    """The directory that a `local` volume with `o: bind` stands for (options of mount(8))."""
    options = dict(volume.driver_opts)
    if not options:
        return None
    if options.get("o") in ("bind", "rbind") and options.get("device"):
        return Path(options["device"])
    raise EngineError(
        f"volume {volume.name}: driver_opts {options} are not honoured; only type none with o: bind is",
        retryable=False,
    )


def remove_volume(places: Places, name: str) -> None:
    """Take the volume away with its content. What a bind-like volume stands for is left alone."""
    _remove_tree(places.volume(name))
    places.known_volume(name).unlink(missing_ok=True)


def size_of(path: str) -> int:
    """Bytes of disk that a tree takes. What goes while we look does not count; links are not followed."""
    total = 0
    for directory, _, files in os.walk(path):
        for name in (".", *files):
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except OSError:
                continue
    return total


def _remove_tree(path: Path) -> None:
    """Whatever a container has put there: links are not followed, and no depth is too deep."""
    trees.discard(str(path))


# --- root filesystems ------------------------------------------------------------------------------


def root_of(store: Store, places: Places, container: Container) -> Root:
    """Raises EngineError when the image has gone since the plan was made."""
    match container.definition.root:
        case ImageRoot(reference=reference):
            try:
                config = store.config(container.image_id)
                lower = tuple(str(path) for path in store.layers(container.image_id))
            except PystackError as error:
                raise EngineError(
                    f"image {reference} can't be used: {error.message}", exit_code=ExitCode.IMAGE
                ) from error
            return Root(layers=(RootLayer(target="", lower=lower),), image=config)
        case HostRoot():
            built = _host_tree(places.host_root, int(time.monotonic() / HOST_TREE_SECONDS))
            return Root(
                layers=tuple(
                    RootLayer(target=overlay.target, lower=tuple(str(lower) for lower in overlay.lowers))
                    for overlay in built.overlays
                )
            )
        case DirectoryRoot(path=path):
            if not Path(path).is_dir():
                raise EngineError(f"x-rootfs: {path} is not a directory", retryable=False)
            return Root(layers=(RootLayer(target="", lower=(path,)),))


@functools.lru_cache(maxsize=2)
def _host_tree(directory: Path, _period: int) -> hostroot.HostTree:
    """Looking through the host's /etc takes longer than a start: a hundred starts share one look."""
    return hostroot.build(directory)


# --- what a container finds at its mount points ----------------------------------------------------


def check_binds(container: Container) -> None:
    """Make the missing sources of binds that ask for it. Raises EngineError naming service and path."""
    for mount in container.definition.mounts:
        if isinstance(mount, FileMount) and mount.path is not None and not os.path.lexists(mount.path):
            raise EngineError(
                f"service {container.service}: {mount.kind} {mount.name}: file {mount.path} does not exist",
                retryable=False,
            )
        if not isinstance(mount, BindMount) or os.path.lexists(mount.source):
            continue
        if not mount.create_host_path:
            raise EngineError(
                f"service {container.service}: bind source {mount.source} does not exist", retryable=False
            )
        try:
            Path(mount.source).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EngineError(
                f"service {container.service}: bind source {mount.source}: {error.strerror}", retryable=False
            ) from error


def volume_directories(
    container: Container, mounted: Mapping[str, str], volumes: Mapping[str, VolumeState]
) -> dict[str, str]:
    """Target -> the volume's directory. `mounted`: target -> name of the volume on the machine.

    Raises EngineError for a subpath that is not there; the launcher looks for it again when it mounts it.
    """
    found = {}
    subpaths = {
        mount.target: mount.subpath
        for mount in container.definition.mounts
        if isinstance(mount, VolumeMount) and mount.subpath
    }
    for target, name in mounted.items():
        state = volumes.get(name)
        if state is None:
            raise EngineError(f"volume {name} is not there")
        if state.lost or not os.path.isdir(state.path):
            raise _refusal(state)
        _check_below(state.path, subpaths.get(target, ""), name)
        found[target] = state.path
    return found


def _check_below(directory: str, subpath: str, name: str) -> None:
    """A folder inside a volume. Its content is a container's: no link in it may lead us elsewhere."""
    if not subpath:
        return
    home = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
        os.close(syscalls.openat2(home, subpath, os.O_PATH | os.O_CLOEXEC, resolve=resolve))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise EngineError(f"volume {name}: subpath {subpath}: {reason}", retryable=False) from error
    finally:
        os.close(home)


def seeds(places: Places, container: Container, mounted: Mapping[str, str]) -> tuple[Seeding, ...]:
    """The volumes that may still have to be filled; the launcher looks at the state again, locked."""
    skipped = {
        mount.target
        for mount in container.definition.mounts
        if isinstance(mount, VolumeMount) and (mount.nocopy or mount.subpath)
    }
    found = []
    for target, name in mounted.items():
        state = places.volume(name) / SEED
        if target in skipped or not state.exists() or state.read_bytes()[:4] == b"done":
            continue
        found.append(Seeding(target=target, data=str(places.volume(name) / DATA), state=str(state)))
    return tuple(found)


def write_files(home: Path, container: Container) -> dict[str, str]:
    """Write configs and secrets that come as content; target -> file of the host.

    They stand in a directory that only root can enter, so their mode is the container's affair alone. Of a
    file that is exchanged when it changes there is a copy (take_copies), which is left as it is.
    """
    found = {}
    for mount, path in own_files(home, container).items():
        if mount.content is not None:
            _write_file(path, mount.content.encode(), mount.uid, mount.gid, mount.mode)
        found[mount.target] = str(path)
    return found


def own_files(home: Path, container: Container) -> dict[FileMount, Path]:
    """The configs and secrets that are files of ours, and where they are."""
    return {
        mount: home / "files" / str(number)
        for number, mount in enumerate(container.definition.mounts)
        if isinstance(mount, FileMount) and (mount.content is not None or mount.on_change)
    }


def take_copies(home: Path, container: Container) -> Container:
    """Copy the host's files that are exchanged when they change; the container with the digests of what was
    copied. Raises OSError."""
    taken = [
        write_file(mount, path)
        for mount, path in own_files(home, container).items()
        if mount.path is not None
    ]
    return replace(container, definition=with_files(container.definition, taken)) if taken else container


def write_file(mount: FileMount, path: Path) -> FileMount:
    """Write what the config or secret holds now; a copy has the owner and mode of the host's file. The mount,
    with the digest of what was copied. Raises OSError."""
    if mount.path is None:
        _write_file(path, (mount.content or "").encode(), mount.uid, mount.gid, mount.mode)
        return mount
    content, found = digest.read(mount.path)
    _write_file(path, content, *owner.of_host(found), stat.S_IMODE(found.st_mode) & 0o777)
    return replace(mount, digest=digest.of_bytes(content))


def _write_file(path: Path, content: bytes, uid: int, gid: int, mode: int) -> None:
    path.parent.mkdir(exist_ok=True, mode=0o700)
    records.write_bytes(path, content, mode=0o600)
    owner.give(str(path), uid, gid)
    path.chmod(mode)


def devices(container: Container) -> tuple[HostDevice, ...]:
    """The device nodes asked for; all of the host's for a privileged container."""
    wanted = {device.target: device.source for device in container.definition.devices}
    if container.definition.privileged:
        wanted = {path: path for path in _device_nodes()} | wanted
    return tuple(_stat_device(source, target, container.service) for target, source in wanted.items())


def _device_nodes() -> list[str]:
    found = []
    for directory, folders, files in os.walk("/dev"):
        folders[:] = [name for name in folders if name not in ("pts", "shm", "mqueue", "fd", ".udev")]
        for name in files:
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and path not in _OWN_DEVICES:
                found.append(path)
    return found


_OWN_DEVICES = frozenset(
    f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx")
)


def _stat_device(source: str, target: str, service: str) -> HostDevice:
    try:
        found = Path(source).stat()
    except OSError as error:
        raise EngineError(f"service {service}: device {source}: {error.strerror}", retryable=False) from error
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise EngineError(f"service {service}: {source} is not a device", retryable=False)
    return HostDevice(
        path=target,
        kind="b" if stat.S_ISBLK(found.st_mode) else "c",
        major=os.major(found.st_rdev),
        minor=os.minor(found.st_rdev),
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
    )


def settle_layers(home: Path, *, in_order: bool) -> bool:
    """What a container had written when the machine went down; True when it was given up. Repeatable.

    Overlays are mounted `volatile`, and a sync inside reaches no disk: after a power cut the layer is any
    mixture of old and new, and the kernel's mark says so (overlayfs.rst, "Volatile mount"). After a shutdown
    in order all of it was written.
    """
    given_up = False
    for layer in (home / "layers").glob("*"):
        mark = layer / "work" / "work" / "incompat" / "volatile"
        if not mark.is_dir():
            continue
        if in_order:
            (mark / "dirty").unlink(missing_ok=True)
            mark.rmdir()
        else:
            _remove_tree(layer / "upper")  # the mark goes last
            _remove_tree(layer)
            given_up = True
    return given_up


def remove_layers(path: Path) -> None:
    """Take a container's directory away. Never follows a link that the container has left."""
    pins.unpin(str(path))
    _remove_tree(path)
