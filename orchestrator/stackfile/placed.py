"""What is mounted where in a service's containers."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model import stack as model
from orchestrator.model.errors import Place
from orchestrator.model.frozen import replace
from orchestrator.stackfile import mounts, problem
from orchestrator.stackfile.problem import place_of
from orchestrator.stackfile.quantity import size_in_bytes
from orchestrator.stackfile.reader import Reader
from orchestrator.stackfile.sound import is_signal
from orchestrator.stackfile.tree import Seq

_PROPAGATION = "rprivate"


def placed(said: Reader, files: Mapping[str, model.FileMount]) -> tuple[model.Mount, ...]:
    """All mounts of a service. `files` holds the stack's configs and secrets as "configs.KEY"."""
    found: list[model.Mount] = []
    for entry in said.listed("volumes"):
        mount = _mount(entry)
        if mount is not None:
            found.append(mount)
    found += _tmpfs(said)
    mounted = len(found)
    service_wide = on_change(said)
    for noun in ("configs", "secrets"):
        for entry in said.listed(noun):
            file = files.get(f"{noun}.{entry.text('source')}")
            if file is not None:
                found.append(_file(entry, file, service_wide))
    _check_targets(said, found, mounted)
    return tuple(found)


def _check_targets(said: Reader, found: list[model.Mount], mounted: int) -> None:
    """One mount a target. Docker Compose does not look at configs and secrets, which come after `mounted`."""
    taken: dict[str, model.Mount] = {}
    for index, mount in enumerate(found):
        earlier = taken.setdefault(mount.target, mount)
        if earlier is mount:
            continue
        mark = _mark(mount.place) or said.mark
        message = f"{said.path}: {mount.target} is already taken by another mount"
        hint = f"the other one is at line {earlier.place.line}" if earlier.place else ""
        if index < mounted:
            said.report.error(mark, problem.CONFLICT, message, hint=hint, path=said.path)
        else:
            service = str(said.steps[1])
            said.report.refuse(mark, problem.CONFLICT, message, hint=hint, path=said.path, service=service)


def _mark(place: Place | None) -> problem.Mark | None:
    return None if place is None else (place.file, place.line, place.column, place.end_column or 0)


def _mount(entry: Reader) -> model.Mount | None:
    """None for what this machine can't mount."""
    target = entry.text("target") or ""
    if not target.startswith("/"):
        entry.refuse(f"the target {target!r} must be an absolute path in the container")
    match entry.text("type"):
        case "bind":
            bind = entry.part("bind")
            propagation = bind.text("propagation") or _PROPAGATION
            if propagation not in mounts.PROPAGATIONS:
                bind.refuse(f"{propagation!r} is none of {', '.join(mounts.PROPAGATIONS)}", key="propagation")
            return model.BindMount(
                source=entry.text("source") or "",
                target=target,
                read_only=entry.flag("read_only"),
                create_host_path=bind.flag("create_host_path", default=True),
                propagation=propagation,
                recursive=bind.text("recursive") or "enabled",
                selinux=bind.text("selinux") or "",
                consistency=entry.text("consistency") or "",
                place=entry.place,
            )
        case "tmpfs":
            part = entry.part("tmpfs")
            return model.TmpfsMount(
                target=target,
                size=part.bytes("size"),
                mode=part.whole("mode"),
                read_only=entry.flag("read_only"),
                place=entry.place,
            )
        case "volume":
            part = entry.part("volume")
            return model.VolumeMount(
                source=entry.text("source"),
                target=target,
                read_only=entry.flag("read_only"),
                nocopy=part.flag("nocopy"),
                subpath=part.text("subpath") or "",
                labels=part.pairs("labels"),
                place=entry.place,
            )
        case other:
            entry.refuse(
                f"mounts of the type {other} are not supported", key="type", code=problem.UNSUPPORTED
            )
            return None


def _tmpfs(said: Reader) -> list[model.TmpfsMount]:
    """The short list: path[:option,...], where size, mode and mount(8) options may stand."""
    listed = said.node.get("tmpfs")
    found: list[model.TmpfsMount] = []
    for index, entry in enumerate(listed if isinstance(listed, Seq) else ()):
        assert isinstance(listed, Seq)
        if not isinstance(entry, str):
            continue
        mark = listed.mark(index)
        target, _, options = entry.partition(":")
        mount = model.TmpfsMount(target=mounts.clean(target), place=place_of(mark))
        try:
            if not mount.target.startswith("/"):
                path = f"{said.path}.tmpfs[{index}]"
                message = f"{path}: {target!r} must be an absolute path"
                said.report.refuse(mark, problem.WRONG_VALUE, message, path=path, service=str(said.steps[1]))
            for option in filter(None, options.split(",")):
                mount = _with_option(mount, option)
        except ValueError as error:
            path = f"{said.path}.tmpfs[{index}]"
            said.report.error(mark, problem.WRONG_VALUE, f"{path}: {error}", path=path)
        found.append(mount)
    return found


def _with_option(mount: model.TmpfsMount, option: str) -> model.TmpfsMount:
    key, _, value = option.partition("=")
    if key == "size" and not value.endswith("%"):
        return replace(mount, size=size_in_bytes(value))
    if key == "mode":
        return replace(mount, mode=int(value, 8))
    if key in ("ro", "rw"):
        return replace(mount, read_only=key == "ro")
    return replace(mount, options=(*mount.options, option))


def on_change(said: Reader) -> str | None:
    """The signal of x-on-change."""
    signal = said.part("x-on-change").text("signal")
    if signal is not None and not is_signal(signal):
        said.part("x-on-change").refuse(f"{signal!r:.60} is not a signal", key="signal", hint="as SIGHUP")
    return signal


def _file(entry: Reader, file: model.FileMount, service_wide: str | None) -> model.FileMount:
    """A config goes below /, a secret below /run/secrets, unless its target is absolute."""
    base = "/" if file.kind == "config" else "/run/secrets/"
    target = entry.text("target") or file.name
    if not target.startswith("/"):
        target = base + target
    mode = entry.text("mode")
    return replace(
        file,
        target=mounts.clean(target),
        uid=_owner(entry, "uid"),
        gid=_owner(entry, "gid"),
        mode=int(mode[1:] or "0", 8) if mode else file.mode,
        on_change=on_change(entry) or service_wide,
        place=entry.place,
    )


def _owner(entry: Reader, key: str) -> int:
    text = entry.text(key) or "0"
    if not text.isdecimal() or len(text) > 10 or int(text) >= 2**32 - 1:
        entry.refuse(f"{text!r} is not a number of a user or group", key=key)
        return 0
    return int(text)
