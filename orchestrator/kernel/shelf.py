"""What the keeper keeps in memory of a container: what one more process in it needs to know.

A health check comes every few seconds to every container, and to read its bundle anew each time takes longer
than the rest of what the keeper does for it. But what the keeper is large makes each fork slower, so only the
part is kept that an exec asks for, and what says the same in many containers is there once.
"""

from __future__ import annotations

import os
import sys

from orchestrator.kernel import capabilities, launch, steps
from orchestrator.kernel.entry import Entry
from orchestrator.kernel.reading import Document

_MOST = 2000  # containers, of 2 KiB each
_ASKED_FOR = ("user", "groups", "cgroups", "runtime")


class Shelf:
    """Entries by bundle. One whose files aren't what they were is read anew."""

    def __init__(self, held: int = capabilities.ALL) -> None:
        """`held`: the capabilities that this machine has."""
        self._held = held
        self._kept: dict[str, tuple[tuple[int, ...], Entry]] = {}
        self._filters: dict[bytes, bytes] = {}

    def read(self, path: str) -> Entry:
        """The entry of the bundle in a directory. Raises what `launch.read` does."""
        marks = _marks(path)
        found = self._kept.get(path)
        if found is not None and found[0] == marks:
            return found[1]
        self.forget(path)
        entry = self._understand(launch.read(path))
        while len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[path] = (marks, entry)
        return entry

    def forget(self, path: str) -> None:
        """Its container ended."""
        if self._kept.pop(path, None) and not self._kept:
            self._filters.clear()

    def _understand(self, bundle: launch.Bundle) -> Entry:
        own = bundle.config.table("process")
        seccomp = launch.read_filter(bundle.launch.text("seccomp"))
        told = {name: bundle.launch.raw[name] for name in _ASKED_FOR if name in bundle.launch}
        brief = launch.Bundle(
            path=bundle.path,
            config=Document(_shared({"process": own.raw})),
            launch=Document(_shared(told)),
            plan=steps.Steps(0, ()),
        )
        asked = own.table("capabilities")
        sets = capabilities.wanted({name: asked.texts(name) for name in asked.names()}, self._held)
        return Entry(brief, sets, self._filters.setdefault(seccomp, seccomp))


def _shared(value: object) -> object:
    """The same, its texts once for all that have them."""
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, list):
        return [_shared(member) for member in value]
    if isinstance(value, dict):
        return {sys.intern(key): _shared(member) for key, member in value.items()}
    return value


def _marks(path: str) -> tuple[int, ...]:
    marks: list[int] = []
    for name in ("config.json", "launch.json"):
        found = os.stat(f"{path}/{name}")
        marks += (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return tuple(marks)
