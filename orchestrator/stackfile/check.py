"""Is a tree what our schemas allow? A fast yes; only a no is worth the import of the jsonschema package.

The schemas are compiled to closures over the part of JSON Schema 2020-12 that they use; a keyword that is
not known here is an error in the schemas, found by the first test. A property test holds the verdict to
that of the jsonschema package.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence

from orchestrator.stackfile import schema as schemas
from orchestrator.stackfile.problem import Report, mark_of, written
from orchestrator.stackfile.repeats import repeated
from orchestrator.stackfile.schema import Object, Schema
from orchestrator.stackfile.tree import Map, Seq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.stackfile.phases import Phase

Test = Callable[[object], bool]

_NOTES = frozenset(("$defs", "title", "description", "examples", "x-expected", "x-names", "then", "else"))


def check(tree: Map, report: Report, phase: Phase = "whole") -> None:
    """What the schemas don't allow, as far as it is found in this phase, goes to `report`."""
    if not fits(tree):
        from orchestrator.stackfile.explain import explain

        explain(tree, report, phase)


def check_ports(tree: Map, report: Report) -> None:
    """Docker compose reads them as soon as it has read a document, before anything is merged."""
    services = tree.get("services")
    for name, service in services.items() if isinstance(services, Map) else ():
        ports = service.get("ports") if isinstance(service, Map) else None
        if isinstance(ports, Seq) and ports:
            from orchestrator.stackfile.forms import Spot
            from orchestrator.stackfile.long import port_list

            assert isinstance(service, Map)
            here = Spot(report).inside("services", None).inside(name, None)
            port_list(ports, here.inside("ports", service.mark("ports")))


def check_literal(tree: Map, report: Report, phase: Phase = "whole") -> None:
    """As `check`, but for values that a variable gives: nobody knows them yet."""
    found = Report()
    for file, text in report.texts.items():
        found.knows(file, text)
    check(tree, found, phase)
    for one in found.problems:
        mark = mark_of(one.place)
        if "$" not in written(report.texts, mark):
            report.error(mark, one.code, one.message, hint=one.hint, path=one.path)


def fits(tree: object) -> bool:
    return _whole()(tree)


@functools.cache
def _whole() -> Test:
    return compile_schema({"$ref": "#/$defs/stack"})


def compile_schema(schema: Schema) -> Test:
    """A test for one schema. Raises NotImplementedError for a keyword we don't use."""
    if isinstance(schema, bool):
        return _always if schema else _never
    assert isinstance(schema, dict)
    tests: list[Test] = []
    for keyword, value in schema.items():
        if keyword in _NOTES or keyword in ("patternProperties", "additionalProperties"):
            continue
        if keyword not in _KEYWORDS:
            raise NotImplementedError(f"the schema keyword {keyword}")
        tests.append(_KEYWORDS[keyword](value, schema))
    if "properties" not in schema and ("patternProperties" in schema or "additionalProperties" in schema):
        tests.append(_properties({}, schema))
    return _all(tests)


def _always(_value: object) -> bool:
    return True


def _never(_value: object) -> bool:
    return False


def _all(tests: Sequence[Test]) -> Test:
    if not tests:
        return _always
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda value: first(value) and second(value)

    def test(value: object) -> bool:
        for one in tests:  # noqa: SIM110 - all() with a generator costs twice as much here
            if not one(value):
                return False
        return True

    return test


# --- keywords --------------------------------------------------------------------------------------


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    """As JSON Schema sees it: 3.0 is a whole number."""
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


_IS: dict[str, Test] = {
    "null": lambda value: value is None,
    "boolean": lambda value: value is True or value is False,
    "string": lambda value: isinstance(value, str),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "number": _is_number,
    "integer": _is_whole,
}


_CLASSES: Mapping[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "string": (str,),
    "object": (dict, Map),
    "array": (list, Seq),
    "number": (int, float),
    "integer": (int,),
}


def _type(value: Schema, _schema: Object) -> Test:
    """By its class, which is quickest; what is not plain is looked at more closely."""
    names = [str(kind) for kind in value] if isinstance(value, list) else [str(value)]
    classes = frozenset(one for name in names for one in _CLASSES[name])
    kinds = [_IS[name] for name in names]

    def test(found: object) -> bool:
        return found.__class__ in classes or any(kind(found) for kind in kinds)

    return test


