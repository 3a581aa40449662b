"""Why a container is out of date. Rules in order, the first that applies speaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from orchestrator.model import fingerprint
from orchestrator.model.desired import Intent
from orchestrator.model.observation import Container
from orchestrator.model.stack import ImageRoot, Service
from orchestrator.planner import files, networks, volumes
from orchestrator.planner.survey import Survey

DEFINITION_CHANGED = "definition changed"
SHOWN_KEYS = 4
"""Of the keys in which a definition differs."""
FILES = ("config ", "secret ")


class Seat(NamedTuple):
    """All that the rules look at; never at the time, nor at other containers than peers (`seating` remembers
    what they said). Made for every container in every pass, so it is of the kind that is made
    quickest."""

    survey: Survey
    service: Service
    intent: Intent
    container: Container


Rule = Callable[[Seat], str | None]
"""None: ask the next rule. "": it is up to date. Anything else: why it is not."""


def stale(survey: Survey, service: Service, intent: Intent, container: Container) -> str:
    """The reason to replace `container`, or ""."""
    return _first(RULES, Seat(survey, service, intent, container))


def cut_off(survey: Survey, service: Service, intent: Intent, container: Container) -> str:
    """Why `container` can't wait for its turn in an update: something it stands on has gone. "": it can."""
    if container.fingerprint == survey.fingerprint(service):
        return _first(BY_LOSS, Seat(survey, service, intent, container))
    # What its new definition asks for besides, it has never had.
    broken = _broken(Seat(survey, service, intent, container))
    return broken or networks.gone(survey, container, tuple(container.addresses))


def _first(rules: tuple[Rule, ...], seat: Seat) -> str:
    for rule in rules:
        because = rule(seat)
        if because is not None:
            return because
    return ""


def _broken(seat: Seat) -> str | None:
    """Its files are gone: what is in its place can only be better. With `--no-repair` it is left."""
    return seat.container.broken or None if seat.survey.desired.repair else None


def _by_order(seat: Seat) -> str | None:
    return "a new container was asked for" if seat.container.generation < seat.intent.generation else None


def _kept(seat: Seat) -> str | None:
    return "" if seat.intent.keep_stale else None


def _definition(seat: Seat) -> str | None:
    if seat.container.fingerprint == seat.survey.fingerprint(seat.service):
        return None
    keys = fingerprint.differing(seat.container.definition, seat.service)
    if keys and all(key.startswith(FILES) for key in keys):
        return files.changed(keys)
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return f"{DEFINITION_CHANGED}: {', '.join(keys[:SHOWN_KEYS])}{more}" if keys else DEFINITION_CHANGED


def _image(seat: Seat) -> str | None:
    """An image that is not here any more is no reason to give up a container that works."""
    if not isinstance(seat.service.root, ImageRoot):
        return None
    pinned = seat.survey.desired.pins.get(seat.service.name)
    if pinned is not None:
        return None if pinned == seat.container.image_id else "the service goes back to the image before"
    state = seat.survey.image(seat.service)
    if state is None or state.id == seat.container.image_id:
        return None
    return f"image {seat.service.root.reference} is another one now"


def _network(seat: Seat) -> str | None:
    return networks.gone(seat.survey, seat.container, seat.survey.layout.networks[seat.service.name]) or None


def _volume(seat: Seat) -> str | None:
    return volumes.gone(seat.survey, seat.service.name) or None


def _peer(seat: Seat) -> str | None:
    """Its definition is the same, but the container beside which it was made is not there any more."""
    for service, shared in seat.survey.layout.shares[seat.service.name].items():
        peer = seat.survey.peer(service)
        made_beside = seat.container.peers.get(service)
        if peer is not None and made_beside is not None and made_beside != peer.id:
            return f"{service}, whose {shared} it shares, was replaced"
    return None


BY_WISH: tuple[Rule, ...] = (_by_order, _kept, _definition, _image)
"""These may be followed step by step (`updates`)."""
BY_LOSS: tuple[Rule, ...] = (_broken, _network, _volume, _peer)
RULES: tuple[Rule, ...] = (_broken, *BY_WISH, *BY_LOSS)
