"""Loads and pulls in a process of their own, whose memory and that of its workers can be told.

    with Trial(store, environment) as trial:
        trial.load(path)        # Outcome: error, exit_code, workers_mib, own_mib, seconds
        trial.pull("localhost:5000/evil:1")

The peaks are those since the process began: they only grow.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kit.programs import REPOSITORY


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How it ended. `error` is "" when an image came in, `kind` the class of the error."""

    error: str
    kind: str
    exit_code: int
    workers_mib: float
    own_mib: float
    seconds: float


class Trial:
    """A process that loads and pulls into one store."""

    def __init__(self, store: Path, environment: Mapping[str, str] | None = None) -> None:
        self.store = store
        self._environment = dict(environment or {})

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kit.trial", str(self.store)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **self._environment},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def load(self, path: Path, **limits: int) -> Outcome:
        return self._ask({"load": str(path), "limits": limits})[0]

    def pull(self, *names: str, **limits: int) -> list[Outcome]:
        """One after the other, by the workers of one process."""
        return self._ask({"pull": names, "limits": limits})

    def _ask(self, order: Mapping[str, object]) -> list[Outcome]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the trial's process has died"
        return [Outcome(**row) for row in json.loads(line)]


def _load(path: str, store: Path, limits: Mapping[str, int]) -> Iterator[Exception | None]:
    from orchestrator.images.archives import loading
    from orchestrator.images.layers.unpacking import Limits
    from orchestrator.images.store.content import Store

    try:
        with open(path, "rb") as source:
            loading.load(Store(store), source, limits=Limits(**limits))
        yield None
    except Exception as error:
        yield error


def _pull(
    names: Sequence[str], store: Path, limits: Mapping[str, int]
) -> list[tuple[Exception | None, float]]:
    import trio

    from orchestrator.images.layers.unpacking import Limits
    from orchestrator.images.store.content import Store
    from orchestrator.images.transfer.pulling import open_pulling

    found: list[tuple[Exception | None, float]] = []

    async def all_of() -> None:
        async with open_pulling(Store(store), limits=Limits(**limits)) as pulling:
            for name in names:
                begun = time.monotonic()
                wrong: Exception | None = None
                try:
                    await pulling.pull(name, environment=os.environ)
                except Exception as error:
                    wrong = error
                found.append((wrong, time.monotonic() - begun))

    trio.run(all_of)
    return found


def _told(wrong: Exception | None, seconds: float) -> dict[str, object]:
    from orchestrator.model.errors import PystackError

    ours = isinstance(wrong, PystackError)
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # Not ru_maxrss, which a process has from the one that started it: here that is all of pytest.
    status = Path("/proc/self/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    return {
        # Whatever else comes out is a fault of ours, which the test shows.
        "error": "" if wrong is None else str(wrong) if ours else repr(wrong),
        "kind": "" if wrong is None else type(wrong).__name__,
        "exit_code": 0 if wrong is None else int(wrong.exit_code) if isinstance(wrong, PystackError) else -1,
        "workers_mib": workers / 1024,
        "own_mib": own / 1024,
        "seconds": seconds,
    }


def main() -> int:
    store = Path(sys.argv[1])
    for line in sys.stdin:
        order = json.loads(line)
        begun = time.monotonic()
        if "load" in order:
            ends = [
                (wrong, time.monotonic() - begun) for wrong in _load(order["load"], store, order["limits"])
            ]
        else:
            ends = _pull(order["pull"], store, order["limits"])
        print(json.dumps([_told(*end) for end in ends]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
