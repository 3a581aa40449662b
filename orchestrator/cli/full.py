"""The parser by typer: help, completion, and a sentence for every line that `fast` does not understand.

Commands are made from the table when they are asked for, so listing them imports nothing. Rich is left
out: it costs 100 ms for a box around a sentence.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import typer
import typer.core

from orchestrator.cli import fast
from orchestrator.cli.table import COMMANDS, SCOPE, Argument, Option
from orchestrator.model.errors import ExitCode, UserError

Perform = Callable[[fast.Call], int]

# click's UsageError, which typer does not export: the base of its BadParameter.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
_TYPES: dict[str, type] = {"flag": bool, "int": int, "float": float}
_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class OneCommand(typer.core.TyperCommand):
    """A command of the table; what it does is up to `perform`."""

    perform: Perform

    def invoke(self, ctx: Any) -> int:
        call = fast.call(self.name or "", ctx.parent.params, ctx.params)
        assert call is not None, "--version ends in the group"
        return self.perform(call)


class Commands(typer.core.TyperGroup):
    """All commands."""

    perform: Perform

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        return [name for name, command in COMMANDS.items() if not command.hidden]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's signature
        return build(cmd_name, self.perform) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1, cutoff=0.5)
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


def run(argv: Sequence[str], perform: Perform) -> int:
    """Parse and perform; returns the exit code. Raises UserError for a wrong line."""
    try:
        code = group(perform).main(list(argv) or ["--help"], prog_name="pystack", standalone_mode=False)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except _USAGE_ERROR as error:
        said: Any = error
        path = said.ctx.command_path if said.ctx else "pystack"
        raise UserError(
            said.format_message().rstrip("."), exit_code=ExitCode.USAGE, hint=f"see `{path} --help`"
        ) from None
    return code if isinstance(code, int) else 0


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
    )


def _option(option: Option) -> typer.core.TyperOption:
    flag = option.kind == "flag"
    return typer.core.TyperOption(
        param_decls=[option.name, *option.flags],
        type=_TYPES.get(option.kind, str),
        is_flag=flag,
        multiple=option.kind == "texts",
        default=False if flag else None,
        metavar=option.metavar or None,
        help=option.help or None,
        hidden=option.hidden,
        callback=_choice(option.choices) if option.choices else None,
    )


def _choice(choices: tuple[str, ...]) -> Callable[[Any, Any, Any], Any]:
    def check(ctx: Any, param: Any, value: Any) -> Any:
        if value is not None and value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}.", ctx=ctx, param=param)
        return value

    return check
