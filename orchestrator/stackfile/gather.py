"""The documents of a part -> one tree: variables, `extends`, `include`, then the files onto each other.

That is docker compose's order: variables are filled in file by file, before anything is merged; a service is
written out before the files that a document includes come in; each document is complete when it is merged
onto those before. A part is what is loaded as one: the main files, or the files of an entry of `include`.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.stackfile import problem
from orchestrator.stackfile.combine import combine
from orchestrator.stackfile.intake import Document, Intake, Scope
from orchestrator.stackfile.tree import Map, Tagged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.stackfile.extends import Book
    from orchestrator.stackfile.trail import Layer, Trail


def gather(documents: Sequence[Document], scope: Scope, intake: Intake, trail: Trail | None = None) -> Map:
    """One tree, as it was written but for `extends` and `include`. Raises StackfileError."""
    for document in documents:
        intake.take(document.tree, (document.file, 1, 1, 0))
    return _gather(documents, scope, intake, trail.layers if trail is not None else None)


def _gather(documents: Sequence[Document], scope: Scope, intake: Intake, layers: list[Layer] | None) -> Map:
    report = intake.report
    trees = [intake.filled(document, scope.variables) for document in documents]
    report.settle()
    books: dict[str, Book | None] = {}
    whole: list[Map] = []
    for document, tree in zip(documents, trees, strict=True):
        if "services" in tree and tree["services"] is None:
            report.error(tree.mark("services"), problem.WRONG_VALUE, "services must be a mapping, not empty")
        layer = _layer(document, tree, scope, layers)
        written = _extend(tree, document, scope, intake, books, layer) if _extends(tree) else tree
        report.settle()
        whole.append(_include(written, document, scope, intake, layer) if "include" in written else written)
    report.settle()
    if len(whole) == 1 and whole[0] is trees[0] and not documents[0].tagged:
        return trees[0]
    return combine(whole)


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
