"""Why a tree is not what our schemas allow, in sentences. The only user of the jsonschema package.

Importing it costs 100 ms, so this module is imported when a stack file is wrong and not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend

from orchestrator.stackfile import problem
from orchestrator.stackfile import schema as schemas
from orchestrator.stackfile.enable import nearest
from orchestrator.stackfile.phases import PHASES
from orchestrator.stackfile.problem import MAX_PROBLEMS, Mark, Report
from orchestrator.stackfile.repeats import repeated
from orchestrator.stackfile.tree import Map, Node, Seq, Timestamp, dotted, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.stackfile.phases import Phase

Path = tuple[str | int, ...]

_KINDS = {
    "null": "nothing",
    "boolean": "true or false",
    "string": "a text",
    "object": "a mapping",
    "array": "a list",
    "number": "a number",
    "integer": "a whole number",
}
_MOVED: Mapping[str, str] = {
    "restart_policy": "write it below `deploy:`",
    "replicas": "write it below `deploy:`, or use `scale:`",
    "resources": "write it below `deploy:`",
    "memory": "use `mem_limit:`, or deploy.resources.limits.memory",
    "volume_driver": "give the driver to the volume, under the top-level `volumes:`",
    "log_driver": "use `logging: {driver: ...}`",
    "log_opt": "use `logging: {options: ...}`",
    "net": "use `network_mode:`",
    "dockerfile": "write it below `build:`",
    "env": "use `environment:`",
    "envs": "use `environment:`",
    "port": "use `ports:`",
    "cmd": "use `command:`",
}
"""Keys of older formats and of habit, whose right name is not the most similar one."""


def _unique(_validator: object, _value: object, found: object, _schema: object) -> Iterator[ValidationError]:
    """As the fast check has it: jsonschema's own compares each entry with each."""
    if isinstance(found, list) and repeated(found) is not None:
        yield ValidationError("not unique")


_Validator = extend(Draft202012Validator, {"uniqueItems": _unique})  # type: ignore[no-untyped-call]


def explain(tree: Map, report: Report, phase: Phase = "whole") -> None:
    """Every error of the schemas in `tree` that is found in this phase, as problems in `report`."""
    validator = _Validator(cast("dict[str, object]", schemas.whole()))
    for top in validator.iter_errors(tree):
        error = best_match([top]) or top
        if PHASES.index(_found(error)) <= PHASES.index(phase):
            _tell(tree, error, report)


_CASTS = ("true or false", "a whole number", "a number")
_LATE = ("a size", "a duration", "a file mode")


def _found(error: ValidationError) -> Phase:
    if error.validator != "pattern":
        return "step"
    expected = str(cast("dict[str, object]", error.schema).get("x-expected", ""))
    return "read" if expected in _CASTS else "whole" if expected.startswith(_LATE) else "step"


def _tell(tree: Map, error: ValidationError, report: Report) -> None:
    path: Path = tuple(error.absolute_path)
    where = dotted(path) or "the stack file"
    mark = find(tree, path)
    found = cast("Map", error.instance)
    match error.validator:
        case "additionalProperties" if error.validator_value is False:
            for key, key_mark, message, hint in _unknown(error, path, MAX_PROBLEMS - len(report.problems)):
                name, place = dotted((*path, key)), key_mark or mark
                if _is_overlooked(path):
                    service = str(path[1]) if path[0] == "services" else ""
                    report.refuse(place, problem.UNKNOWN_KEY, message, hint=hint, path=name, service=service)
                else:
                    report.error(place, problem.UNKNOWN_KEY, message, hint=hint, path=name)
        case "required":
            missing = [key for key in cast("list[str]", error.validator_value) if key not in found]
            for key in missing:
                report.error(
                    _key_place(tree, path) or mark,
                    problem.MISSING_KEY,
                    f"{where} needs `{key}`",
                    path=where,
                )
        case "uniqueItems":
            again, first = repeated(cast("Seq", found)) or (0, 0)
            message = (
                f"{where}[{again}] says {_shown(cast('Seq', found)[again])} again, as {where}[{first}] does"
            )
            report.error(find(tree, (*path, again)), problem.DUPLICATE, message, path=f"{where}[{again}]")
        case _:
            message, hint = _value(error, where)
            report.error(mark, problem.WRONG_VALUE, message, hint=hint, path=where)


def _key_place(tree: Map, path: Path) -> Mark | None:
    """Where the key of a value stands: what is missing has no place of its own."""
    node: Node = tree
    for step in path[:-1]:
        if isinstance(node, Map) and isinstance(step, str):
            node = node.get(step)
        elif isinstance(node, Seq) and isinstance(step, int):
            node = node[step]
    last = path[-1] if path else None
    return node.key_mark(last) if isinstance(node, Map) and isinstance(last, str) else None


