"""Which runs are waited for to print the line that says that they are ready, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.engines.local import bundle, logs, records
from orchestrator.engines.local.lines import Lines, Mark, mark
from orchestrator.engines.local.shared import Shared
from orchestrator.engines.local.table import Live
from orchestrator.model.frozen import replace
from orchestrator.model.observation import Container, Run

MARK = "mark.json"


class Readiness:
    """All methods belong to the trio thread. `note_run` writes down a run that is otherwise than before."""

    def __init__(self, shared: Shared, note_run: Callable[[Live, Run], None]) -> None:
        self._places = shared.places
        self._nursery = shared.nursery
        self._note_run = note_run

    def expect(self, live: Live) -> None:
        """A run is about to begin: what it prints comes behind this place. Raises OSError."""
        live.lines = None
        if live.container.definition.log_ready:
            place = mark(self._places.log(live.container.stack, live.container.id))
            records.write(self._places.bundle(live.container.id) / MARK, place)

    def follow(self, live: Live) -> None:
        """Look for the line in what the run prints, and has printed. Repeatable."""
        container = live.container
        pattern, run = container.definition.log_ready, container.run
        if not pattern or run is None or run.log_ready is not None:
            return
        if live.lines is not None or run.before_boot:
            return
        began = run.started

        def told(found: bool, trouble: str) -> None:
            now = live.container.run
            if now is not None and now.started == began:
                self._note_run(live, replace(now, log_ready=found, log_trouble=trouble))

        log = self._places.log(container.stack, container.id)
        # Without the mark nothing that is printed already counts: it might be an earlier run's.
        place = records.read_or_none(self._places.bundle(container.id) / MARK, Mark) or mark(log)
        live.lines = Lines(log, rotation(container).max_files, place, pattern, told)
        self._nursery.start_soon(live.lines.run)

    async def finish(self, live: Live) -> None:
        """The run has ended and its output is in the log: then it is known whether the line came."""
        self.follow(live)
        if live.lines is not None:
            await live.lines.finish()


def rotation(container: Container) -> logs.Rotation:
    """How the container's log is turned over."""
    options = container.definition.logging.options
    return logs.Rotation(
        max_size=bundle.size(options["max-size"]) if "max-size" in options else logs.DEFAULT_MAX_SIZE,
        max_files=int(options.get("max-file", logs.DEFAULT_MAX_FILES)),
    )
