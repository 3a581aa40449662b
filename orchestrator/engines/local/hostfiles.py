"""The host's files that configs and secrets come from, and what they hold now.

Their directories are watched, by inotify(7): an editor writes a new file and renames it as often as not, and
what is a link may be led elsewhere. An announcement says only when to look; what has changed is told by
size, times and inode, and then by the content. A directory that can't be watched is looked at every second.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping

import trio

from orchestrator.engines.local.table import Table
from orchestrator.engines.local.trouble import note
from orchestrator.kernel import digest, inotify
from orchestrator.kernel.inotify import Inotify
from orchestrator.model.observation import Container
from orchestrator.model.stack import FileMount

COMPANY = 0.1
"""Seconds to wait for more announcements: a file is rarely written at once."""
CALM = 0.4
"""Seconds between two looks at least: a directory may be a busy one."""
POLL = 1.0
RESCAN = 30.0
LINKS = 40
"""On the way to a file, as the kernel follows them (path_resolution(7))."""
_EVENTS = inotify.NAMES | inotify.CLOSE_WRITE | inotify.ATTRIBUTES | inotify.DELETE_SELF | inotify.MOVE_SELF

Stamp = tuple[int, ...]


class HostFiles:
    """Belongs to the trio thread. What the files of a stack hold is in `of_stack` once it was looked at."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._users: dict[str, dict[str, str]] = {}
        """Path -> container id -> stack."""
        self._views: dict[str, Mapping[str, str]] = {}
        """Stack -> what `of_stack` says, until something changes."""
        self._stamps: dict[str, Stamp] = {}
        self._digests: dict[str, str] = {}
        self._inotify: Inotify | None = None
        self._watches: dict[str, int] = {}
        self._blind = False
        """Whether some directory is not watched."""
        self._told = False
        self._bell = trio.Event()

    # --- which files ---------------------------------------------------------------------------------

    def follow(self, container: Container) -> None:
        """From the moment a container is written down until it is removed."""
        for mount in container.definition.mounts:
            if isinstance(mount, FileMount) and mount.path is not None and mount.digest:
                self._users.setdefault(mount.path, {})[container.id] = container.stack
                self._views.clear()
                self._bell.set()

    def leave(self, container: Container) -> None:
        for mount in container.definition.mounts:
            if isinstance(mount, FileMount) and mount.path in self._users:
                self._users[mount.path].pop(container.id, None)
                self._views.clear()
                if not self._users[mount.path]:
                    self._forget(mount.path)

    def _forget(self, path: str) -> None:
        del self._users[path]
        self._stamps.pop(path, None)
        self._digests.pop(path, None)
        self._bell.set()

    def of_stack(self, stack: str) -> Mapping[str, str]:
        """Path -> digest, "" for what can't be read; what was not looked at yet is missing."""
        if stack not in self._views:
            self._views[stack] = {
                path: self._digests[path]
                for path, users in self._users.items()
                if path in self._digests and stack in users.values()
            }
        return self._views[stack]

    def learn(self, path: str, found: str) -> None:
        """Somebody has just read it."""
        if path in self._users:
            self._digests[path] = found
            self._views.clear()
            self._stamps.pop(path, None)
            self._bell.set()

    # --- looking ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    while not self._users:
                        self._watch(())
                        self._bell = trio.Event()
                        await self._bell.wait()
                    if self._inotify is None and self._open():
                        nursery.start_soon(self._listen)
                    await self._turn()
        finally:
            if self._inotify is not None:
                self._inotify.close()
                self._inotify = None

    async def _turn(self) -> None:
        self._bell = trio.Event()
        self._watch(_directories(self._users))
        await self._look()
        await trio.sleep(CALM)
        with trio.move_on_after(POLL if self._blind else RESCAN):
            await self._bell.wait()
            await trio.sleep(COMPANY)

    def _open(self) -> bool:
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._complain(error)
            return False
        return True

    def _complain(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            note(f"files of configs and secrets are looked at every second: inotify: {error.strerror}")

    async def _listen(self) -> None:
        assert self._inotify is not None
        while True:
            await trio.lowlevel.wait_readable(self._inotify)
            with contextlib.suppress(OSError):
                for seen in self._inotify.read():
                    if seen.mask & inotify.IGNORED:  # its directory has gone: the way there is watched anew
                        self._watches = {d: w for d, w in self._watches.items() if w != seen.watch}
            self._bell.set()
            await trio.sleep(COMPANY)  # a container may write there as fast as it can

    def _watch(self, directories: tuple[str, ...]) -> None:
        self._blind = self._inotify is None and bool(directories)
        if self._inotify is None:
            return
        for directory in self._watches.keys() - set(directories):
            self._inotify.drop(self._watches.pop(directory))
        for directory in directories:
            try:
                self._watches[directory] = self._inotify.add(directory, _EVENTS, directory=True)
            except OSError as error:
                self._watches.pop(directory, None)
                self._blind = True
                if not isinstance(error, FileNotFoundError | NotADirectoryError):
                    self._complain(error)

    async def _look(self) -> None:
        for path in tuple(self._users):
            stamp = _stamp(path)
            if path in self._digests and self._stamps.get(path) == stamp:
                continue
            found = await trio.to_thread.run_sync(_digest, path)
            if path not in self._users:
                continue  # the last container has gone meanwhile
            self._stamps[path] = stamp
            before, self._digests[path] = self._digests.get(path), found
            if found != before:
                self._views.clear()
                for stack in set(self._users[path].values()):
                    self._table.ring(stack)


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _digest(path: str) -> str:
    try:
        return digest.of_file(path)
    except OSError:
        return ""


def _directories(paths: Iterable[str]) -> tuple[str, ...]:
    """Where names stand on which the paths depend: the last of each, and every link on the way."""
    found: dict[str, None] = {}
    for path in paths:
        at, steps, links = "/", path.split("/")[::-1], 0
        while steps:
            step = steps.pop()
            if step in ("", "."):
                continue
            if step == "..":
                at = os.path.dirname(at)
                continue
            here = os.path.join(at, step)
            link = _link(here)
            if not steps or link:
                found[at] = None
            if not link or links >= LINKS:
                at = here
                continue
            links += 1
            at = "/" if link.startswith("/") else at
            steps += link.split("/")[::-1]
    return tuple(found)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
