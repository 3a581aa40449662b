"""The table of commands and the functions that it names."""

from __future__ import annotations

import importlib
import inspect

import pytest

from orchestrator.cli.table import COMMANDS, SCOPE


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_calls_a_function_that_takes_exactly_its_options(name: str) -> None:
    command = COMMANDS[name]
    module, _, function = command.calls.partition(":")
    doing = getattr(importlib.import_module(f"orchestrator.cli.{module}"), function)
    scope_names = {option.name for option in SCOPE}
    given = [option.name for option in command.options if option.name not in scope_names]
    given += [argument.name for argument in command.arguments]

    first, *others = inspect.signature(doing).parameters.values()

    assert first.name == "scope"
    assert sorted(parameter.name for parameter in others) == sorted(given)
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in others)
    assert doing.__doc__


@pytest.mark.parametrize("name", COMMANDS)
def test_no_flag_of_a_command_means_two_things(name: str) -> None:
    flags = [flag for option in COMMANDS[name].options for flag in option.flags]

    assert len(flags) == len(set(flags))


@pytest.mark.parametrize(
    ("name", "flag", "option"),
    [
        ("up", "-f", "file"),
        ("exec", "-p", "project_name"),
        ("logs", "-f", "follow"),
        ("logs", "--file", "file"),
        ("rm", "-f", "force"),
        ("run", "-p", "publish"),
        ("run", "--project-name", "project_name"),
        ("down", "-v", "volumes"),
    ],
)
def test_a_commands_own_flag_wins_over_that_of_the_scope(name: str, flag: str, option: str) -> None:
    assert [one.name for one in COMMANDS[name].options if flag in one.flags] == [option]
