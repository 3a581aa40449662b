"""What `extends` and `include` tell when something is wrong, and where they stop. What they give stands in
tests/golden/stackfile/{extends,include,tags,override}.yml.
"""

from __future__ import annotations

import contextlib
import re
import time

import pytest

from orchestrator.stackfile.combine import TABLE
from orchestrator.stackfile.problem import Problem, StackfileError
from orchestrator.stackfile.schema import whole
from tests.unit.stackfile.given import loaded, refused, unrunnable


def told(problem: Problem) -> tuple[str, str, str]:
    return (str(problem.place), problem.message, problem.hint)


WEB = "services:\n  web:\n    extends: {service: base, file: common/base.yml}\n"


def test_a_missing_service_is_told_at_its_name_with_the_nearest() -> None:
    (problem,) = refused(WEB, files={"common/base.yml": "services: {bass: {image: x}}"})
    assert told(problem) == (
        "stack.yml:3:24",
        "service 'web' extends 'base', which is not a service in common/base.yml",
        "did you mean 'bass'?",
    )


def test_a_missing_service_of_the_same_file_gets_the_hint_that_files_are_named() -> None:
    (problem,) = refused("services: {web: {extends: other}}")
    assert told(problem)[1:] == (
        "service 'web' extends 'other', which is not a service",
        "a service of another file is named with its file: extends: {service: NAME, file: FILE}",
    )


def test_a_missing_file_is_told_at_its_name() -> None:
    (problem,) = refused(WEB)
    assert told(problem)[:2] == ("stack.yml:3:36", "/home/proj/common/base.yml: there is no such file")
    (problem,) = refused("include:\n- gone.yml\n")
    assert told(problem)[:2] == ("stack.yml:2:3", "/home/proj/gone.yml: there is no such file")


def test_files_on_other_machines_are_refused_by_name() -> None:
    (problem,) = refused("include: ['https://example.com/x.git']\n")
    assert (problem.code, problem.hint) == ("E020", "fetch it, and include the copy")
    (problem,) = refused("services: {web: {extends: {service: a, file: 'git@example.com:x'}}}\n")
    assert (problem.code, problem.hint) == ("E020", "fetch it, and name the copy")


def test_a_circle_of_services_is_told_with_all_of_them() -> None:
    (problem,) = refused("services: {a: {extends: b}, b: {extends: c}, c: {extends: b}}")
    assert problem.message == "services extend each other in a circle: b -> c -> b"
    text = "services: {a: {extends: {service: b, file: b.yml}}}"
    other = "services: {b: {extends: {service: a, file: stack.yml}}}"
    (problem,) = refused(text, files={"b.yml": other, "stack.yml": text})
    assert problem.message == (
        "services extend each other in a circle: a in stack.yml -> b in b.yml -> a in stack.yml"
    )
    assert problem.code == "E018"


def test_a_circle_of_files_is_told_with_all_of_them() -> None:
    (problem,) = refused(
        "include: [a/a.yml]", files={"a/a.yml": "include: [../b.yml]", "b.yml": "include: [stack.yml]"}
    )
    assert (
        problem.message == "files include each other in a circle: stack.yml -> a/a.yml -> b.yml -> stack.yml"
    )
    assert (problem.code, str(problem.place)) == ("E018", "b.yml:1:11")


def test_an_error_in_an_extended_file_names_the_file_and_the_chain() -> None:
    files = {
        "common/base.yml": "services:\n  base: {extends: {service: root, file: root.yml}}\n",
        "common/root.yml": "services:\n  root: {image: x, imge: y}\n",
    }
    (problem,) = refused(WEB, files=files)
    assert str(problem.place) == "common/root.yml:2:20"
    assert problem.via == (
        "extended by service base in common/base.yml:2",
        "extended by service web in stack.yml:3",
    )
    assert str(problem).splitlines()[3:5] == [f"  {step}" for step in problem.via]


