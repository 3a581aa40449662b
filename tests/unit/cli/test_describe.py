"""inspect, history and image tree, on a store made by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from orchestrator.__main__ import enter
from orchestrator.api.paths import Paths
from orchestrator.cli import describe
from orchestrator.images.store.describing import Step, history
from tests.kit.archives import Entry, Image, digest, layer
from tests.kit.shelves import shelve
from tests.unit.cli.scripted import Scripted, Talk

BASE = layer(Entry("etc/"), Entry("etc/motd", b"m" * 4000))
TOP = layer(Entry("etc/web", b"1" * 2500))
STEPS = [
    {"created": "2024-05-18T22:34:17.1Z", "created_by": "/bin/sh -c #(nop) ADD file:abc in / "},
    {"created": "2024-05-18T22:34:17.2Z", "created_by": '/bin/sh -c #(nop)  CMD ["sh"]', "empty_layer": True},
    {"created": "2024-05-19T22:34:17Z", "created_by": "RUN echo " + "w" * 60, "comment": "buildkit"},
]
WEB = Image(
    (BASE, TOP),
    {"Cmd": ["web"], "Env": ["PATH=/bin", "A=1"], "Labels": {"team": "blue"}, "ExposedPorts": {"80/tcp": {}}},
    ("web:1", "web:latest"),
    {"created": "2024-05-18T22:34:17Z", "author": "me", "docker_version": "20.10.23", "history": STEPS},
)
DB = Image((BASE, layer(Entry("db", b"2"))), {}, ("reg.example:5000/x/db:2",))
ORIGIN = f"sha256:{'d' * 64}"
Run = tuple[int, str, str]


class Line:
    """The command line in this process, on one state root."""

    def __init__(self, root: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capture = capture

    def __call__(self, *words: str) -> Run:
        code = enter(["--root", str(self.root), *words])
        out, err = self._capture.readouterr()
        return code, out, err


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("describe")
    shelve(path, WEB, origin=ORIGIN)
    shelve(path, DB)
    return path


@pytest.fixture
def line(root: Path, capfd: pytest.CaptureFixture[str]) -> Line:
    return Line(root, capfd)


# --- inspect -------------------------------------------------------------------------------------


def test_an_image_is_told_with_the_fields_of_docker(line: Line) -> None:
    code, out, err = line("image", "inspect", "web:1")
    (told,) = json.loads(out)

    assert (code, err) == (0, "")
    assert told["Id"] == WEB.id
    assert told["RepoTags"] == ["web:1", "web:latest"]
    assert told["RepoDigests"] == [f"web@{ORIGIN}"]
    assert (told["Created"], told["Author"], told["Comment"]) == ("2024-05-18T22:34:17Z", "me", "buildkit")
    assert (told["Os"], told["Architecture"], told["Size"]) == ("linux", "amd64", 6500)
    assert told["RootFS"] == {"Type": "layers", "Layers": [digest(BASE), digest(TOP)]}
    assert told["Config"] == {
        "User": "",
        "Env": ["PATH=/bin", "A=1"],
        "Cmd": ["web"],
        "Volumes": None,
        "WorkingDir": "",
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": {"team": "blue"},
        "ExposedPorts": {"80/tcp": {}},
    }
    paths = [told["GraphDriver"]["Data"][key] for key in ("UpperDir", "LowerDir")]
    assert [path.split("/")[-2] for path in paths] == [digest(TOP)[7:], digest(BASE)[7:]]


@pytest.mark.parametrize(
    ("form", "printed"),
    [
        ("{{.Config.Labels}} {{.Config.Entrypoint}} {{.Config.StopSignal}}|", "map[team:blue] [] |"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "PATH=/bin\nA=1\n"),
        ('{{index .Config.Labels "team"}}{{index .Config.Labels "none"}}', "blue"),
        ("{{json .Config.ExposedPorts}}", '{"80/tcp":{}}'),
        ("{{.Config.ExposedPorts}} {{.Config.Volumes}}", "map[80/tcp:{}] map[]"),
        ("{{len .RootFS.Layers}} {{.Os}}/{{.Architecture}}", "2 linux/amd64"),
        ('{{join .RepoTags ","}}', "web:1,web:latest"),
    ],
)
def test_templates_that_people_write_for_images(line: Line, form: str, printed: str) -> None:
    assert line("inspect", "-f", form, "web") == (0, f"{printed}\n", "")


def test_what_there_is_is_told_and_what_there_is_not_is_named(line: Line) -> None:
    code, out, err = line("image", "inspect", "nothere", WEB.id[7:15], "Not A Name")
    assert code == 6
    assert [one["Id"] for one in json.loads(out)] == [WEB.id]
    assert "No such image: nothere" in err
    assert "No such image: Not A Name" in err

    assert line("inspect", "nothere")[:2] == (1, "[]\n")
    code, out, err = line("inspect", "-f", "{{.Nope}}", "web")
    assert (code, out) == (2, "")
    assert 'template parsing error: template: :1:2: executing "" at <.Nope>' in err


def test_containers_come_before_images_of_the_same_name(line: Line) -> None:
    box = {"Id": "c0ffee", "Config": {"Image": "web"}, "State": {"Status": "running"}}
    told = {
        "containers": {"web": box},
        "volumes": {"data": {"Name": "data"}},
        "networks": {"net": {"Name": "net"}},
    }

    def answer(talk: Talk) -> None:
        assert talk.request["verb"] == "inspect"
        talk.end(told)

    with Scripted(Paths.find(str(line.root), {}), answer):
        form = "{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}} {{.Config.Cmd}}"
        assert line("inspect", "-f", form, "web") == (0, "running []\n", "")
        assert json.loads(line("inspect", "web", "data", "net")[1]) == [
            box,
            {"Name": "data"},
            {"Name": "net"},
        ]
        assert line("inspect", "--type", "image", "-f", "{{.Id}}", "web")[1] == f"{WEB.id}\n"
        code, out, err = line("inspect", "--type", "volume", "web")
        assert (code, out) == (1, "[]\n")
        assert "No such volume: web" in err


# --- history -------------------------------------------------------------------------------------


def test_history_is_newest_first_and_only_the_top_has_an_id(line: Line) -> None:
    code, out, _ = line("history", "web")
    short = WEB.id[7:19]
    ago = re.findall(r"\d+ \w+ ago", out)

    assert code == 0
    assert [re.split(r" {3,}", row) for row in out.splitlines()] == [
        ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"],
        [short, ago[0], "RUN echo " + "w" * 35 + "…", "2.5kB", "buildkit"],
        ["<missing>", ago[1], '/bin/sh -c #(nop)  CMD ["sh"]', "0B"],
        ["<missing>", ago[2], "/bin/sh -c #(nop) ADD file:abc in /", "4kB"],
    ]
    assert line("image", "history", "-q", "web")[1] == f"{short}\n<missing>\n<missing>\n"
    assert line("history", "-q", "--no-trunc", "web")[1].splitlines()[0] == WEB.id


def test_history_in_figures_whole_and_by_template(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    head, first, *_ = line("history", "-H=false", "--no-trunc", "web")[1].splitlines()
    assert re.split(r" {3,}", head)[:2] == ["IMAGE", "CREATED AT"]
    assert re.split(r" {3,}", first)[1:] == [
        "2024-05-19T22:34:17Z",
        "RUN echo " + "w" * 60,
        "2500",
        "buildkit",
    ]

    form = "{{.ID}} {{.Size}} {{.Comment}}"
    assert line("history", "--format", form, "web")[1].splitlines()[1] == "<missing> 0B "
    rows = [json.loads(row) for row in line("history", "--format", "json", "web")[1].splitlines()]
    assert sorted(rows[0]) == ["Comment", "CreatedAt", "CreatedBy", "CreatedSince", "ID", "Size"]


def test_an_image_without_a_history_shows_its_layers(line: Line) -> None:
    lines = line("history", "reg.example:5000/x/db:2")[1].splitlines()

    assert [row.split()[0] for row in lines[1:]] == [DB.id[7:19], "<missing>"]
    assert [row.split()[-1] for row in lines[1:]] == ["1B", "4kB"]


def test_a_history_of_any_make_is_read() -> None:
    """Fewer layers than lines, lines that are none, and what would command a terminal."""
    rows = [{"created_by": "a\tb\nc"}, "x", {"created_by": "\x1b[2J", "created": 5}, {"created_by": "late"}]
    steps = history({"history": rows}, "sha256:1", [7])

    assert [(step.created_by, step.size) for step in steps] == [("late", 0), ("\x1b[2J", 0), ("a\tb\nc", 7)]
    shown = describe.history_rows(steps, 0.0, human=True, full=True)
    assert shown[2]["CreatedBy"] == "a b c"
    assert shown[0]["CreatedSince"] == "N/A"
    assert history({"history": None}, "sha256:1", []) == []
    assert history({}, "sha256:1", [5]) == [Step(image="sha256:1", size=5)]


# --- tree ----------------------------------------------------------------------------------------


def test_a_tree_shows_who_shares_a_layer(line: Line) -> None:
    out = line("image", "tree", "web")[1]

    assert out == (
        f"Image ID: {WEB.id[7:19]}\n"
        "Tags:     [web:1 web:latest]\n"
        "Size:     6.5kB\n"
        "Image Layers\n"
        f"├── ID: {digest(BASE)[7:19]} Size: 4kB Shared with: [reg.example:5000/x/db:2]\n"
        f"└── ID: {digest(TOP)[7:19]} Size: 2.5kB Top Layer of: [web:1 web:latest]\n"
    )
    assert line("image", "tree")[1].count("Image ID: ") == 2
    code, out, err = line("image", "tree", "nothere")
    assert (code, out) == (6, "")
    assert "No such image: nothere:latest" in err


@pytest.mark.parametrize("words", [("history", "x"), ("image", "inspect", "x"), ("image", "tree", "x")])
def test_without_a_store_nothing_is_here_and_none_is_made(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    code, _, err = Line(tmp_path, capfd)(*words)

    assert code == 6
    assert "No such image: x" in err
    assert not (tmp_path / "data").exists()
