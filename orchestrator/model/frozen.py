"""Frozen values: the standard library's `dataclass`, `field`, `fields` and `replace`, made quicker.

`dataclasses` imports `inspect` (12 ms), and writes and compiles six functions for each class when it is
defined: 0.5 ms, times some hundred classes, before a command does anything. Here a frozen class shares what
can be shared, its `__init__` is compiled when it has turned out to be made often, and the library is loaded
only by who asks it about such a class: its own functions work on them. Type checkers see nothing else.
"""

from __future__ import annotations

from operator import attrgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import MISSING, dataclass, field, fields, replace
    from typing import Any
else:

    class _Missing:
        """Stands for a default that isn't there."""

    MISSING = _Missing()

    def dataclass(*, frozen=False, slots=False, kw_only=False, **options):
        """As the library's, for classes that are frozen, slotted and keyword-only; others are left to it."""
        if not (frozen and slots and kw_only) or options:
            return _by_library(frozen=frozen, slots=slots, kw_only=kw_only, **options)
        return _freeze

    def field(**options):
        """As the library's."""
        return _Field(**options)

    def fields(of):
        """The fields of a frozen class or value, in order: each with name, type, default, compare, repr."""
        return of.__frozen_fields__

    def replace(value, /, **changes):
        """As the library's."""
        if not hasattr(value, "__frozen_fields__"):
            import dataclasses

            return dataclasses.replace(value, **changes)
        kind = value.__class__
        values = dict(zip(kind.__frozen_names__, kind.__frozen_values__(value), strict=True))
        return kind(**{**values, **changes})


__all__ = ["MISSING", "dataclass", "field", "fields", "is_frozen", "replace"]

_OFTEN = 3  # values of a class, until compiling its __init__ pays (0.3 ms, as much as 100 values without)


class _Field:
    """What is known of a field."""

    __slots__ = ("compare", "default", "default_factory", "init", "name", "repr", "type")

    def __init__(
        self,
        *,
        default: Any = MISSING,
        default_factory: Any = MISSING,
        init: bool = True,
        compare: bool = True,
        repr: bool = True,  # noqa: A002 (the library's word)
    ) -> None:
        if default.__class__.__hash__ is None:
            raise ValueError(f"mutable default {default!r} of a field: use default_factory")
        self.name = ""
        self.type: Any = None
        self.default = default
        self.default_factory = default_factory
        self.init = init
        self.compare = compare
        self.repr = repr


def is_frozen(kind: object) -> bool:
    """Whether a class or value was made here."""
    return hasattr(kind, "__frozen_fields__")


def _by_library(**options: Any) -> Callable[[type[Any]], type[Any]]:
    import dataclasses

    def decorate(plain: type[Any]) -> type[Any]:
        for name, value in list(vars(plain).items()):
            if isinstance(value, _Field):
                setattr(plain, name, _library_field(value))
        made: type[Any] = dataclasses.dataclass(**options)(plain)
        return made

    return decorate


def _library_field(one: _Field) -> Any:
    import dataclasses

    given: dict[str, Any] = {"init": one.init, "compare": one.compare, "repr": one.repr}
    if one.default is not MISSING:
        return dataclasses.field(default=one.default, **given)
    if one.default_factory is not MISSING:
        return dataclasses.field(default_factory=one.default_factory, **given)
    return dataclasses.field(**given)


class _LibraryFields:
    """`__dataclass_fields__`, by which the library knows its classes; made when it first looks."""

    def __get__(self, _: object, cls: type[Any]) -> Any:
        import dataclasses

        named = [(one.name, one.type, _library_field(one)) for one in cls.__frozen_fields__]
        twin = dataclasses.make_dataclass(
            cls.__name__, named, init=False, repr=False, eq=False, match_args=False, kw_only=True
        )
        known = vars(twin)["__dataclass_fields__"]
        setattr(cls, "__dataclass_fields__", known)  # noqa: B010 (no attribute that a type checker knows)
        return known


