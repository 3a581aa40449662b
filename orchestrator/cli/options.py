"""What a command line is made of, as data: options, arguments, commands; and the options that many share."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Kind = Literal["flag", "text", "texts", "int", "float"]


class Option:
    """One option: the keyword it becomes, the flags that give it, what its value is.

    "flag" needs no value, "texts" may be given several times. Without the option the value is False, () or
    None, or for a flag that is `on` True: then only `--flag=false` tells anything. `choices` are the only
    values allowed.
    """

    __slots__ = ("choices", "flags", "help", "hidden", "kind", "metavar", "name", "on")

    def __init__(
        self,
        flags: str,
        kind: Kind,
        help: str = "",  # noqa: A002 - typer's word
        *,
        name: str = "",
        metavar: str = "",
        choices: tuple[str, ...] = (),
        hidden: bool = False,
        on: bool = False,
    ) -> None:
        self.flags = tuple(flags.split())
        self.name = name or self.flags[-1].lstrip("-").replace("-", "_")
        self.kind = kind
        self.help = help
        self.metavar = metavar or ("|".join(choices) if choices else "")
        self.choices = choices
        self.hidden = hidden
        self.on = on

    @property
    def absent(self) -> object:
        """The value when the option is not given."""
        return {"flag": self.on, "texts": ()}.get(self.kind)


class Argument:
    """Positional words: `many` takes all that are left (a tuple), else one, None when absent."""

    __slots__ = ("many", "metavar", "name", "required")

    def __init__(self, name: str, *, many: bool = False, required: bool = False, metavar: str = "") -> None:
        self.name = name
        self.metavar = metavar
        self.many = many
        self.required = required


class Command:
    """One command: `module:function` in this room is called with the scope and a keyword for every
    option and argument. `program` says that options end at the first word (`exec web ls -l`), `alone` that
    it has nothing to do with a stack, and takes no options that select one.
    """

    __slots__ = ("arguments", "calls", "help", "hidden", "options", "program")

    def __init__(
        self,
        calls: str,
        help: str,  # noqa: A002 - typer's word
        options: tuple[Option, ...] = (),
        arguments: tuple[Argument, ...] = (),
        *,
        program: bool = False,
        hidden: bool = False,
        alone: bool = False,
    ) -> None:
        self.calls = calls
        self.help = help
        self.arguments = arguments
        self.program = program
        self.hidden = hidden
        taken = {flag for option in options for flag in option.flags}
        shared = [option for option in SCOPE if not alone or option.name in _OF_ALL]
        rest = (_without(option, taken) for option in shared)
        self.options = options + tuple(option for option in rest if option is not None)


def _without(option: Option, taken: set[str]) -> Option | None:
    """A scope option, less the flags that the command uses for something else."""
    flags = [flag for flag in option.flags if flag not in taken]
    if not flags or option.name == "version":
        return None
    if len(flags) == len(option.flags):
        return option
    return Option(
        " ".join(flags),
        option.kind,
        option.help,
        name=option.name,
        metavar=option.metavar,
        choices=option.choices,
    )


YES = ("1", "t", "T", "true", "TRUE", "True")
NO = ("0", "f", "F", "false", "FALSE", "False")
"""What a flag may be given behind `=`, as in Go's strconv.ParseBool."""
_OF_ALL = ("ansi", "progress", "root")
PROGRESS = ("auto", "tty", "plain", "json", "quiet")
SCOPE = (
    Option("-f --file", "texts", "Stack file; several are merged, - is standard input", metavar="FILE"),
    Option("-p --project-name", "text", "Name of the stack", metavar="NAME"),
    Option("--project-directory", "text", "Base of relative paths", metavar="DIR"),
    Option("--profile", "texts", "Enable a profile (* for all)", metavar="NAME"),
    Option("--env-file", "texts", "Read variables from here in place of .env", metavar="FILE"),
    Option("--ansi", "text", "Colours and cursor movement", choices=("never", "always", "auto")),
    Option("--progress", "text", "How progress is shown", choices=PROGRESS),
    Option("--root", "text", "Directory for all state (PYSTACK_ROOT)", metavar="DIR"),
    Option("-v --version", "flag", "Print the version"),
)
"""Accepted before the command and, where the command has no such flag of its own, after it."""

SERVICES = (Argument("services", many=True),)
QUIET = Option("-q --quiet", "flag", "Only ids or names")
FORMAT = Option("--format", "text", "table, json, or a Go template ({{.Name}})", metavar="FORMAT")
TEMPLATE = Option("-f --format", "text", "json, or a Go template for each ({{.Id}})", metavar="FORMAT")
NO_TRUNC = Option("--no-trunc", "flag", "Do not shorten")
