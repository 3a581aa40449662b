"""`pystack check`: what is allowed and yet better looked at, as one ordered table of rules. Pure.

A finding is left out when --ignore names its code or name, or when `x-check-ignore` does, at the top of the
file or in the mapping that it is about (a service, a volume ...).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from orchestrator.model.stack import Stack
from orchestrator.stackfile import doubts, idle, risks
from orchestrator.stackfile.enable import nearest
from orchestrator.stackfile.finding import Finding, Found, Look, Path, Rule, items
from orchestrator.stackfile.problem import Mark, excerpt, place_of
from orchestrator.stackfile.tree import Map, Node, dotted

IGNORE = "x-check-ignore"
LIMIT = 1000
"""Findings of one stack. Who has more has a generated file, and has seen enough."""
WARNED = "W001"
"""The code of what loading warns about."""


def _unknown_ignored(look: Look) -> Iterator[Found]:
    for path, node in _ignoring(look.tree):
        for word, mark in _ignored(node):
            if word not in KNOWN:
                yield Found(
                    path=(*path, IGNORE),
                    mark=mark,
                    message=f"{word!r} is no finding that could be left out",
                    hint=nearest(word, KNOWN),
                )


TABLE: tuple[Rule, ...] = (
    Rule(
        code="C001",
        name="unknown-ignore",
        severity="warning",
        because=f"`{IGNORE}` names a code that does not exist, so it hides nothing.",
        hint="docs/checks.md lists the codes",
        find=_unknown_ignored,
    ),
    Rule(
        code="C101",
        name="unpinned-image",
        severity="warning",
        because="An image without a tag, or with `latest`, is another one tomorrow.",
        hint="name a version (nginx:1.29), or a digest: `pystack config --lock-image-digests` prints them",
        find=risks.unpinned_image,
    ),
    Rule(
        code="C102",
        name="unnamed-build",
        severity="note",
        because="What is built without an `image:` has no version to go back to.",
        hint="give it one with `image: NAME:VERSION` beside `build:`",
        find=risks.unnamed_build,
    ),
    Rule(
        code="C201",
        name="secret-in-environment",
        severity="warning",
        because="A password or key stands in the file as the value of a variable.",
        hint="use `secrets:`, or a variable (${NAME:?}) that the file does not set",
        find=risks.secret_in_environment,
        secret=True,
    ),
    Rule(
        code="C202",
        name="secret-in-text",
        severity="error",
        because="A key of a known service, or a private key, stands in the file.",
        hint="take it back where it was made, since it is known now; use `secrets:` for the new one",
        find=risks.secret_in_text,
        secret=True,
    ),
    Rule(
        code="C203",
        name="secret-in-build",
        severity="warning",
        because="Build arguments stay in the history of the image, where everybody who has it can read them.",
        hint="use `build: {secrets: [...]}`",
        find=risks.secret_in_build,
        secret=True,
    ),
    Rule(
        code="C301",
        name="public-port",
        severity="note",
        because="A port without an address is published on every network of the machine.",
        hint="",
        find=risks.public_port,
    ),
    Rule(
        code="C302",
        name="public-store",
        severity="warning",
        because="A database, a queue or an engine's API is published on every network of the machine.",
        hint="",
        find=risks.public_store,
    ),
    Rule(
        code="C303",
        name="duplicate-port",
        severity="error",
        because="Two services want one port of the machine (a note when profiles keep them apart).",
        hint="give one of them another port",
        find=doubts.duplicate_port,
    ),
    Rule(
        code="C304",
        name="scarce-port",
        severity="error",
        because="A service has more replicas than ports of the machine.",
        hint="",
        find=doubts.scarce_port,
    ),
    Rule(
        code="C305",
        name="crowded-network",
        severity="error",
        because="A network has more containers than addresses (4,093 where the file names no range).",
        hint="give it a larger `ipam` subnet",
        find=doubts.crowded_network,
    ),
    Rule(
        code="C401",
        name="privileged",
        severity="warning",
        because="A privileged container is no boundary: its root is root of the machine.",
        hint="`cap_add:` and `devices:` give only what is needed",
        find=risks.privileged,
    ),
    Rule(
        code="C402",
        name="engine-socket",
        severity="warning",
        because="Whoever can talk to a container engine can start a container that may do everything.",
        hint="leave it out; nothing in pystack needs it",
        find=risks.engine_socket,
    ),
    Rule(
        code="C403",
        name="strong-capability",
        severity="warning",
        because="Some capabilities lead to all others.",
        hint="name a weaker one, or none",
        find=risks.strong_capability,
    ),
    Rule(
        code="C404",
        name="host-namespace",
        severity="warning",
        because="A container in a namespace of the machine sees and touches what is not its own.",
        hint="leave it out, if the service can do without",
        find=risks.host_namespace,
    ),
    Rule(
        code="C405",
        name="host-directory",
        severity="warning",
        because="A directory of the system is mounted, so the container can change or read the machine.",
        hint="mount only the file or directory that is needed, with `:ro`",
        find=risks.host_directory,
    ),
    Rule(
        code="C406",
        name="unconfined",
        severity="warning",
        because="A protection that is on by default is switched off.",
        hint="leave it on, or give a profile of its own",
        find=risks.unconfined,
    ),
    Rule(
        code="C407",
        name="raw-device",
        severity="warning",
        because="A disk or the memory of the machine is handed over, past the permissions of files.",
        hint="mount what is needed of it",
        find=risks.raw_device,
    ),
    Rule(
        code="C501",
        name="missing-healthcheck",
        severity="warning",
        because="Something waits for `service_healthy`, and the file does not say when that is.",
        hint="",
        find=doubts.missing_healthcheck,
    ),
    Rule(
        code="C502",
        name="never-healthy",
        severity="error",
        because="Something waits for `service_healthy` of a service that has no health check.",
        hint="",
        find=doubts.never_healthy,
    ),
    Rule(
        code="C503",
        name="unawaited-job",
        severity="warning",
        because="A service does not wait for the end of a job (migrate, init ...) that it depends on.",
        hint="",
        find=doubts.unawaited,
    ),
    Rule(
        code="C504",
        name="never-completes",
        severity="error",
        because="Something waits for the end of a service that is always started again.",
        hint="",
        find=doubts.never_completes,
    ),
    Rule(
        code="C505",
        name="killed",
        severity="warning",
        because="`stop_signal: SIGKILL` leaves no chance to finish.",
        hint="SIGTERM is the default; `stop_grace_period:` bounds the wait",
        find=doubts.killed,
    ),
    Rule(
        code="C601",
        name="shell-words",
        severity="warning",
        because="`&&`, `|`, `>` or `cd` stand in a command that no shell runs.",
        hint='run it in a shell: ["sh", "-c", "..."]; in a health check: ["CMD-SHELL", "..."]',
        find=doubts.shell_words,
    ),
    Rule(
        code="C602",
        name="shell-variable",
        severity="warning",
        because="A variable of the container (`$$NAME`) stands in a command that no shell runs.",
        hint='run it in a shell: ["sh", "-c", "..."]; in a health check: ["CMD-SHELL", "..."]',
        find=doubts.shell_variable,
    ),
    Rule(
        code="C701",
        name="unused",
        severity="note",
        because="No service uses a network, volume, config, secret or model.",
        hint="leave it out, or look for a misspelt name",
        find=doubts.unused,
    ),
    Rule(
        code="C801",
        name="never-unhealthy",
        severity="warning",
        because="`x-on-unhealthy` says what to do about a service that has no health check.",
        hint="",
        find=idle.never_unhealthy,
    ),
    Rule(
        code="C802",
        name="nothing-to-change",
        severity="warning",
        because="`x-on-change` says what to do about content that the service does not have.",
        hint="it is about `configs:` and `secrets:`; a mounted file changes by itself, and nobody is told",
        find=idle.nothing_to_change,
    ),
    Rule(
        code="C803",
        name="nothing-to-drain",
        severity="warning",
        because="`x-drain` is about connections to a published port that containers of a service share.",
        hint='publish a single port (no range, no `mode: host`), as "8080:80"',
        find=idle.nothing_to_drain,
    ),
    Rule(
        code="C804",
        name="never-start-first",
        severity="warning",
        because="Two containers of the service can't live at a time, so the old one stops first.",
        hint="take that away, or say `order: stop-first`",
        find=idle.never_start_first,
    ),
    Rule(
        code="C805",
        name="never-back",
        severity="note",
        because="A `rollback_config` says how to go back, and nothing says when.",
        hint="`update_config: {failure_action: rollback}` goes back when an update fails",
        find=idle.never_back,
    ),
    Rule(
        code="C806",
        name="ratio-ignored",
        severity="warning",
        because="`failure_action: continue` puts up with all failures, whatever `max_failure_ratio` is.",
        hint="`pause` or `rollback` come into force when more have failed than that",
        find=idle.ratio_ignored,
    ),
)

KNOWN: tuple[str, ...] = (
    *(word for rule in TABLE for word in (rule.code, rule.name)),
    WARNED,
)
"""What may be ignored: codes and names."""


def find(
    tree: Map, stack: Stack, texts: Mapping[str, str], *, ignore: Collection[str] = ()
) -> tuple[Finding, ...]:
    """What the rules find, in the order of the file, at most LIMIT."""
    look = Look(tree=tree, active=frozenset(stack.services), texts=texts)
    found: list[tuple[tuple[object, ...], Finding]] = []
    for rule in TABLE:
        if rule.code in ignore or rule.name in ignore:
            continue
        for one in rule.find(look):
            if len(found) < LIMIT and not _is_ignored(rule, one, tree):
                found.append(((one.mark or ("", 0, 0), rule.code), _finding(rule, one, texts)))
    return tuple(finding for _, finding in sorted(found, key=lambda row: row[0]))


def _finding(rule: Rule, found: Found, texts: Mapping[str, str]) -> Finding:
    return Finding(
        code=rule.code,
        severity=found.severity or rule.severity,
        message=found.message,
        place=place_of(found.mark),
        path=dotted(found.path),
        hint=found.hint or rule.hint,
        excerpt=() if rule.secret else excerpt(texts, found.mark),
    )


def ignored_at_top(tree: Map) -> frozenset[str]:
    """What the file itself leaves out everywhere."""
    return frozenset(word for word, _ in _ignored(tree))


def _is_ignored(rule: Rule, found: Found, tree: Map) -> bool:
    node: Node = tree
    for step in ("", *found.path):
        if step != "":
            node = node.get(step) if isinstance(node, Map) and isinstance(step, str) else None
        if not isinstance(node, Map):
            return False
        if any(word in (rule.code, rule.name) for word, _ in _ignored(node)):
            return True
    return False


def _ignored(node: Map) -> Iterator[tuple[str, Mark | None]]:
    """A word, a list of words, or a mapping of words to reasons."""
    said = node.get(IGNORE)
    if isinstance(said, str):
        yield said, node.mark(IGNORE)
    elif isinstance(said, Map):
        for word in said:
            yield word, said.key_mark(word)
    for _, entry, mark in items(said):
        if isinstance(entry, str):
            yield entry, mark


def _ignoring(tree: Map) -> Iterator[tuple[Path, Map]]:
    """The mappings that may say what to leave out."""
    yield (), tree
    for noun in ("services", "networks", "volumes", "configs", "secrets", "models"):
        section = tree.get(noun)
        for name, body in section.items() if isinstance(section, Map) else ():
            if isinstance(body, Map):
                yield (noun, name), body
