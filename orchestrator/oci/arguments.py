"""A command line -> Call. Pure.

As in Go, where the other runtimes come from: `-name` and `--name` are the same, values come as
`--name=value` or as the next word, flags may say `--name=false`. Options stand before or after the id; only
`exec` and `ps` end them at the first word, for what follows belongs to the program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from orchestrator.oci.complaint import UsageError

Value = str | int | bool | list[str]


class Option(NamedTuple):
    """An option: its names, what it takes, what it means.

    `takes` is "" for a flag, "text", "number", or "texts" where it may be given again and again.
    """

    names: tuple[str, ...]
    takes: str
    about: str
    choices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.names[0]


class Command(NamedTuple):
    """A command: how many words it takes besides options, and the function that does it."""

    calls: str
    about: str
    words: str
    least: int
    most: int | None
    options: tuple[Option, ...] = ()
    strict: bool = False
    """Whether the first word ends the options."""


class Call(NamedTuple):
    """A command line, understood."""

    command: str
    scope: Mapping[str, Value]
    options: Mapping[str, Value]
    words: tuple[str, ...]


def parse(argv: Sequence[str], common: Sequence[Option], commands: Mapping[str, Command]) -> Call:
    """Understand a command line; "help" and "version" are commands too. Raises UsageError."""
    scope, rest = _take(list(argv), common, strict=True)
    if scope.get("version"):
        return Call("version", scope, {}, ())
    if scope.get("help") or not rest:
        return Call("help", scope, {}, ())
    name, *following = rest
    if name in ("help", "version"):
        return Call(name, scope, {}, tuple(following))
    command = commands.get(name)
    if command is None:
        raise UsageError(f"{name!r} is not a command; see pystack-oci --help", 3)
    options, words = _take(following, (*command.options, HELP), strict=command.strict)
    if options.get("help"):
        return Call("help", scope, {}, (name,))
    if len(words) < command.least:
        raise UsageError(f"{name}: {words_wanted(command)}, see pystack-oci {name} --help")
    if command.most is not None and len(words) > command.most:
        raise UsageError(f"{name}: {words[command.most]!r} is too much, see pystack-oci {name} --help")
    return Call(name, scope, options, tuple(words))


HELP = Option(("help", "h"), "", "show this")


def words_wanted(command: Command) -> str:
    """What has to stand on the command line, in words."""
    return f"needs {command.words}" if command.words else "takes no arguments"


def _take(argv: list[str], options: Sequence[Option], *, strict: bool) -> tuple[dict[str, Value], list[str]]:
    """The options in `argv`, and the words that are none."""
    known = {name: option for option in options for name in option.names}
    found: dict[str, Value] = {}
    words: list[str] = []
    while argv:
        word = argv.pop(0)
        if word == "--":
            return found, words + argv
        if not word.startswith("-") or word == "-":
            words.append(word)
            if strict:
                return found, words + argv
            continue
        name, equals, value = word.lstrip("-").partition("=")
        option = known.get(name)
        if option is None:
            raise UsageError(f"flag provided but not defined: {word.partition('=')[0]}")
        if option.takes and not equals:
            if not argv:
                raise UsageError(f"flag needs an argument: {word}")
            value = argv.pop(0)
        _keep(found, option, value if option.takes or equals else "true")
    return found, words


def _keep(found: dict[str, Value], option: Option, value: str) -> None:
    if option.choices and value not in option.choices:
        raise UsageError(f"--{option.name}: {value!r} is none of {', '.join(option.choices)}")
    if option.takes == "":
        if value not in ("true", "false", "1", "0"):
            raise UsageError(f"--{option.name}: {value!r} is neither true nor false")
        found[option.name] = value in ("true", "1")
    elif option.takes == "number":
        try:
            found[option.name] = int(value)
        except ValueError:
            raise UsageError(f"--{option.name}: {value!r} is not a number") from None
    elif option.takes == "texts":
        earlier = found.get(option.name)
        found[option.name] = [*(earlier if isinstance(earlier, list) else []), value]
    else:
        found[option.name] = value
