"""`config`: the stack, resolved, or one aspect of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli import encode
from tests.unit.cli import command

BODY = """
name: shop
services:
  web:
    image: nginx:1
    depends_on: [db]
    ports: ["8080:80"]
  db:
    image: postgres:16
    volumes: ["data:/data"]
    command: echo $$HOME
  debug:
    image: busybox
    profiles: [tools]
volumes:
  data:
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "stack.yml").write_text(BODY)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (("--services",), "db\nweb\n"),
        (("--volumes",), "data\n"),
        (("--networks",), "default\n"),
        (("--images",), "nginx:1\npostgres:16\n"),
        (("--profiles",), "tools\n"),
        (("-q",), ""),
    ],
)
def test_one_aspect_is_a_list_of_names(root: Path, words: tuple[str, ...], out: str) -> None:
    code, got, err = command.run(root, "config", *words)

    assert (code, sorted(got.split()), err) == (0, sorted(out.split()), "")


def test_what_is_printed_is_the_stack_and_can_be_loaded_again(root: Path) -> None:
    _, text, _ = command.run(root, "config")
    again = root / "again.yml"
    again.write_text(text)

    assert yaml.safe_load(text)["services"]["db"]["command"] == ["echo", "$$HOME"]
    assert command.run(root, "config", "-f", str(again))[1] == text
    _, encoded, _ = command.run(root, "config", "--format", "json")
    again.write_text(encoded)
    assert json.loads(encoded) == encode.encoded(yaml.safe_load(text))
    assert command.run(root, "config", "-f", str(again), "--format", "json")[1] == encoded


def test_named_services_come_with_what_they_need(root: Path) -> None:
    def services(*words: str) -> set[str]:
        return set(yaml.safe_load(command.run(root, "config", *words)[1])["services"])

    assert services("web") == {"web", "db"}
    assert services("db") == {"db"}
    assert services("debug") == {"debug"}


def test_it_may_go_to_a_file(root: Path) -> None:
    assert command.run(root, "config", "-o", "out.yml") == (0, "", "")
    assert yaml.safe_load((root / "out.yml").read_text())["name"] == "shop"


def test_fingerprints_change_with_the_service_and_only_then(root: Path) -> None:
    _, before, _ = command.run(root, "config", "--hash", "*")
    (root / "stack.yml").write_text(BODY.replace("nginx:1", "nginx:2"))
    _, after, _ = command.run(root, "config", "--hash", "*")
    _, one, _ = command.run(root, "config", "--hash", "db")

    old, new = (dict(line.split() for line in text.splitlines()) for text in (before, after))
    assert old["db"] == new["db"] == one.split()[1]
    assert old["web"] != new["web"]


def test_the_environment_is_that_of_interpolation(root: Path) -> None:
    (root / ".env").write_text("FROM_FILE=1\nBOTH=file\n")
    _, out, _ = command.run(root, "config", "--environment", env={"BOTH": "outside"})

    assert {"FROM_FILE=1", "BOTH=outside"} <= set(out.splitlines())


def test_what_is_wrong_is_told_with_its_place(root: Path) -> None:
    (root / "stack.yml").write_text(BODY.replace("image: nginx:1", "imge: nginx:1"))
    code, out, err = command.run(root, "config")

    assert (code, out) == (15, "")
    assert "stack.yml:5:5: error[" in err
    assert "image" in err


SWITCHES = """
name: shop
services:
  web:
    image: nginx:${TAG:-1}
    env_file: [web.env]
    environment: {A: "$B", C: }
    build: ./web
    volumes: ["./data:/data", "${DATA:-data}:/v"]
    depends_on: [db]
  db: {image: "pg:16", ports: ["${PORT:?}:80"]}
  off: {image: x, profiles: [p]}
networks: {unused: }
volumes: {data: }
"""


def printed(root: Path, *words: str, body: str = SWITCHES, **env: str) -> Any:
    (root / "stack.yml").write_text(body)
    (root / "web.env").write_text("FROM=file\n")
    code, out, err = command.run(
        root, "config", "--format", "json", *words, env={"PORT": "8080", "B": "b", **env}
    )
    assert code == 0, err
    return json.loads(out)


def test_without_interpolation_the_text_is_as_it_was_written(tmp_path: Path) -> None:
    tree = printed(tmp_path, "--no-interpolate")

    assert tree["services"]["web"] == {
        "image": "nginx:${TAG:-1}",
        "env_file": [{"path": f"{tmp_path}/web.env", "required": True}],
        "environment": {"A": "$B", "C": None},
        "build": {"context": f"{tmp_path}/web", "dockerfile": "Dockerfile"},
        "volumes": [
            {
                "type": "bind",
                "source": f"{tmp_path}/data",
                "target": "/data",
                "bind": {"create_host_path": True},
            },
            "${DATA:-data}:/v",
        ],
        "depends_on": {"db": {"condition": "service_started", "required": True}},
        "networks": {"default": None},
    }
    assert tree["services"]["db"]["ports"] == ["${PORT:?}:80"]
    assert set(tree["services"]) == {"web", "db", "off"}
    assert tree["networks"] == {"unused": {"name": "shop_unused"}, "default": {"name": "shop_default"}}


def test_without_interpolation_what_is_surely_wrong_is_told(root: Path) -> None:
    (root / "stack.yml").write_text(
        "services: {a: {image: x, scale: '${N}', imag: '${X}', healthcheck: 3}}\n"
    )
    code, _, err = command.run(root, "config", "--no-interpolate")

    assert code == 15
    assert err.count("error[") == 2
    assert "imag" in err
    assert "healthcheck" in err


