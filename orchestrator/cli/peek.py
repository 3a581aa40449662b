"""The stack's name from the text of its file, without parsing YAML: commands that only need the name
answer 40 ms sooner. Pure. In any doubt the answer is UNSURE, and the file is loaded in full.
"""

from __future__ import annotations

UNSURE = object()
SIZE_LIMIT = 1024 * 1024
NAME_LIMIT = 100
"""Characters in the name of a stack, as of everything else in a stack file."""
CANDIDATES = (
    "stack.yml",
    "stack.yaml",
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
)
OVERRIDES = (
    "stack.override.yml",
    "stack.override.yaml",
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
"""As stackfile.discover has them, whose import would cost what this file saves; a test compares."""
_IN_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
_SIMPLE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
_STARTS_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")


def written_name(text: bytes) -> object:
    """The value of a plain `name:` at the top level (str), None when there is none, else UNSURE.

    Every line that begins in the first column must be a plain key, a comment, or the first `---`.
    """
    if len(text) > SIZE_LIMIT:
        return UNSURE
    found: object = None
    begun = False
    for raw in text.splitlines():
        first = raw[:1]
        if first in (b"", b" ", b"#"):
            continue
        if raw.rstrip() == b"---" and not begun:
            begun = True
            continue
        begun = True
        if first.decode("latin-1") not in _STARTS_KEY:
            return UNSURE
        key, colon, value = raw.partition(b":")
        if not colon:
            return UNSURE
        if key.rstrip() == b"name":
            plain = _plain(value)
            if found is not None or plain is None:
                return UNSURE
            found = plain
    return found


def _plain(value: bytes) -> str | None:
    """A one-line scalar of harmless characters."""
    text = value.decode("latin-1")
    if text[:1] not in (" ", "\t"):
        return None
    text = text.strip()
    if text[:1] in ("'", '"'):
        inner, quote, rest = text[1:].partition(text[0])
        if not quote or (rest.strip() and not rest.lstrip().startswith("#")):
            return None
    else:
        inner = text.partition(" #")[0].rstrip()
        # A plain number, date or null is not text in YAML.
        if not inner or not inner[0].isalpha() or inner.lower() in ("null", "true", "false"):
            return None
    return inner if inner and set(inner) <= _SIMPLE else None


def normalise(text: str) -> str:
    """As model.names.normalise_stack_name, without `re`; a test holds the two together."""
    return "".join(letter for letter in text.lower() if letter in _IN_NAME).lstrip("_-")


def allowed(name: str) -> bool:
    """Whether the user may call a stack so (model.names.STACK_NAME)."""
    return 0 < len(name) <= NAME_LIMIT and set(name) <= _IN_NAME and name[0] not in "_-"