def _unknown(error: ValidationError, path: Path, hints: int) -> Iterator[tuple[str, Mark | None, str, str]]:
    """Each unknown key of a mapping: the key, its place, what is wrong, and what may have been meant: of the
    first so many, because comparing words takes its time."""
    found, rules = cast("Map", error.instance), cast("dict[str, object]", error.schema)
    known = [
        key for key in cast("dict[str, object]", rules.get("properties", {})) if not key.startswith("x-")
    ]
    patterns = cast("dict[str, object]", rules.get("patternProperties", {}))
    validator = Draft202012Validator({"patternProperties": dict.fromkeys(patterns, False)})
    for key in found:
        if key in known or not validator.is_valid({key: 0}):
            continue
        mark = found.key_mark(key)
        if not known:
            yield key, mark, f"{key!r} can't be a name below {dotted(path)}", _NAMES
            continue
        inside = f" in {dotted(path)}" if path else ""
        hint = _MOVED.get(key, "") if _is_service(path) else ""
        near = nearest(key, known) if hints > 0 and not hint else ""
        hints -= 1
        yield key, mark, f"unknown key {key!r}{inside}", hint or near or _allowed(known) or _own(path)


def _is_overlooked(path: Path) -> bool:
    """Where docker compose 2.40.3 takes any key: such files can be printed, but not run."""
    return (
        (path[:1] == ("include",) and len(path) == 2)
        or (path[:1] == ("services",) and path[2:3] in (("extends",), ("gpus",)))
        or (path[:1] in (("configs",), ("secrets",)) and path[2:] == ("external",))
    )


_NAMES = "names are made of letters, digits, '.', - and _"


def _is_service(path: Path) -> bool:
    return len(path) == 2 and path[0] == "services"


def _allowed(known: list[str]) -> str:
    """What may stand there, when that is little."""
    return f"known here: {', '.join(known)}" if len(known) <= _FEW else ""


_FEW = 12


def _own(path: Path) -> str:
    return "keys of your own begin with x-" if path and path[0] == "services" else ""


def _value(error: ValidationError, where: str) -> tuple[str, str]:
    """What is wrong with a single value, and a hint."""
    rules = cast("dict[str, object]", error.schema)
    found = error.instance
    if isinstance(found, Timestamp):
        return f"{where}: an unquoted date is not a text in YAML", f'put it in quotes: "{found.text}"'
    expected = str(rules.get("x-expected", ""))
    match error.validator:
        case "type":
            kinds = cast("list[str] | str", error.validator_value)
            named = [kinds] if isinstance(kinds, str) else kinds
            wanted = _either([_KINDS[kind] for kind in named])
            hint = _type_hint(found, named, expected)
            return f"{where} must be {expected or wanted}, not {_shown(found)}", hint
        case "enum":
            words = [str(word) for word in cast("list[str]", error.validator_value)]
            hint = nearest(found, words) if isinstance(found, str) else ""
            return f"{where} must be {_either(words)}, not {_shown(found)}", hint
        case "pattern" if expected:
            return f"{where} must be {expected}, not {_shown(found)}", _unit_hint(expected, found)
        case "minimum":
            return f"{where} must be at least {error.validator_value}, not {_shown(found)}", ""
        case "maximum":
            return f"{where} must be at most {error.validator_value}, not {_shown(found)}", ""
        case "minLength":
            return f"{where} has a name without a letter: ''", ""
        case "maxLength":
            return f"{where}: {found!r:.24} is longer than {error.validator_value} characters", ""
    return f"{where}: {error.message:.200}", ""


def _type_hint(found: object, kinds: list[str], expected: str) -> str:
    if found is None:
        return "give it a value or leave the key out"
    if isinstance(found, int | float) and not isinstance(found, bool) and "duration" in expected:
        return f"did you mean {found}s?"
    only_text = "string" in kinds and not {"boolean", "integer", "number"}.intersection(kinds)
    if isinstance(found, int | float) and only_text:
        return f'put it in quotes: "{str(found).lower() if isinstance(found, bool) else found}"'
    if isinstance(found, str) and "array" in kinds:
        return f"a list of one: [{found!r:.60}]"
    return ""


def _unit_hint(expected: str, found: object) -> str:
    if "duration" in expected and isinstance(found, str) and found.strip().isdigit():
        return f"did you mean {found.strip()}s?"
    return ""


def _shown(found: object) -> str:
    if found is None:
        return "empty"
    if isinstance(found, bool):
        return str(found).lower()
    if isinstance(found, dict):
        return "a mapping"
    if isinstance(found, list):
        return "a list"
    return f"{found!r:.80}"


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
