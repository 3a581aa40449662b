"""The quick parser and typer's agree on every line that the quick one takes on."""

from __future__ import annotations

import random
import shlex
from typing import Any

import pytest

from orchestrator.cli import fast, full
from orchestrator.cli.table import COMMANDS, SCOPE
from orchestrator.model.errors import ExitCode, UserError

LINES = [
    "ps",
    "ps -a",
    "ps --all=true --no-trunc=false -q=1",
    "up -d=F --wait=TRUE web -- --build=true",
    "image ls -aq --digests redis",
    "history --human=false redis",
    "image history -H=false redis",
    "history -H --no-trunc redis",
    "inspect -f '{{.Id}}' --type image a b",
    "rmi -f --no-prune a b",
    "save -o x.tar a b:1",
    "image tag a b",
    "image tree",
    "images -f dangling=true --filter label=a --format table",
    "ps -aq web db",
    "ps --format json",
    "ps --format=json",
    "-f a.yml ps",
    "ps -f a.yml -f b.yml",
    "-f a.yml up -f b.yml web",
    "-p one ps -p two",
    "--profile a --profile b up --profile c",
    "up -d",
    "up -dt 5",
    "up -dt5 web",
    "up --timeout=1.5 --scale web=3 --scale db=2",
    "up web -d db",
    "up -- -d",
    "up --attach a --no-attach b --exit-code-from c",
    "--ansi never --progress json --root /tmp/x up --no-start",
    "up --progress quiet",
    "down -v --remove-orphans -t 0",
    "logs -f",
    "logs -fn 10 web",
    "logs -n10 --since 5m",
    "logs --file x.yml -f",
    "logs --tail all -t --no-color --index 2 web",
    "exec web true",
    "exec -T web ls -l --color",
    "exec -it web sh",
    "exec -eA=1 -e B=2 -u root:root -w / web env",
    "exec web -- ls",
    "exec -p shop web ps -p 1",
    "exec -f x.yml web tail -f /var/log/x",
    "run --rm web",
    "run --rm -p 80:80 -P web sh -c 'echo -p hi'",
    "run -v /a:/b --name x -l a=b --entrypoint '' web",
    "kill -s TERM web",
    "rm -fsv web",
    "rm -f --file a.yml",
    "config --services",
    "config --format json -o out web",
    "config --hash '*'",
    "convert --no-interpolate --no-normalize --format json",
    "config --explain services.web.ports[0] --format=json",
    "config --no-path-resolution --no-consistency --no-env-resolution --variables",
    "config --lock-image-digests --resolve-image-digests --models -qo out",
    "check --strict --ignore C101 --ignore public-port --format sarif web db",
    "schema -o out.json",
    "plan --down",
    "events --json --since 1h",
    "port --protocol udp --index 2 web 53",
    "images -q",
    "load -i x.tar",
    "import . name:tag --change 'CMD [\"sh\"]' -c 'ENV A=1' -m hi",
    "rmi --force a b",
    "ls -aq",
    "version --short",
    "create --force-recreate web",
    "restart -t 3 --no-deps web",
]
NOT_TAKEN = [
    "",
    "--help",
    "-h",
    "--version",
    "ps -h",
    "ps --help",
    "ps --bad",
    "ps -z",
    "pss",
    "up --timeout x",
    "up --timeout",
    "up -t",
    "ps --all=yes",
    "-q=x images",
    "check --format toml",
    "schema extra",
    "port web",
    "exec web",
    "import",
    "ls extra",
    "version extra",
    "--progress loud up",
    "logs --index x",
]


def _typed(argv: list[str]) -> fast.Call:
    calls: list[fast.Call] = []

    def perform(call: fast.Call) -> int:
        calls.append(call)
        return 0

    assert full.run(argv, perform) == 0
    (call,) = calls
    return call


@pytest.mark.parametrize("line", LINES)
def test_both_parsers_make_the_same_call(line: str) -> None:
    argv = shlex.split(line)

    assert fast.parse(argv) == _typed(argv)


@pytest.mark.parametrize("line", NOT_TAKEN)
def test_what_needs_words_is_left_to_typer(line: str) -> None:
    assert fast.parse(shlex.split(line)) is None


