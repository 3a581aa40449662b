"""Which containers a command means: by service, by name, or by the beginning of an id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.api.orders import shown
from orchestrator.api.stacks import Stacks
from orchestrator.engines.local.table import Live
from orchestrator.model.errors import UserError, no_containers

LEAST_OF_ID = 3


def chosen(stacks: Stacks, stack: str, words: Iterable[str]) -> list[Live]:
    """The containers of `stack`, or those that `words` name, which may be of another one.

    Raises UserError for a word that names nothing.
    """
    table = stacks.machine.table
    mine = sorted(table.of_stack(stack), key=_order)
    words = list(words)
    supervised = stacks.get(stack)
    if not words:
        if supervised is None and not mine:
            raise no_containers(stack)
        return mine
    known = supervised.loop.desired.stack.services if supervised is not None else {}
    found: dict[str, Live] = {}
    for word in words:
        for live in _named(word, mine, table.containers, known):
            found[live.container.id] = live
    return list(found.values())


def _named(
    word: str, mine: Iterable[Live], every: Mapping[str, Live], services: Mapping[str, object]
) -> list[Live]:
    of_service = [live for live in mine if shown(live.container.service) == word]
    if of_service or word in services:
        return of_service
    by_name = [live for live in every.values() if live.container.name == word]
    if by_name:
        return by_name
    by_id = [live for name, live in every.items() if name.startswith(word) and len(word) >= LEAST_OF_ID]
    if len(by_id) > 1:
        raise UserError(f"{word} is the beginning of the id of {len(by_id)} containers")
    if not by_id:
        raise UserError(f"no such service or container: {word}")
    return by_id


def _order(live: Live) -> tuple[str, int, str]:
    container = live.container
    return shown(container.service), container.slot, container.name
