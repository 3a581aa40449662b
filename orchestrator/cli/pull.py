"""`pull`: images by name, or those of the stack's services; what is shown while they come.

A name that is a service of the stack file (given by -f, or found from here) means that service's image, as
with docker compose; any other is an image's, as with docker. `image pull` looks at no stack file.
"""

from __future__ import annotations

import os
import time

from orchestrator.cli import change, columns, failure, progress, say
from orchestrator.cli.images import Opened
from orchestrator.images import reference as references
from orchestrator.model.errors import PystackError, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Self

    from orchestrator.cli.scope import Scope
    from orchestrator.images.layers.workers import Workers
    from orchestrator.images.store.content import Store
    from orchestrator.images.transfer.arriving import Step
    from orchestrator.images.transfer.pulling import Pulled
    from orchestrator.model.stack import Stack

_FRAME = 0.1
_SPEED_SECONDS = 2.0
_FINAL = ("done", "here")


class Want:
    """One image to be pulled, and the service it is for ("": none)."""

    __slots__ = ("name", "platform", "service")

    def __init__(self, name: str, platform: str = "", service: str = "") -> None:
        self.name = name
        self.platform = platform
        self.service = service


def pull(
    scope: Scope,
    *,
    names: tuple[str, ...],
    platform: str | None,
    all_tags: bool,
    quiet: bool,
    ignore_pull_failures: bool,
    ignore_buildable: bool,
    include_deps: bool,
    policy: str | None,
) -> int:
    """Bring images from their registries: by name, or those of the stack's services."""
    del ignore_buildable  # nothing is ever built
    stack = _stack(scope, names)
    services = [name for name in names if stack is not None and name in stack.services]
    wants = [Want(name, platform or "") for name in names if name not in services]
    if stack is not None and (services or not names):
        wants += _of_services(scope, stack, services, include_deps=include_deps, policy=policy)
    if all_tags and (services or not names):
        raise change.usage("--all-tags is for the name of an image, not for services")
    return _perform(scope, wants, all_tags=all_tags, quiet=quiet, ignore=ignore_pull_failures)


def image_pull(
    scope: Scope, *, names: tuple[str, ...], platform: str | None, all_tags: bool, quiet: bool
) -> int:
    """Bring images from their registries, by name."""
    wants = [Want(name, platform or "") for name in names]
    return _perform(scope, wants, all_tags=all_tags, quiet=quiet, ignore=False)


# --- which ----------------------------------------------------------------------------------------


def _stack(scope: Scope, names: Sequence[str]) -> Stack | None:
    """The stack that the names may be services of. Raises UserError when its file is broken."""
    from orchestrator.cli.scope import discovered

    if names and all(set(name) & set("/:@") for name in names):
        return None
    said = scope.file or os.environ.get("COMPOSE_FILE")
    if names and not said and not discovered(scope.project_directory or os.getcwd(), alone=True):
        return None
    try:
        return scope.load(strict=False).stack
    except UserError as error:
        if not names or said:
            raise
        hint = "`pystack image pull NAME` looks at no stack file"
        raise UserError(error.message, exit_code=error.exit_code, hint=hint) from None


def _of_services(
    scope: Scope, stack: Stack, services: Sequence[str], *, include_deps: bool, policy: str | None
) -> list[Want]:
    """What services need from registries; what is passed over is told."""
    from orchestrator.api import orders
    from orchestrator.model.stack import ImageRoot
    from orchestrator.model.steps import shown, with_theirs

    chosen = services or [name for name, one in stack.services.items() if not one.oneoff]
    if include_deps:
        chosen = orders.with_dependencies(stack, chosen)
    wants: dict[tuple[str, str], Want] = {}
    for service in with_theirs(stack.services[name] for name in sorted(chosen)):
        name = shown(service)
        if not isinstance(service.root, ImageRoot):
            _skipped(name, "it has no image")
            continue
        reference = service.root.reference
        why = _passed_over(scope, reference, policy or service.pull_policy)
        if why:
            _skipped(name, why)
            continue
        platform = service.platform or ""
        wants.setdefault((str(references.parse(reference)), platform), Want(reference, platform, name))
    return list(wants.values())


def _passed_over(scope: Scope, reference: str, policy: str) -> str:
    """Why a service's image is not fetched, "" when it is (docker compose's rules for `pull`)."""
    if policy in ("never", "build"):
        return f"its pull_policy is {policy}"
    if policy != "missing" or references.parse(reference).tag == references.DEFAULT_TAG:
        return ""
    with Opened(scope, write=False) as store:
        here = store is not None and store.resolve(reference) is not None
    return "its image is here already" if here else ""


