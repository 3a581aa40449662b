"""What the kernel tells of files: control groups that are changed, directories that go away.

One inotify descriptor for everything. An announcement says only whom to look at. Where the kernel has no
watch left for us (fs.inotify.max_user_watches) things are still noticed, at the next full look.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from orchestrator.engines.local.places import Places
from orchestrator.engines.local.table import Live
from orchestrator.engines.local.trouble import note, report
from orchestrator.kernel import cgroups, inotify
from orchestrator.kernel.inotify import Inotify
from orchestrator.model.frozen import dataclass
from orchestrator.model.observation import VolumeState

GONE = inotify.DELETE | inotify.MOVED_FROM
ITSELF = inotify.DELETE_SELF | inotify.MOVE_SELF
_NOISE = (".procs", ".threads", ".kill", ".pressure", ".reclaim", "memory.events", "pids.events", "tasks")
"""Control files that change as a container lives, or by our own hand, and are no limits."""

Subject = tuple[str, str]
"""("run" or "home", container id) or ("volume", name)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """Whom to look at."""

    subjects: frozenset[Subject]
    missed: bool = False


class Watching:
    """Belongs to the trio thread."""

    def __init__(self, hierarchies: cgroups.Hierarchies, places: Places) -> None:
        """Raises OSError when this user may have no inotify descriptor."""
        self._hierarchies = hierarchies
        self._places = places
        self._inotify = Inotify()
        self._about: dict[int, dict[tuple[str | None, Subject], None]] = {}
        """Watch -> the names that matter in it (None: any), and to whom."""
        self._watches: dict[Subject, set[int]] = {}
        self._told = False
        self.groups: dict[str, tuple[str, ...]] = {}
        """Container id -> the directories of its control group, as its run began."""
        self.directories: dict[str, tuple[str, ...]] = {}
        """Container id -> the directories of its own that it can't be without."""

    def fileno(self) -> int:
        return self._inotify.fileno()

    # --- whom to follow ----------------------------------------------------------------------------

    def follow_home(self, live: Live) -> None:
        """From the moment a container is written down until it is removed."""
        container = live.container
        home = self._places.container(container.stack, container.id)
        subject = ("home", container.id)
        self.directories[container.id] = (str(home),)
        self._watch(subject, str(home.parent), GONE, home.name)
        self._watch(subject, str(home), GONE)

    def follow_run(self, live: Live) -> None:
        """While a container runs."""
        container = live.container
        subject = ("run", container.id)
        group = f"{self._places.cgroup}/{container.stack}/{container.id}"
        self.groups[container.id] = cgroups.homes(self._hierarchies, group)
        for directory in self.groups[container.id]:
            self._watch(subject, directory, inotify.MODIFY)
            above, _, name = directory.rpartition("/")
            self._watch(subject, above, GONE | inotify.MODIFY, name, "cgroup.freeze", "freezer.state")
        home = self._places.container(container.stack, container.id)
        layers = [str(layer) for layer in home.glob("layers/*") if (layer / "upper").is_dir()]
        for layer in layers:
            self._watch(subject, layer, GONE, "upper", "work")
        parts = tuple(f"{layer}/{part}" for layer in layers for part in ("upper", "work"))
        self.directories[container.id] = (str(home), *parts)

    def leave_run(self, live: Live) -> None:
        self.groups.pop(live.container.id, None)
        self._drop(("run", live.container.id))

    def leave_home(self, live: Live) -> None:
        self.directories.pop(live.container.id, None)
        self._drop(("home", live.container.id))

    def follow_volume(self, state: VolumeState) -> None:
        """The way to its directory, and of one that is gone what is left of the way. Repeatable."""
        subject = ("volume", state.name)
        above, name = os.path.split(state.path)
        while above != "/" and not os.path.isdir(above):
            above, name = os.path.split(above)
        self._watch(subject, above, inotify.NAMES | ITSELF, name, "")
        further, name = os.path.split(above)
        self._watch(subject, further, GONE, name)

    def leave_volume(self, name: str) -> None:
        self._drop(("volume", name))

    def _watch(self, subject: Subject, directory: str, mask: int, *names: str) -> None:
        try:
            watch = self._inotify.add(directory, mask, directory=True)
        except OSError as error:
            if error.errno == errno.ENOSPC and not self._told:
                self._told = True
                note("fs.inotify.max_user_watches is used up: some changes are noticed minutes late")
            return
        about = self._about.setdefault(watch, {})
        for name in names or (None,):
            about[name, subject] = None
        self._watches.setdefault(subject, set()).add(watch)

    def _drop(self, subject: Subject) -> None:
        for watch in self._watches.pop(subject, ()):
            about = self._about.get(watch, {})
            for key in [key for key in about if key[1] == subject]:
                del about[key]
            if not about:
                self._about.pop(watch, None)
                self._inotify.drop(watch)

    # --- what is told ------------------------------------------------------------------------------

    def heard(self) -> Noticed:
        """Everything that was announced by now. Does not wait."""
        subjects: set[Subject] = set()
        missed = False
        try:
            for seen in self._inotify.read():
                missed = missed or bool(seen.mask & inotify.OVERFLOW)
                if not seen.name.endswith(_NOISE):
                    subjects.update(self._concerned(seen.watch, seen.name))
                if seen.mask & inotify.IGNORED:
                    self._forget(seen.watch)
        except OSError as error:
            report(error)
            missed = True
        return Noticed(subjects=frozenset(subjects), missed=missed)

    def _concerned(self, watch: int, name: str) -> Iterable[Subject]:
        about = self._about.get(watch, {})
        return [subject for wanted, subject in about if wanted is None or wanted == name]

    def _forget(self, watch: int) -> None:
        """What it watched is gone for good."""
        for _, subject in self._about.pop(watch, {}):
            self._watches.get(subject, set()).discard(watch)