def test_an_error_in_an_included_file_names_the_file_and_the_chain() -> None:
    files = {"a/a.yml": "include:\n- {path: b/b.yml}\n", "a/b/b.yml": "services: {db: {image: [1]}}\n"}
    (problem,) = refused("include: [a/a.yml]\n", files=files)
    assert str(problem.place) == "a/b/b.yml:1:24"
    assert problem.via == ("included from a/a.yml:2", "included from stack.yml:1")


def test_an_error_in_the_env_file_of_a_part_names_the_chain() -> None:
    files = {"a/a.yml": "services: {db: {image: x}}\n", "a/.env": "A=1\nB C=2\n"}
    (problem,) = refused("include: [a/a.yml]\n", files=files)
    assert (str(problem.place), problem.code) == ("a/.env:2:1", "E022")
    assert problem.via == ("included from stack.yml:1",)


def test_an_undefined_variable_in_a_part_is_told_once_with_its_place() -> None:
    """However often the part is included."""
    files = {
        "a.yml": "include: [c.yml]",
        "b.yml": "include: [c.yml]",
        "c.yml": "services: {c: {image: 'x$NO'}}",
    }
    (warned,) = loaded("include: [a.yml, b.yml]\n", files=files).warnings
    assert str(warned).startswith("c.yml:1:23: warning: the variable NO is not set")


def test_a_conflict_names_both_places_and_the_way_out() -> None:
    text = "include: [part.yml]\nservices:\n  web: {image: x}\n"
    (problem,) = refused(text, files={"part.yml": "services:\n  web: {image: y}\n"})
    assert told(problem) == (
        "stack.yml:3:3",
        "services.web is defined here and, differently, in part.yml:2",
        "to change what is included, use an override file: another -f, or a second path",
    )


def test_every_conflict_is_told() -> None:
    text = "include: [part.yml]\nservices: {a: {image: x}, b: {image: x}}\nvolumes: {v: {name: x}}\n"
    part = "services: {a: {image: y}, b: {image: y}}\nvolumes: {v: {name: y}}\n"
    assert [problem.code for problem in refused(text, files={"part.yml": part})] == ["E015"] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: {web: {extends: [a]}}", "services.web.extends must be a text or a mapping, not a list"),
        ("services: {web: {extends: {file: b}}}", "services.web.extends needs `service`"),
        ("include: part.yml", "include must be a list or nothing, not 'part.yml'"),
        ("include: [3]", "include[0] must be a text or a mapping, not 3"),
        ("include: [{path: [3]}]", "include[0].path[0] must be a text, not 3"),
        ("include: [{path: ''}]", "include[0] needs `path`"),
        ("services:", "services must be a mapping, not empty"),
    ],
)
def test_wrong_shapes_are_told(text: str, message: str) -> None:
    (problem,) = refused(text)
    assert problem.message == message
    assert problem.place is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{web: {extends: {service: a, fil: b}}, a: {image: x}}",
            "unknown key 'fil' in services.web.extends",
        ),
        ("{web: {image: x, gpus: [{zz: 1}]}}", "unknown key 'zz' in services.web.gpus[0]"),
        ("{web: {image: x}}\ninclude: [null]", "include[0] needs `path`"),
        ("{web: {image: x}}\ninclude: [{pat: a.yml}]", "unknown key 'pat' in include[0]"),
        ("{web: {image: x}}\nsecrets: {a: {external: {nam: x}}}", "unknown key 'nam' in secrets.a.external"),
    ],
)
def test_what_nobody_reads_is_said_before_it_is_run(text: str, message: str) -> None:
    refusal = unrunnable(f"services: {text}")[0]
    assert refusal.message == message
    assert refusal.place is not None


def test_a_wrong_value_is_told_though_a_later_file_replaces_it() -> None:
    (problem,) = refused("services: {web: {image: 5}}", "services: {web: {image: x}}")
    assert told(problem)[:2] == ("stack.yml:1:25", "services.web.image must be a text, not 5")


