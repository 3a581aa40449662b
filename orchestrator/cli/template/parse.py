"""Pieces -> nodes."""

from __future__ import annotations

import difflib

from orchestrator.cli.template.functions import FUNCTIONS, json
from orchestrator.cli.template.nodes import (
    Branch,
    Chain,
    Function,
    Jump,
    Literal,
    Node,
    Operand,
    Pipeline,
    Show,
)
from orchestrator.cli.template.scan import Action, TemplateError, Token, pieces, wrong

DEPTH_LIMIT = 50
_CONSTANTS: dict[str, object] = {"true": True, "false": False, "nil": None}
_ABSENT = ("define", "template", "block", "call", "html", "js", "urlquery")


def parse(template: str) -> list[Node]:
    """Raises TemplateError."""
    parser = _Parser(template)
    nodes, ended = parser.nodes(("",), 0)
    assert ended == ""
    return nodes


class _Parser:
    def __init__(self, template: str) -> None:
        self._template = template
        self._pieces = pieces(template)
        self._next = 0
        self._variables = ["$"]
        self._loops = 0
        self._else = _Line(template, Action([], 0))
        """What follows the latest `else`."""

    def nodes(self, ends: tuple[str, ...], depth: int) -> tuple[list[Node], str]:
        """Everything up to one of the words `ends` ("": the end of the text), and which it was."""
        if depth > DEPTH_LIMIT:
            raise TemplateError(f"template: more than {DEPTH_LIMIT} blocks inside each other")
        found: list[Node] = []
        while self._next < len(self._pieces):
            piece = self._pieces[self._next]
            self._next += 1
            if isinstance(piece, str):
                found.append(piece)
                continue
            line = _Line(self._template, piece)
            word = line.keyword()
            if word in ("end", "else"):
                if word not in ends:
                    raise wrong(self._template, piece.at, f"unexpected {{{{{word}}}}}")
                if word == "else":
                    self._else = line
                else:
                    line.finish("end")
                return found, word
            found.append(self._node(line, word, depth))
        if "" not in ends:
            raise wrong(self._template, len(self._template), "unexpected EOF", "an {{end}} is missing")
        return found, ""

    def _node(self, line: _Line, word: str, depth: int) -> Node:
        if word in ("if", "with", "range"):
            return self._branch(line, word, depth)
        if word in ("break", "continue"):
            line.finish(word)
            if not self._loops:
                raise line.wrong(f"{{{{{word}}}}} outside {{{{range}}}}")
            return Jump(word)
        return Show(line.pipeline(self._variables))

    def _branch(self, line: _Line, word: str, depth: int) -> Branch:
        known = len(self._variables)
        pipeline = line.pipeline(self._variables, of=word)
        self._loops += word == "range"
        body, ended = self.nodes(("else", "end"), depth + 1)
        self._loops -= word == "range"
        other: list[Node] = []
        if ended == "else":
            follows = self._else.keyword()
            if follows in ("if", "with") and word != "range":
                other = [self._branch(self._else, follows, depth + 1)]
            else:
                self._else.finish("else")
                other, _ = self.nodes(("end",), depth + 1)
        del self._variables[known:]
        return Branch(word, pipeline, body, other)


