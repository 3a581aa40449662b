"""Values made by model.frozen are those of the standard library, bit by bit; only sooner."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from orchestrator.model import frozen


def declare(dataclass: Any, field: Any) -> Any:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Below:
        """A value."""

        name: str
        size: int = 3
        words: list[str] = field(default_factory=list)
        note: str = field(default="", compare=False)

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Above(Below):
        extra: int = 1

        def __post_init__(self) -> None:
            if self.extra < 0:
                raise ValueError(self.extra)

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Empty:
        pass

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Single:
        value: float

        def __repr__(self) -> str:
            return "single"

    return Below, Above, Empty, Single


OURS = declare(frozen.dataclass, frozen.field)
THEIRS = declare(dataclasses.dataclass, dataclasses.field)


@pytest.mark.parametrize("number", range(4))
def test_the_class_has_the_same_fields_and_places(number: int) -> None:
    ours, theirs = OURS[number], THEIRS[number]
    shape = [(one.name, one.type, one.default, one.compare) for one in dataclasses.fields(ours)]
    assert shape == [(one.name, one.type, one.default, one.compare) for one in dataclasses.fields(theirs)]
    assert ours.__slots__ == theirs.__slots__
    assert ours.__match_args__ == theirs.__match_args__
    assert not hasattr(ours, "__dict__") or "__dict__" not in ours.__slots__


@pytest.mark.parametrize(("number", "given"), [(0, {"name": "a"}), (1, {"name": "b", "extra": 2}), (2, {})])
def test_its_values_look_the_same(number: int, given: dict[str, Any]) -> None:
    ours, theirs = OURS[number](**given), THEIRS[number](**given)
    assert repr(ours) == repr(theirs)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert repr(OURS[3](value=1.5)) == "single"


def test_defaults_are_made_anew_for_each_value() -> None:
    assert OURS[0](name="a").words is not OURS[0](name="a").words


def test_equality_and_hash_go_by_the_compared_fields() -> None:
    below, above, empty, single = OURS
    assert single(value=1.0) == single(value=1.0)
    assert single(value=1.0) != single(value=2.0)
    assert hash(single(value=1.0)) == hash(single(value=1.0))
    assert below(name="a", note="x") == below(name="a", note="y")
    assert below(name="a") != below(name="b")
    assert below(name="a") != above(name="a")
    assert empty() == empty()
    assert hash(empty()) == hash(empty())
    with pytest.raises(TypeError, match="unhashable"):
        hash(below(name="a"))  # a list in it


def test_nothing_can_be_changed() -> None:
    value = OURS[0](name="a")
    with pytest.raises(FrozenInstanceError):
        value.name = "b"
    with pytest.raises(FrozenInstanceError):
        value.other = "b"
    with pytest.raises(FrozenInstanceError):
        del value.name
    assert value.name == "a"


@pytest.mark.parametrize("given", [{}, {"name": "a", "nome": "b"}])
def test_wrong_arguments_are_refused(given: dict[str, str]) -> None:
    for below in (OURS[0], THEIRS[0]):
        with pytest.raises(TypeError, match=r"Below\.__init__"):
            below(**given)
    with pytest.raises(TypeError):
        OURS[0]("a")
    with pytest.raises(ValueError, match="-1"):
        OURS[1](name="a", extra=-1)


def test_values_are_replaced_copied_and_matched() -> None:
    value = OURS[1](name="a", words=["w"])
    assert dataclasses.replace(value, size=4) == OURS[1](name="a", size=4, words=["w"])
    assert copy.copy(value) == value
    twin = copy.deepcopy(value)
    assert twin == value
    assert twin.words is not value.words
    match value:
        case OURS_ABOVE(name=name):
            assert name == "a"


OURS_ABOVE = OURS[1]


def test_other_kinds_of_dataclass_are_left_to_the_library() -> None:
    @frozen.dataclass(slots=True)  # type: ignore[unused-ignore]
    class Open:
        value: int = 1

    opened = Open(2)
    opened.value = 3
    assert opened == Open(3)
