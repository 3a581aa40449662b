"""A grammar of stack files: whole projects, most of them right, some with a mistake or two.

A project is a tree of text: file -> key -> ... -> a piece of YAML in flow style, as attributes.yml has them. So a
project can be written out, and made smaller key by key until only what matters is left.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.kit.oracle import Question

Tree = dict[str, Any]
"""Keys to pieces of text or to trees."""

FAVOURITES = (
    "ports volumes environment networks depends_on build env_file healthcheck deploy command labels".split()
)
WRONG_IN = 60
"""One value of so many is a wrong one."""
BASIC = {
    "networks": {"front": "{ipam: {config: [{subnet: 10.5.0.0/24}, {subnet: 'fd00:5::/64'}]}}", "back": "{}"},
    "volumes": {"data": "{}", "other": ""},
    "configs": {"c": "{file: ./c.txt}", "d": "{content: text}"},
    "secrets": {"s": "{file: ./s.txt}", "t": "{environment: FOO}"},
    "models": {"m": "{model: ai/m}"},
}
"""What the attributes name; a project has those of them that it needs, and some that nobody needs."""
ONE_OF = {name: name.removesuffix("s") for name in BASIC}
ENV_LINES = """
A=1
B="two words"
C='single $FOO'
D=${A}
E=$FOO
F=
G
export H=h
I: colon
# comment
J=j # comment
K=k#nocomment
L="multi\\nline"
M='{"j": 1}'
N=a=b=c
FOO=dotenv
BAR=dotenv
NUM=7
O="$FOO-${UN:-fall}"
P=$$x
Q="a\\"b"
R=\\$FOO
S = spaced
""".strip().splitlines()
WRONG_ENV_LINES = ["A B=1", "A%=1", "U='open", 'V="open', "=1", "W=${A", 'X="a"b', "Y=${UN?needed}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Trees and texts by file name, and the rest of a question."""

    trees: dict[str, Tree]
    texts: dict[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    name: str | None = None

    def question(self) -> Question:
        return Question(
            files={**self.texts, **{path: written(tree) for path, tree in self.trees.items()}},
            paths=self.paths,
            environment=self.environment,
            profiles=self.profiles,
            services=self.services,
            name=self.name,
        )


def written(tree: Tree, indent: str = "") -> str:
    """YAML: trees in block style, pieces as they are. A key "---" ends a document."""
    lines = []
    for key, value in tree.items():
        if key == "---":
            lines.append(f"---\n{written(value)}")
        elif isinstance(value, dict):
            lines.append(
                f"{indent}{key}:\n{written(value, indent + '  ')}" if value else f"{indent}{key}: {{}}\n"
            )
        else:
            lines.append(f"{indent}{key}: {value}".rstrip() + "\n")
    return "".join(lines)


@functools.cache
def attributes() -> dict[str, dict[str, list[str]]]:
    """Attribute -> "right" and "wrong" -> pieces."""
    found = yaml.safe_load((Path(__file__).parent / "attributes.yml").read_text())
    return {key: {kind: text.splitlines() for kind, text in kinds.items()} for key, kinds in found.items()}


@functools.cache
def service_keys() -> list[str]:
    keys = [key for key in attributes() if not key.endswith(" of stack")]
    return keys + FAVOURITES * 4


class _Maker:
    """Draws a project from a source of chance."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def chance(self, one_in: int) -> bool:
        return self.random.randrange(one_in) == one_in - 1

    def pick(self, choices: Any) -> Any:
        return choices[self.random.randrange(len(choices))]

    def piece(self, key: str) -> str:
        kinds = attributes()[key]
        wrong = self.chance(WRONG_IN) and "wrong" in kinds
        text: str = self.pick(kinds["wrong" if wrong else "right"])
        return text

    def service(self, least: int, most: int) -> Tree:
        keys = [self.pick(service_keys()) for _ in range(self.random.randint(least, most))]
        found: Tree = {key: self.piece(key) for key in keys}
        if "network_mode" in found and not self.chance(8):
            found.pop("networks", None)
        if {"scale", "deploy"} & found.keys() and not self.chance(8):
            found.pop("container_name", None)
        if self.chance(60):
            found[self.pick(["typo", "Image", "enviroment", "pre_start", "x-note"])] = self.pick(
                ["a", "[a]", "{a: b}"]
            )
        return found

    def whole_service(self, least: int, most: int) -> Tree:
        found = self.service(least, most)
        if "image" not in found and ("build" not in found or self.chance(3)) and not self.chance(50):
            found = {"image": self.pick(["x", "nginx:1"]), **found}
        return found

    def resources(self) -> Tree:
        """The top level besides services."""
        found: Tree = {}
        for group, one in ONE_OF.items():
            members: Tree = dict(BASIC[group])
            for name in members:
                if self.chance(7):
                    members[name] = self.piece(f"{one} of stack")
            found[group] = members
        if self.chance(9):
            found["networks"]["default"] = self.piece("network of stack")
        for key in ("name", "version"):
            if self.chance(9):
                found = {key: self.piece(f"{key} of stack"), **found}
        if self.chance(9):
            found["x-note"] = self.piece("x-note of stack")
        if self.chance(60):
            found[self.pick(["typo", "Services", "network"])] = self.pick(["a", "[a]", "{a: b}"])
        return found

    def main(self) -> Tree:
        services: Tree = {"web": self.whole_service(1, 7)}
        for name in ("db", "cache"):
            plain = not self.chance(4)
            services[name] = {"image": name} if plain else self._leaf(self.whole_service(1, 3))
        if self.chance(12):
            services[self.pick(["more", "x-more", "a.b", "UP_1", "a-b", "_x", "bad name", "1"])] = self.pick(
                [
                    {"image": "x"},
                    {"image": "x", "profiles": "[p]"},
                    {"image": "x", "depends_on": "[web]"},
                    "{build: .}",
                    "",
                ]
            )
        found: Tree = {"services": services, **self.resources()}
        if not self.chance(20) and not any("models" in service for service in services.values()):
            del found["models"]
        if self.chance(10):
            body = self.pick(["{restart: always, labels: {a: b}}", "{environment: {A: 1}, init: true}"])
            found = {"x-common": f"&common {body}", **found}
            services["web"]["<<"] = self.pick(["*common"] * 6 + ["[*common]", "*nothing"])
        if self.chance(150):
            found["services"] = self.pick(["", "[a]", "5", "{}"])
        return found

    def _leaf(self, service: Tree) -> Tree:
        """Mostly without what would make a circle with web."""
        if self.chance(10):
            return service
        circles = ("depends_on", "links", "volumes_from", "network_mode", "pid", "ipc", "container_name")
        return {key: value for key, value in service.items() if key not in circles}

    def override(self) -> Tree:
        found: Tree = {"services": {"web": self._marked(self.service(1, 4))}}
        if self.chance(4):
            found["services"]["db"] = self._marked(self.service(1, 2))
        if self.chance(10):
            found["services"]["late"] = self.whole_service(1, 2)
        if self.chance(4):
            group = self.pick(sorted(BASIC))
            name = self.pick(sorted(BASIC[group]))
            found[group] = {name: self.piece(f"{ONE_OF[group]} of stack")}
        if self.chance(12):
            found["name"] = self.piece("name of stack")
        if self.chance(25):
            found["services"][self.pick(["cache", "web"])] = self.pick(
                ["!reset null", "!reset {}", "!override {image: y}"]
            )
        return found

    def _marked(self, service: Tree) -> Tree:
        for key in service:
            if self.chance(20) and service[key][:1] in ("[", "{"):
                service[key] = f"!override {service[key]}"
            elif self.chance(20):
                service[key] = self.pick(["!reset null", "!reset []", "!reset {}", "null", ""])
        return service

    def env(self) -> str:
        lines = [self.pick(ENV_LINES) for _ in range(self.random.randint(0, 5))]
        if self.chance(60):
            lines.insert(self.random.randrange(len(lines) + 1), self.pick(WRONG_ENV_LINES))
        return "\n".join(lines) + ("" if self.chance(9) else "\n")

    def project(self) -> Project:
        main = self.main()
        trees = {"compose.yaml": main}
        texts = {name: self.env() for name in ("a.env", "b.env", "sub/c.env", "labels.env")}
        if self.chance(3):
            texts[".env"] = self.env()
        paths = self._files(trees)
        if self.chance(7):
            self._extends(trees)
        if self.chance(9):
            self._include(trees, texts)
        if self.chance(20):
            main["---"] = self.override()
        return Project(
            trees=trees,
            texts=texts,
            paths=paths,
            environment=self._environment(),
            profiles=self.pick([(), (), ("p",), ("q", "p"), ("*",), ("other",)]) if self.chance(3) else (),
            services=self.pick([("web",), ("db",), ("none",), ("db", "cache")]) if self.chance(20) else (),
            name=self.pick(["own", "own-1", "0a_b", "Bad", ""]) if self.chance(20) else None,
        )

    def _files(self, trees: dict[str, Tree]) -> tuple[str, ...]:
        """More files, found or named."""
        kind = self.random.randrange(6)
        if kind < 3:
            return () if kind == 0 else ("compose.yaml",)
        if kind == 3:
            trees["compose.override.yaml"] = self.override()
            return ()
        trees["one.yml"] = self.override()
        if kind == 4:
            return ("compose.yaml", "one.yml")
        trees["sub/two.yml"] = self.override()
        return ("compose.yaml", "one.yml", "sub/two.yml")

    def _extends(self, trees: dict[str, Tree]) -> None:
        services = trees["compose.yaml"]["services"]
        if not isinstance(services, dict):
            return
        path = self.pick(["base.yml", "sub/base.yml"])
        base = self.whole_service(1, 4)
        trees[path] = {"services": {"base": base, "other": self.whole_service(0, 2)}}
        if self.chance(3):
            base["extends"] = self.pick(["other", "{service: other}", "{service: other}", "base", "none"])
        if self.chance(4):
            trees[path]["volumes"] = {"data": "{}"}
        named = f"{{service: base, file: {path}}}"
        same_file = ["db", "{service: db}", "cache", "{service: cache}", "web", "none"]
        services["web"]["extends"] = (
            named
            if not self.chance(4)
            else self.pick(
                [
                    *same_file,
                    f"{{service: none, file: {path}}}",
                    "{service: base, file: none.yml}",
                    "{file: base.yml}",
                    "5",
                ]
            )
        )

    def _include(self, trees: dict[str, Tree], texts: dict[str, str]) -> None:
        part: Tree = {"services": {"part": self.whole_service(1, 4)}}
        self._declare(part)
        if self.chance(6):
            part["name"] = "partname"
        if self.chance(8):
            part["services"]["db"] = {"image": self.pick(["db", "other"])}
        trees["inc/part.yaml"] = part
        if self.chance(2):
            texts["inc/.env"] = self.env()
        trees["inc/more.yaml"] = self.override()
        trees["inc/more.yaml"]["services"]["part"] = trees["inc/more.yaml"]["services"].pop("web")
        ways = [
            "[inc/part.yaml]",
            "[{path: inc/part.yaml}]",
            "[{path: [inc/part.yaml, inc/more.yaml]}]",
            "[{path: inc/part.yaml, env_file: a.env}]",
            "[{path: inc/part.yaml, env_file: [a.env, b.env], project_directory: sub}]",
            "[{path: ./inc/part.yaml, project_directory: .}]",
            "[inc/none.yaml]",
            "[{path: inc/part.yaml, typo: 1}]",
            "inc/part.yaml",
            "[{env_file: a.env}]",
        ]
        which = self.random.randrange(6 if not self.chance(10) else len(ways))
        trees["compose.yaml"]["include"] = ways[which]

    def _declare(self, part: Tree) -> None:
        """The part's own volumes and the like; where the main file has the same ones, that is a conflict."""
        needed = {"networks", "volumes", "configs", "secrets", "models"} & part["services"]["part"].keys()
        if needed and not self.chance(8):
            # A name of the main file will do; so will the same words.
            part.update({group: dict(BASIC[group]) for group in sorted(needed) if self.chance(2)})

    def _environment(self) -> dict[str, str]:
        found = {"FOO": "first", "BAR": "", "NUM": "3", "BOOL": "true"}
        if self.chance(9):
            found.pop(self.pick(sorted(found)))
        if self.chance(9):
            found["COMPOSE_PROFILES"] = self.pick(["p", "p, q", "", "*"])
        if self.chance(30):
            found["COMPOSE_PROJECT_NAME"] = self.pick(["fromenv", "", "Bad Name"])
        return found


def project(random: Random) -> Project:
    """A project, whatever the source of chance: hypothesis's own or a seed."""
    return _Maker(random).project()


# --- each value on its own ---------------------------------------------------------------------------------

_TEXTS = {
    "a.env": 'A=1\nB="two $FOO"\n',
    "b.env": "C=3\n",
    "sub/c.env": "D=1\n",
    "labels.env": "L=1\nM=${FOO}\n",
    "bad.env": "A B=1\n",
}


def values() -> Iterator[Project]:
    """Every value that the grammar knows, alone in an otherwise right project."""
    for key, kinds in attributes().items():
        for pieces in kinds.values():
            yield from (_alone(key, piece) for piece in pieces)


def pairs(each: int = 10) -> Iterator[Project]:
    """Right values of which one overrides the other, some of each key; with tags, nothing, and a wrong base."""
    random = Random(5)
    for key, kinds in attributes().items():
        right = kinds["right"]
        two = [(first, second) for first in right for second in right if first != second]
        random.shuffle(two)
        chosen = two[:each] + [(first, f"!override {second}") for first, second in two[:2]]
        chosen += [(first, other) for first in right[:2] for other in ("null", "!reset null")]
        chosen += [(wrong, right[0]) for wrong in kinds.get("wrong", [])[:1]]
        yield from (_over(_alone(key, first), key, second) for first, second in chosen)


def _alone(key: str, piece: str) -> Project:
    web: Tree = {} if key in ("build", "provider") else {"image": "x"}
    services = {"web": web, "db": {"image": "x"}, "cache": {"image": "y"}}
    tree: Tree = {"services": services, **{group: dict(members) for group, members in BASIC.items()}}
    if key not in ("models", "model of stack"):
        del tree["models"]
    group, name = _member(key)
    if name:
        tree[group][name] = piece
        web[group] = f"[{name}]" if group != "volumes" else '["data:/d"]'
    elif group:
        tree[group] = piece
    else:
        web[key] = piece
    variables = {"FOO": "first", "BAR": "", "NUM": "3", "BOOL": "true"}
    return Project(
        trees={"compose.yaml": tree}, texts=dict(_TEXTS), paths=("compose.yaml",), environment=variables
    )


def _over(base: Project, key: str, piece: str) -> Project:
    group, name = _member(key)
    tree: Tree = {group: {name: piece} if name else piece} if group else {"services": {"web": {key: piece}}}
    return replace(base, trees={**base.trees, "one.yml": tree}, paths=("compose.yaml", "one.yml"))


def _member(key: str) -> tuple[str, str]:
    """Where a key of the top stands: "network of stack" is that of networks.front."""
    if not key.endswith(" of stack"):
        return "", ""
    noun = key.removesuffix(" of stack")
    groups = {one: group for group, one in ONE_OF.items()}
    return (groups[noun], next(iter(BASIC[groups[noun]]))) if noun in groups else (noun, "")


# --- smaller ----------------------------------------------------------------------------------------------


def smaller(whole: Project, still: Callable[[Project], bool]) -> Project:
    """The project with everything taken away that `still` does not need."""
    going = True
    while going:
        going = False
        for candidate in _without_one(whole):
            if still(candidate):
                whole, going = candidate, True
                break
    return whole


def _without_one(whole: Project) -> Iterator[Project]:
    for path in list(whole.texts):
        yield replace(whole, texts={name: text for name, text in whole.texts.items() if name != path})
    for path in list(whole.trees):
        if path != "compose.yaml":
            trees = {name: tree for name, tree in whole.trees.items() if name != path}
            yield replace(whole, trees=trees, paths=tuple(name for name in whole.paths if name != path))
    for name in whole.environment:
        yield replace(whole, environment={k: v for k, v in whole.environment.items() if k != name})
    if whole.profiles:
        yield replace(whole, profiles=())
    if whole.services:
        yield replace(whole, services=())
    if whole.name is not None:
        yield replace(whole, name=None)
    for path, tree in whole.trees.items():
        for less in _less(tree):
            yield replace(whole, trees={**whole.trees, path: less})
    for path, text in whole.texts.items():
        lines = text.splitlines(keepends=True)
        for number in range(len(lines)):
            yield replace(whole, texts={**whole.texts, path: "".join(lines[:number] + lines[number + 1 :])})


def _less(tree: Tree) -> Iterator[Tree]:
    for key, value in tree.items():
        yield {name: part for name, part in tree.items() if name != key}
        if isinstance(value, dict):
            for less in _less(value):
                yield {**tree, key: less}