def test_what_has_no_merging_is_told_at_the_later_place() -> None:
    (problem,) = refused("services: {web: {image: x, x-a: [1]}}", "services: {web: {x-a: {b: c}}}")
    assert told(problem) == (
        "1.yml:1:23",
        "services.web.x-a: a mapping can't be merged onto a list of before",
        "write it as before, or with !override in place of what was there",
    )


def test_a_value_that_is_wrong_on_its_own_is_told_so_rather_than_that_it_can_not_be_merged() -> None:
    (problem,) = refused("services: {web: {image: x, ports: [80]}}", "services: {web: {ports: 81}}")
    assert problem.message == "services.web.ports must be a list, not 81"


def test_what_stands_twice_in_a_list_is_told_at_the_second_place() -> None:
    (problem,) = refused("services: {web: {image: x, group_add: [a, 1, a]}}")
    assert told(problem)[:2] == (
        "stack.yml:1:46",
        "services.web.group_add[2] says 'a' again, as services.web.group_add[0] does",
    )


def test_thousands_of_documents_that_change_one_service_are_checked_in_time() -> None:
    """Each result is checked, but not forever: the last one is, in any case."""
    began = time.monotonic()
    documents = "".join(f"---\nservices: {{web: {{environment: {{A{n}: b}}}}}}\n" for n in range(3000))
    assert len(loaded("services: {web: {image: x}}\n" + documents).canonical["services"]) == 1
    assert refused("services: {web: {image: x}}\n" + documents + "---\nservices: {web: {image: 5}}\n")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("base", "document", "count"),
    [
        ("image: x", "web{}: {{imag: 5}}", 1500),
        ("image: x, ports: [80]", "web: {{ports: {}}}", 1500),
        ("image: x", "web: {{extra_hosts: ['h{}:1.1.1.1'], group_add: [g{}]}}", 1500),
        ("group_add: [" + ", ".join(f"{n}, g{n}" for n in range(20000)) + ", g7]", "web: {{user: '{}'}}", 1),
    ],
    ids=["wrong", "unmergeable", "long lists", "repeated late"],
)
def test_checking_every_step_ends_soon(base: str, document: str, count: int) -> None:
    """Words for what is wrong are found for the first steps only, and no entry is compared with each other."""
    began = time.monotonic()
    text = f"services: {{web: {{{base}}}}}\n"
    text += "".join(f"---\nservices: {{{document.format(n, n)}}}\n" for n in range(count))
    with contextlib.suppress(StackfileError):
        loaded(text)
    assert time.monotonic() - began < 10


def test_a_wrong_key_of_a_part_is_told_though_it_would_be_left_out() -> None:
    (problem,) = refused("include: [part.yml]", files={"part.yml": "servics: {}\n"})
    assert (problem.message, problem.hint) == ("unknown key 'servics'", "did you mean 'services'?")


def test_an_obsolete_version_in_a_part_is_told() -> None:
    files = {"part.yml": "version: '3'\nservices: {db: {image: x}}\n"}
    (warned,) = loaded("include: [part.yml]\n", files=files).warnings
    assert str(warned) == "part.yml:1:1: warning: version is obsolete and has no effect: leave it out"


def test_a_part_has_its_own_variables_and_the_whole_has_not() -> None:
    files = {"p/p.yml": "services: {db: {image: x, environment: [V]}}\n", "p/.env": "V=part\n"}
    found = loaded("include: [p/p.yml]\nservices: {web: {image: x, environment: [V]}}\n", files=files)
    services = found.stack.services
    assert (services["db"].environment, services["web"].environment) == ({"V": "part"}, {})


def test_a_secret_of_a_part_may_come_from_the_parts_own_variable() -> None:
    part = "services: {db: {image: x, secrets: [s]}}\nsecrets: {s: {environment: V}}\n"
    found = loaded("include: [p/p.yml]\n", files={"p/p.yml": part, "p/.env": "V=part\n"})
    (mounted,) = found.stack.services["db"].mounts
    assert getattr(mounted, "content", None) == "part"
    assert found.refusals == ()


