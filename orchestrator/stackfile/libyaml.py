"""The one door to PyYAML: its binding of libyaml, which turns text into parser events.

`import yaml` also loads and sets up what we don't use: loaders, constructors, resolvers, dumpers and the
parser in Python; 20 ms, more than the rest of loading a stack file. Events and errors are all that the
binding needs besides, so it is loaded with those alone, and with bare classes for the errors of the parts
left out. Where that can't be done (no binding, or a PyYAML that is built another way) all of it is loaded.
"""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any

    from yaml.error import MarkedYAMLError, YAMLError
    from yaml.events import Event

_NEEDED = ("error", "tokens", "events", "nodes")
_LEFT_OUT = {
    "reader": "ReaderError",
    "scanner": "ScannerError",
    "parser": "ParserError",
    "composer": "ComposerError",
    "constructor": "ConstructorError",
    "emitter": "EmitterError",
    "serializer": "SerializerError",
    "representer": "RepresenterError",
}


def _load() -> tuple[Any, ModuleType, ModuleType]:
    """The class that parses, and the modules of events and errors."""
    if "yaml" not in sys.modules:
        try:
            binding = _load_alone()
        except Exception:  # whatever another PyYAML may raise; the whole one is no worse than slow
            for name in ("yaml", *(f"yaml.{part}" for part in _NEEDED)):
                sys.modules.pop(name, None)
        else:
            return binding.CParser, sys.modules["yaml.events"], sys.modules["yaml.error"]
    import yaml

    return getattr(yaml, "CBaseLoader", yaml.BaseLoader), yaml.events, yaml.error


def _load_alone() -> Any:
    from importlib.machinery import PathFinder
    from types import ModuleType

    found = PathFinder.find_spec("yaml")
    loader = found.loader if found else None
    if found is None or loader is None:
        raise ModuleNotFoundError("No module named 'yaml'")
    package: Any = ModuleType("yaml")
    package.__spec__, package.__path__ = found, found.submodule_search_locations
    sys.modules["yaml"] = package
    for name in _NEEDED:
        import_module(f"yaml.{name}")
    for name, error in _LEFT_OUT.items():
        setattr(package, name, _stand_in(name, error))
    try:
        binding = import_module("yaml._yaml")
    finally:
        for name in _LEFT_OUT:
            delattr(package, name)

    def complete(name: str) -> Any:
        """Somebody else in this process wants more of yaml: it becomes whole (PEP 562)."""
        del package.__getattr__
        loader.exec_module(package)
        return getattr(package, name)

    package.__getattr__ = complete
    return binding


def _stand_in(name: str, error: str) -> Any:
    from types import ModuleType

    errors: Any = sys.modules["yaml.error"]
    part: Any = ModuleType(f"yaml.{name}")
    base = errors.YAMLError if name == "reader" else errors.MarkedYAMLError
    setattr(part, error, type(error, (base,), {"__init__": _keep} if name == "reader" else {}))
    return part


def _keep(self: Any, name: str, position: int, character: Any, encoding: str, reason: str) -> None:
    """As PyYAML's ReaderError: what could not be decoded, and where."""
    self.name, self.position, self.character = name, position, character
    self.encoding, self.reason = encoding, reason


_Parser, _events, _errors = _load()
if not TYPE_CHECKING:
    YAMLError, MarkedYAMLError = _errors.YAMLError, _errors.MarkedYAMLError

SCALAR, ALIAS = _events.ScalarEvent, _events.AliasEvent
MAPPING_START, MAPPING_END = _events.MappingStartEvent, _events.MappingEndEvent
SEQUENCE_START, SEQUENCE_END = _events.SequenceStartEvent, _events.SequenceEndEvent
DOCUMENT_START = _events.DocumentStartEvent


def parse(text: str) -> Iterator[Event]:
    """The events of a text. Raises YAMLError, UnicodeError."""
    parser = _Parser(text)
    event = parser.get_event()
    while event is not None:
        yield event
        event = parser.get_event()


__all__ = ["MarkedYAMLError", "YAMLError", "parse"]
