"""The parser by typer: help, completion, and a sentence for every line that `fast` does not understand.

Commands are made from the table when they are asked for, so listing them imports nothing. Rich is left
out: it costs 100 ms for a box around a sentence.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import typer
import typer.core

from orchestrator.cli import fast
from orchestrator.cli.table import COMMANDS, NO, SCOPE, YES, Argument, Command, Option
from orchestrator.model.errors import ExitCode, UserError

Perform = Callable[[fast.Call], int]

# click's UsageError, which typer does not export: the base of its BadParameter.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
_TYPES: dict[str, type] = {"flag": bool, "int": int, "float": float}
_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


_IMAGES = "images come with `pystack load -i FILE` (docker save) or `pystack import DIRECTORY NAME`"
ABSENT = {
    "attach": "`pystack logs -f SERVICE` shows the output, `pystack exec SERVICE sh` gives a shell",
    "build": _IMAGES,
    "help": "`pystack --help`, `pystack COMMAND --help`",
    "publish": "",
    "wait": "`pystack up --exit-code-from SERVICE` returns a service's exit code",
    "watch": "",
}
"""Commands of docker compose that we don't have, and what to do instead."""
ABSENT_OPTIONS = {
    "--build": _IMAGES,
    "--no-build": "leave it out: nothing is ever built",
    "--watch": "",
    "--menu": "",
    "--always-recreate-deps": "`--force-recreate` with the names of the services",
    "--renew-anon-volumes": "`pystack rm -fsv SERVICE` before `up` takes anonymous volumes away",
    "-V": "`pystack rm -fsv SERVICE` before `up` takes anonymous volumes away",
    "--rmi": "`pystack rmi NAME` removes images",
    "--dry-run": "`pystack plan` shows what `up` would do, `pystack plan --down` what `down` would do",
    "--parallel": "",
    "--compatibility": "",
    "--all-resources": "",
}


class OneCommand(typer.core.TyperCommand):
    """A command of the table; what it does is up to `perform`."""

    perform: Perform

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        command = COMMANDS[self.name or ""]
        return super().parse_args(ctx, list(_plain_flags(command, args, ctx)))

    def invoke(self, ctx: Any) -> int:
        call = fast.call(self.name or "", ctx.parent.params, ctx.params)
        assert call is not None, "--version ends in the group"
        return self.perform(call)


