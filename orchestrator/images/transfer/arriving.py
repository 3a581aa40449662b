"""Layers on their way in: which are wanted, which worker has which, and what is done when the line breaks."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import trio

from orchestrator.images import trees
from orchestrator.images.layers import unpacking
from orchestrator.images.layers.unpacking import Limits
from orchestrator.images.layers.workers import Workers
from orchestrator.images.registry import backoff, blame
from orchestrator.images.registry.blame import (
    BrokenAnswerError,
    UnavailableError,
    UntrustedError,
)
from orchestrator.images.registry.client import BlobSource, Registry
from orchestrator.images.registry.hosts import Endpoint
from orchestrator.images.registry.tls import Tls
from orchestrator.images.store.content import Store
from orchestrator.images.store.leases import Lease
from orchestrator.images.store.pairs import Pairs
from orchestrator.model.errors import EngineError, ExitCode, PystackError, UserError
from orchestrator.model.frozen import dataclass

AT_ONCE = max(3, min(os.cpu_count() or 1, 8))
"""Layers that arrive side by side: one a processor, but enough of them that a slow line is filled."""
_LINE_LIMIT = 256 << 20
_PROGRESS = 1 << 20
"""Bytes after which a line that broke counts as one that works."""
_POLL = 0.1
_REFUSALS = 3

State = Literal["waiting", "downloading", "extracting", "retrying", "done", "here"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far a layer of an image is: `here` of `size` bytes have come, `given` have come out of them."""

    image: str
    layer: str
    """12 digits of its digest."""
    state: State
    here: int = 0
    size: int = 0
    given: int = 0
    because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """A layer that an image needs, and where it can be had."""

    image: str
    registry: Registry
    path: str
    digest: str
    size: int
    diff_id: str
    endpoint: Endpoint

    @property
    def short(self) -> str:
        return self.digest[7:19]

    @property
    def what(self) -> str:
        return f"{self.image}: layer {self.short}"


class _Job:
    """One layer on its way in, for all who want it."""

    def __init__(self, want: Want) -> None:
        self.want = want
        self.tells: list[tuple[str, Callable[[Step], None]]] = []
        self.last: tuple[State, int, int] = ("waiting", 0, 0)
        self.done = trio.Event()
        self.error: PystackError | None = None
        self.scope = trio.CancelScope()

    def tell(self, state: State, here: int = 0, given: int = 0, because: str = "") -> None:
        self.last = (state, here, given)
        for image, tell in self.tells:
            tell(self.step(image, because))

    def step(self, image: str, because: str = "") -> Step:
        state, here, given = self.last
        want = self.want
        return Step(
            image=image,
            layer=want.short,
            state=state,
            here=here,
            size=want.size,
            given=given,
            because=because,
        )


