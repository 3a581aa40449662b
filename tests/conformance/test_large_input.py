"""Small mistakes in large files, and small files that stand for much: an answer within 2 s all the same.

The sizes are such that what grows with the square of the file takes minutes.
"""

from __future__ import annotations

import time

import pytest

from orchestrator.stackfile.problem import StackfileError
from tests.unit.stackfile.given import loaded

SECONDS = 2.0


def services(count: int, body: str) -> str:
    """So many services; # in the body is the number, ## the next one's."""
    lines = (
        f"  s{number}: " + body.replace("##", str((number + 1) % count)).replace("#", str(number))
        for number in range(count)
    )
    return "services:\n" + "\n".join(lines) + "\n"


def listed(count: int, key: str, entry: str) -> str:
    rows = "".join(f"    - {entry.replace('#', str(number))}\n" for number in range(count))
    return f"services:\n web:\n   image: x\n   {key}:\n{rows}"


LARGE = {
    "unknown dependencies": (services(1500, "{image: x, depends_on: [unknown#]}"), "E016"),
    "unknown keys": (services(1500, "{image: x, imagi#: a}"), "E012"),
    "unknown keys of one service": (
        "services: {web: {image: x, " + ", ".join(f"k{number}: 1" for number in range(3000)) + "}}",
        "E012",
    ),
    "a circle": (services(1500, "{image: x, depends_on: [s##]}"), "E018"),
    "one name for all": (services(1500, "{image: x, container_name: same}"), "E017"),
    "unknown volumes": (listed(3000, "volumes", '"v#:/v#"'), "E016"),
    "one key many times": ("services:\n" + "  a: {image: x}\n" * 5000, "E002"),
    "warnings": (services(1500, "{image: x$UNSET#, deploy: {placement: {constraints: [a]}}}"), ""),
    "ports": (listed(2000, "ports", '"#:80"').replace('"0:80"', '"9000:80"'), ""),
    "every port": ('services: {web: {image: x, ports: ["1-65535:1-65535"]}}', ""),
    "every port many times": (listed(200, "ports", '"1-65535:1-65535"'), "E003"),
    "aliases of aliases": (
        "x-0: &a0 [1, 1]\n" + "".join(f"x-{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 12)),
        "E003",
    ),
    "merges of merges": (
        "x-0: &a0 {a: 1}\n"
        + "".join(f"x-{n}: &a{n} {{<<: [{f'*a{n - 1}, ' * 20}]}}\n" for n in range(1, 30)),
        "E003",
    ),
    "depth": ("a: " + "[" * 50_000, "E003"),
    "nested variables": ("services: {a: {image: '" + "${A:-" * 5000 + "}" * 5000 + "'}}", "E010"),
    "a long line with mistakes": (
        "services: {" + ", ".join(f"s{number}: {{image: x, k: 1}}" for number in range(1500)) + "}",
        "E012",
    ),
    "blanks": ("\n" * 2_000_000, "E006"),
    "digits": ("services: {a: {image: x, scale: " + "9" * 100_000 + "}}", "E013"),
    "documents": ("services: {a: {image: x}}\n" + "---\nservices: {}\n" * 3000, ""),
    "one base for all": (
        services(400, "{extends: base}")
        + "  base: {image: x, environment: {"
        + ", ".join(f"K{n}: v" for n in range(200))
        + "}}\n",
        "",
    ),
}


@pytest.mark.parametrize("what", LARGE)
def test_an_answer_in_time(what: str) -> None:
    text, code = LARGE[what]
    begun = time.process_time()
    try:
        loaded(text)
        found = ""
    except StackfileError as error:
        found = error.problems[0].code
    seconds = time.process_time() - begun
    assert found == code
    assert seconds < SECONDS
