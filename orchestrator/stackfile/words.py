"""A command line as one text -> its words, as docker compose splits it (mattn/go-shellwords).

Quotes and backslashes work as in a shell; nothing is expanded: $( and backticks stay text, # is no comment.
"""

from __future__ import annotations

_ENDS = ";&|<>"


def split(text: str) -> list[str]:
    """The words. Raises ValueError for an open quote, parentheses, and shell operators."""
    words, operator = leading(text)
    if operator:
        raise ValueError(f"{operator} works only in a shell")
    return words


def leading(text: str) -> tuple[list[str], str]:
    """The words before the first shell operator, and the operator. Raises ValueError for what can't be split.

    Docker compose silently drops everything from the operator on; that is never what was meant.
    """
    words: list[str] = []
    word: list[str] = []
    started = False
    quote = operator = ""
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
        elif char in _ENDS and not quote:
            operator = char
            started = started and not _is_file_number(char, word)
            break
        else:
            quote = _next_quote(char, quote, word)
            word.append(char)
            started = True
    if quote:
        raise ValueError(f"the quote {quote} is not closed")
    if started:
        words.append("".join(word))
    return words, operator


def _is_file_number(char: str, word: list[str]) -> bool:
    """As in 2>file."""
    return char == ">" and bool(word) and word[0].isdigit()


def _next_quote(char: str, quote: str, word: list[str]) -> str:
    """Backticks and $( ) keep their blanks in one word. Raises ValueError for other parentheses."""
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
    return ""
