"""`--format` of lists and of inspect."""

from __future__ import annotations

import pytest

from orchestrator.cli import shape
from orchestrator.model.errors import ExitCode, UserError

HEADS = {"ID": "IMAGE ID", "Name": "NAME"}
ROWS = [{"ID": "1a", "Name": "web", **shape.labels({"team": "blue"})}, {"ID": "2b", "Name": "a-longer-name"}]


def _text(form: str | None) -> str:
    return shape.rows(form, ROWS[:1] if form and "Label" in form else ROWS, HEADS, lambda: "the table\n")


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (None, "the table\n"),
        ("table", "the table\n"),
        ("{{.ID}}", "1a\n2b\n"),
        ("{{.ID}}\\t{{.Name}}\\n", "1a\tweb\n\n2b\ta-longer-name\n\n"),
        ("table {{.ID}}\\t{{.Name}}", "IMAGE ID   NAME\n1a         web\n2b         a-longer-name\n"),
        (
            "table {{.Name | upper}}\t{{.ID}}",
            "NAME            IMAGE ID\nWEB             1a\nA-LONGER-NAME   2b\n",
        ),
        ('table {{.Label "com.x.team"}}\\t{{.ID}}', "team      IMAGE ID\n          1a\n"),
        ('{{.Label "team"}} {{.Labels}}', "blue team=blue\n"),
        ("json", '{"ID":"1a","Name":"web","Labels":"team=blue"}\n{"ID":"2b","Name":"a-longer-name"}\n'),
        ("{{json .Name}}", '"web"\n"a-longer-name"\n'),
    ],
)
def test_a_list_as_docker_prints_it(form: str | None, text: str) -> None:
    assert _text(form) == text


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("yaml", "'yaml' is no format"),
        ("{{.Id}}", "template parsing error: template: :1:2:"),
        ("table {{.ID", "template parsing error: template: :1: unclosed action"),
    ],
)
def test_a_wrong_format_is_wrong_use(form: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        _text(form)

    assert message in caught.value.message
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.hint


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert shape.rows("{{.Name}}", [{"Name": "a\x1b[2Jb"}], {}, str) == "a\N{REPLACEMENT CHARACTER}[2Jb\n"


def test_inspect_prints_an_array_or_each_by_a_template() -> None:
    assert shape.inspected(None, [{"Id": 1}]) == '[\n    {\n        "Id": 1\n    }\n]\n'
    assert shape.inspected("json", [{"Id": 1}, {"Id": 2}]) == '[{"Id":1},{"Id":2}]\n'
    assert shape.inspected("{{.Id}}", [{"Id": 1}, {"Id": 2}]) == "1\n2\n"