def test_both_parsers_agree_on_lines_made_of_anything() -> None:
    """Random words, options and values: whenever the quick parser answers, typer answers the same."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    taken = 0
    for _ in range(400):
        argv = _random_line(chance)
        call = fast.parse(argv)
        if call is not None:
            taken += 1
            assert call == _typed(argv), argv
    assert taken > 100


def _random_line(chance: random.Random) -> list[str]:
    name = chance.choice(list(COMMANDS))
    argv: list[str] = []
    for option in chance.sample([o for o in SCOPE if o.name != "version"], chance.randrange(3)):
        argv += _given(option, chance)
    argv += name.split()
    rest: list[list[str]] = [
        _given(option, chance) for option in COMMANDS[name].options if chance.random() < 0.2
    ]
    rest += [[chance.choice(["web", "80", "-", "a=b", "x"])] for _ in range(chance.randrange(4))]
    if chance.random() < 0.1:
        rest.append(["--"])
    chance.shuffle(rest)
    return argv + [word for words in rest for word in words]


def _given(option: Any, chance: random.Random) -> list[str]:
    flag = chance.choice(option.flags)
    if option.kind == "flag":
        return [flag]
    value = chance.choice(
        option.choices or {"int": ["3"], "float": ["2", "0.5"]}.get(option.kind, ["v", "-v", ""])
    )
    if flag.startswith("--"):
        return chance.choice([[flag, value], [f"{flag}={value}"]])
    return chance.choice([[flag, value], [f"{flag}{value}"] if value else [flag, value]])


def test_an_unknown_command_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match="unknown command") as caught:
        full.run(["dwon"], lambda _: 0)

    assert caught.value.exit_code is ExitCode.USAGE
    assert "pystack down" in caught.value.hint


def test_a_wrong_line_is_one_sentence_and_says_where_help_is() -> None:
    with pytest.raises(UserError, match="no such option: --bad") as caught:
        full.run(["ps", "--bad"], lambda _: 0)

    assert caught.value.hint == "see `pystack ps --help`"
    assert caught.value.exit_code is ExitCode.USAGE


def test_help_lists_every_command_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    full.run([], lambda _: 1)
    top = capsys.readouterr().out
    for name, command in COMMANDS.items():
        first, _, second = name.partition(" ")
        if second:
            full.run([first, "--help"], lambda _: 1)
            assert (f"  {second} " in capsys.readouterr().out) is not command.hidden
        assert f"  {first} " in top or command.hidden
        full.run([*name.split(), "--help"], lambda _: 1)
        text = capsys.readouterr().out
        for option in command.options:
            assert option.flags[-1] in text, (name, option.flags)


def test_the_version_is_printed_whatever_follows(capsys: pytest.CaptureFixture[str]) -> None:
    assert full.run(["-v"], lambda _: 1) == 0
    assert capsys.readouterr().out.startswith("pystack ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("stop -t -1", "-1 is not a number from 0 on"),
        ("up --wait-timeout nan", "nan is not a number from 0 on"),
        ("down -t inf", "inf is not a number from 0 on"),
        ("exec --index -2 web true", "-2 is not a number from 0 on"),
    ],
)
def test_a_number_that_means_nothing_is_refused(line: str, message: str) -> None:
    assert fast.parse(line.split()) is None
    with pytest.raises(UserError, match=message):
        full.run(line.split(), lambda call: 0)


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("image", "`pystack image` is not a whole command", "one of: `pystack image ls`"),
        ("image lss", 'unknown command "image lss"', "did you mean `pystack image ls`?"),
        ("image histroy x", 'unknown command "image histroy"', "did you mean `pystack image history`?"),
        ("volume -q", "`pystack volume` is not a whole command", "`pystack volume ls`"),
        ("imagess", 'unknown command "imagess"', "did you mean `pystack images`?"),
        ("save --outptu x y", "no such option: --outptu", "did you mean --output?"),
        ("tag a", "missing argument 'NAME[:TAG]'", "see `pystack tag --help`"),
        ("rmi", "missing argument 'IMAGE...'", "see `pystack rmi --help`"),
        ("images a b", "got unexpected extra argument", "see `pystack images --help`"),
        ("history --human=perhaps x", "neither true nor false", "see `pystack history --help`"),
    ],
)
def test_commands_of_two_words_and_their_slips(line: str, message: str, hint: str) -> None:
    assert fast.parse(line.split()) is None
    with pytest.raises(UserError) as caught:
        full.run(line.split(), lambda call: 0)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("watch", "`watch` is not supported yet"),
        ("up -d --build", "--build is not supported yet"),
        ("down --rmi all", "--rmi is not supported yet"),
    ],
)
def test_what_only_docker_compose_has_is_named_not_taken_for_a_slip(line: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        full.run(line.split(), lambda call: 0)
    assert caught.value.message == message
    assert "did you mean" not in caught.value.hint


def test_what_we_have_is_not_among_what_we_lack() -> None:
    assert not set(full.ABSENT) & set(COMMANDS)
    flags = {flag for one in COMMANDS.values() for option in one.options for flag in option.flags}
    assert not set(full.ABSENT_OPTIONS) & flags
