"""Values of the model <-> JSON, by their type annotations.

What crosses a process border or is written to disk goes through here, so no second description of a noun
exists. Alternatives (`A | B` of dataclasses) carry the class name in the field "is". Fields at their
default are left out, which keeps records small and lets an older record be read after a field was added.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping
from enum import Enum

from orchestrator.model.frozen import MISSING, fields, is_frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias, TypeVar

    T = TypeVar("T")
    Json: TypeAlias = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
    Decode: TypeAlias = Callable[[Any], Any]


def _remember(make: Callable[[Any], T]) -> Callable[[Any], T]:
    """functools.cache, whose typing wants a Hashable and takes no type for one."""
    made: dict[Any, T] = {}

    def get(kind: Any) -> T:
        if kind not in made:
            made[kind] = make(kind)
        return made[kind]

    return get


class CodecError(ValueError):
    """The JSON does not describe a value of the type asked for."""


def encode(value: object) -> Json:
    """JSON for a value of the model. Raises TypeError for anything else."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return encode(value.value)
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        return [encode(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): encode(part) for key, part in value.items()}
    if is_frozen(value) and not isinstance(value, type):
        return _encode_fields(value)
    raise TypeError(f"{type(value).__name__} is not a value of the model")


def _encode_fields(value: Any) -> Json:
    shape = _shape(type(value))
    out: dict[str, Json] = {"is": type(value).__name__}
    for name, default in shape:
        part = getattr(value, name)
        if part is not default and part != default:
            out[name] = encode(part)
    return out


@_remember
def _shape(cls: Any) -> tuple[tuple[str, object], ...]:
    """Field names with their defaults (a unique object where there is none)."""
    rows: list[tuple[str, object]] = []
    for field in fields(cls):
        if field.default is not MISSING:
            rows.append((field.name, field.default))
        elif field.default_factory is not MISSING:
            rows.append((field.name, field.default_factory()))
        else:
            rows.append((field.name, object()))
    return tuple(rows)


def decode(kind: type[T], data: Json) -> T:
    """The value of type `kind` that `encode` turned into `data`. Raises CodecError."""
    try:
        value: T = _decoder(kind)(data)
    except CodecError:
        raise
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CodecError(f"not a {getattr(kind, '__name__', kind)}: {error}") from error
    return value


@_remember
def _decoder(kind: Any) -> Decode:
    # Here, for who only encodes need not wait for them.
    import types
    import typing

    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _union_decoder(typing.get_args(kind))
    if origin is typing.Literal:
        return _literal_decoder(typing.get_args(kind))
    if origin is tuple:
        return _tuple_decoder(typing.get_args(kind))
    if origin is not None and issubclass(origin, Mapping):
        inner = _decoder(typing.get_args(kind)[1])
        return lambda data: {key: inner(part) for key, part in data.items()}
    if is_frozen(kind):
        return _dataclass_decoder(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind
    if kind is float:
        return float
    return _scalar_decoder(kind)


def _scalar_decoder(kind: type) -> Decode:
    def read(data: Any) -> Any:
        if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
            raise CodecError(f"expected {kind.__name__}, found {data!r:.60}")
        return data

    return read


def _literal_decoder(choices: tuple[Any, ...]) -> Decode:
    def read(data: Any) -> Any:
        if data not in choices:
            raise CodecError(f"expected one of {choices}, found {data!r:.60}")
        return data

    return read


def _tuple_decoder(kinds: tuple[Any, ...]) -> Decode:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        inner = _decoder(kinds[0])
        return lambda data: tuple(inner(part) for part in data)
    parts = [_decoder(kind) for kind in kinds]
    return lambda data: tuple(read(part) for read, part in zip(parts, data, strict=True))


def _union_decoder(kinds: tuple[Any, ...]) -> Decode:
    classes: dict[str, Any] = {getattr(kind, "__name__", ""): kind for kind in kinds if is_frozen(kind)}
    rest = [_decoder(kind) for kind in kinds if kind is not type(None) and not is_frozen(kind)]
    optional = type(None) in kinds

    def read(data: Any) -> Any:
        if data is None and optional:
            return None
        if isinstance(data, dict) and classes:
            return _decoder(classes[data["is"]])(data)
        for attempt in rest:
            try:
                return attempt(data)
            except (CodecError, TypeError, ValueError):
                continue
        raise CodecError(f"no alternative fits {data!r:.60}")

    return read


class _Names(dict[str, object]):
    """The names that a module's annotations use; some modules import a noun only when it is asked for."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self._module = sys.modules[module]

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            return getattr(builtins, name)
        if name == "Literal":
            import typing

            return typing.Literal
        try:
            return getattr(self._module, name)
        except AttributeError:
            raise KeyError(name) from None


def _dataclass_decoder(kind: Any) -> Decode:
    """Annotations are read one by one, when a value has the field: reading all of them costs milliseconds."""
    readers: dict[str, Decode] = {}

    def reader(name: str) -> Decode:
        annotation = kind.__annotations__.get(name)
        if annotation is None:
            raise CodecError(f"{kind.__name__} has no field {name!r}")
        names = _Names(kind.__module__)
        while isinstance(annotation, str):  # an alias is text too
            # eval of our own source text, as typing.get_type_hints does it
            annotation = eval(annotation, {}, names)  # noqa: S307
        return _decoder(annotation)

    def read(data: Any) -> Any:
        if not isinstance(data, dict):
            raise CodecError(f"expected {kind.__name__}, found {data!r:.60}")
        fields: dict[str, Any] = {}
        for name, part in data.items():
            if name == "is":
                continue
            if name not in readers:
                readers[name] = reader(name)
            fields[name] = readers[name](part)
        return kind(**fields)

    return read
