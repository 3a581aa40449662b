"""How a value came to be: every file that said something, in the order in which it counted."""

from __future__ import annotations

import pytest

from orchestrator.stackfile.load import Given, load
from orchestrator.stackfile.read import Source
from orchestrator.stackfile.trail import Trail, explain
from tests.unit.stackfile.given import FOLDER, Disk

MAIN = """\
include: [part/part.yml]
services:
  web:
    extends: {service: base, file: common/base.yml}
    environment: {A: 2}
    env_file: web.env
    ports: ["81:81"]
    labels: {a.b.c: x}
  third: {extends: web, user: !reset null, ports: !override ["5:5"]}
"""
OVER = """\
services:
  web:
    environment: {A: "${C}", B: !reset null}
    image:
    ports: ["82-83:82-83"]
  db: {user: "7"}
"""
FILES = {
    "common/base.yml": "services:\n"
    "  base: {image: 'one:${V:-1}', environment: [A=1, B=$B], volumes: ['./d:/d'], ports: ['80:80'], user: root}\n",
    "part/part.yml": "services: {db: {image: two, environment: [Q]}}\n",
    "part/.env": "Q=1\n",
    "web.env": "FROM_FILE=1\n",
}
SAYS = {
    "services.web.image": """\
common/base.yml:2:17: written here; extended by service web in stack.yml:4: "one:${V:-1}"
common/base.yml:2:17: variables filled in; V from .env or an env file: "one:9"
1.yml:4:5: says nothing, so what was there stays""",
    "services.web.environment.A": """\
common/base.yml:2:46: written here; extended by service web in stack.yml:4: "A=1"
stack.yml:5:22: replaces what was there: 2
1.yml:3:22: replaces what was there: "${C}"
1.yml:3:22: variables filled in; C from the environment: "sea\"""",
    "services.web.environment.B": """\
common/base.yml:2:51: written here; extended by service web in stack.yml:4: "B=$B"
common/base.yml:2:51: variables filled in; B not set: "B="
1.yml:3:33: !reset takes it away""",
    "services.web.environment.FROM_FILE": """\
stack.yml:6:15: from a file named here: "1\"""",
    "services.web.ports[0]": """\
common/base.yml:2:87: written here; extended by service web in stack.yml:4: "80:80\"""",
    "services.web.ports[3].published": """\
1.yml:5:13: written here: "82-83:82-83"
written out in full: "83\"""",
    "services.web.volumes[0].source": """\
common/base.yml:2:68: written here; extended by service web in stack.yml:4: "./d:/d"
written out in full: "/home/proj/common/d\"""",
    "services.third.user": """\
common/base.yml:2:103: written here; extended by service web in stack.yml:4; extended by service third in stack.yml:9: "root"
stack.yml:9:31: !reset takes it away""",
    "services.third.ports": """\
common/base.yml:2:86: written here; extended by service web in stack.yml:4; extended by service third in stack.yml:9: ["80:80"]
stack.yml:7:12: merged with what was there; extended by service third in stack.yml:9: ["81:81"]
stack.yml:9:51: !override replaces what was there: ["5:5"]""",
    "services.db.environment.Q": """\
part/part.yml:1:43: written here; included from stack.yml:1: "Q"
written out in full: "1\"""",
    "services.db.user": '1.yml:6:14: written here: "7"',
    "services.web.labels.a.b.c": 'stack.yml:8:21: written here: "x"',
    "name": 'in no file: the default, or follows from other keys: "proj"',
    "networks.default.name": 'in no file: the default, or follows from other keys: "proj_default"',
    "services.web.nothing": "",
    "nothing[3].at.all": "",
    "": "",
}


def trail() -> Trail:
    filled = Trail()
    load(
        [Source(path="stack.yml", text=MAIN), Source(path="1.yml", text=OVER)],
        Given(
            files=Disk(texts={f"{FOLDER}/{path}": text for path, text in FILES.items()}),
            environment={"C": "sea"},
            working_dir=FOLDER,
            dotenv={"V": "9"},
            cwd=FOLDER,
        ),
        filled,
    )
    return filled


@pytest.mark.parametrize("path", SAYS)
def test_the_story_of_a_value(path: str) -> None:
    assert "\n".join(map(str, explain(trail(), path))) == SAYS[path]


def test_every_value_has_a_story() -> None:
    """Whatever `config` prints can be asked for."""
    filled = trail()

    def paths(node: object, path: str) -> list[str]:
        if isinstance(node, dict):
            return [
                found
                for key, value in node.items()
                for found in paths(value, f"{path}.{key}" if path else key)
            ]
        if isinstance(node, list):
            return [found for index, value in enumerate(node) for found in paths(value, f"{path}[{index}]")]
        return [path]

    told = {path: explain(filled, path) for path in paths(filled.final, "")}
    assert len(told) > 30
    assert [path for path, steps in told.items() if not steps] == []


def test_the_layers_are_the_documents_in_the_order_of_merging() -> None:
    filled = trail()
    assert [layer.file for layer in filled.layers] == ["stack.yml", "1.yml"]
    assert [part.layers[0].file for part in filled.layers[0].parts] == ["part/part.yml"]
