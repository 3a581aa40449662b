"""The standard library's `dataclass` for frozen values, made quicker.

`dataclasses` writes and compiles six functions for each class when it is defined: 0.5 ms, times some
hundred classes, before a command does anything. Here a frozen class shares what can be shared, and its
`__init__` is compiled when its first value is made. Everything else (fields, replace, defaults, slots) is
the library's own, and type checkers see nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(
        *, frozen: bool = False, slots: bool = False, kw_only: bool = False, **options: Any
    ) -> Callable[[type[Any]], type[Any]]:
        """As the library's, for classes that are frozen, slotted and keyword-only; others are left to it."""
        if not (frozen and slots and kw_only) or options:
            return dataclasses.dataclass(frozen=frozen, slots=slots, kw_only=kw_only, **options)
        return _freeze


__all__ = ["dataclass"]


def _freeze(plain: type[Any]) -> Any:
    own = vars(plain)
    if own.get("__doc__") is None:
        plain.__doc__ = plain.__name__  # the library would write a signature, which takes as long again
    if "__hash__" in own or "__init__" in own:
        raise TypeError(f"{plain.__qualname__}: frozen values have the hash and the __init__ made here")
    eq, shown = "__eq__" in own, "__repr__" in own
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=True)(plain)
    made.__init__ = _first_init(made)
    made.__setattr__, made.__delattr__ = _refuse_to_set, _refuse_to_delete
    made.__getstate__, made.__setstate__ = _state, _restore
    if not shown:
        made.__repr__ = _show
    if not eq:
        compared = _compared(made)
        made.__eq__, made.__hash__ = _equality(compared), _hashing(compared)
    return made


def _first_init(cls: type[Any]) -> Callable[..., None]:
    """An `__init__` that replaces itself by the real one."""

    def first(self: Any, **given: Any) -> None:
        made = _compile_init(cls)
        type.__setattr__(cls, "__init__", made)
        made(self, **given)

    return first


def _compile_init(cls: type[Any]) -> Callable[..., None]:
    names: dict[str, Any] = {"_MISSING": MISSING}
    parameters: list[str] = []
    lines: list[str] = []
    for number, one in enumerate(dataclasses.fields(cls)):
        # The slot's own setter: nothing that is frozen stands in its way.
        names[f"_set{number}"] = getattr(cls, one.name).__set__
        value = one.name
        if one.default is not MISSING:
            names[f"_default{number}"] = one.default
            parameters.append(f"{one.name}=_default{number}")
        elif one.default_factory is not MISSING:
            names[f"_make{number}"] = one.default_factory
            parameters.append(f"{one.name}=_MISSING")
            value = f"_make{number}() if {one.name} is _MISSING else {one.name}"
        else:
            parameters.append(one.name)
        lines.append(f" _set{number}(self, {value})\n")
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()\n")
    star = ", *, " if parameters else ""
    exec(f"def __init__(self{star}{', '.join(parameters)}):\n{''.join(lines) or ' pass'}", names)  # noqa: S102
    made: Callable[..., None] = names["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _compared(cls: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """The fields that tell two values apart."""
    names = [one.name for one in dataclasses.fields(cls) if one.compare]
    if len(names) > 1:
        return attrgetter(*names)
    only = attrgetter(*names) if names else None
    return lambda value: (only(value),) if only else ()


def _equality(compared: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any, object], Any]:
    def equal(self: Any, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self is other or compared(self) == compared(other)

    return equal


def _hashing(compared: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any], int]:
    return lambda self: hash(compared(self))


def _show(self: Any) -> str:
    shown = (f"{one.name}={getattr(self, one.name)!r}" for one in dataclasses.fields(self) if one.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _refuse_to_set(_self: object, name: str, _value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, one.name) for one in dataclasses.fields(self)]


def _restore(self: Any, state: list[Any]) -> None:
    for one, value in zip(dataclasses.fields(self), state, strict=True):
        getattr(type(self), one.name).__set__(self, value)
