"""argv -> Call without typer, for every line that needs no explanation. Pure.

Whatever is not fully understood (help, an unknown flag, a missing value) is None: typer then finds the
words. The rules are those of typer's parser (POSIX Utility Conventions with GNU long options), and a test
holds the two together.
"""

from __future__ import annotations

from orchestrator.cli.table import COMMANDS, NO, SCOPE, YES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.cli.table import Argument, Option

    Values = dict[str, object]


class Call:
    """What is to be done: a command, the options of its scope, its own options and arguments."""

    __slots__ = ("command", "scope", "values")

    def __init__(self, command: str, scope: Values, values: Values) -> None:
        self.command = command
        self.scope = scope
        self.values = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and (self.command, self.scope, self.values) == (
            other.command,
            other.scope,
            other.values,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Call({self.command!r}, {self.scope!r}, {self.values!r})"


class NotUnderstoodError(Exception):
    """Typer shall explain."""


def parse(argv: Sequence[str]) -> Call | None:
    """The call that `argv` (without the program's name) asks for, or None."""
    try:
        scope, words = _options(SCOPE, argv, interspersed=False)
        if not words:
            return None
        name, left = words[0], words[1:]
        if name not in COMMANDS and left:
            name, left = f"{name} {left[0]}", left[1:]  # volume ls
        command = COMMANDS.get(name)
        if command is None:
            return None
        values, rest = _options(command.options, left, interspersed=not command.program)
        values.update(_arguments(command.arguments, rest))
    except NotUnderstoodError:
        return None
    return call(name, scope, values)


def call(name: str, before: Values, values: Values) -> Call | None:
    """Join the scope options given before the command with those after it: lists are added, the later
    single value wins. None when the line only asks for the version.
    """
    scope = dict(before)
    if scope.pop("version", False):
        return None
    own = {option.name for option in COMMANDS[name].options if option.name not in scope}
    own.update(argument.name for argument in COMMANDS[name].arguments)
    for key in list(scope):
        later = values.get(key)
        if later and key not in own:
            earlier = scope[key]
            scope[key] = earlier + later if isinstance(later, tuple) and isinstance(earlier, tuple) else later
    return Call(name, scope, {key: value for key, value in values.items() if key in own})


def _options(
    options: Sequence[Option], argv: Sequence[str], *, interspersed: bool
) -> tuple[Values, list[str]]:
    values: Values = {option.name: option.absent for option in options}
    known = {flag: option for option in options for flag in option.flags}
    words: list[str] = []
    left = list(reversed(argv))
    while left:
        word = left.pop()
        if word == "--":
            return values, words + left[::-1]
        if len(word) > 1 and word[0] == "-":
            if word[1] == "-":
                _long(known, word, left, values)
            else:
                _shorts(known, word, left, values)
        elif interspersed:
            words.append(word)
        else:
            return values, [word, *left[::-1]]
    return values, words


def _long(known: dict[str, Option], word: str, left: list[str], values: Values) -> None:
    flag, equals, value = word.partition("=")
    option = known.get(flag)
    if option is None or (option.kind == "flag" and equals and value not in YES + NO):
        raise NotUnderstoodError
    if option.kind == "flag":
        values[option.name] = value not in NO
    else:
        _store(option, value if equals else _next(left), values)


def _shorts(known: dict[str, Option], word: str, left: list[str], values: Values) -> None:
    for position, letter in enumerate(word[1:], 2):
        option = known.get(f"-{letter}")
        if option is None:
            raise NotUnderstoodError
        rest = word[position:]
        if option.kind == "flag" and rest[:1] == "=":
            if rest[1:] not in YES + NO:
                raise NotUnderstoodError
            values[option.name] = rest[1:] in YES
            return None
        if option.kind == "flag":
            values[option.name] = True
            continue
        if rest.startswith("="):
            raise NotUnderstoodError
        return _store(option, rest or _next(left), values)
    return None


def _next(left: list[str]) -> str:
    if not left:
        raise NotUnderstoodError
    return left.pop()


def _store(option: Option, text: str, values: Values) -> None:
    value: object = text
    if option.choices and text not in option.choices:
        raise NotUnderstoodError
    if option.kind in ("int", "float"):
        try:
            value = int(text) if option.kind == "int" else float(text)
        except ValueError:
            raise NotUnderstoodError from None
        if not 0 <= value < float("inf"):
            raise NotUnderstoodError
    if option.kind == "texts":
        earlier = values[option.name]
        assert isinstance(earlier, tuple)
        value = (*earlier, text)
    values[option.name] = value


def _arguments(arguments: Sequence[Argument], words: list[str]) -> Values:
    values: Values = {}
    left = list(words)
    for argument in arguments:
        if argument.required and not left:
            raise NotUnderstoodError
        if argument.many:
            values[argument.name] = tuple(left)
            left = []
        else:
            values[argument.name] = left.pop(0) if left else None
    if left:
        raise NotUnderstoodError
    return values
