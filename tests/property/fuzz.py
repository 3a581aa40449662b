"""Whatever the bytes: a Stack or a UserError, within 2 s of processor time and 500 MiB.

    python -m tests.property.fuzz --count 100000 --seed 7

Runs in a process of its own (tests/property/test_fuzz.py, tests/nightly), because limits are set for the whole
process. Inputs are hypothesis's: plain bytes, texts of YAML's signs, and mutations of right files: of the stack
file, an override, .env, an env_file, what is extended and included. Prints the input that breaks the promise.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import posixpath
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from orchestrator.model.errors import UserError
from orchestrator.stackfile.discover import locate
from orchestrator.stackfile.load import Given, load
from tests.property import grammar

SECONDS = 2.0
MEMORY = 500 * 1024 * 1024
FOLDER = "/home/proj"
ENVIRONMENT = {"A": "1", "FOO": "first", "BAR": "", "NUM": "3", "BOOL": "true"}
LONGEST = 100_000
"""Bytes of a generated file: as many as a stack of some hundred services has."""

TOKENS: tuple[bytes, ...] = tuple(
    text.encode("utf-8", "surrogatepass")
    for text in (
        *"& * ! | > % @ ` # - ? : , [ ] { } ' \" \\ / ~ = + . $ 0 \t \n \r \0 \x0b \x85 \x7f".split(" "),
        *"\u2028 \ufeff \ud800 é 😀 null true yes .inf .nan -.inf 1e999 0o777 0x 1_0 1:2:3 2001-01-01".split(
            " "
        ),
        *"<<: *a *b &a &b [[[[[[ {a:{a:{a: !!binary !!python/object:os.system !reset !override !<tag:x>".split(
            " "
        ),
        *"${ ${A ${A:-${B:-${C}}} ${A:?x} ${A:+ $$ $A ${A-} \\u0000 \\x 99999999999999999999 -1 -0 1e400".split(
            " "
        ),
        *"services: web: image: x-a: extends: include: networks: volumes: ports: build: profiles: name: ---".split(
            " "
        ),
        *"service:web container:a ../../.. ~/x /dev/zero - 80:80 0-99999999:1 1-65535:1-65535 [::1]:1:1".split(
            " "
        ),
        *"\n--- \n... \n  \n    %YAML 1.1\n %TAG ! x\n : \n- |\n >-\n".split(" "),
        " " * 100,
        "[" * 500,
        "{a: " * 300,
        "a: &a [*a]",
        "&a [1,1] &b [*a,*a] &c [*b,*b] &d [*c,*c] &e [*d,*d]",
        "<<: [*a, *b]",
        "9" * 5000,
        "a" * 5000,
    )
)


@dataclass(frozen=True, slots=True)
class Disk:
    """Files of bytes, as the command line meets them."""

    files: Mapping[str, bytes]
    home: str = "/root"

    def read(self, path: str) -> str:
        inside = posixpath.relpath(path, FOLDER)
        if inside not in self.files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.files[inside].decode("utf-8")

    def exists(self, path: str) -> bool:
        return posixpath.relpath(path, FOLDER) in self.files

    def digest(self, path: str) -> str:
        inside = posixpath.relpath(path, FOLDER)
        if inside not in self.files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return hashlib.sha256(self.files[inside]).hexdigest()


class TooSlow(BaseException):
    """No `except Exception` may swallow it."""


def attempt(files: Mapping[str, bytes], environment: Mapping[str, str]) -> str:
    """How loading them ends: "loaded" or "refused". Anything but a UserError comes through."""
    disk = Disk(files)
    variables = {"HOME": "/root", **environment}
    try:
        found = locate(disk, cwd=FOLDER, environment=variables)
        load(
            found.sources,
            Given(
                files=disk,
                environment=variables,
                working_dir=found.working_dir,
                name=found.name,
                profiles=found.profiles,
                dotenv=found.dotenv,
            ),
        )
    except UserError as error:
        return "refused" if str(error) else "refused without a word"
    return "loaded"


# --- inputs -----------------------------------------------------------------------------------------------


def right_files(random: Any) -> dict[str, bytes]:
    """A generated project, or one of the repository's examples, as bytes."""
    if random.randrange(4) == 0:
        return dict(examples()[random.randrange(len(examples()))])
    return {path: text.encode() for path, text in grammar.project(random).question().files.items()}


_EXAMPLES: list[dict[str, bytes]] = []


