"""Command lines as conmon, podman and containerd write them."""

from __future__ import annotations

import pytest

from orchestrator.oci import usage
from orchestrator.oci.arguments import Call, parse
from orchestrator.oci.complaint import UsageError
from orchestrator.oci.table import COMMANDS, COMMON


def read(line: str) -> Call:
    return parse(line.split(), COMMON, COMMANDS)


def test_options_of_all_and_of_the_command_are_told_apart() -> None:
    call = read("--root /r --log=/l --log-format json create -b /b --pid-file /p --preserve-fds 3 id")
    assert call.command == "create"
    assert call.scope == {"root": "/r", "log": "/l", "log-format": "json"}
    assert call.options == {"bundle": "/b", "pid-file": "/p", "preserve-fds": 3}
    assert call.words == ("id",)


def test_one_dash_or_two_value_beside_or_behind_before_or_after_the_id() -> None:
    wanted = {"all": True, "signal": "9"}
    for line in (
        "kill --all --signal=9 id",
        "kill -all -s 9 id",
        "kill id -a --signal 9",
        "kill -a=true -s=9 id",
    ):
        assert read(line).options == wanted, line
    assert read("delete --force=false id").options == {"force": False}


def test_exec_leaves_the_programs_own_options_alone() -> None:
    call = read("exec -t -e A=1 -e B=2 --cwd / id ls -l --all -- x")
    assert call.options == {"tty": True, "env": ["A=1", "B=2"], "cwd": "/"}
    assert call.words == ("id", "ls", "-l", "--all", "--", "x")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("state", "needs the id"),
        ("state a b", "'b' is too much"),
        ("state --nonsense a", "not defined: --nonsense"),
        ("create --bundle", "needs an argument"),
        ("--log-format xml state a", "'xml' is none of text, json"),
        ("create --preserve-fds many a", "not a number"),
        ("delete --force=perhaps a", "neither true nor false"),
    ],
)
def test_what_is_wrong_is_said(line: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(line)
    assert told in str(refused.value)
    assert refused.value.exit_code == 1


def test_an_unknown_command_ends_with_3_as_in_runc() -> None:
    with pytest.raises(UsageError) as refused:
        read("nonsense")
    assert refused.value.exit_code == 3


def test_help_and_version_wherever_they_are_asked_for() -> None:
    assert read("--version").command == read("-v").command == "version"
    assert read("").command == read("help").command == read("--help").command == "help"
    assert read("run --help").words == ("run",)
    for name, command in COMMANDS.items():
        text = usage.text(name)
        assert all(f"--{option.name}" in text for option in command.options), name
        assert name in usage.text("")
