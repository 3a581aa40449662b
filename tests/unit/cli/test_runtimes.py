"""`runtime:` and --runtime: names become programs, and what is not one is refused with its place."""

from __future__ import annotations

import textwrap

import pytest

from orchestrator.cli import runtimes
from orchestrator.cli.runtimes import settle
from orchestrator.model import fingerprint
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.stackfile.load import Given, Loaded, load
from orchestrator.stackfile.read import Source

PROGRAMS = {"runc": "/usr/sbin/runc", "crun": "/opt/bin/crun", "/opt/x/mine": "/opt/x/mine"}


class NoFiles:
    home = "/root"

    def read(self, path: str) -> str:
        raise FileNotFoundError(path)

    def exists(self, path: str) -> bool:
        return False

    def digest(self, path: str) -> str:
        raise FileNotFoundError(path)


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes.os, "geteuid", lambda: 0)


def stack(*lines: str) -> Loaded:
    """Services a, b, ... with one line each."""
    text = "name: x\nservices:\n" + "".join(
        f"  {name}:\n    image: i\n    {line}\n" for name, line in zip("abcdef", lines, strict=False)
    )
    return load(
        [Source(path="stack.yml", text=textwrap.dedent(text))],
        Given(
            files=NoFiles(),
            environment={},
            working_dir="/w",
        ),
    )


def settled(*lines: str, default: str | None = None, about: str = "abcdef") -> dict[str, str | None]:
    loaded = stack(*lines)
    made = settle(loaded, loaded.stack, set(about), default, PROGRAMS.get)
    return {name: service.runtime for name, service in made.services.items()}


def test_names_are_looked_up() -> None:
    assert settled("runtime: runc", "runtime: /opt/x/mine", "runtime: pystack", "init: true") == {
        "a": "/usr/sbin/runc",
        "b": "/opt/x/mine",
        "c": None,
        "d": None,
    }


def test_docker_s_name_for_its_own_is_runc() -> None:
    assert settled("runtime: io.containerd.runc.v2") == {"a": "/usr/sbin/runc"}


def test_the_option_is_for_services_that_say_nothing() -> None:
    found = settled("init: true", "runtime: crun", "runtime: pystack", default="runc")
    assert found == {"a": "/usr/sbin/runc", "b": "/opt/bin/crun", "c": None}
    assert settled("init: true", default="pystack") == {"a": None}


def test_a_stack_without_any_stays_as_it_is() -> None:
    loaded = stack("init: true")
    assert settle(loaded, loaded.stack, {"a"}) is loaded.stack


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("runtime: nvidia", "nvidia is no runtime that is known"),
        ("runtime: runsc", "runsc is not on the PATH"),
        ("runtime: /no/where", "/no/where is not there, or can't be executed"),
        ("runtime: ./mine", "./mine is neither a name nor an absolute path"),
    ],
)
def test_what_is_none_is_refused_where_it_stands(line: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        settled("init: true", line)
    assert refused.value.exit_code == ExitCode.INVALID_STACK
    text = str(refused.value)
    assert "stack.yml:8:14: error[E020]: services.b.runtime: " in text
    assert words in text
    assert "^" in text
    assert settled("init: true", line, about="a")["a"] is None


def test_a_wrong_option_is_wrong_use() -> None:
    with pytest.raises(UserError, match="--runtime: nope is no runtime") as refused:
        settled("init: true", default="nope")
    assert refused.value.exit_code == ExitCode.USAGE


def test_only_root_can_use_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes.os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match="runc can only be used by root"):
        settled("runtime: runc")
    assert settled("runtime: pystack") == {"a": None}


def test_another_runtime_is_another_container() -> None:
    loaded = stack("init: true")
    marks = set()
    for default in (None, "runc", "crun"):
        made = settle(loaded, loaded.stack, {"a"}, default, PROGRAMS.get)
        marks.add(fingerprint.of_service(made.services["a"]))
    assert len(marks) == 3