def _reference(value: Schema, _schema: Object) -> Test:
    assert isinstance(value, str)
    reference = value
    resolved: list[Test] = []

    def test(found: object) -> bool:
        if not resolved:
            resolved.append(_referred(reference))
        return resolved[0](found)

    return test


@functools.cache
def _referred(reference: str) -> Test:
    return compile_schema(schemas.at(reference))


def _properties(value: Schema, schema: Object) -> Test:
    """properties, patternProperties and additionalProperties, which depend on one another."""
    assert isinstance(value, dict)
    patterns = _patterns(schema.get("patternProperties", {}))
    rest = compile_schema(schema.get("additionalProperties", True))
    known: dict[str, Test] = {}
    for key, part in value.items():
        known[key] = _all([compile_schema(part), *(test for pattern, test in patterns if pattern(key))])

    if not patterns:
        return _keyed(known, rest)

    def unknown(key: str, found: object) -> bool:
        matched = [test for pattern, test in patterns if pattern(key)]
        if matched:
            return all(test(found) for test in matched)
        return rest(found)

    def test(found: object) -> bool:
        if not isinstance(found, dict):
            return True
        for key, part in found.items():
            one = known.get(key)
            if not (one(part) if one is not None else unknown(key, part)):
                return False
        return True

    return test


def _keyed(known: Mapping[str, Test], rest: Test) -> Test:
    named = known.get

    def test(found: object) -> bool:
        if isinstance(found, dict):
            for key, part in found.items():
                if not named(key, rest)(part):
                    return False
        return True

    return test


def _patterns(value: Schema) -> list[tuple[Callable[[str], object], Test]]:
    assert isinstance(value, dict)
    return [(re.compile(pattern).search, compile_schema(part)) for pattern, part in value.items()]


def _property_names(value: Schema, _schema: Object) -> Test:
    if value == {"minLength": 1}:
        return lambda found: not isinstance(found, dict) or "" not in found
    one = compile_schema(value)
    return lambda found: not isinstance(found, dict) or all(one(key) for key in found)


def _required(value: Schema, _schema: Object) -> Test:
    assert isinstance(value, list)
    keys = tuple(str(key) for key in value)
    return lambda found: not isinstance(found, dict) or all(key in found for key in keys)


def _items(value: Schema, _schema: Object) -> Test:
    one = compile_schema(value)

    def test(found: object) -> bool:
        if isinstance(found, list):
            for part in found:
                if not one(part):
                    return False
        return True

    return test


def _unique(value: Schema, _schema: Object) -> Test:
    assert value is True
    return lambda found: not isinstance(found, list) or len(found) < 2 or repeated(found) is None


def _words(value: Schema, _schema: Object) -> Test:
    words = frozenset(str(word) for word in value) if isinstance(value, list) else frozenset((str(value),))
    return lambda found: isinstance(found, str) and found in words


def _pattern(value: Schema, _schema: Object) -> Test:
    search = re.compile(str(value)).search
    return lambda found: not isinstance(found, str) or search(found) is not None


def _minimum(value: Schema, _schema: Object) -> Test:
    assert isinstance(value, int | float)
    least = value
    return lambda found: not _is_number(found) or found >= least  # type: ignore[operator]


def _maximum(value: Schema, _schema: Object) -> Test:
    assert isinstance(value, int | float)
    most = value
    return lambda found: not _is_number(found) or found <= most  # type: ignore[operator]


def _max_length(value: Schema, _schema: Object) -> Test:
    assert isinstance(value, int)
    most = value
    return lambda found: not isinstance(found, str) or len(found) <= most


def _if(value: Schema, schema: Object) -> Test:
    condition = compile_schema(value)
    then = compile_schema(schema.get("then", True))
    otherwise = compile_schema(schema.get("else", True))
    return lambda found: then(found) if condition(found) else otherwise(found)


_KEYWORDS: Mapping[str, Callable[[Schema, Object], Test]] = {
    "$ref": _reference,
    "type": _type,
    "properties": _properties,
    "propertyNames": _property_names,
    "required": _required,
    "items": _items,
    "uniqueItems": _unique,
    "enum": _words,
    "const": _words,
    "pattern": _pattern,
    "minimum": _minimum,
    "maximum": _maximum,
    "maxLength": _max_length,
    "if": _if,
}
