"""`check`: is the stack file valid, and what in it is allowed and yet better looked at?"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.cli import diagnose, loading, say
from orchestrator.cli.arrange import demand
from orchestrator.cli.change import usage
from orchestrator.cli.scope import Scope
from orchestrator.model.errors import ExitCode
from orchestrator.stackfile import findings as rules
from orchestrator.stackfile import problem
from orchestrator.stackfile.enable import nearest
from orchestrator.stackfile.finding import Finding


def check(
    scope: Scope,
    *,
    services: tuple[str, ...],
    strict: bool,
    ignore: tuple[str, ...],
    format: str | None,  # noqa: A002 - the option's name
) -> int:
    """Print what is found. 0: nothing that fails, 1: an error (with `strict` also a warning), else the code
    of an invalid file.
    """
    ignored = _codes(ignore)
    more: tuple[str, ...] = ()
    try:
        found, runs = _found(scope, services, ignored)
    except problem.StackfileError as error:
        found = tuple(map(diagnose.of_problem, error.problems))
        code, more = int(error.exit_code), error.rest
    else:
        fatal = ("error", "warning") if strict else ("error",)
        failed = ExitCode.FAILED if runs else ExitCode.INVALID_STACK
        code = int(failed) if any(finding.severity in fatal for finding in found) else 0
    if format == "json":
        say.out(diagnose.as_json(found))
    elif format == "sarif":
        say.out(diagnose.sarif(found, _described(), _version()))
    else:
        colour = say.colourful(say.STDOUT, scope.ansi)
        say.out(
            diagnose.text(found, colour=colour) + "".join(f"{line}\n" for line in (*more, summary(found)))
        )
    return code


def _codes(words: tuple[str, ...]) -> frozenset[str]:
    """--ignore C101 --ignore public-port,C402. Raises UserError for a word that is neither code nor name."""
    codes = frozenset(code for word in words for code in word.split(",") if code)
    for code in sorted(codes):
        if code not in rules.KNOWN:
            hint = nearest(code, rules.KNOWN) or "docs/checks.md lists the codes"
            raise usage(f"--ignore: {code!r} is no finding", hint)
    return codes


def _found(
    scope: Scope, services: tuple[str, ...], ignored: frozenset[str]
) -> tuple[tuple[Finding, ...], bool]:
    """What there is to say, in the order of the file; and whether `up` would take the stack."""
    files = loading.UserFiles()
    located = scope.located(files)
    loaded = loading.load(files, located, services, strict=True, warn=False)
    demand(loaded.stack, services)
    refused = [
        refusal
        for refusal in loaded.refusals
        if not (services and refusal.service) or refusal.service in services
    ]
    found = [diagnose.of_problem(refusal) for refusal in refused]
    found += _chosen(rules.find(loaded.tree, loaded.stack, loaded.texts, ignore=ignored), services)
    if rules.WARNED not in ignored | rules.ignored_at_top(loaded.tree):
        for warning in (*located.warnings, *loaded.warnings):
            excerpt = problem.excerpt(loaded.texts, problem.mark_of(warning.place))
            found.append(diagnose.of_warning(warning, rules.WARNED, excerpt))
    return tuple(sorted(found, key=_order)), not refused


def _chosen(found: Sequence[Finding], services: tuple[str, ...]) -> list[Finding]:
    """Those about the services that were named; all when none was. Pure."""
    paths = tuple(f"services.{name}." for name in services)
    return [finding for finding in found if not paths or f"{finding.path}.".startswith(paths)]


def _order(finding: Finding) -> tuple[str, int, int]:
    place = finding.place
    return (place.file, place.line, place.column) if place else ("", 0, 0)


def summary(findings: Sequence[Finding]) -> str:
    """`1 error, 2 warnings`. Pure."""
    counts = {"error": 0, "warning": 0, "note": 0}
    for finding in findings:
        counts[finding.severity] += 1
    said = [f"{count} {word}{'s' if count > 1 else ''}" for word, count in counts.items() if count]
    return ", ".join(said) or "nothing found"


def _described() -> list[tuple[str, str, str, str]]:
    known = [(rule.code, rule.name, rule.severity, rule.because) for rule in rules.TABLE]
    loads = [(code, name, "error", sentence) for code, (name, sentence) in problem.CODES.items()]
    return [*known, (rules.WARNED, "warned", "warning", "Loading the file gives a warning."), *loads]


def _version() -> str:
    from orchestrator import __version__

    return __version__