class _Line:
    """The tokens of one action, read from left to right."""

    def __init__(self, template: str, action: Action) -> None:
        self._template = template
        self._tokens = action.tokens
        self._place = 0
        self.at = action.at

    def wrong(self, message: str, hint: str = "") -> TemplateError:
        return wrong(self._template, self.at, message, hint)

    def keyword(self) -> str:
        """The word that this line begins with, taken, if it is one of the language."""
        words = ("if", "else", "end", "range", "with", "break", "continue")
        token = self._peek()
        if token is None or token.kind != "word" or token.text not in words:
            return ""
        self._place += 1
        return token.text

    def finish(self, after: str) -> None:
        token = self._peek()
        if token is not None:
            raise self.wrong(f"unexpected {_shown(token)} in {after}")

    def pipeline(self, variables: list[str], *, of: str = "command") -> Pipeline:
        """All that is left. Variables that it declares are added to `variables`."""
        found = self._pipeline(variables, of, 0)
        self.finish(of)
        if found.declares:
            variables.extend(found.names)
        return found

    def _pipeline(self, variables: list[str], of: str, depth: int) -> Pipeline:
        if depth > DEPTH_LIMIT:
            raise self.wrong(f"more than {DEPTH_LIMIT} parentheses inside each other")
        token = self._peek()
        at = token.at if token is not None else self.at
        names, declares = self._names(variables, of) if depth == 0 else ((), False)
        commands = [self._command(variables, of, depth)]
        while self._take("|"):
            commands.append(self._command(variables, of, depth))
        for command in commands[1:]:
            if not isinstance(command[0], (Function, Chain)):
                raise self.wrong("non executable command in pipeline")
        return Pipeline(commands, names, at, declares=declares)

    def _names(self, variables: list[str], of: str) -> tuple[tuple[str, ...], bool]:
        """`$x :=`, `$x =`, and `$key, $value :=` for range."""
        ahead = [(token.kind, token.text) for token in self._tokens[self._place : self._place + 4]]
        kinds = [kind for kind, _ in ahead]
        if kinds[:2] == ["variable", "mark"] and ahead[1][1] in (":=", "="):
            count, sign = 1, ahead[1][1]
        elif of == "range" and kinds[:4] == ["variable", "mark", "variable", "mark"] and ahead[1][1] == ",":
            count, sign = 2, ahead[3][1]
        else:
            return (), False
        names = tuple(text for _, text in ahead[0 : 2 * count : 2])
        for name in names:
            if sign == "=" and name not in variables:
                raise self.wrong(f'undefined variable "{name}"')
        self._place += 2 * count
        return names, sign == ":="

    def _command(self, variables: list[str], of: str, depth: int) -> list[Operand]:
        operands: list[Operand] = []
        while (token := self._peek()) is not None and not (token.kind == "mark" and token.text in "|)"):
            operands.append(self._operand(token, variables, depth))
        if not operands:
            raise self.wrong(f"missing value for {of}")
        if len(operands) > 1 and isinstance(operands[0], Literal):
            raise self.wrong(f"can't give argument to non-function {json(operands[0].value)}")
        return operands

    def _operand(self, token: Token, variables: list[str], depth: int) -> Operand:
        self._place += 1
        match token.kind:
            case "string":
                return Literal(token.text, token.at)
            case "number":
                return Literal(self._number(token.text), token.at)
            case "field":
                return Chain(".", (token.text[1:], *self._fields()), token.at)
            case "variable":
                if token.text not in variables:
                    raise self.wrong(f'undefined variable "{token.text}"')
                return Chain(token.text, self._fields(), token.at)
            case "word":
                return self._word(token)
        if token.text == ".":
            return Chain(".", (), token.at)
        if token.text == "(":
            inner = self._pipeline(variables, "parenthesized pipeline", depth + 1)
            if not self._take(")"):
                raise self.wrong("unclosed left paren")
            return Chain(inner, self._fields(), token.at)
        raise self.wrong(f"unexpected {_shown(token)} in operand")

    def _word(self, token: Token) -> Operand:
        if token.text in _CONSTANTS:
            return Literal(_CONSTANTS[token.text], token.at)
        if token.text in FUNCTIONS:
            return Function(token.text, token.at)
        if token.text in _ABSENT:
            raise self.wrong(f'"{token.text}" is not supported')
        near = difflib.get_close_matches(token.text, FUNCTIONS, n=1, cutoff=0.7)
        hint = f"did you mean {near[0]}?" if near else f"a field begins with a dot: .{token.text}"
        raise self.wrong(f'function "{token.text}" not defined', hint)

    def _fields(self) -> tuple[str, ...]:
        """Fields that stand right behind, without a blank."""
        names: list[str] = []
        while (token := self._peek()) is not None and token.kind == "field" and token.joined:
            names.append(token.text[1:])
            self._place += 1
        return tuple(names)

    def _number(self, text: str) -> object:
        try:
            return int(text, 0)
        except ValueError:
            pass
        try:
            return int(text) if text.lstrip("+-").isdigit() else float(text)
        except ValueError:
            raise self.wrong(f"bad number syntax: {text!r}") from None

    def _take(self, mark: str) -> bool:
        token = self._peek()
        if token is None or token.kind != "mark" or token.text != mark:
            return False
        self._place += 1
        return True

    def _peek(self) -> Token | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None


def _shown(token: Token) -> str:
    return f'"{token.text}"' if token.kind == "string" else f"<{token.text}>"