def test_without_normalisation_nothing_is_said_by_default(tmp_path: Path) -> None:
    tree = printed(tmp_path, "--no-normalize")

    assert set(tree) == {"name", "services", "volumes"}
    assert tree["volumes"] == {"data": {}}
    assert tree["services"]["web"]["build"] == {"context": f"{tmp_path}/web"}
    assert tree["services"]["web"]["environment"] == {"A": "b", "C": None, "FROM": "file"}
    assert "networks" not in tree["services"]["web"]


def test_without_path_resolution_paths_stay_relative(tmp_path: Path) -> None:
    web = printed(tmp_path, "--no-path-resolution")["services"]["web"]

    assert web["build"]["context"] == "./web"
    assert [mount["source"] for mount in web["volumes"]] == ["./data", "data"]
    assert web["environment"]["FROM"] == "file"


def test_without_consistency_names_may_be_undefined(tmp_path: Path) -> None:
    body = "services: {a: {image: x, networks: [n], volumes: ['v:/v'], depends_on: [b]}}\n"
    service = printed(tmp_path, "--no-consistency", body=body)["services"]["a"]

    assert (list(service["networks"]), list(service["depends_on"])) == (["n"], ["b"])
    assert command.run(tmp_path, "config", "-q")[0] == 15


def test_without_env_resolution_env_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(SWITCHES.replace("web.env", "missing.env"))
    assert command.run(tmp_path, "config", "-q", env={"PORT": "1"})[0] == 15
    web = printed(tmp_path, "--no-env-resolution", body=SWITCHES.replace("web.env", "missing.env"), C="c")
    service = web["services"]["web"]

    assert service["env_file"] == [{"path": f"{tmp_path}/missing.env", "required": True}]
    assert service["environment"] == {"A": "b", "C": None}


def test_switches_and_names_go_together(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(SWITCHES)

    assert command.run(tmp_path, "config", "--no-interpolate", "--services")[1] == "db\noff\nweb\n"
    assert command.run(tmp_path, "config", "--no-interpolate", "--images")[1].split() == [
        "nginx:${TAG:-1}",
        "pg:16",
        "x",
    ]
    assert set(printed(tmp_path, "--no-normalize", "db")["services"]) == {"db"}
    assert command.run(tmp_path, "config", "--no-interpolate", "nope")[0] == 1


def test_variables_with_what_the_file_says_of_them(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(SWITCHES)
    code, out, err = command.run(tmp_path, "config", "--variables")

    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["NAME", "REQUIRED", "DEFAULT", "VALUE", "ALTERNATE", "VALUE"],
        ["B", "false"],
        ["DATA", "false", "data"],
        ["PORT", "true"],
        ["TAG", "false", "1"],
    ]
    rows = json.loads(command.run(tmp_path, "config", "--variables", "--format", "json")[1])
    assert rows["TAG"] == {"Name": "TAG", "DefaultValue": "1", "PresenceValue": "", "Required": False}
    assert yaml.safe_load(command.run(tmp_path, "config", "--variables", "--format", "yaml")[1])["PORT"][
        "required"
    ]


def test_several_services_have_fingerprints_in_order(root: Path) -> None:
    everything = command.run(root, "config", "--hash", "*")[1]

    assert command.run(root, "config", "--hash", "web,db")[1] == everything
    assert [line.split()[0] for line in everything.splitlines()] == ["db", "web"]
    assert command.run(root, "config", "--hash", "nope")[0] == 1


def test_what_nothing_of_the_named_services_uses_is_not_printed(root: Path) -> None:
    def sections(*words: str) -> set[str]:
        return set(yaml.safe_load(command.run(root, "config", *words)[1]))

    assert sections("db") == {"name", "services", "networks", "volumes"}
    assert sections("debug") == {"name", "services", "networks"}


def test_models_are_printed_by_their_own_names(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(
        "services: {a: {image: x, models: [m]}}\nmodels: {m: {model: ai/m}, n: {model: ai/n}}\n"
    )

    assert command.run(tmp_path, "config", "--models")[1] == "ai/m\n"


def test_what_is_built_has_an_image_name(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text("name: s\nservices: {a: {build: .}, b: {build: ., image: 'x:1'}}\n")

    assert command.run(tmp_path, "config", "--images")[1] == "s-a\nx:1\n"


def test_an_old_name_of_the_command_does_the_same(root: Path) -> None:
    assert command.run(root, "convert") == command.run(root, "config")


def test_errors_for_programs(root: Path) -> None:
    (root / "stack.yml").write_text(BODY.replace("image: nginx:1", "imge: nginx:1"))
    code, out, err = command.run(root, "config", "--format", "json")

    assert (code, out) == (15, "")
    (problem,) = [one for one in json.loads(err) if one["code"] == "E012"]
    assert problem["range"]["start"] == {"line": 5, "column": 5}


def test_the_stack_may_come_from_a_pipe(root: Path) -> None:
    import subprocess

    done = subprocess.run(
        [*command.MAIN, "--root", str(root), "-f", "-", "config", "--no-normalize"],
        input=BODY.encode(),
        capture_output=True,
        cwd=root,
        env=command.environment(),
        timeout=command.LIMIT,
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert set(yaml.safe_load(done.stdout)["services"]) == {"web", "db"}