def examples() -> list[dict[str, bytes]]:
    if not _EXAMPLES:
        top = Path(__file__).parents[2] / "examples"
        for folder in sorted(path.parent for path in top.glob("*/stack.yml")):
            texts = {
                str(path.relative_to(folder)): path.read_bytes()
                for path in sorted(folder.rglob("*"))
                if path.is_file()
                and path.suffix in (".yml", ".yaml", ".env", "")
                and path.stat().st_size < 20_000
            }
            _EXAMPLES.append(texts)
    return _EXAMPLES


def mutated(random: Any) -> dict[str, bytes]:
    """Right files of which one or two have been spoilt."""
    files = right_files(random)
    names = sorted(files)
    for _ in range((1, 1, 2)[random.randrange(3)]):
        name = names[random.randrange(len(names))]
        data = files[name]
        for _ in range((1, 1, 1, 2, 4)[random.randrange(5)]):
            data = MUTATIONS[random.randrange(len(MUTATIONS))](data, random)
        files[name] = data[:LONGEST]
    return files


def _place(data: bytes, random: Any) -> int:
    return int(random.randrange(len(data) + 1))


def _insert(data: bytes, random: Any) -> bytes:
    at = _place(data, random)
    return data[:at] + TOKENS[random.randrange(len(TOKENS))] + data[at:]


def _replace(data: bytes, random: Any) -> bytes:
    at = _place(data, random)
    return data[:at] + TOKENS[random.randrange(len(TOKENS))] + data[at + random.randrange(12) :]


def _flip(data: bytes, random: Any) -> bytes:
    at = _place(data, random)
    return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]


def _cut(data: bytes, random: Any) -> bytes:
    at = _place(data, random)
    return data[:at] + data[at + random.randrange(40) :]


def _truncate(data: bytes, random: Any) -> bytes:
    return data[: _place(data, random)]


def _repeat(data: bytes, random: Any) -> bytes:
    """A slice many times: of a line, that is a long list; of an opening bracket, depth."""
    at = _place(data, random)
    end = at + 1 + random.randrange(60)
    times = (2, 3, 10, 100, 3000)[random.randrange(5)]
    return data[:at] + data[at:end] * times + data[end:]


def _lines(data: bytes, random: Any) -> bytes:
    """A line moved elsewhere, with another indent."""
    lines = data.split(b"\n")
    line = lines.pop(random.randrange(len(lines)))
    lines.insert(random.randrange(len(lines) + 1), b" " * random.randrange(8) + line.lstrip())
    return b"\n".join(lines)


def _values(data: bytes, random: Any) -> bytes:
    """What follows a colon becomes another value."""
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    key, colon, _ = lines[at].partition(b":")
    lines[at] = key + colon + b" " + TOKENS[random.randrange(len(TOKENS))]
    return b"\n".join(lines)


MUTATIONS: Sequence[Callable[[bytes, Any], bytes]] = (
    _insert,
    _insert,
    _replace,
    _flip,
    _cut,
    _truncate,
    _repeat,
    _lines,
    _values,
)

_signs = st.lists(st.sampled_from(TOKENS), max_size=25).map(b" ".join)
_alone = st.one_of(
    st.binary(max_size=120), _signs, st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace"))
)
inputs = st.one_of(
    _alone.map(lambda data: {"compose.yaml": data}),
    st.tuples(_alone, _alone, _alone).map(
        lambda three: {
            "compose.yaml": b"services: {web: {image: x, env_file: [e]}}\n",
            "compose.override.yaml": three[0],
            ".env": three[1],
            "e": three[2],
        }
    ),
    *(st.randoms(use_true_random=False).map(mutated) for _ in range(6)),
)


# --- the run ----------------------------------------------------------------------------------------------


def run(count: int, number: int) -> dict[str, Any]:
    """Put so many inputs to the loader. Raises what breaks the promise; hypothesis has made the input small."""
    ends: Counter[str] = Counter()
    slowest = 0.0

    @seed(number)
    @settings(
        max_examples=count,
        phases=[Phase.generate, Phase.shrink],
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def every(files: dict[str, bytes]) -> None:
        nonlocal slowest
        begun = time.process_time()
        # Processor time: a busy machine is no hang.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            ends[attempt(files, ENVIRONMENT)] += 1
        except TooSlow:
            # Hypothesis shows what fails with an Exception only, and to make this small would take long.
            print(f"files={files!r}", file=sys.stderr)
            raise
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, time.process_time() - begun)

    every()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "inputs": sum(ends.values()),
        **ends,
        "slowest_seconds": round(slowest, 3),
        "peak_mib": round(peak),
    }


def _stop(signum: int, frame: FrameType | None) -> None:
    raise TooSlow(f"more than {SECONDS:.0f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="stack files that are none")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=Random().randrange(2**32))
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    examples()
    gc.collect()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, _stop)
    print(json.dumps(run(options.count, options.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
