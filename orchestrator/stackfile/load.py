"""Text -> Stack: the whole way through the phases, and the entry for other rooms."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping, Sequence

from orchestrator.model import graph
from orchestrator.model import stack as model
from orchestrator.model.errors import UserError
from orchestrator.model.frozen import dataclass, field
from orchestrator.model.names import STACK_NAME, normalise_stack_name
from orchestrator.stackfile import dotenv as env_format
from orchestrator.stackfile import problem
from orchestrator.stackfile.check import check
from orchestrator.stackfile.complete import Setting, complete, unattached
from orchestrator.stackfile.files import Files
from orchestrator.stackfile.forms import Spot
from orchestrator.stackfile.gather import gather
from orchestrator.stackfile.intake import Document, Intake, Scope, documents
from orchestrator.stackfile.interpolate import InterpolationError, Variables, expand
from orchestrator.stackfile.problem import Problem, Report, StackfileError, Warned, reject
from orchestrator.stackfile.read import Source
from orchestrator.stackfile.resolve import resolve
from orchestrator.stackfile.shorthand import lengthen
from orchestrator.stackfile.sift import sift
from orchestrator.stackfile.switches import ALL, Switches
from orchestrator.stackfile.tree import Map, Plain, Tagged, plain
from orchestrator.stackfile.unsupported import judge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.stackfile.trail import Trail

NAME_LIMIT = 100
"""Characters of a stack's name; the schemas allow as many in other names."""

