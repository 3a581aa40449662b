"""Volumes: named ones, made before the first container that mounts them, and anonymous ones of a seat."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from orchestrator.model import drift, fingerprint
from orchestrator.model.action import CreateVolume, RemoveVolume
from orchestrator.model.desired import Wanted
from orchestrator.model.errors import ExitCode
from orchestrator.model.observation import Container, ImageState, VolumeState
from orchestrator.model.stack import Service, Volume, VolumeMount
from orchestrator.planner.draft import Draft
from orchestrator.planner.survey import Survey


def arrange(survey: Survey, draft: Draft) -> None:
    """Make what wanted services mount and what is not there."""
    keys = {
        key
        for service in survey.layout.order
        if survey.wanted(service) in (Wanted.RUNNING, Wanted.CREATED)
        for key in survey.layout.volumes[service]
    }
    for key in sorted(keys):
        _arrange_one(survey, draft, survey.desired.stack.volumes[key])


def _arrange_one(survey: Survey, draft: Draft, volume: Volume) -> None:
    target = f"volume:{volume.name}"
    state = survey.observation.volumes.get(volume.name)
    if state is not None and state.lost:
        draft.refuse(target, lost_words(state), ExitCode.FAILED, lost_hint(state))
        return
    if state is not None:
        changed = state.fingerprint != fingerprint.of_volume(volume)
        if changed and not volume.external and state.stack == survey.desired.stack.name:
            draft.warn(f"volume {volume.name} has another definition now; its data is kept as it was")
        return
    if volume.external:
        draft.refuse(target, f"external volume {volume.name} does not exist", ExitCode.FAILED)
        return
    users = [c.name for c in survey.leaving() if volume.key in survey.layout.volumes.get(c.service, ())]
    if users:
        draft.wait(target, f"{users[0]} still mounts what was there before")
        return
    draft.act(
        CreateVolume(
            volume=volume,
            stack=survey.desired.stack.name,
            fingerprint=fingerprint.of_volume(volume),
            because="missing",
        )
    )


def lost_words(state: VolumeState) -> str:
    return drift.lost_volume(state.name, state.lost)


def lost_hint(state: VolumeState) -> str:
    return drift.lost_hint(state.name, state.path)


def lost(survey: Survey, names: Iterable[str]) -> VolumeState | None:
    """The first of these volumes (by name on the machine) that has lost its directory."""
    states = (survey.observation.volumes.get(name) for name in sorted(names))
    return next((state for state in states if state is not None and state.lost), None)


def lost_by(survey: Survey, container: Container) -> VolumeState | None:
    """The first volume of an existing container that has lost its directory."""
    keys = survey.layout.volumes.get(container.service, ())
    named = (survey.desired.stack.volumes[key].name for key in keys)
    return lost(survey, {*named, *container.anonymous_volumes.values()})


def gone(survey: Survey, service: str) -> str:
    """Why the containers of a service have lost a volume, in words."""
    for key in survey.layout.volumes[service]:
        volume = survey.desired.stack.volumes[key]
        if volume.name not in survey.observation.volumes and not volume.external:
            return f"volume {volume.name} is gone"
    return ""


def missing(survey: Survey, service: str) -> str:
    """The first volume that a new container of the service would need and that is not there."""
    for key in survey.layout.volumes[service]:
        name = survey.desired.stack.volumes[key].name
        state = survey.observation.volumes.get(name)
        if state is None or state.lost or f"volume:{name}" in survey.in_flight:
            return name
    return ""


def anonymous(
    life: str, service: Service, slot: int, image: ImageState | None, owner: Service
) -> Mapping[str, str]:
    """Target path -> name of the volumes without a key, those that the image declares included.

    `life` is the stack's name and when it began. The name follows from it, the seat and the path alone. So
    the next occupant of the seat gets the same
    volume, also when everything was killed between the removal of the old one and the making of the new.
    `owner`: whose seat it is; a step of `pre_start` sees the volumes of its service's container.
    """
    targets = [m.target for m in service.mounts if isinstance(m, VolumeMount) and m.source is None]
    covered = {mount.target.rstrip("/") for mount in service.mounts}
    declared = image.volumes if image is not None else ()
    targets += [path for path in declared if path.rstrip("/") not in covered]
    seat = f"{life}\0{owner.container_name or owner.name}\0{slot}"
    return {
        target: hashlib.sha256(f"{seat}\0{target}".encode()).hexdigest() for target in dict.fromkeys(targets)
    }


def leave(survey: Survey, draft: Draft, ours: Mapping[str, Container]) -> None:
    """`down -v`: what the stack has made goes when nobody uses it; external volumes never do."""
    external = {volume.name for volume in survey.desired.stack.volumes.values() if volume.external}
    for name, state in sorted(survey.observation.volumes.items()):
        if state.stack != survey.desired.stack.name or name in external:
            continue
        if any(user not in ours for user in state.users):
            draft.warn(f"volume {name} is left: still in use")
        elif ours or survey.being_made():
            draft.wait(f"volume:{name}", "containers of the stack are still there")
        else:
            draft.act(RemoveVolume(name=name, because="the stack goes down with its volumes"))
