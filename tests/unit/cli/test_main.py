"""The command line as a whole, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.api.paths import Paths
from tests.unit.cli.command import MAIN, environment, run
from tests.unit.cli.scripted import Scripted, Talk

STACK = "services:\n  web:\n    x-rootfs: host\n"
HEAVY = {"trio", "networkx", "jsonschema", "pyroute2", "typer", "rich", "yaml", "click", "httpx", "isal"}
LIGHT_LIMIT = {"dataclasses", "inspect", "typing", "pathlib", "subprocess", "re", "json", "datetime", "enum"}


def _imported(root: Path, *words: str) -> set[str]:
    """The modules that a command has imported when it is done."""
    code = (
        "import sys, os\n"
        f"sys.argv = ['pystack', '--root', {str(root)!r}, *{list(words)!r}]\n"
        "end = os._exit\n"
        "os._exit = lambda code: (os.write(2, ' '.join(sys.modules).encode()), end(code))\n"
        "from orchestrator.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {environment()['PYTHONPATH']!r})\n{code}",
        ],
        capture_output=True,
        cwd=root,
        timeout=20,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stderr.decode().split()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "stack.yml").write_text(STACK)
    return tmp_path


def test_ps_imports_nothing_heavy(root: Path) -> None:
    with Scripted(Paths.find(str(root), {}), lambda talk: talk.end([])):
        for words in (("ps",), ("ps", "-a", "-f", "stack.yml"), ("ps", "--format", "json")):
            names = _imported(root, *words)
            assert not names & HEAVY
            assert not names & LIGHT_LIMIT, words


@pytest.mark.parametrize(
    "words", [("logs",), ("exec", "-d", "web", "true"), ("down",), ("stop",), ("restart",)]
)
def test_other_quick_commands_import_no_parser_of_anything(root: Path, words: tuple[str, ...]) -> None:
    with Scripted(Paths.find(str(root), {}), lambda talk: talk.end()):
        names = _imported(root, *words)

    assert not names & HEAVY
    assert not names & {"dataclasses", "inspect", "pathlib", "subprocess", "datetime"}


def test_the_client_of_registries_is_for_who_speaks_to_one_and_brings_no_command_line_of_its_own(
    root: Path,
) -> None:
    names = _imported(root, "logout", "localhost:9")
    assert "httpx" in names
    assert not names & {"typer", "rich", "click", "yaml", "networkx"}


def test_up_leaves_the_parser_of_arguments_and_the_graph_out(root: Path) -> None:
    with Scripted(Paths.find(str(root), {}), lambda talk: talk.end()):
        names = _imported(root, "up", "-d")

    assert "yaml" in names
    assert not names & (HEAVY - {"yaml"})


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("up", "-d", "-f", "nowhere.yml"), 14, "nowhere.yml"),
        (("pss",), 2, "did you mean `pystack ps`?"),
        (("ps", "--no-such"), 2, "no such option: --no-such"),
        (("up", "--wait", "--abort-on-container-exit"), 2, "cannot be combined"),
        (("up", "-d", "--attach", "web"), 2, "cannot be combined"),
        (("up", "--force-recreate", "--no-recreate"), 2, "cannot be combined"),
        (("up", "--scale", "web"), 2, "is not SERVICE=N"),
        (("run", "-P", "-p", "1:1", "web"), 2, "cannot be combined"),
        (("run", "-t", "-T", "web"), 2, "cannot be combined"),
        (("kill", "-s", "NOPE"), 2, "no signal"),
        (("-p", "Bad Name", "ps"), 15, "Bad Name"),
        (("exec", "web", "true"), 1, 'service "web" is not running'),
        (("start",), 1, "no container found"),
        (("logs", "--since", "soon"), 2, "soon"),
        (("logs", "--tail", "x"), 2, "neither a number nor all"),
        (("logs", "wbe"), 1, "no such service: wbe"),
        (("load", "-i", "none.tar"), 14, "none.tar"),
        (("config", "-o", "/nowhere/x"), 1, "/nowhere/x"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(
    root: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    got, out, err = run(root, *words)

    assert (got, out) == (code, ""), err
    assert message in err
    assert "Traceback" not in err
    assert err.count("error") == 1
    assert len(err.splitlines()) <= 5
    assert not (root / "run" / "supervisor.sock").exists()


def test_no_stack_file_anywhere_is_told_with_the_names_looked_for(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, "ps", env={"COMPOSE_PROJECT_NAME": ""})

    assert code == 14
    assert "stack.yml" in err


def test_a_bug_is_one_line_without_traceback_unless_asked_for(root: Path) -> None:
    with Scripted(Paths.find(str(root), {}), lambda talk: talk.end([{"wrong": "row"}])):
        code, _, err = run(root, "ps", "-a")
        _, _, debug = run(root, "ps", "-a", env={"PYSTACK_DEBUG": "1"})

    assert code == 1
    assert err.startswith("error: internal error: KeyError")
    assert "Traceback" not in err
    assert "Traceback" in debug


def test_colours_only_on_a_terminal_or_when_forced(root: Path) -> None:
    assert "\x1b[" not in run(root, "pss")[2]


def test_a_reader_that_goes_away_ends_the_command_as_sigpipe_does(root: Path) -> None:
    rows = [_row(number) for number in range(3000)]
    with Scripted(Paths.find(str(root), {}), lambda talk: talk.end(rows)):
        process = subprocess.Popen(
            [*MAIN, "--root", str(root), "ps", "--format", "json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=root,
            env=environment(),
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["Project"] == root.name.lower()
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(20) == 141
        process.stderr.close()

    assert err == b""


def _row(number: int) -> dict[str, object]:
    return {"id": "a" * 64, "name": f"x-web-{number}", "service": "web", "slot": number, "state": "running"}


def test_output_is_whole_on_a_pipe_that_is_not_blocking(root: Path) -> None:
    rows = [_row(number) for number in range(3000)]
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with Scripted(Paths.find(str(root), {}), lambda talk: talk.end(rows)):
        process = subprocess.Popen(
            [*MAIN, "--root", str(root), "ps", "-q"], stdout=write_end, cwd=root, env=environment()
        )
        os.close(write_end)
        with open(read_end, "rb") as file:
            lines = file.read().splitlines()
        assert process.wait(20) == 0

    assert len(lines) == 3000


def test_a_talk_that_ends_early_is_told(root: Path) -> None:
    def answer(talk: Talk) -> None:
        talk.send({"event": "action"})

    with Scripted(Paths.find(str(root), {}), answer):
        code, _, err = run(root, "ps")

    assert code == 5
    assert "supervisor was lost" in err
