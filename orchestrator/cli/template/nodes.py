"""What a template is made of. `at` is where in its text, for messages."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Literal:
    __slots__ = ("at", "value")

    def __init__(self, value: object, at: int) -> None:
        self.value = value
        self.at = at


class Chain:
    """`.A.B`, `$x.A`, `(pipeline).A`: a start ("." or "$name", or a pipeline) and the fields after it."""

    __slots__ = ("at", "fields", "start")

    def __init__(self, start: str | Pipeline, fields: tuple[str, ...], at: int) -> None:
        self.start = start
        self.fields = fields
        self.at = at


class Function:
    """The name of a function, where it is called."""

    __slots__ = ("at", "name")

    def __init__(self, name: str, at: int) -> None:
        self.name = name
        self.at = at


Operand = Literal | Chain | Function


class Pipeline:
    """Commands, each a list of operands; the value of each is the last argument of the next.

    `names` are the variables that get the value; `declares` says whether they are new.
    """

    __slots__ = ("at", "commands", "declares", "names")

    def __init__(
        self, commands: Sequence[Sequence[Operand]], names: tuple[str, ...], at: int, *, declares: bool
    ) -> None:
        self.commands = commands
        self.names = names
        self.declares = declares
        self.at = at


class Show:
    __slots__ = ("pipeline",)

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline


class Branch:
    """`if`, `with` or `range`, with what is done else."""

    __slots__ = ("body", "kind", "other", "pipeline")

    def __init__(self, kind: str, pipeline: Pipeline, body: list[Node], other: list[Node]) -> None:
        self.kind = kind
        self.pipeline = pipeline
        self.body = body
        self.other = other


class Jump:
    """`break` or `continue`."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind


Node = str | Show | Branch | Jump