def _freeze(plain: type[Any]) -> Any:
    own = vars(plain)
    if "__hash__" in own or "__init__" in own:
        raise TypeError(f"{plain.__qualname__}: frozen values have the hash and the __init__ made here")
    known = _collect(plain)
    body = {name: value for name, value in own.items() if name not in ("__dict__", "__weakref__")}
    held = {name for base in plain.__mro__[1:-1] for name in vars(base).get("__slots__", ())}
    for one in known:
        if one.name in own:
            del body[one.name]
    body["__slots__"] = tuple(one.name for one in known if one.name not in held)
    body["__frozen_fields__"] = known
    body["__dataclass_fields__"] = _LibraryFields()
    body.setdefault("__doc__", None)
    if body["__doc__"] is None:
        body["__doc__"] = plain.__name__  # the library would write a signature, which takes long
    body.update(
        __match_args__=(),
        __frozen_names__=tuple(one.name for one in known),
        __frozen_values__=_values(known),
        __setattr__=_refuse_to_set,
        __delattr__=_refuse_to_delete,
        __getstate__=_state,
        __setstate__=_restore,
    )
    body.setdefault("__repr__", _show)
    if "__eq__" not in own:
        compared = _compared(known)
        body["__eq__"], body["__hash__"] = _equality(compared), _hashing(compared)
    kind: Any = type(plain)
    made: Any = kind(plain.__name__, plain.__bases__, body)
    made.__qualname__ = plain.__qualname__
    made.__init__ = _first_init(made)
    return made


def _collect(plain: type[Any]) -> tuple[_Field, ...]:
    """The fields of the class and of those it extends, in the order of their first appearance."""
    found: dict[str, _Field] = {}
    for base in reversed(plain.__bases__):
        found.update({one.name: one for one in getattr(base, "__frozen_fields__", ())})
    for name, kind in vars(plain).get("__annotations__", {}).items():
        given = vars(plain).get(name, MISSING)
        if hasattr(given, "default_factory") and not isinstance(given, _Field):
            raise TypeError(f"{plain.__qualname__}.{name}: take `field` from here, too")
        one = given if isinstance(given, _Field) else _Field(default=given)
        one.name, one.type = name, kind
        found[name] = one
    return tuple(found.values())


def _first_init(cls: type[Any]) -> Callable[..., None]:
    """An `__init__` that replaces itself by a compiled one when the class is made often."""
    made = 0
    setters: list[tuple[_Field, Callable[[Any, Any], None]]] = []

    def first(self: Any, **given: Any) -> None:
        nonlocal made
        made += 1
        if made > _OFTEN:
            compiled = _compile_init(cls)
            type.__setattr__(cls, "__init__", compiled)
            compiled(self, **given)
            return
        if not setters:
            setters.extend((one, getattr(cls, one.name).__set__) for one in cls.__frozen_fields__)
        for one, put in setters:
            if one.name in given:
                value = given.pop(one.name)
            elif one.default is not MISSING:
                value = one.default
            elif one.default_factory is not MISSING:
                value = one.default_factory()
            else:
                raise TypeError(f"{cls.__qualname__}.__init__() misses the argument {one.name!r}")
            put(self, value)
        if given:
            raise TypeError(f"{cls.__qualname__}.__init__() got an unexpected argument {next(iter(given))!r}")
        if hasattr(cls, "__post_init__"):
            self.__post_init__()

    return first


def _compile_init(cls: type[Any]) -> Callable[..., None]:
    names: dict[str, Any] = {"MISSING": MISSING}
    parameters: list[str] = []
    lines: list[str] = []
    for number, one in enumerate(cls.__frozen_fields__):
        # The slot's own setter: nothing that is frozen stands in its way.
        names[f"_set{number}"] = getattr(cls, one.name).__set__
        value = one.name
        if one.default is not MISSING:
            names[f"_default{number}"] = one.default
            parameters.append(f"{one.name}=_default{number}")
        elif one.default_factory is not MISSING:
            names[f"_make{number}"] = one.default_factory
            parameters.append(f"{one.name}=MISSING")
            value = f"_make{number}() if {one.name} is MISSING else {one.name}"
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


def _values(known: tuple[_Field, ...]) -> Any:
    getter = _getter([one.name for one in known])
    return staticmethod(getter)


def _compared(known: tuple[_Field, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """The fields that tell two values apart."""
    return _getter([one.name for one in known if one.compare])


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
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
    shown = (f"{one.name}={getattr(self, one.name)!r}" for one in self.__frozen_fields__ if one.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _refuse_to_set(_self: object, name: str, _value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_self: object, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, one.name) for one in self.__frozen_fields__]


def _restore(self: Any, state: list[Any]) -> None:
    for one, value in zip(self.__frozen_fields__, state, strict=True):
        getattr(type(self), one.name).__set__(self, value)
