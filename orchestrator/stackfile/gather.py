"""The documents of a part -> one tree: variables, `extends`, `include`, then the files onto each other.

That is docker compose's order: variables are filled in file by file, before anything is merged; a service is
written out before the files that a document includes come in; each document is complete when it is merged
onto those before. The schemas are asked after each step, so what one file says wrong is told even when a
later file replaces it; the last result is for the caller to check. A part is what is loaded as one: the main
files, or the files of an entry of `include`.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.stackfile import problem
from orchestrator.stackfile.check import check_ports
from orchestrator.stackfile.combine import Layers, bare_map
from orchestrator.stackfile.intake import Document, Intake, Scope
from orchestrator.stackfile.tree import Map, Tagged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.stackfile.extends import Book
    from orchestrator.stackfile.trail import Layer, Trail


MAX_CHECKED = 500_000
"""Values that merging may copy (see combine.Layers) until only the last result of it is checked."""


def gather(documents: Sequence[Document], scope: Scope, intake: Intake, trail: Trail | None = None) -> Map:
    """One tree, as it was written but for `extends` and `include`. What the schemas say against a step on the
    way to it goes to the report. Raises StackfileError for what leaves no tree.
    """
    for document in documents:
        intake.take(document.tree, (document.file, 1, 1, 0))
    return _gather(documents, scope, intake, trail.layers if trail is not None else None)


def _gather(documents: Sequence[Document], scope: Scope, intake: Intake, layers: list[Layer] | None) -> Map:
    report = intake.report
    trees = [intake.filled(document, scope.variables) for document in documents]
    report.settle()
    books: dict[str, Book | None] = {}
    stack: Layers | None = None
    for number, (document, tree) in enumerate(zip(documents, trees, strict=True), 1):
        # the result of the main files is left to the caller, who asks more of it
        checked = bool(scope.open) or number < len(documents)
        before = len(report.problems)
        if "services" in tree and tree["services"] is None:
            report.error(tree.mark("services"), problem.WRONG_VALUE, "services must be a mapping, not empty")
        layer = _layer(document, tree, scope, layers)
        written = _extend(tree, document, scope, intake, books, layer) if _extends(tree) else tree
        if len(report.problems) > before:
            report.settle()
        whole = _include(written, document, scope, intake, layer) if "include" in written else written
        if checked and not intake.literal:
            check_ports(written, report)
        if stack is not None:
            _lay(stack, whole, intake)
            if checked and stack.copied < MAX_CHECKED:
                intake.check(stack.changed_by(whole), "step")
            continue
        bare = bare_map(written) if document.tagged else written
        if checked:
            # what is included has been checked on its own
            intake.check(bare if whole is written else bare.without("include"), "step")
        stack = Layers(bare if whole is written else bare_map(whole))
    return stack.result if stack is not None else Map()


def _lay(stack: Layers, tree: Map, intake: Intake) -> None:
    """A further document onto those before."""
    from orchestrator.stackfile.clash import forget, tell

    stack.lay(forget(stack.result, tree, intake.report))
    if stack.clashes:
        for clash in stack.clashes:
            tell(clash, intake.report)
        stack.clashes.clear()


def _layer(document: Document, tree: Map, scope: Scope, layers: list[Layer] | None) -> Layer | None:
    """The document for the trail, if there is one."""
    if layers is None:
        return None
    from orchestrator.stackfile.trail import Layer

    layer = Layer(file=document.file, written=document.tree, tree=tree, variables=scope.variables)
    layers.append(layer)
    return layer


def _extends(tree: Map) -> bool:
    """Has any service a base? Most files have none, and need not import what writes them out."""
    services = tree.get("services")
    if isinstance(services, Tagged):
        services = services.value
    for service in services.values() if isinstance(services, Map) else ():
        own = service.value if isinstance(service, Tagged) else service
        if isinstance(own, Map) and "extends" in own:
            return True
    return False


def _extend(
    tree: Map,
    document: Document,
    scope: Scope,
    intake: Intake,
    books: dict[str, Book | None],
    layer: Layer | None,
) -> Map:
    from orchestrator.stackfile.extends import Book, services_of, write_out

    book = Book(
        services=services_of(tree),
        file=document.file,
        path=document.path,
        folder=scope.folder,
        variables=scope.variables,
        intake=intake,
        books=books,
        via=scope.via,
        layers=[layer] if layer is not None else [],
    )
    return write_out(tree, book)


def _include(tree: Map, document: Document, scope: Scope, intake: Intake, layer: Layer | None) -> Map:
    """With what the document includes."""
    from orchestrator.stackfile import include

    result = tree.without("include")
    own: set[str] = set()
    for entry in include.entries(tree, intake.report):
        documents, inner = include.open_entry(entry, document, scope, intake)
        part = _gather(documents, inner, intake, _part(layer, inner))
        part = include.close_part(part, inner, scope, intake)
        include.bring_in(result, part, own, scope, intake)
    return result


def _part(layer: Layer | None, inner: Scope) -> list[Layer] | None:
    """Where the layers of an included part go."""
    if layer is None:
        return None
    from orchestrator.stackfile.trail import Part

    part = Part(layers=[], via=inner.via[0])
    layer.parts.append(part)
    return part.layers