class Arrivals:
    """The layers that this process fetches. Everything here belongs to the trio thread."""

    def __init__(
        self,
        store: Store,
        *,
        workers: Workers,
        nursery: trio.Nursery,
        work: Path,
        lease: Lease,
        limits: Limits,
    ) -> None:
        self._store = store
        self._workers = workers
        self._nursery = nursery
        self._work = work
        self._lease = lease
        self._limits = limits
        self._jobs: dict[tuple[str, str], _Job] = {}
        self._waiting: list[_Job] = []
        self._running = 0
        self._count = 0
        self._pairs = Pairs(store)
        self._kept: set[tuple[str, str]] = set()
        """Blob and layer of what has arrived."""

    async def all_of(self, wants: Sequence[Want], tell: Callable[[Step], None]) -> None:
        """Wait until all are here. Raises what the first failure raises; what others want goes on."""
        jobs = [job for want in wants if (job := self._wanted(want, tell)) is not None]
        self._begin()
        image = wants[0].image if wants else ""
        failed: list[PystackError] = []
        try:
            async with trio.open_nursery() as nursery:

                async def watch(job: _Job) -> None:
                    await job.done.wait()
                    if job.error is not None:
                        failed.append(job.error)
                        nursery.cancel_scope.cancel()

                for job in jobs:
                    nursery.start_soon(watch, job)
            if failed:
                raise failed[0]
        finally:
            for job in jobs:
                self._leave(job, image, tell)

    def _wanted(self, want: Want, tell: Callable[[Step], None]) -> _Job | None:
        if self._is_here(want):
            tell(Step(image=want.image, layer=want.short, state="here", here=want.size, size=want.size))
            return None
        key = (want.digest, want.diff_id)
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = _Job(want)
            self._waiting.append(job)
        job.tells.append((want.image, tell))
        tell(job.step(want.image))
        return job

    def _is_here(self, want: Want) -> bool:
        here = self._store.has_layer(want.diff_id) and self._store.has_blob(want.digest)
        return here and (
            (want.digest, want.diff_id) in self._kept or self._pairs.known(want.digest, want.diff_id)
        )

    def _leave(self, job: _Job, image: str, tell: Callable[[Step], None]) -> None:
        job.tells.remove((image, tell))
        if job.tells or job.done.is_set():
            return
        if job in self._waiting:
            self._waiting.remove(job)
            del self._jobs[job.want.digest, job.want.diff_id]
        job.scope.cancel()

    def _begin(self) -> None:
        self._waiting.sort(key=lambda job: -job.want.size)
        while self._waiting and self._running < AT_ONCE:
            self._running += 1
            self._nursery.start_soon(self._run, self._waiting.pop(0))

    async def _run(self, job: _Job) -> None:
        try:
            with job.scope:
                await self._arrive(job)
        except PystackError as error:
            job.error = error
        except OSError as error:
            job.error = _of_machine(job.want, error.strerror or str(error), error.errno)
        finally:
            self._running -= 1
            del self._jobs[job.want.digest, job.want.diff_id]
            job.done.set()
            self._begin()

    # --- one layer -------------------------------------------------------------------------------

    async def _arrive(self, job: _Job) -> None:
        """Get it, unless another process is at it: then wait for that one."""
        while not self._is_here(job.want):
            with self._store.partial(job.want.digest, wait=False) as partial:
                if partial is not None:
                    await self._fetch(job, partial)
                    break
            await trio.sleep(_POLL)
        job.tell("done", job.want.size)

    async def _fetch(self, job: _Job, partial: Path) -> None:
        want = job.want
        source = await want.registry.source(want.path, want.digest, origin=want.endpoint)
        retry = _Retry(job, source, partial)
        while True:
            self._count += 1
            directory = self._work / f"layer-{self._count}"
            try:
                found = await self._one_try(job, retry.source, partial, directory)
                if "error" not in found:
                    await trio.to_thread.run_sync(self._keep, want, partial, directory, found)
                    return
                await retry.after(found)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(trees.discard, str(directory))

    async def _one_try(self, job: _Job, source: BlobSource, partial: Path, directory: Path) -> dict[str, Any]:
        """What the worker found."""
        want = job.want
        order = {
            **unpacking.orders(directory, self._limits),
            "partial": os.fspath(partial),
            "size": want.size,
            "digest": want.digest,
            "source": {"url": source.url, "headers": dict(source.headers), **_way(source.tls, source.proxy)},
        }
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(self._workers.begin()))
        try:
            await stream.send_all(_encoded(order))
            lines = _Lines(stream)
            while line := await lines.next():
                said = unpacking.understand(line)
                if "elsewhere" in said:
                    url = str(said["elsewhere"])
                    answer = _way(want.registry.tls_of(url), want.registry.proxy_of(url))
                    await stream.send_all(_encoded(answer))
                elif "given" in said:
                    here = int(said["here"])
                    job.tell("extracting" if here >= want.size else "downloading", here, int(said["given"]))
                else:
                    return said
        finally:
            with trio.CancelScope(shield=True):
                await _dead(stream)
        raise EngineError(f"{want.what}: the unpacking worker left without a word", retryable=True)

    def _keep(self, want: Want, partial: Path, directory: Path, found: dict[str, Any]) -> None:
        """Everything fits: into the store with it. Blocks."""
        if found["diff_id"] != want.diff_id:
            partial.unlink()
            raise UserError(
                f"{want.what}: its content is {found['diff_id'][:19]}, "
                f"the image's config says {want.diff_id[:19]}",
                exit_code=ExitCode.IMAGE,
            )
        unpacking.keep(directory, found, blob=want.digest)
        self._store.put_blob(want.digest, partial, self._lease)
        self._store.put_layer(want.diff_id, directory, self._lease)
        self._kept.add((want.digest, want.diff_id))
        partial.unlink(missing_ok=True)  # the blob may have been here


