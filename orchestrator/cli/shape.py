"""What `--format` makes of the rows of a list: a table, JSON, or a Go template. Pure."""

from __future__ import annotations

from orchestrator.cli import columns, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from orchestrator.model.errors import UserError

    Row = Mapping[str, Any]


def rows(
    format: str | None,  # noqa: A002 - the option's name
    objects: Sequence[Row],
    heads: Mapping[str, str],
    table: Callable[[], str],
) -> str:
    """Each object a line, by `json` or by a template, whose `\\t` and `\\n` are a tab and a new line.

    Behind `table ` a template gives the columns of a table, with the words of `heads` above them. `table`
    makes what else is shown. Raises UserError.
    """
    form = (format or "table").strip()
    if form == "table":
        return table()
    if form == "json":
        from orchestrator.api.wire import dumps

        return "".join(dumps(data(row)) + "\n" for row in objects)
    columned = form.partition(" ")[0].partition("\\t")[0] == "table"
    make = template(form.removeprefix("table").lstrip() if columned else form, escapes=True)
    lines = [make(row) for row in objects]
    if not columned:
        return "".join(f"{line}\n" for line in lines)
    cells = [line.split("\t") for line in (headings(form, heads), *lines)]
    return columns.ragged(cells)


def told(format: str | None) -> bool:  # noqa: A002 - the option's name
    """Whether `rows` will look at its objects: they need not be made for the usual table."""
    return (format or "table").strip() != "table"


def headings(form: str, heads: Mapping[str, str]) -> str:
    """The line above the columns of a template: each field replaced by its word, no function at work."""
    from orchestrator.cli.template import compile as make

    above: dict[str, Any] = dict(heads)
    above["Label"] = _label_heading
    text = form.removeprefix("table").lstrip().replace("\\t", "\t").replace("\\n", "\n")
    return make(text, heading=True)(above)


def _label_heading(name: str) -> str:
    return name.rpartition(".")[2]


def template(text: str, *, escapes: bool = False) -> Callable[[object], str]:
    """A function of the data that makes printable text. Raises UserError, as what it returns does."""
    from orchestrator.cli.template import TemplateError
    from orchestrator.cli.template import compile as make

    if escapes:
        text = text.replace("\\t", "\t").replace("\\n", "\n")
    if "{{" not in text:
        raise _usage(
            f"--format: {text!r:.60} is no format", "table, json, or a template like '{{.Name}}\\t{{.ID}}'"
        )
    try:
        whole = make(text)
    except TemplateError as error:
        raise _wrong(error) from None

    def filled(value: object) -> str:
        try:
            return say.printable(whole(value))
        except TemplateError as error:
            raise _wrong(error) from None

    return filled


def inspected(
    format: str | None,  # noqa: A002 - the option's name
    objects: Sequence[Row],
) -> str:
    """What `inspect` prints: a JSON array for people, a compact one for `json`, or a template for each."""
    if format and format != "json":
        make = template(format)
        return "".join(f"{make(one)}\n" for one in objects)
    import json

    if format:
        return json.dumps(list(objects), separators=(",", ":")) + "\n"
    return json.dumps(list(objects), indent=4) + "\n"


def data(row: Row) -> dict[str, Any]:
    """A row without the functions that it has for templates."""
    return {key: value for key, value in row.items() if not callable(value)}


def labels(pairs: Mapping[str, str]) -> dict[str, Any]:
    """The two fields that docker's lists have for labels: all in one text, and one by its name."""
    return {
        "Labels": ",".join(f"{key}={value}" for key, value in pairs.items()),
        "Label": lambda name: pairs.get(name, ""),
    }


def _wrong(error: Any) -> UserError:
    return _usage(f"template parsing error: {error}", error.hint)


def _usage(message: str, hint: str) -> UserError:
    from orchestrator.model.errors import ExitCode, UserError

    return UserError(message, exit_code=ExitCode.USAGE, hint=hint)