def _skipped(service: str, why: str) -> None:
    say.err(f" Service {say.printable(service)}  Skipped: {why}\n")


# --- doing ----------------------------------------------------------------------------------------


def _perform(scope: Scope, wants: list[Want], *, all_tags: bool, quiet: bool, ignore: bool) -> int:
    for want in wants:
        parsed = references.parse(want.name)
        if all_tags and (parsed.digest or parsed.tag != references.DEFAULT_TAG):
            raise change.usage("tag can't be used with --all-tags/-a")
    quiet = quiet or scope.progress == "quiet"
    live = say.is_terminal(say.STDOUT) and scope.progress not in ("plain", "json")
    board = Board(live=live, quiet=quiet, records=scope.progress == "json" and not quiet)
    if not wants:
        return 0
    with Opened(scope) as store:
        assert store is not None
        with board:
            return _run(store, wants, board, all_tags=all_tags, ignore=ignore)


def _run(store: Store, wants: list[Want], board: Board, *, all_tags: bool, ignore: bool) -> int:
    from orchestrator.images.layers.workers import Workers

    with Workers() as workers:
        # What follows imports for 200 ms, in which they get ready.
        return _with(workers, store, wants, board, all_tags=all_tags, ignore=ignore)


def _with(
    workers: Workers, store: Store, wants: list[Want], board: Board, *, all_tags: bool, ignore: bool
) -> int:
    import trio

    from orchestrator.images.transfer.pulling import Pulling, open_pulling

    failed: list[PystackError] = []

    async def one(pulling: Pulling, want: Want) -> None:
        try:
            board.end(want, await pulling.pull(want.name, environment=os.environ, platform=want.platform))
        except PystackError as error:
            failed.append(error)
            board.fail(want, error)

    async def every(pulling: Pulling) -> list[Want]:
        """All tags in place of each name."""
        found = []
        for want in wants:
            names = await pulling.tags(want.name, environment=os.environ)
            found += [Want(references.familiar(name), want.platform) for name in names]
        return found

    async def main() -> None:
        async with open_pulling(store, tell=board.take, warn=board.warn, workers=workers) as pulling:
            try:
                chosen = await every(pulling) if all_tags else wants
            except PystackError as error:
                failed.append(error)
                return
            async with trio.open_nursery() as nursery:
                for want in chosen:
                    board.begin(want)
                    nursery.start_soon(one, pulling, want)

    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is not None:
            raise KeyboardInterrupt from None
        raise
    code = 0
    for error in failed:
        if ignore:
            say.warning(error.message)
        else:
            code = code or failure.report(error)
    return code


# --- showing --------------------------------------------------------------------------------------


class Row:
    """Where a layer of an image stands, and how fast it comes."""

    __slots__ = ("marks", "step")

    def __init__(self, step: Step) -> None:
        self.step = step
        self.marks: list[tuple[float, int]] = []

    def take(self, step: Step, now: float) -> None:
        self.step = step
        self.marks = [mark for mark in self.marks if now - mark[0] <= _SPEED_SECONDS]
        self.marks.append((now, step.here))

    @property
    def speed(self) -> float:
        """Bytes a second of late, 0 when that can't be told yet."""
        if len(self.marks) < 2:
            return 0.0
        (begun, before), (ended, after) = self.marks[0], self.marks[-1]
        return max(after - before, 0) / (ended - begun) if ended > begun else 0.0