__all__ = ["Files", "Given", "Loaded", "Source", "StackfileError", "demand_runnable", "load"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What loading gives."""

    stack: model.Stack
    completed: Map
    """Everything that is used, written out."""
    warnings: tuple[Warned, ...]
    refusals: tuple[Problem, ...] = ()
    """What can't be run. Commands that run services raise what concerns them, see `demand_runnable`."""
    tree: Map = field(default_factory=Map)
    """The merged tree in long forms, with its places: also what is switched off or used by nothing."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """The text of every file that was read, by the name that places show."""

    @property
    def canonical(self) -> dict[str, Plain]:
        """What `config` prints: `completed`, each $ doubled so that it could be loaded again."""
        bare = plain(self.completed.without("version"), lambda text: text.replace("$", "$$"))
        assert isinstance(bare, dict)
        return unattached(bare)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a load depends on beside the texts."""

    files: Files
    environment: Mapping[str, str]
    """It wins over `dotenv`."""
    working_dir: str
    """The project directory, absolute."""
    name: str | None = None
    """From the command line or COMPOSE_PROJECT_NAME; must be a proper name."""
    profiles: Sequence[str] = ()
    services: Sequence[str] = ()
    """Named on the command line, and switched on whatever their profiles."""
    dotenv: Mapping[str, str] | Sequence[Source] = ()
    strict: bool = True
    """Commands that only take things away pass False: env files and variables of secrets may be missing."""
    cwd: str = ""
    """What paths of sources count from (else the project directory); messages name files below it shortly."""


def load(sources: Sequence[Source], given: Given, trail: Trail | None = None) -> Loaded:
    """The stack that `sources` (merged left to right) describe.

    `trail` is filled, for `trail.explain`. Raises StackfileError with every problem found.
    """
    begun = begin(sources, given, trail)
    report, setting = begun.report, begun.setting
    tree = begun.tree
    check(tree, report)
    if report.problems:
        # tell what the next phase finds in the rest, too
        tree = sift(tree, report.problems)
    tree = lengthen(tree, Spot(report))
    report.settle()
    completed = complete(tree, setting, report)
    judge(completed.tree, report)
    stack = resolve(completed, setting, tuple(source.path for source in sources), report)
    report.settle()
    _order(stack, report)
    if trail is not None:
        trail.environment = given.environment
        trail.final = completed.tree
    return Loaded(
        stack=stack,
        completed=completed.tree,
        warnings=tuple(report.warnings),
        refusals=tuple(report.refusals),
        tree=tree,
        texts=report.texts,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The files of a stack as one tree, not yet checked, and what its meaning depends on."""

    tree: Map
    setting: Setting
    report: Report


def begin(
    sources: Sequence[Source], given: Given, trail: Trail | None = None, switches: Switches = ALL
) -> Begun:
    """The first half of `load`, and of `outline`. Raises StackfileError."""
    report = Report()
    if given.name is not None and not STACK_NAME.fullmatch(given.name):
        raise reject(
            f"{given.name!r} is not a name for a stack",
            code=problem.NAME,
            hint=f"small letters, digits, - and _: {normalise_stack_name(given.name) or 'mystack'!r}",
        )
    variables = _variables(given.environment, given.dotenv, report)
    found = [
        document
        for source in sources
        for document in documents(source, _path(source.path, given.cwd or given.working_dir), report)
    ]
    report.settle()
    if not any(document.tree for document in found):
        raise _empty(sources)
    stack_name = given.name or _name(found, variables, given.working_dir)
    if len(stack_name) > NAME_LIMIT:
        raise reject(
            f"the name of the stack, {stack_name[:20]}..., is longer than {NAME_LIMIT} characters",
            code=problem.NAME,
            hint="choose one with -p NAME",
        )
    variables.setdefault("COMPOSE_PROJECT_NAME", stack_name)
    intake = Intake(files=given.files, report=report, cwd=given.cwd, literal=not switches.interpolate)
    tree = gather(found, Scope(folder=given.working_dir, variables=variables), intake, trail)
    if not tree:
        report.settle()
        raise _empty(sources)
    setting = Setting(
        name=stack_name,
        working_dir=given.working_dir,
        files=given.files,
        variables=variables,
        contents=intake.contents,
        profiles=tuple(given.profiles),
        services=tuple(given.services),
        strict=given.strict,
        switches=switches,
    )
    return Begun(tree=tree, setting=setting, report=report)


def demand_runnable(loaded: Loaded, services: Collection[str] | None = None) -> None:
    """Raises StackfileError with what keeps these services (all: None) from being run as the file says."""
    found = [
        refusal
        for refusal in loaded.refusals
        if not refusal.service or services is None or refusal.service in services
    ]
    if found:
        raise StackfileError(found)


def _variables(
    environment: Mapping[str, str], dotenv: Mapping[str, str] | Sequence[Source], report: Report
) -> dict[str, str]:
    """The environment over .env: it wins even where it is empty."""
    if isinstance(dotenv, Mapping):
        return {**dotenv, **environment}
    below: dict[str, str] = {}
    for source in dotenv:
        below.update(env_format.parse(source, lambda key: environment.get(key, below.get(key)), report))
    return {**below, **environment}


def _empty(sources: Sequence[Source]) -> StackfileError:
    mark = (sources[0].path, 1, 1, 0) if sources else None
    return reject(
        "the stack file is empty", code=problem.EMPTY, mark=mark, hint="it needs at least `services:`"
    )


def _path(path: str, base: str) -> str:
    return path if path == "-" else posixpath.normpath(posixpath.join(base, path))


def _name(documents: Sequence[Document], variables: Mapping[str, str], working_dir: str) -> str:
    """The last file's `name:`, else the project directory's, made proper. Raises StackfileError."""
    for document in (one.tree for one in reversed(documents)):
        said = document.get("name")
        if isinstance(said, Tagged):
            if said.tag == "reset":
                break
            said = said.value
        if not isinstance(said, str) or not said:
            continue
        mark = document.mark("name")
        try:
            said = expand(said, Variables(values=variables, missing=lambda _name: None))
        except InterpolationError as error:
            raise reject(error.message, code=problem.VARIABLE, mark=mark, hint=error.hint) from None
        proper = normalise_stack_name(said)
        if not proper:
            raise reject(f"nothing of {said!r} can be the name of a stack", code=problem.NAME, mark=mark)
        return proper
    proper = normalise_stack_name(working_dir.rstrip("/").rpartition("/")[2])
    if not proper:
        raise reject(
            f"the directory {working_dir!r} gives the stack no name",
            code=problem.NAME,
            hint="choose one with -p NAME or `name: NAME` in the file",
        )
    return proper


def _order(stack: model.Stack, report: Report) -> None:
    """Services that need each other in a circle can't be started. Raises StackfileError."""
    try:
        graph.order(stack)
    except UserError as error:
        message = error.message
        for service in stack.services.values():
            for place in (need.place for need in graph.needs(service)):
                if place is not None and message.startswith(f"{place}: "):
                    mark = (place.file, place.line, place.column, place.end_column or 0)
                    report.error(mark, problem.CYCLE, message.removeprefix(f"{place}: "), hint=error.hint)
                    report.settle()
        raise reject(message, code=problem.CYCLE, hint=error.hint) from None
