"""Which containers a word means."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.api.choosing import chosen
from orchestrator.api.stacks import Stacks
from orchestrator.engines.local.records import Built
from orchestrator.engines.local.table import Live, Table
from orchestrator.model.errors import UserError
from orchestrator.model.observation import Container
from tests.kit.stacks import service, stack, up


def live(stack_name: str, key: str, slot: int, container_id: str) -> Live:
    made = Container(
        id=container_id.ljust(64, "0"),
        name=f"{stack_name}-{key}-{slot}",
        stack=stack_name,
        service=key,
        slot=slot,
        definition=service(),
        fingerprint="",
        generation=0,
        image_id="",
        created=0.0,
    )
    return Live(built=Built(container=made), container=made)


@pytest.fixture
def stacks() -> Stacks:
    """Two stacks: shop with web (ten of them) and an idle db, and other with a web of its own."""
    table = Table()
    for number in (10, 2, 1):
        table.add(live("shop", "web", number, f"aaa{number}f"))
    table.add(live("other", "web", 1, "bbb1"))
    desired = up(stack("shop", web=service(), db=service()))
    supervised: Any = SimpleNamespace(loop=SimpleNamespace(desired=desired))
    get = {"shop": supervised}.get
    return cast("Stacks", SimpleNamespace(machine=SimpleNamespace(table=table), get=get))


def names(stacks: Stacks, stack_name: str, *words: str) -> list[str]:
    return [one.container.name for one in chosen(stacks, stack_name, words)]


def test_without_words_all_of_the_stack_in_order_of_their_numbers(stacks: Stacks) -> None:
    assert names(stacks, "shop") == ["shop-web-1", "shop-web-2", "shop-web-10"]
    with pytest.raises(UserError, match='no container found for project "nothing"'):
        names(stacks, "nothing")


def test_a_service_comes_first_then_a_name_then_the_beginning_of_an_id(stacks: Stacks) -> None:
    assert names(stacks, "shop", "web") == ["shop-web-1", "shop-web-2", "shop-web-10"]
    assert names(stacks, "shop", "db") == []
    assert names(stacks, "shop", "other-web-1", "shop-web-2") == ["other-web-1", "shop-web-2"]
    assert names(stacks, "", "bbb1") == ["other-web-1"]
    assert names(stacks, "shop", "web", "shop-web-1") == ["shop-web-1", "shop-web-2", "shop-web-10"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nobody", "no such service or container: nobody"),
        ("bb", "no such service or container: bb"),
        ("aaa", "aaa is the beginning of the id of 3 containers"),
        ("", "no such service or container: "),
    ],
)
def test_what_names_nothing_or_too_much_is_refused(stacks: Stacks, word: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        names(stacks, "shop", word)
    assert caught.value.message == message
