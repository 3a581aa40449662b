"""The page of everything that `pystack check` may find, made of the tables of rules and of error codes.

docs/checks.md is this text; a test compares them.
"""

from __future__ import annotations

from orchestrator.stackfile.findings import IGNORE, TABLE, WARNED
from orchestrator.stackfile.problem import CODES

_PAGE = """# What `pystack check` finds

`pystack check` loads the stack as `up` would, and then looks at what is allowed and yet better looked at.
Made from the table in `orchestrator/stackfile/findings.py`.

| code | name | severity | why | what to do |
|---|---|---|---|---|
"""
_REST = (
    f"""
What loading warns about has the code {WARNED}. What makes a stack file invalid has one of these:

| code | name | what |
|---|---|---|
"""
    + "".join(f"| {code} | {name} | {sentence} |\n" for code, (name, sentence) in CODES.items())
    + f"""
**Severities.** An `error` can't work or must not be so, and makes the exit code 1; so does a `warning` with
`--strict`; a `note` never does. An invalid file is 15, a missing one 14 (see [exit-codes.md](exit-codes.md)).

**Leaving out.** `--ignore CODE` (or its name) for one run. In the file, at the top for everything or in a
service, network, volume, config or secret for that one:

    services:
      proxy:
        {IGNORE}: [C402]

or with the reasons, for whoever reads it: `{IGNORE}: {{C402: it lists the containers}}`.

**For programs.** `--format json` prints a list of objects with `file`, `range` (`start` and `end`, each with
`line` and `column`, counted from 1; the end is behind the last character), `severity`, `code`, `message`,
`path`, `hint` and `via` (how an included or extended file came in); what there is not is left out.
`--format sarif` prints SARIF 2.1.0. Both have the errors of an invalid file, too. `pystack config --format
json` tells its errors in the same form, on standard error. See also [editors.md](editors.md).
"""
)


def page() -> str:
    """The page as Markdown."""
    rows = [
        f"| {rule.code} | {rule.name} | {rule.severity} | {rule.because} | {_cell(rule.hint)} |"
        for rule in TABLE
    ]
    return _PAGE + "\n".join(rows) + "\n" + _REST


def _cell(text: str) -> str:
    return text.replace("|", "\\|") or "the finding says"