class Board:
    """A live table on a terminal, else a line when something is decided; or a JSON object a step."""

    def __init__(self, *, live: bool, quiet: bool, records: bool) -> None:
        self._live = live and not quiet and not records
        self._quiet = quiet
        self._records = records
        self._rows: dict[str, dict[str, Row]] = {}
        self._painted = 0
        self._last = 0.0
        self._many = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._paint()
            self._painted = 0

    def begin(self, want: Want) -> None:
        parsed = references.parse(want.name)
        self._many = self._many or bool(self._rows)
        self._rows[parsed.familiar] = {}
        if self._quiet or self._records:
            return
        head = ""
        if not parsed.digest and parsed.tag == references.DEFAULT_TAG and not want.name.endswith(":latest"):
            head = f"Using default tag: {references.DEFAULT_TAG}\n"
        self._above(f"{head}{_title(want.name)}\n")

    def take(self, step: Step) -> None:
        """Something happened to a layer."""
        rows = self._rows.setdefault(step.image, {})
        row = rows.get(step.layer)
        before = row.step.state if row is not None else ""
        if row is None:
            row = rows[step.layer] = Row(step)
        row.take(step, time.monotonic())
        if self._records:
            say.out(_json(step))
        elif self._live:
            if time.monotonic() - self._last >= _FRAME:
                self._paint()
        elif not self._quiet and step.state != before and step.state in (*_FINAL, "retrying"):
            say.out(f"{line(row, self._name(step))}\n")

    def end(self, want: Want, pulled: Pulled) -> None:
        """An image is here."""
        full = str(references.parse(want.name))
        if self._records:
            from orchestrator.api.wire import dumps

            record = {"image": pulled.name, "status": "pulled" if pulled.fresh else "current"}
            say.out(dumps({**record, "digest": pulled.digest, "id": pulled.id}) + "\n")
        elif self._quiet:
            say.out(f"{full}\n")
        else:
            status = "Downloaded newer image for" if pulled.fresh else "Image is up to date for"
            text = f"Digest: {pulled.digest}\nStatus: {status} {pulled.name}\n{full}\n"
            self._above(say.printable(text), gone=references.familiar(want.name))

    def fail(self, want: Want, error: PystackError) -> None:
        if self._records:
            from orchestrator.api.wire import dumps

            say.out(dumps({"image": want.name, "status": "failed", "error": error.message}) + "\n")
        self._above("", gone=references.familiar(want.name))

    def warn(self, message: str) -> None:
        self._erase()
        say.warning(message)

    def _name(self, step: Step) -> str:
        return step.image if self._many else ""

    def _above(self, text: str, gone: str = "") -> None:
        """Print above the table. What is done with leaves the table, its last lines stay above."""
        rows = self._rows.pop(gone, {}) if gone else {}
        self._erase()
        if self._live:
            say.out("".join(f"{line(row, self._name(row.step))}\n" for row in rows.values()))
        say.out(text)

    def _erase(self) -> None:
        if self._painted:
            say.out(progress.repaint(self._painted, []))
            self._painted = 0

    def _paint(self) -> None:
        width, height = _size()
        lines = list(table([row for rows in self._rows.values() for row in rows.values()], many=self._many))
        if len(lines) > height:
            # What is under way matters most.
            lines = [text for text in lines if not text.endswith((_WORDS["done"], _WORDS["here"]))][:height]
        say.out(progress.repaint(self._painted, [columns.shorten(text, width) for text in lines]))
        self._painted, self._last = len(lines), time.monotonic()


_WORDS = {"waiting": "Waiting", "done": "Pull complete", "here": "Already exists"}


def table(rows: Iterable[Row], *, many: bool) -> Iterator[str]:
    """The lines of the table. Pure."""
    for row in rows:
        yield line(row, row.step.image if many else "")


def line(row: Row, image: str = "") -> str:
    """`5f70bf18a086: Downloading  12MB/60MB  31MB/s`, in docker's words. Pure."""
    step = row.step
    head = f"{image}: {step.layer}" if image else step.layer
    if step.state in _WORDS:
        return f"{head}: {_WORDS[step.state]}"
    if step.state == "retrying":
        return f"{head}: Retrying: {say.printable(step.because)}"
    word = "Downloading" if step.state == "downloading" else "Extracting"
    text = f"{head}: {word}  {columns.size(step.here)}/{columns.size(step.size)}"
    if step.state == "downloading" and row.speed:
        text += f"  {columns.size(int(row.speed))}/s"
    return f"{text}  {columns.size(step.given)} extracted" if step.given else text


def _title(name: str) -> str:
    parsed = references.parse(name)
    path = parsed.path if parsed.host == references.DEFAULT_HOST else parsed.repository
    return f"{parsed.digest or parsed.tag}: Pulling from {path}"


def _json(step: Step) -> str:
    from orchestrator.api.wire import dumps

    names = ("image", "layer", "state", "here", "size", "given")
    record = {name: getattr(step, name) for name in names}
    return dumps({**record, "because": step.because} if step.because else record) + "\n"


def _size() -> tuple[int, int]:
    try:
        found = os.get_terminal_size(say.STDOUT)
    except OSError:
        return 79, 20
    # 0 is a terminal that does not know its size, as under script(1).
    return max(found.columns - 1, 20) if found.columns else 79, max(found.lines - 2, 3) if found.lines else 20
