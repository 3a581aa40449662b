"""WWW-Authenticate -> challenges. Pure.

Grammar: RFC 9110, 11.6.1 and 11.4. Several challenges may share one header, and commas part both
challenges and parameters; quoted texts hold commas of their own (`scope="repository:a:pull,push"`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.model.frozen import dataclass, field

_LIMIT = 16 << 10
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"[\s,]*({_WORD})(?=\s|,|$)[ \t]*")
_PARAMETER = re.compile(rf'[\s,]*({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One way in: the scheme in lower case, its parameters by lower-case name."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def scopes(self) -> frozenset[str]:
        """What the registry wants to be allowed, as `repository:a/b:pull`."""
        return frozenset(self.parameters.get("scope", "").split())

    @property
    def insufficient(self) -> bool:
        """Whether the token that was sent is good, but not for this (RFC 6750, 3.1)."""
        return self.parameters.get("error") == "insufficient_scope"


def parse(header: str) -> tuple[Challenge, ...]:
    """The challenges of a header, in order. What can't be read ends the list; nothing is raised."""
    found: list[Challenge] = []
    rest = header[:_LIMIT]
    while match := _SCHEME.match(rest):
        rest = rest[match.end() :]
        scheme = match.group(1).lower()
        parameters: dict[str, str] = {}
        if token := _TOKEN68.match(rest):
            rest = rest[token.end() :]
        while pair := _PARAMETER.match(rest):
            rest = rest[pair.end() :]
            name, quoted, plain = pair.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            parameters.setdefault(name.lower(), value)
        found.append(Challenge(scheme=scheme, parameters=parameters))
    return tuple(found)
