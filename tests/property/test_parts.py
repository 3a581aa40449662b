"""Whatever stands in `extends`, `include` and the files they name: a Stack or a StackfileError, soon."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.model import codec
from orchestrator.model.stack import Stack
from orchestrator.stackfile.load import Given, load
from orchestrator.stackfile.problem import MAX_PROBLEMS, StackfileError
from orchestrator.stackfile.read import Source
from orchestrator.stackfile.trail import Trail, explain
from tests.unit.stackfile.given import FOLDER, Disk

QUICK = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FILES = ("stack.yml", "a.yml", "part/b.yml", "part/.env", "none.yml", "/etc/none", "-", "", "~", "a.yml/..")

names = st.sampled_from(("web", "base", "mid", "a b", ""))
files = st.sampled_from(FILES)
wild = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 9), names, files, st.just("${V}")),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(names, inner, max_size=2)),
    max_leaves=4,
)


class Tag:
    def __init__(self, tag: str, value: Any) -> None:
        self.tag = tag
        self.value = value


def tagged(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    tags = st.sampled_from(("", "", "", "!reset", "!override"))
    return st.builds(lambda tag, value: Tag(tag, value) if tag else value, tags, values)


extends = st.one_of(
    names, st.fixed_dictionaries({"service": names}, optional={"file": files}), wild, st.just("web")
)
services = st.fixed_dictionaries(
    {},
    optional={
        "extends": tagged(extends),
        "image": tagged(st.sampled_from(("x", "y:${V}", None))),
        "environment": tagged(
            st.one_of(st.just(["A=1", "B"]), st.dictionaries(names, tagged(wild), max_size=2), wild)
        ),
        "ports": tagged(st.lists(tagged(st.sampled_from(("80:80", "81"))), max_size=2)),
        "volumes": tagged(
            st.sampled_from(
                (["./d:/d"], ["v:/v", "./e:/v"], [{"type": "bind", "source": "s", "target": "/t"}])
            )
        ),
        "extra_hosts": tagged(st.one_of(st.just(["a=1.1.1.1"]), st.just({"a": "1.1.1.2"}), wild)),
        "build": tagged(st.one_of(st.just("./c"), st.just({"additional_contexts": ["a=./b"]}), wild)),
        "depends_on": tagged(st.one_of(st.lists(tagged(names), max_size=2), wild)),
        "env_file": tagged(st.one_of(files, wild)),
    },
)
entries = st.one_of(
    files,
    st.fixed_dictionaries(
        {"path": st.one_of(files, st.lists(files, max_size=2))},
        optional={"project_directory": files, "env_file": st.one_of(files, st.lists(files, max_size=2))},
    ),
    wild,
)
stacks = st.fixed_dictionaries(
    {"services": tagged(st.dictionaries(names, tagged(services), max_size=3))},
    optional={
        "include": tagged(st.one_of(st.lists(tagged(entries), max_size=2), wild)),
        "volumes": tagged(st.one_of(st.just({"v": {}}), wild)),
        "configs": wild,
        "name": tagged(wild),
    },
)


def text(node: Any) -> str:
    if isinstance(node, Tag):
        return f"{node.tag} {text(node.value)}"
    if isinstance(node, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {text(value)}" for key, value in node.items()) + "}"
    return f"[{', '.join(map(text, node))}]" if isinstance(node, list) else json.dumps(node)


@QUICK
@given(st.lists(stacks, min_size=1, max_size=2), stacks, stacks, st.sampled_from(("", "V=1\n", "V 1", 'A="')))
def test_any_files(main: list[Any], a: Any, b: Any, dotenv: str) -> None:
    texts = [*map(text, main)]
    sources = [Source(path=path, text=one) for path, one in zip(("stack.yml", "1.yml"), texts, strict=False)]
    disk = {"stack.yml": texts[0], "a.yml": text(a), "part/b.yml": text(b), "part/.env": dotenv}
    trail = Trail()
    try:
        found = load(
            sources,
            Given(
                files=Disk(texts={f"{FOLDER}/{path}": one for path, one in disk.items()}),
                environment={},
                working_dir=FOLDER,
                cwd=FOLDER,
            ),
            trail,
        )
    except StackfileError as error:
        assert 0 < len(error.problems) <= MAX_PROBLEMS  # noqa: PT017
        return
    assert codec.decode(Stack, codec.encode(found.stack)) == found.stack
    for name in found.stack.services:
        assert explain(trail, f"services.{name}")
