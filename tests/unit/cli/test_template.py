"""Go templates: what they print, and what is said when they are wrong.

The table of results is what Go's own text/template (1.19), given docker's functions, printed for the same data.
"""

from __future__ import annotations

import contextlib
import random

import pytest

from orchestrator.cli import template
from orchestrator.cli.template.values import Struct

DATA = {
    "Name": "web",
    "Ports": [80, 443],
    "M": {"b": "2", "a": "1"},
    "N": None,
    "Deep": {"X": {"Y": "z"}},
    "F": 1.5,
    "L": ["a", "b"],
    "E": "",
    "T": True,
    "Z": [],
    "Zm": {},
}
AS_GO = [
    ("plain", "plain"),
    ("{{.Name}}", "web"),
    ("{{ .Name }}:{{.Deep.X.Y}}", "web:z"),
    (
        "{{.Ports}} {{.M}} {{.L}} {{.N}} {{.F}} {{.T}} {{.Z}} {{.Zm}}",
        "[80 443] map[a:1 b:2] [a b] <no value> 1.5 true [] map[]",
    ),
    ("{{range .Ports}}<{{.}}>{{end}}", "<80><443>"),
    ("{{range $i, $e := .L}}{{$i}}={{$e}},{{end}}", "0=a,1=b,"),
    ("{{range $k, $v := .M}}{{$k}}={{$v}} {{end}}", "a=1 b=2 "),
    ("{{range .Z}}x{{else}}none{{end}}", "none"),
    ("{{range .N}}x{{else}}none{{end}}", "none"),
    ('{{range .L}}{{if eq . "a"}}{{continue}}{{end}}{{.}}{{end}}', "b"),
    ("{{if .E}}full{{else}}empty{{end}}", "empty"),
    ("{{if .N}}a{{else if .T}}b{{else}}c{{end}}", "b"),
    ("{{with .Deep}}{{.X.Y}}{{$.Name}}{{end}}", "zweb"),
    ("{{with .E}}x{{else}}y{{end}}", "y"),
    ('{{index .M "a"}} {{index .L 1}}', "1 b"),
    ("{{(index .L 0) | upper}}", "A"),
    ('{{join .L ", "}}', "a, b"),
    ('{{split "a,b" ","}} {{index (split "a:b" ":") 1}}', "[a b] b"),
    ('{{.Name | upper | printf "%-6s|"}}', "WEB   |"),
    ('{{title "one two"}} {{lower "ABC"}} {{truncate "abcdef" 3}} {{pad "x" 1 2}}|', "One Two abc abc  x  |"),
    (
        '{{printf "%s has %d, %5.2f%% %q %v %x %t" .Name (len .L) 1.5 "q\\"" .M "hi" true}}',
        'web has 2,  1.50% "q\\"" map[a:1 b:2] 6869 true',
    ),
    ('{{printf "%05d|%-5d|%+d" 42 7 3}}', "00042|7    |+3"),
    ('{{printf "%d"}} {{printf "%s" "a" "b"}}', "%!d(MISSING) a%!(EXTRA string=b)"),
    ('{{println .L 3 "x"}}', "[a b] 3 x\n"),
    ('{{print 1 2 "a" "b" 3}}', "1 2ab3"),
    ("{{len .Name}} {{len .M}}", "3 2"),
    ("{{slice .Name 1 2}} {{slice .L 1}}", "e [b]"),
    (
        '{{eq .Name "web"}} {{eq .Name "x" "web"}} {{ne .F 1.5}} {{lt 1 2}} {{ge "b" "a"}}',
        "true true false true true",
    ),
    ('{{and .T .Name}} {{or .E "dflt"}} {{not .T}} {{and .N .Nope}}', "web dflt false <no value>"),
    ('{{$x := "v"}}{{$x}}{{if true}}{{$x = "w"}}{{end}}{{$x}}', "vw"),
    ("{{$x := 1}}{{if .T}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
    ('a  {{- " b " -}}  c', "a b c"),
    ("{{/* note */}}x{{- /* y */ -}} z", "xz"),
    ('{{`raw\\n`}}{{"tab\\there"}}', "raw\\ntab\there"),
    ("{{'a'}} {{0x10}} {{1e3}} {{-3}}", "97 16 1000 -3"),
    ('{{"}}"}}', "}}"),
    ("{{ (and .T (eq (len .L) 2)) }}", "true"),
    ("{{.Name | len | eq 3}}", "true"),
    ("{{ if and (ge (len .L) 2) (or .N .T) }}y{{end}}", "y"),
    ("{{range $n, $c := .Deep}}{{$n}}:{{$c.Y}}{{end}}", "X:z"),
]


@pytest.mark.parametrize(("text", "printed"), AS_GO)
def test_a_template_prints_what_go_prints(text: str, printed: str) -> None:
    assert template.compile(text)(DATA) == printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{.Name", "template: :1: unclosed action"),
        ("a\n{{if .T}}x", "template: :2: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{nosuch}}", 'template: :1: function "nosuch" not defined'),
        ("{{$y}}", 'template: :1: undefined variable "$y"'),
        ("{{if}}x{{end}}", "template: :1: missing value for if"),
        ('{{"open}}', "template: :1: unterminated quoted string"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ("{{(.Name}}", "template: :1: unclosed left paren"),
        ("{{.Name}} }} {{template}}", 'template: :1: "template" is not supported'),
        ("{{.Nope}}", 'template: :1:2: executing "" at <.Nope>: map has no entry for key "Nope"'),
        ("a\n {{.N.X}}", 'template: :2:3: executing "" at <.N.X>: nil pointer evaluating interface {}.X'),
        ("{{range .Name}}{{end}}", 'template: :1:8: executing "" at <.Name>: range can\'t iterate over web'),
        ("{{nil}}", 'template: :1:2: executing "" at <nil>: nil is not a command'),
    ],
)
def test_what_is_wrong_is_told_in_the_words_of_go(text: str, message: str) -> None:
    with pytest.raises(template.TemplateError) as caught:
        template.compile(text)(DATA)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{{index .L 5}}", "index out of range: 5"),
        ('{{lt 1 "a"}}', "incompatible types for comparison"),
        ("{{eq .M .M}}", "non-comparable"),
        ("{{upper 3}}", "expected string; got int"),
        ('{{split "a"}}', "wrong number of args for split"),
        ('{{.Name "x"}}', "cannot be invoked as function"),
        ("{{and}}", "wrong number of args"),
        ('{{printf "%99999d" 1}}', "too large"),
        ("{{.Deep.X.Y.Z}}", "can't evaluate field Z in type string"),
        ("{{range $i := 9999999}}{{end}}", "rounds of range"),
        ("{{" + "(" * 60 + "1" + ")" * 60 + "}}", "inside each other"),
        ("{{if 1}}" * 60 + "{{end}}" * 60, "inside each other"),
        ("x" * 70_000, "longer than"),
    ],
)
def test_what_cannot_be_done_is_told(text: str, part: str) -> None:
    with pytest.raises(template.TemplateError, match="template:") as caught:
        template.compile(text)(DATA)

    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{{.name}}", "did you mean .Name?"),
        ("{{.Deep.Y}}", "it has X"),
        ("{{uper .Name}}", "did you mean upper?"),
        ("{{Name}}", "a field begins with a dot: .Name"),
        ("{{if .T}}", "an {{end}} is missing"),
    ],
)
def test_a_mistake_comes_with_advice(text: str, hint: str) -> None:
    with pytest.raises(template.TemplateError) as caught:
        template.compile(text)(DATA)

    assert caught.value.hint == hint