class _Retry:
    """What follows a failure: another place, another token, a pause; or the error."""

    def __init__(self, job: _Job, source: BlobSource, partial: Path) -> None:
        self._job = job
        self._want = job.want
        self.source = source
        self._partial = partial
        self._failed = 0
        self._refused = 0
        self._reached = partial.stat().st_size

    async def after(self, found: dict[str, Any]) -> None:
        """Returns when the next try may begin. Raises when there is to be none."""
        kind, text = found["kind"], found["error"]
        if kind in ("layer", "digest", "wrong") and found.get("resumed"):
            # What we had from an earlier pull may be what is wrong.
            self._forget()
            return
        if found["here"] >= self._reached + _PROGRESS:
            self._reached, self._failed, self._refused = found["here"], 0, 0
        match kind:
            case "status":
                await self._refused_with(found)
            case "line":
                await self._next_or_wait(UnavailableError(f"{self._want.what}: {text}"), 0)
            case "trust":
                await self._next(UntrustedError(f"{self._want.what}: {text}", exit_code=ExitCode.IMAGE), 0)
            case "digest" | "wrong":
                self._forget()
                error = BrokenAnswerError(
                    f"{self._want.what}: {text}", retryable=False, exit_code=ExitCode.IMAGE
                )
                await self._next(error, 0)
            case "layer":
                self._forget()
                raise UserError(f"{self._want.what}: {text}", exit_code=ExitCode.IMAGE)
            case _:
                raise _of_machine(self._want, text, found.get("errno"))

    async def _refused_with(self, found: dict[str, Any]) -> None:
        status, body = int(found["status"]), str(found["body"]).encode()
        wait = backoff.retry_after(found["retry_after"], now=self._want.registry.timing.now())
        error = blame.of_status(
            status, body, self._want.what, host=self._want.registry.host, retry_after=wait
        )
        if found.get("moved"):
            # Where the registry sent us is nobody we know; its tickets run out, so we ask for another.
            if not isinstance(error, UnavailableError):
                error = UnavailableError(error.message)
            await self._next_or_wait(error, 0)
        elif status == 401 and self._refused < _REFUSALS:
            self._refused += 1
            self.source = await self._want.registry.renew(
                self._want.path, self.source, status=401, challenge=str(found["challenge"])
            )
        else:
            await self._next_or_wait(error, status)

    async def _next_or_wait(self, error: PystackError, status: int) -> None:
        if self.source.endpoint.mirror or not isinstance(error, UnavailableError):
            await self._next(error, status)
            return
        self._failed += 1
        registry = self._want.registry
        delay = registry.patience.delay(
            self._failed, chance=registry.timing.chance(), retry_after=error.retry_after
        )
        if delay is None:
            raise error
        self._job.tell("retrying", self._reached, because=f"{error.message}; again in {delay:.0f} s")
        await registry.timing.sleep(delay)

    async def _next(self, error: PystackError, status: int) -> None:
        """A mirror that can't is followed by another, at last by the registry itself."""
        if not self.source.endpoint.mirror:
            raise error
        self.source = await self._want.registry.renew(self._want.path, self.source, status=status)

    def _forget(self) -> None:
        os.truncate(self._partial, 0)
        self._reached = 0


def _of_machine(want: Want, text: str, number: int | None) -> EngineError:
    full = number in (errno.ENOSPC, errno.EDQUOT)
    return EngineError(f"{want.what}: {text}", lasting=full, retryable=True, exit_code=ExitCode.IMAGE)


def _way(tls: Tls, proxy: str) -> dict[str, Any]:
    """How a worker gets to a URL."""
    said = {"verify": tls.verify, "roots": tls.roots, "extra": tls.extra, "pairs": tls.pairs}
    return {"tls": said, "proxy": proxy}


def _encoded(data: dict[str, Any]) -> bytes:
    return json.dumps(data).encode() + b"\n"


class _Lines:
    """Lines of a stream; b"" at its end."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._held = bytearray()

    async def next(self) -> bytes:
        seen = 0
        while (end := self._held.find(b"\n", seen)) < 0:
            seen = len(self._held)
            if seen > _LINE_LIMIT:
                raise EngineError(
                    "too many odd entries in one layer", retryable=False, exit_code=ExitCode.IMAGE
                )
            try:
                piece = await self._stream.receive_some(1 << 16)
            except trio.BrokenResourceError:
                return b""
            if not piece:
                return b""
            self._held += piece
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        return line


async def _dead(stream: trio.SocketStream) -> None:
    """Returns when the worker is: it writes into what its successor goes on with."""
    try:
        await stream.send_eof()
        while await stream.receive_some(1 << 16):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        await stream.aclose()
