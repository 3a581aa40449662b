"""PyYAML is loaded in part, works as if it were whole, and becomes whole for who wants more."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(program: str) -> str:
    """What a program prints in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SLOW = ("yaml.constructor", "yaml.reader", "yaml.resolver", "dataclasses", "inspect", "typing", "decimal")


def test_loading_a_stack_imports_nothing_slow() -> None:
    program = (
        "import sys; sys.argv = ['pystack']\n"
        "from orchestrator.stackfile import load, discover\n"
        f"print([name for name in {SLOW!r} if name in sys.modules])"
    )
    assert run(program) == "[]"


def test_the_rest_of_yaml_comes_when_it_is_asked_for() -> None:
    program = (
        "from orchestrator.stackfile import libyaml\n"
        "events = [type(event).__name__ for event in libyaml.parse('a: [1, *b]')]\n"
        "import yaml\n"
        "assert yaml.safe_load('a: [1, 2]') == {'a': [1, 2]}\n"
        "assert yaml.load('a: [1, 2]', Loader=yaml.CSafeLoader) == {'a': [1, 2]}\n"
        "assert yaml.YAMLError is libyaml.YAMLError\n"
        "from yaml.reader import ReaderError\n"
        "assert yaml.reader.ReaderError is ReaderError\n"
        "print(yaml.safe_dump({'a': 1}), events == [type(e).__name__ for e in yaml.parse('a: [1, *b]')])"
    )
    assert run(program) == "a: 1\n True"


@pytest.mark.parametrize("text", ["a: \x01", "a: [", "a: 'b", "\tb: c", "a: \ud800"])
@pytest.mark.parametrize("whole", [False, True])
def test_what_is_wrong_is_told_alike(text: str, whole: bool) -> None:
    """With all of PyYAML loaded first, the messages are the same as with the part that we load."""
    program = (
        f"{'import yaml' if whole else ''}\n"
        "from orchestrator.stackfile import read\n"
        "from orchestrator.stackfile.problem import Report\n"
        "report = Report()\n"
        f"read.read(read.Source(path='stack.yml', text={text!r}), report)\n"
        "assert 'yaml.constructor' in __import__('sys').modules or " + str(not whole) + "\n"
        "print([(one.message, one.place.line, one.place.column) for one in report.problems])"
    )
    told = run(program)
    assert "not YAML" in told
    other = program.replace("import yaml\n", "\n") if whole else "import yaml\n" + program
    assert told == run(other.replace(f"or {not whole}", "or True"))


def test_without_the_binding_the_parser_in_python_serves() -> None:
    program = (
        "import sys; sys.modules['yaml._yaml'] = None\n"
        "from orchestrator.stackfile import libyaml\n"
        "print(libyaml._Parser.__name__, len(list(libyaml.parse('a: [1, 2]'))))"
    )
    assert run(program) == "BaseLoader 11"
