"""Templates of `--format`, in the language of Go's text/template as docker's users write it.

    scan       text -> pieces: literal text, and the tokens of each action
    nodes      what a template is made of
    parse      pieces -> nodes
    evaluate   nodes and data -> text
    functions  what can be called: Go's (index, printf, eq ...) and docker's (json, join, upper ...)
    values     how values are shown, and when they count as true

Pure. Data are what JSON has: objects, lists, texts, numbers, booleans and null; a function in an object is
called with the arguments that follow its name (`{{.Label "team"}}`). Left out are `define`, `template` and
`block`, which nobody needs in one line, and `call`, `html`, `js` and `urlquery`.

    >>> compile("{{.Name | upper}} {{range .Ports}}<{{.}}>{{end}}")({"Name": "web", "Ports": [80, 443]})
    'WEB <80><443>'

Source: the documentation of Go's text/template, and docker's page on formatting command output.
"""

from __future__ import annotations

from orchestrator.cli.template.scan import TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TemplateError", "compile"]


def compile(text: str, *, heading: bool = False) -> Callable[[object], str]:  # noqa: A001 - what it does
    """A function of the data. It and this raise TemplateError, whose text is in Go's words.

    With `heading`, docker's functions leave their argument as it is.
    """
    from orchestrator.cli.template.evaluate import run
    from orchestrator.cli.template.parse import parse

    nodes = parse(text)
    return lambda data: run(text, nodes, data, heading=heading)
