"""A state root to play with through the control socket, as the command line does, but without its start-up.

    with Site(tmp_path) as site:
        site.up('''
            name: a
            services:
              web: {x-rootfs: {path: $BOX}, command: sleep 100}
        ''')
        assert site.row("a", "web")["state"] == "running"

`$BOX` is a root filesystem with busybox in it, `$DIR` a directory of the test's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from orchestrator.api import client
from orchestrator.api.paths import Paths
from orchestrator.engines.local.places import Places
from orchestrator.kernel import cgroups, pins
from orchestrator.kernel.digest import of_file
from orchestrator.model import codec
from orchestrator.model.stack import Stack
from orchestrator.stackfile.load import Given, load
from orchestrator.stackfile.read import Source
from tests.kit.keeper import build_image
from tests.kit.patience import patient

PATIENCE = 20.0
client.START_TIMEOUT = patient(client.START_TIMEOUT)
T = TypeVar("T")


class NoFiles:
    """Stack files of these tests name no other files."""

    home = "/root"

    def read(self, path: str) -> str:
        return Path(path).read_text()

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def digest(self, path: str) -> str:
        return of_file(path)


@dataclass(slots=True)
class Answer:
    """Everything that came back for one request."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int = -1
    error: str = ""
    hint: str = ""
    result: Any = None
    fds: list[int] = field(default_factory=list)

    def actions(self, verb: str = "", outcome: str = "done") -> list[str]:
        """Targets of the actions that were told, in order."""
        return [
            line["target"]
            for line in self.lines
            if line.get("event") == "action" and line["outcome"] == outcome and verb in ("", line["verb"])
        ]


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a log file."""

    time: bytes
    stream: bytes
    flag: bytes
    text: bytes


class Talk:
    """A request that is answered in the background."""

    def __init__(self, paths: Paths, request: dict[str, Any], fds: Sequence[int] = ()) -> None:
        self.answer = Answer()
        self.connection = client.summon(paths, request, fds)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for line in self.connection.lines():
                if "end" in line:
                    end = line["end"]
                    self.answer.exit_code, self.answer.result = end["exit_code"], end.get("result")
                    wrong = end.get("error") or {}
                    self.answer.error, self.answer.hint = wrong.get("message", ""), wrong.get("hint", "")
                else:
                    self.answer.lines.append(line)
        except Exception as error:
            self.answer.error = f"{type(error).__name__}: {error}"
        finally:
            self.answer.fds = self.connection.received_fds
            self._ended.set()

    def wait(self, seconds: float = PATIENCE) -> Answer:
        assert self._ended.wait(patient(seconds)), f"no end after {seconds} s: {self.answer.lines[-5:]}"
        self._thread.join()
        self.connection.close()
        return self.answer

    def event(self, kind: str) -> dict[str, Any]:
        """The first line of this kind, waited for."""
        return until(
            lambda: next((line for line in self.answer.lines if line.get("event") == kind), None),
            f"a line {kind}",
        )

    def leave(self) -> None:
        """As a client that is killed."""
        if self.connection.fileno() >= 0:
            with socket.socket(fileno=os.dup(self.connection.fileno())) as own, contextlib.suppress(OSError):
                own.shutdown(socket.SHUT_RDWR)
            self._thread.join()
            self.connection.close()


class Site:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = Paths.find(str(root), {})
        self.places = Places(run=Path(self.paths.run_dir), data=Path(self.paths.data_dir))
        self.dir = root / "dir"
        self.box = root / "box"
        self._talks: list[Talk] = []

    def __enter__(self) -> Self:
        self.dir.mkdir(exist_ok=True)
        if not self.box.exists():
            build_image(self.box)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    # --- requests --------------------------------------------------------------------------------

    def stack(self, text: str, **environment: str) -> Stack:
        return load(
            [Source(path=str(self.dir / "stack.yml"), text=textwrap.dedent(text))],
            Given(
                files=NoFiles(),
                environment={"BOX": str(self.box), "DIR": str(self.dir), **environment},
                working_dir=str(self.dir),
            ),
        ).stack

    def begin(self, verb: str, fds: Sequence[int] = (), **request: Any) -> Talk:
        talk = Talk(self.paths, {"verb": verb, **request}, fds)
        self._talks.append(talk)
        return talk

    def ask(self, verb: str, fds: Sequence[int] = (), *, exit_code: int | None = 0, **request: Any) -> Answer:
        """Raises AssertionError when it ends otherwise (None: any end will do)."""
        answer = self.begin(verb, fds, **request).wait(60)
        if exit_code is not None:
            assert answer.exit_code == exit_code, (
                f"{verb}: {answer.exit_code} {answer.error}\n{self.story(answer)}"
            )
        return answer

    def up(self, text: str, *services: str, exit_code: int | None = 0, **options: Any) -> Answer:
        stack = codec.encode(self.stack(text))
        return self.ask("up", exit_code=exit_code, stack=stack, services=list(services), **options)

    def begin_up(self, text: str, *services: str, **options: Any) -> Talk:
        return self.begin("up", stack=codec.encode(self.stack(text)), services=list(services), **options)

    def down(self, name: str, **options: Any) -> Answer:
        options.setdefault("timeout", 0)
        return self.ask("down", stack=name, **options)

    def execute(
        self,
        name: str,
        service: str,
        *command: str,
        stdin: bytes = b"",
        exit_code: int | None = 0,
        **more: Any,
    ) -> str:
        """What a command in a container prints, both streams together."""
        with contextlib.ExitStack() as stack:
            fds = []
            reading, writing = os.pipe()
            fds.append(reading)
            stack.callback(os.close, reading)
            output = stack.enter_context(open(self.root / f"out-{threading.get_ident()}", "w+b"))
            talk = self.begin(
                "exec",
                [reading, output.fileno(), output.fileno()],
                stack=name,
                service=service,
                command=list(command),
                **more,
            )
            os.write(writing, stdin)
            os.close(writing)
            answer = talk.wait(60)
            output.seek(0)
            said = output.read().decode(errors="surrogateescape")
        if exit_code is not None:
            assert answer.exit_code == exit_code, f"{command}: {answer.exit_code} {answer.error} {said}"
        return said

    def ps(self, name: str) -> list[dict[str, Any]]:
        rows = self.ask("ps", stack=name, all=True).result
        assert isinstance(rows, list)
        return rows

    def rows(self, name: str, service: str) -> list[dict[str, Any]]:
        """Of the service itself, not of what runs before it."""
        return [row for row in self.ps(name) if row["service"] == service and not row.get("step")]

    def row(self, name: str, service: str, slot: int = 1) -> dict[str, Any]:
        found = [row for row in self.rows(name, service) if row["slot"] == slot]
        assert len(found) == 1, found
        return found[0]

    # --- what is there ------------------------------------------------------------------------------

    @property
    def supervisor(self) -> int:
        return int(self.ask("ping").result["pid"])

    @property
    def hierarchies(self) -> cgroups.Hierarchies:
        """As the supervisor sees them: under systemd they begin at its scope."""
        return cgroups.detect(cgroup=f"/proc/{self.supervisor}/cgroup")

    @property
    def keeper(self) -> int:
        return int(self.ask("ping").result["keeper_pid"])

    def records(self, container_id: str) -> list[Record]:
        """Every record of a container's log, the rotated files first."""
        while True:
            with contextlib.suppress(FileNotFoundError):  # it was being turned over
                return self._records(container_id)

    def _records(self, container_id: str) -> list[Record]:
        home = next(self.places.stacks.glob(f"*/containers/{container_id}"))
        files = sorted(
            home.glob("container.log*"),
            key=lambda path: -int(path.suffix[1:] if path.suffix != ".log" else 0),
        )
        found = []
        for path in files:
            for line in path.read_bytes().split(b"\n")[:-1]:
                fields = line.split(b" ", 3)
                assert len(fields) == 4, line[:200]
                found.append(Record(*fields))
        return found

    def output(self, name: str, service: str, stream: bytes = b"stdout", slot: int = 1) -> bytes:
        """What a container has printed, byte for byte."""
        rows = self.records(self.row(name, service, slot)["id"])
        return b"".join(r.text + (b"\n" if r.flag == b"F" else b"") for r in rows if r.stream == stream)

    def prints(self, name: str, service: str, text: bytes, slot: int = 1) -> None:
        """Wait until it has printed `text`."""
        until(lambda: text in self.output(name, service, slot=slot), f"{text!r} from {service}")

    def becomes(self, name: str, service: str, slot: int = 1, **wanted: Any) -> dict[str, Any]:
        """Wait until the row of a container says so."""
        seen: dict[str, Any] = {}

        def as_wanted() -> dict[str, Any] | None:
            seen.clear()
            rows = [r for r in self.rows(name, service) if r["slot"] == slot]
            seen.update(rows[0] if rows else {})
            return seen if rows and all(seen[key] == value for key, value in wanted.items()) else None

        return until(as_wanted, f"{service} {wanted}", lambda: str(seen))

    def story(self, answer: Answer) -> str:
        log = self.places.supervisor_log
        text = log.read_text()[-3000:] if log.exists() else ""
        return "\n".join(json.dumps(line) for line in answer.lines[-30:]) + f"\n--- supervisor.log\n{text}"

    # --- rough hands --------------------------------------------------------------------------------

    def kill(self, *pids: int) -> None:
        """SIGKILL, and wait until nothing of them is left: a thread may still hold their sockets for a moment
        after the process looks dead, but its pidfd is readable only when all have gone (pidfd_open(2))."""
        for pid in pids:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                assert select.select([pidfd], [], [], patient(PATIENCE))[0], f"{pid} does not die"
            except ProcessLookupError:
                continue
            finally:
                os.close(pidfd)

    def clear(self) -> None:
        """Take every stack down; what a broken test has left is killed by its marks."""
        for talk in self._talks:
            talk.leave()
        with contextlib.suppress(Exception):
            if not client.idle(self.paths):
                for row in self.ask("ls").result:
                    self.begin(
                        "down", stack=row["name"], timeout=0, remove_volumes=True, remove_orphans=True
                    ).wait(20)
        with contextlib.suppress(AssertionError):
            until(lambda: not self.processes(), "the end of all", seconds=5)
        left = self.processes()
        if left:
            self._sweep()
            raise AssertionError(f"still there after the last down: {left}")

    def processes(self) -> list[str]:
        """Command lines of the supervisor and keeper of this root, and of processes in its control groups."""
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                command = (
                    Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                groups = Path(f"/proc/{name}/cgroup").read_text()
                server = "orchestrator" in command and self.paths.run_dir in command
                if server or f"/{self.places.cgroup}/" in groups:
                    found.append(f"{name} {command[:120]}")
        return found

    def _sweep(self) -> None:
        for _ in range(50):
            left = self.processes()
            if not left:
                break
            for row in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(row.split()[0]), signal.SIGKILL)
            time.sleep(0.05)
        subprocess.run(["nft", "delete", "table", "inet", self.places.cgroup], capture_output=True)
        for bundle in self.places.bundles.glob("*"):
            pins.unpin(str(bundle))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(
    condition: Callable[[], T | None],
    what: str,
    seen: Callable[[], str] = lambda: "",
    seconds: float = PATIENCE,
) -> T:
    """The first true answer. Raises AssertionError when there is none in time."""
    deadline = time.monotonic() + patient(seconds)
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited in vain for {what}: {seen()}"
        time.sleep(0.01)


@contextlib.contextmanager
def anchored(root: Path) -> Iterator[Site]:
    """A site whose supervisor stays between tests: a stack with one idle container holds it."""
    with Site(root) as site:
        site.up(ANCHOR)
        site.up(WARM)  # what the first network, filter and limits leave for the next
        site.down("warm")
        yield site


ANCHOR = """
    name: anchor
    services:
      idle: {x-rootfs: {path: $BOX}, network_mode: none, command: sleep 100000}
"""
WARM = """
    name: warm
    services:
      any: {x-rootfs: {path: $BOX}, command: sleep 1, mem_limit: 64m, cpus: 1, pids_limit: 99}
"""
