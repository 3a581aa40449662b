"""Small faults that somebody could make in a source text. Pure.

A fault is a place in the syntax tree and a rule; the same text gives the same faults in the same order. What
is not touched: comments and docstrings, annotations, words of messages that are put together (f-strings),
assertions and what is raised for bugs, fields of classes, imports.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

NEGATED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
}
BOUNDARY: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
SWAPPED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
}
OTHER_NAME = {"min": "max", "max": "min", "any": "all", "all": "any"}
ENUMS = {
    "Fate": ("LEAVE", "KEEP", "STOP", "CYCLE", "REPLACE", "REMOVE"),
    "Wanted": ("RUNNING", "STOPPED", "CREATED", "ABSENT"),
    "State": ("CREATED", "RUNNING", "EXITED"),
    "HealthStatus": ("STARTING", "HEALTHY", "UNHEALTHY"),
    "Answer": ("OPEN", "NOT_YET", "FAILED"),
}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """`home`: the function it is in, as its qualified name; "" is the module's own level, and then `name`
    is what is assigned there."""

    number: int
    line: int
    statement: int
    """The line that the statement begins in which it is."""
    home: str
    name: str
    said: str


Change = tuple[str, Callable[[], None]]
"""What it is, in words, and how to do it to the tree."""


def mutants(text: str) -> list[Mutant]:
    """Every fault of a source text."""
    return [mutant for mutant, _ in _all(ast.parse(text))]


def mutated(text: str, number: int) -> ast.Module:
    """The tree of a source text with one fault in it."""
    tree = ast.parse(text)
    for mutant, change in _all(tree):
        if mutant.number == number:
            change()
            return ast.fix_missing_locations(tree)
    raise ValueError(f"no mutant {number}")


def _all(tree: ast.Module) -> Iterator[tuple[Mutant, Callable[[], None]]]:
    number = 0
    statement_of: dict[int, int] = {}
    for home, name, node, parent in _places(tree):
        statement = node.lineno if isinstance(node, ast.stmt) else statement_of.get(id(parent), 0)
        statement_of[id(node)] = statement
        line = (
            node.target.lineno if isinstance(node, ast.comprehension) else getattr(node, "lineno", statement)
        )
        for said, change in _changes(node, parent, top=not home):
            yield (
                Mutant(number=number, line=line, statement=statement, home=home, name=name, said=said),
                change,
            )
            number += 1


def _places(tree: ast.Module) -> Iterator[tuple[str, str, ast.AST, ast.AST]]:
    """(function, assigned name, node, its parent) of everything that may be changed."""
    for statement in tree.body:
        match statement:
            case ast.FunctionDef():
                yield from _within(statement, statement.name)
            case ast.ClassDef():
                for part in statement.body:
                    if isinstance(part, ast.FunctionDef):
                        yield from _within(part, f"{statement.name}.{part.name}")
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if not _is_alias(value):
                for node, parent in _walk(value, statement):
                    yield "", name, node, parent
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                for node, parent in _walk(value, statement):
                    yield "", name, node, parent
            case _:
                pass


def _is_alias(value: ast.expr) -> bool:
    """Rule = Callable[...]: a name for type checkers."""
    return isinstance(value, ast.Subscript | ast.BinOp) or (
        isinstance(value, ast.Call) and _called(value) == "TypeVar"
    )


def _within(function: ast.FunctionDef, home: str) -> Iterator[tuple[str, str, ast.AST, ast.AST]]:
    for statement in function.body:
        for node, parent in _walk(statement, function):
            yield home, "", node, parent


def _walk(node: ast.AST, parent: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    if isinstance(node, ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Raise):
        return
    yield node, parent
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        parts = value if isinstance(value, list) else [value]
        for part in parts:
            if isinstance(part, ast.AST):
                yield from _walk(part, node)


def _changes(node: ast.AST, parent: ast.AST, *, top: bool) -> Iterator[Change]:
    match node:
        case ast.Compare():
            yield from _compare(node)
        case ast.BoolOp():
            other = ast.Or if isinstance(node.op, ast.And) else ast.And
            word = "or" if other is ast.Or else "and"
            yield f"{_short(node)}: {word}", lambda: setattr(node, "op", other())
        case ast.UnaryOp(op=ast.Not()):
            yield f"{_short(node)}: without not", _put(parent, node, node.operand)
        case ast.BinOp() if type(node.op) in SWAPPED:
            swapped = SWAPPED[type(node.op)]
            yield f"{_short(node)}: {swapped.__name__}", lambda: setattr(node, "op", swapped())
        case ast.Constant() if not _is_docstring(node, parent):
            yield from _constant(node)
        case ast.Attribute(value=ast.Name(id=enum)) if enum in ENUMS and node.attr in ENUMS[enum]:
            members = ENUMS[enum]
            other_member = members[(members.index(node.attr) + 1) % len(members)]
            yield f"{enum}.{node.attr}: {enum}.{other_member}", lambda: setattr(node, "attr", other_member)
        case ast.Name(id=name, ctx=ast.Load()) if name in OTHER_NAME and isinstance(parent, ast.Call):
            yield f"{_short(parent)}: {OTHER_NAME[name]}", lambda: setattr(node, "id", OTHER_NAME[name])
        case ast.Tuple() | ast.List() | ast.Dict() if top and isinstance(parent, ast.Assign | ast.AnnAssign):
            yield from _rows(node)
        case _:
            yield from _statement(node, parent)


def _compare(node: ast.Compare) -> Iterator[Change]:
    for place, operator in enumerate(node.ops):
        for table in (NEGATED, BOUNDARY):
            other = table.get(type(operator))
            if other is not None:
                yield f"{_short(node)}: {other.__name__}", _at(node.ops, place, other())


def _constant(node: ast.Constant) -> Iterator[Change]:
    value = node.value
    if isinstance(value, bool):
        yield f"{value}: {not value}", lambda: setattr(node, "value", not value)
    elif isinstance(value, int):
        yield f"{value}: {value + 1}", lambda: setattr(node, "value", value + 1)
    elif isinstance(value, float):
        yield f"{value}: {value * 2 + 1}", lambda: setattr(node, "value", value * 2 + 1)
    elif isinstance(value, str):
        other = "" if value else "mutant"
        yield f"{value!r}: {other!r}", lambda: setattr(node, "value", other)


def _rows(node: ast.Tuple | ast.List | ast.Dict) -> Iterator[Change]:
    """A table without one of its rows."""
    count = len(node.keys if isinstance(node, ast.Dict) else node.elts)
    if count < 2 and not isinstance(node, ast.Dict):
        return
    for place in range(count):
        shown = node.keys[place] if isinstance(node, ast.Dict) else node.elts[place]
        if isinstance(shown, ast.AST):
            yield f"without the row {_short(shown)}", _drop_row(node, place)


def _drop_row(node: ast.Tuple | ast.List | ast.Dict, place: int) -> Callable[[], None]:
    def drop() -> None:
        if isinstance(node, ast.Dict):
            del node.keys[place]
            del node.values[place]
        else:
            del node.elts[place]

    return drop


def _statement(node: ast.AST, parent: ast.AST) -> Iterator[Change]:
    match node:
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if not _is_negated_anyway(test):
            yield f"if not {_short(test)}", _negate(node, "test", test)
        case ast.comprehension():
            for place, test in enumerate(node.ifs):
                if not _is_negated_anyway(test):
                    yield f"... if not {_short(test)}", _at(node.ifs, place, _not(test))
        case ast.Expr(value=ast.Call() | ast.YieldFrom() | ast.Yield()):
            yield f"without {_short(node)}", _put(parent, node, ast.Pass())
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.AugAssign():
            yield f"without {_short(node)}", _put(parent, node, ast.Pass())
        case ast.Continue() | ast.Break():
            yield f"without {_short(node)}", _put(parent, node, ast.Pass())
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield f"{_short(node)}: None", lambda: setattr(node, "value", ast.Constant(value=None))
        case _:
            pass


def _is_negated_anyway(test: ast.expr) -> bool:
    """By the change of its comparison, or of its not."""
    return isinstance(test, ast.UnaryOp) or (isinstance(test, ast.Compare) and len(test.ops) == 1)


def _not(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(op=ast.Not(), operand=test)


def _negate(node: ast.AST, name: str, test: ast.expr) -> Callable[[], None]:
    return lambda: setattr(node, name, _not(test))


def _at(row: list, place: int, other: ast.AST) -> Callable[[], None]:  # type: ignore[type-arg]
    def put() -> None:
        row[place] = other

    return put


def _put(parent: ast.AST, node: ast.AST, other: ast.AST) -> Callable[[], None]:
    """`other` in the place of `node`."""

    def put() -> None:
        for name, value in ast.iter_fields(parent):
            if value is node:
                setattr(parent, name, other)
            elif isinstance(value, list) and any(part is node for part in value):
                value[next(place for place, part in enumerate(value) if part is node)] = other

    return put


def _is_docstring(node: ast.Constant, parent: ast.AST) -> bool:
    return isinstance(parent, ast.Expr) or node.value is None or node.value is Ellipsis


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 70 else f"{text[:67]}..."