def test_functions_of_an_object_are_called_and_are_no_data() -> None:
    row = {"Name": "web", "Label": {"team": "blue"}.get}

    assert template.compile('{{.Label "team"}} {{json .}} {{.}}')(row) == 'blue {"Name":"web"} map[Name:web]'
    with pytest.raises(template.TemplateError, match="wrong number of args for Label"):
        template.compile("{{.Label}}")(row)


def test_fields_that_an_object_does_not_show_have_their_zero_value() -> None:
    config = Struct({"Cmd": None, "User": "web"}, {"Cmd": [], "ExposedPorts": {}})

    text = "{{.Cmd}} {{.ExposedPorts}} {{.User}} {{range .Cmd}}x{{else}}none{{end}} {{json .}}"
    assert template.compile(text)(config) == '[] map[] web none {"Cmd":null,"User":"web"}'


def test_above_a_table_docker_s_functions_leave_the_words_alone() -> None:
    assert (
        template.compile("{{.ID | lower}}|{{json .ID}}", heading=True)({"ID": "IMAGE ID"})
        == "IMAGE ID|IMAGE ID"
    )


def test_whatever_is_written_there_is_a_result_or_one_error() -> None:
    """Templates put together at random never end in anything else."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    parts = [
        "{{",
        "}}",
        "{{-",
        "-}}",
        ".L",
        ".M",
        "$x",
        ":=",
        "range ",
        "if ",
        "else",
        "end",
        "|",
        "(",
        ")",
        " ",
        '"a"',
    ]
    parts += [
        "index ",
        "printf ",
        "0",
        ".Nope",
        ",",
        "with ",
        "=",
        "`",
        "'",
        "/*",
        "*/",
        "break",
        "\\",
        "json ",
        "\n",
    ]
    for _ in range(3000):
        text = "".join(chance.choices(parts, k=chance.randrange(1, 12)))
        with contextlib.suppress(template.TemplateError):
            template.compile(text)(DATA)