class Commands(typer.core.TyperGroup):
    """All commands."""

    perform: Perform

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        """Of commands of two words, the first stands for all."""
        names = (name.partition(" ")[0] for name, command in COMMANDS.items() if not command.hidden)
        return list(dict.fromkeys(names))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's signature
        if cmd_name in COMMANDS:
            return build(cmd_name, self.perform)
        return Below(cmd_name) if below(cmd_name) else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if len(args) > 1 and f"{args[0]} {args[1]}" in COMMANDS:
            name = f"{args[0]} {args[1]}"
            return name, build(name, self.perform), args[2:]
        if args[0] not in COMMANDS and below(args[0]):
            if len(args) > 1 and args[1] in ("-h", "--help", "help"):
                return args[0], Below(args[0]), ["--help"]
            raise _not_below(args)
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            if args[0] in ABSENT:
                raise UserError(
                    f"`{args[0]}` is not supported yet", exit_code=ExitCode.USAGE, hint=ABSENT[args[0]]
                )
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1, cutoff=0.6)
            raise UserError(
                f'unknown command "{args[0]}"',
                exit_code=ExitCode.USAGE,
                hint=f"did you mean `pystack {near[0]}`?" if near else "`pystack --help` lists them",
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        if ctx.params["version"]:
            from orchestrator import __version__

            typer.echo(f"pystack {__version__}")
            return 0
        return super().invoke(ctx)


class Below(typer.core.TyperCommand):
    """What stands in lists for commands of two words (`image ls`), and lists them."""

    def __init__(self, word: str) -> None:
        names = below(word)
        shown = ", ".join(name.partition(" ")[2] for name in names)
        super().__init__(
            name=word,
            help=f"{word.title()}s: {shown}",
            context_settings=_SETTINGS,
            rich_markup_mode=None,
            add_help_option=True,
        )
        self._names = names

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click's signature
        formatter.write_usage(f"pystack {self.name}", "COMMAND")
        with formatter.section("Commands"):
            formatter.write_dl([(name.partition(" ")[2], COMMANDS[name].help) for name in self._names])


def below(word: str) -> list[str]:
    """The commands that begin with `word` and go on with another."""
    return [name for name, one in COMMANDS.items() if name.startswith(f"{word} ") and not one.hidden]


def _not_below(args: list[str]) -> UserError:
    names = below(args[0])
    given = next((word for word in args[1:] if not word.startswith("-")), "")
    near = difflib.get_close_matches(f"{args[0]} {given}", names, n=1, cutoff=0.8) if given else []
    return UserError(
        f"`pystack {args[0]}` is not a whole command"
        if not given
        else f'unknown command "{args[0]} {given}"',
        exit_code=ExitCode.USAGE,
        hint=f"did you mean `pystack {near[0]}`?"
        if near
        else f"one of: {', '.join(f'`pystack {name}`' for name in names)}",
    )


def run(argv: Sequence[str], perform: Perform) -> int:
    """Parse and perform; returns the exit code. Raises UserError for a wrong line."""
    try:
        code = group(perform).main(list(argv) or ["--help"], prog_name="pystack", standalone_mode=False)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except _USAGE_ERROR as error:
        raise _usage(error) from None
    return code if isinstance(code, int) else 0


def _usage(error: Any) -> UserError:
    path = error.ctx.command_path if error.ctx else "pystack"
    option = getattr(error, "option_name", "")
    if option in ABSENT_OPTIONS:
        hint = ABSENT_OPTIONS[option]
        return UserError(f"{option} is not supported yet", exit_code=ExitCode.USAGE, hint=hint)
    message = f"no such option: {option}" if option else error.format_message().rstrip(".")
    if near := difflib.get_close_matches(option, _flags(error.ctx), n=1, cutoff=0.8) if option else []:
        return UserError(message, exit_code=ExitCode.USAGE, hint=f"did you mean {near[0]}?")
    lowered = message[:1].lower() + message[1:]
    return UserError(lowered, exit_code=ExitCode.USAGE, hint=f"see `{path} --help`")


def _flags(ctx: Any) -> list[str]:
    return [flag for param in ctx.command.params for flag in param.opts] if ctx else []


def group(perform: Perform) -> Commands:
    """The whole command line."""
    made = Commands(
        name="pystack",
        help="Runs Compose stacks on one Linux machine, with its own namespace runtime.",
        params=[_option(option) for option in SCOPE],
        context_settings=_SETTINGS,
        rich_markup_mode=None,
    )
    made.perform = perform
    return made


def build(name: str, perform: Perform) -> OneCommand:
    """One command of the table."""
    command = COMMANDS[name]
    made = OneCommand(
        name=name,
        help=command.help,
        params=[*map(_argument, command.arguments), *map(_option, command.options)],
        context_settings={**_SETTINGS, "allow_interspersed_args": not command.program},
        rich_markup_mode=None,
    )
    made.perform = perform
    return made


def _argument(argument: Argument) -> typer.core.TyperArgument:
    return typer.core.TyperArgument(
        param_decls=[argument.name],
        type=str,
        nargs=-1 if argument.many else 1,
        required=argument.required,
        metavar=argument.metavar or None,
    )


def _option(option: Option) -> typer.core.TyperOption:
    flag = option.kind == "flag"
    return typer.core.TyperOption(
        param_decls=[
            option.name,
            *option.flags[:-1],
            option.flags[-1] + (f"/{_opposite(option)}" * option.on),
        ],
        type=_TYPES.get(option.kind, str),
        is_flag=flag,
        multiple=option.kind == "texts",
        default=option.on if flag else None,
        metavar=option.metavar or None,
        help=option.help or None,
        hidden=option.hidden,
        callback=_choice(option.choices) if option.choices else _CHECKS.get(option.kind),
    )


def _plain_flags(command: Command, args: list[str], ctx: Any) -> Iterator[str]:
    """`--flag=true` and `-f=false`, which click does not know, as `--flag`, `--no-flag` or nothing."""
    known = {flag: option for option in command.options if option.kind == "flag" for flag in option.flags}
    valued = {flag for option in command.options if option.kind != "flag" for flag in option.flags}
    ends = before = False
    for place, word in enumerate(args):
        flag, equals, value = word.partition("=")
        ends = ends or word == "--" or (command.program and not before and not word.startswith("-"))
        is_value, before = before, word in valued
        if ends or is_value or not equals or flag not in known:
            yield word
        elif value in YES:
            yield flag
        elif value not in NO:
            raise typer.BadParameter(f"{word} in place {place + 1}: neither true nor false.", ctx=ctx)
        elif known[flag].on:
            yield _opposite(known[flag])


def _opposite(option: Option) -> str:
    return f"--no-{option.name.replace('_', '-')}"


def _positive(ctx: Any, param: Any, value: Any) -> Any:
    if value is not None and not 0 <= value < float("inf"):
        raise typer.BadParameter(f"{value:g} is not a number from 0 on.", ctx=ctx, param=param)
    return value


_CHECKS: dict[str, Callable[[Any, Any, Any], Any]] = {"int": _positive, "float": _positive}


def _choice(choices: tuple[str, ...]) -> Callable[[Any, Any, Any], Any]:
    def check(ctx: Any, param: Any, value: Any) -> Any:
        if value is not None and value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}.", ctx=ctx, param=param)
        return value

    return check
