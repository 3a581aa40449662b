"""Stack files out of a dict: the whole outside world that loading needs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from orchestrator.stackfile.load import Given, Loaded, load
from orchestrator.stackfile.problem import Problem, StackfileError
from orchestrator.stackfile.read import Source

FOLDER = "/home/proj"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Absolute path -> text."""

    texts: Mapping[str, str] = field(default_factory=dict)
    home: str = "/root"
    gone: frozenset[str] = frozenset()

    def read(self, path: str) -> str:
        if path not in self.texts:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.texts[path]

    def exists(self, path: str) -> bool:
        return path in self.texts

    def digest(self, path: str) -> str:
        """Of a file that a test says nothing of: as if something were in it."""
        if path in self.gone:
            raise FileNotFoundError(2, "No such file or directory", path)
        return hashlib.sha256(self.texts.get(path, path).encode()).hexdigest()


def loaded(
    *texts: str,
    env: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    dotenv: str | None = None,
    name: str | None = None,
    profiles: Sequence[str] = (),
    services: Sequence[str] = (),
    strict: bool = True,
    gone: Sequence[str] = (),
) -> Loaded:
    """What loading these texts gives. `files` are relative to the project directory."""
    names = ["stack.yml", *(f"{number}.yml" for number in range(1, len(texts)))]
    return load(
        [Source(path=path, text=text) for path, text in zip(names, texts, strict=True)],
        Given(
            files=Disk(
                texts={f"{FOLDER}/{path}": text for path, text in (files or {}).items()},
                gone=frozenset(f"{FOLDER}/{path}" for path in gone),
            ),
            environment={"HOME": "/root", **(env or {})},
            working_dir=FOLDER,
            name=name,
            profiles=profiles,
            services=services,
            dotenv=[Source(path=".env", text=dotenv)] if dotenv is not None else (),
            strict=strict,
            cwd=FOLDER,
        ),
    )


def refused(*texts: str, **given: object) -> tuple[Problem, ...]:
    """What is wrong with these texts."""
    with pytest.raises(StackfileError) as caught:
        loaded(*texts, **given)  # type: ignore[arg-type]
    return caught.value.problems


def unrunnable(*texts: str, **given: object) -> tuple[Problem, ...]:
    """What keeps the stack of these texts from being run, though it can be loaded."""
    return loaded(*texts, **given).refusals  # type: ignore[arg-type]


def web(body: str, rest: str = "") -> str:
    """A stack of one service with an image, and these lines more."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"services:\n  web:\n    image: x\n{lines}{rest}"
