"""The host's files that configs and secrets come from, and what they hold now.

Their directories are watched, by inotify(7): an editor writes a new file and renames it as often as not, and
what is a link may be led elsewhere. An announcement says only when to look; what has changed is told by
size, times and inode, and then by the content. A directory that can't be watched is looked at every second.

A filesystem may take its time, or never answer (NFS): each directory is looked at in a thread of its own,
which nobody waits for. While it is away, what was known of its files stays known.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping

import trio

from orchestrator.engines.local.table import Table
from orchestrator.engines.local.trouble import note
from orchestrator.kernel import digest, inotify
from orchestrator.kernel.inotify import Inotify
from orchestrator.model.frozen import dataclass
from orchestrator.model.observation import Container
from orchestrator.model.stack import FileMount

COMPANY = 0.1
"""Seconds to wait for more announcements: a file is rarely written at once."""
CALM = 0.4
"""Seconds between two looks at least: a directory may be a busy one."""
POLL = 1.0
RESCAN = 30.0
PATIENCE = 5.0
"""Seconds until it is told that a directory does not answer."""
AT_ONCE = 32
"""Directories that are looked at."""
LINKS = 40
"""On the way to a file, as the kernel follows them (path_resolution(7))."""
_EVENTS = inotify.NAMES | inotify.CLOSE_WRITE | inotify.ATTRIBUTES | inotify.DELETE_SELF | inotify.MOVE_SELF

Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a look at the files of one directory has brought."""

    stamps: Mapping[str, Stamp]
    digests: Mapping[str, str]
    """Of those that are not as they were."""
    watches: Mapping[str, int]
    """Directories on which the names of the files depend -> their numbers."""
    blind: bool = False
    """Whether some of them is not watched."""
    error: OSError | None = None
    """Why not, if that is worth telling."""


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
        self._watches: dict[str, Mapping[str, int]] = {}
        """Directory of files -> directories that are watched for it."""
        self._blind: set[str] = set()
        """Directories of files that depend on one that is not watched."""
        self._away: dict[str, float] = {}
        """Directories of files that are being looked at, and since when."""
        self._again: set[str] = set()
        """Of those, the ones that are to be looked at once more."""
        self._silent: set[str] = set()
        """And those of which it was told that they do not answer."""
        self._threads = trio.CapacityLimiter(AT_ONCE)
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
                        self._drop(())
                        self._bell = trio.Event()
                        await self._bell.wait()
                    if self._inotify is None and self._open():
                        nursery.start_soon(self._listen)
                    await self._turn(nursery)
        finally:
            if self._inotify is not None:
                self._inotify.close()
                self._inotify = None

    async def _turn(self, nursery: trio.Nursery) -> None:
        self._bell = trio.Event()
        groups: dict[str, list[str]] = {}
        for path in self._users:
            groups.setdefault(os.path.dirname(path), []).append(path)
        self._drop(groups)
        for directory, paths in groups.items():
            if directory not in self._away:
                self._away[directory] = trio.current_time()
                nursery.start_soon(self._look, directory, paths)
            else:
                self._missed(directory)
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
                        self._forget_watch(seen.watch)
            self._bell.set()
            await trio.sleep(COMPANY)  # a container may write there as fast as it can

    def _forget_watch(self, number: int) -> None:
        for of, watches in self._watches.items():
            if number in watches.values():
                self._watches[of] = {at: watch for at, watch in watches.items() if watch != number}

    def _drop(self, directories: Collection[str]) -> None:
        """Watch no longer what only the files of other directories depend on."""
        before = self._watches
        self._watches = {of: watches for of, watches in before.items() if of in directories}
        self._blind &= set(directories)
        self._release(number for watches in before.values() for number in watches.values())

    def _release(self, numbers: Iterable[int]) -> None:
        kept = {number for watches in self._watches.values() for number in watches.values()}
        for number in set(numbers) - kept:
            if self._inotify is not None:
                self._inotify.drop(number)

    def _missed(self, directory: str) -> None:
        self._again.add(directory)
        if directory not in self._silent and trio.current_time() - self._away[directory] > PATIENCE:
            self._silent.add(directory)
            note(f"changes of configs and secrets in {directory} are not seen: it does not answer")

    async def _look(self, directory: str, paths: list[str]) -> None:
        known = {path: self._stamps[path] for path in paths if path in self._stamps and path in self._digests}
        sight = await trio.to_thread.run_sync(
            see, self._inotify, paths, known, abandon_on_cancel=True, limiter=self._threads
        )
        self._away.pop(directory)
        self._silent.discard(directory)
        self._learn(directory, sight)
        if directory in self._again or not self._users.keys() & set(paths):
            self._again.discard(directory)
            self._bell.set()

    def _learn(self, directory: str, sight: Sight) -> None:
        watched = self._watches.get(directory, {}).values()
        self._watches[directory] = sight.watches
        self._release(watched)
        (self._blind.add if sight.blind else self._blind.discard)(directory)
        if sight.error is not None:
            self._complain(sight.error)
        for path, found in sight.digests.items():
            if path not in self._users:
                continue  # the last container has gone meanwhile
            self._stamps[path] = sight.stamps[path]
            before, self._digests[path] = self._digests.get(path), found
            if found != before:
                self._views.clear()
                for stack in set(self._users[path].values()):
                    self._table.ring(stack)


def see(watcher: Inotify | None, paths: Collection[str], known: Mapping[str, Stamp]) -> Sight:
    """A look at files, after their names are watched. `known`: how those were whose content is known. For a
    thread that nothing else hangs on."""
    watches: dict[str, int] = {}
    blind, told = watcher is None, None
    if watcher is not None:
        for directory in _directories(paths):
            try:
                watches[directory] = watcher.add(directory, _EVENTS, directory=True)
            except OSError as error:
                blind = True
                if not isinstance(error, FileNotFoundError | NotADirectoryError):
                    told = error
    stamps = {path: _stamp(path) for path in paths}
    digests = {path: _digest(path) for path in paths if known.get(path) != stamps[path]}
    return Sight(stamps=stamps, digests=digests, watches=watches, blind=blind, error=told)


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
