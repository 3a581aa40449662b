"""Which services are switched on: by profiles, and by being named on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from orchestrator.stackfile import problem
from orchestrator.stackfile.problem import Report
from orchestrator.stackfile.tree import Map, Node, Seq

_NEAR, _LONG = 300, 60
"""So many words are compared, and words so long."""
_SHARED = ("network_mode", "ipc", "pid")


def active(services: Map, profiles: Iterable[str], named: Iterable[str]) -> list[str]:
    """The names of the services that are switched on, in the file's order.

    A service named on the command line is on whatever its profiles, and its profiles become active.
    """
    # With no profile asked for, the one without a name is on: Docker Compose splits an empty text.
    wanted = set(profiles) or {""}
    for name in named:
        wanted.update(_profiles(services.get(name)))
    return [name for name, service in services.items() if _is_on(_profiles(service), wanted)]


def _profiles(service: Node) -> list[str]:
    found = service.get("profiles") if isinstance(service, Map) else None
    return [profile for profile in found if isinstance(profile, str)] if isinstance(found, Seq) else []


def _is_on(profiles: list[str], wanted: set[str]) -> bool:
    return not profiles or "*" in wanted or not wanted.isdisjoint(profiles)


def check_dependencies(services: Map, on: list[str], report: Report) -> Map:
    """The services that are on, without optional dependencies on ones that are off.

    A dependency on a service that is off is an error, as it is on one that does not exist at all.
    """
    result = Map()
    known = frozenset(on)
    for name in on:
        result.take(name, services)
        service = services[name]
        if isinstance(service, Map) and isinstance(service.get("depends_on"), Map):
            fresh = service.copy()
            fresh["depends_on"] = _reachable(name, service["depends_on"], services, known, report)
            result[name] = fresh
    return result


def _reachable(name: str, needs: Node, services: Map, on: frozenset[str], report: Report) -> Map:
    kept = Map()
    assert isinstance(needs, Map)
    for other, entry in needs.items():
        required = entry.get("required", True) if isinstance(entry, Map) else True
        path = f"services.{name}.depends_on.{other}"
        mark = needs.key_mark(other)
        if other in on:
            kept.take(other, needs)
        elif other not in services:
            report.error(
                mark,
                problem.UNDEFINED,
                f"service {name!r} needs {other!r}, which is not a service of this stack",
                hint=nearest(other, services) if len(report.problems) < problem.MAX_PROBLEMS else "",
                path=path,
            )
        elif required:
            report.error(
                mark,
                problem.UNDEFINED,
                f"service {name!r} needs {other!r}, which no active profile switches on",
                hint=f"activate it with --profile {_profiles(services[other])[0]}",
                path=path,
            )
    return kept


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint with the known word that looks most like `word`; "" when none does."""
    import difflib

    # The time grows with the square of the words' lengths.
    likely = [other for other in islice(known, _NEAR) if len(other) <= _LONG]
    close = difflib.get_close_matches(word, likely, 1, 0.6) if len(word) <= _LONG else []
    return f"did you mean {close[0]!r}?" if close else ""
