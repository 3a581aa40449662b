"""A command line as one text -> its words, as docker compose splits it (mattn/go-shellwords).

Quotes and backslashes work as in a shell; nothing is expanded: $( and backticks stay text, # is no comment.
"""

from __future__ import annotations

_ENDS = ";&|<>"


def split(text: str) -> list[str]:
    """The words. Raises ValueError for an open quote, parentheses, and shell operators.

    Docker compose silently drops everything from the first operator on; that is never what was meant.
    """
    words: list[str] = []
    word: list[str] = []
    started = False
    quote = ""
    index = 0
    while index < len(text):
        char = text[index]
        index += 1
        if char == "\\" and quote != "'":
            if index == len(text):
                raise ValueError("a backslash at the end has nothing to quote")
            word.append(text[index])
            index += 1
            started = True
        elif quote in ("'", '"'):
            if char == quote:
                quote = ""
            else:
                word.append(char)
        elif char in "'\"" and not quote:
            quote, started = char, True
        elif char.isspace() and not quote:
            if started:
                words.append("".join(word))
            word, started = [], False
        else:
            quote = _next_quote(char, quote, word)
            word.append(char)
            started = True
    if quote:
        raise ValueError(f"the quote {quote} is not closed")
    if started:
        words.append("".join(word))
    return words


def _next_quote(char: str, quote: str, word: list[str]) -> str:
    """Backticks and $( ) keep their blanks in one word. Raises ValueError for operators."""
    if char == "`":
        return "" if quote == "`" else "`"
    if quote:
        return "" if char == ")" and quote == "(" else quote
    if char == "(":
        if word and word[-1] == "$":
            return "("
        raise ValueError("a parenthesis needs quotes")
    if char == ")":
        raise ValueError("a parenthesis needs quotes")
    if char in _ENDS:
        raise ValueError(f"{char} works only in a shell")
    return ""