def test_what_overrides_at_the_top_is_told_to_mean_nothing() -> None:
    (warned,) = loaded("services: {web: {image: x}}\n", "!override\nservices: {}\n").warnings
    assert warned.message == "!override has no meaning at the top of a stack file"


# --- limits ---------------------------------------------------------------------------------------


def chain(length: int, text: str) -> dict[str, str]:
    return {f"f{number}.yml": text.replace("NEXT", f"f{number + 1}.yml") for number in range(length)}


PART = "services: {SERVICE: {image: x}}\n"
BIG = "services:\n  base: {image: x, labels: {" + ",".join(f"k{n}: v" for n in range(5000)) + "}}\n"
ENDLESS = {
    "include, deep": (["include: [f0.yml]"], chain(100, "include: [NEXT]"), "more than 64 files include"),
    "include, wide": (
        ["include: [f0.yml]"],
        chain(100, "include: [NEXT, NEXT, NEXT]") | {"f40.yml": PART},
        "more than 1000 files are included",
    ),
    "include, large": (
        ["include: [" + "big.yml," * 200 + "]"],
        {"big.yml": BIG},
        "more than 500000 values, everything that is extended and included written out",
    ),
    "extends, deep": (
        [
            "services:\n"
            + "".join(f"  s{n}: {{extends: s{n + 1}}}\n" for n in range(5000))
            + "  s5000: {image: x}\n"
        ],
        {},
        "more than 64 services extend one another",
    ),
    "extends, deep, from below": (
        ["services:\n  s0: {image: x}\n" + "".join(f"  s{n + 1}: {{extends: s{n}}}\n" for n in range(5000))],
        {},
        "more than 64 services extend one another",
    ),
    "extends, large": (
        [BIG + "".join(f"  s{n}: {{extends: base}}\n" for n in range(5000))],
        {},
        "more than 500000 values, everything that is extended and included written out",
    ),
    "documents": (
        ["---\n".join(f"services: {{web: {{image: x, labels: [{'a,' * 50}]}}}}\n" for _ in range(3000))],
        {},
        "too many documents change services.web",
    ),
    "variables": (
        [
            f"x-a: &a {{k: '${{V-{'v' * 100_000}}}'}}\nx-b: [{'*a,' * 2000}]\nservices: {{web: {{image: x}}}}\n"
        ],
        {},
        "more than 64 million characters are read or made",
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_would_not_end_is_refused_soon(name: str) -> None:
    texts, files, message = ENDLESS[name]
    began = time.process_time()
    problems = refused(*texts, files=files)
    assert time.process_time() - began < 5  # of processor time, on any machine
    assert problems[0].code == "E003"
    assert message in problems[0].message


def test_many_small_documents_are_read_in_time() -> None:
    texts = [f"services: {{s{number}: {{image: x}}}}\n" for number in range(3000)]
    began = time.process_time()
    assert len(loaded("---\n".join(texts)).stack.services) == 3000
    assert time.process_time() - began < 10


# --- the table of rules -----------------------------------------------------------------------------


def test_every_rule_of_the_table_is_for_a_key_of_the_schemas() -> None:
    known = keys(whole(), "#/$defs/stack", 0)
    for path in TABLE:
        assert ".".join(path).removesuffix(".*") in known, path


def keys(schemas: dict, reference: str, depth: int) -> set[str]:  # type: ignore[type-arg]
    """The paths of all keys, * for those that the user chooses."""
    node = schemas["$defs"][re.sub(r".*/", "", reference)]
    found: set[str] = set()

    def walk(part: object, path: str) -> None:
        if not isinstance(part, dict):
            return
        if "$ref" in part:
            target = schemas
            for step in part["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            walk(target, path)
        for key, below in part.get("properties", {}).items():
            found.add(f"{path}{key}")
            walk(below, f"{path}{key}.")
        for pattern, below in part.get("patternProperties", {}).items():
            if pattern != "^x-":
                walk(below, f"{path}*.")
        walk(part.get("additionalProperties"), f"{path}*.")
        walk(part.get("items"), f"{path}*.")

    walk(node, "")
    return found
