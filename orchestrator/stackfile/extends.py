"""Services that extend others: of their own document, or of another file. Compose Specification "extends".

The base is merged below the service by the rules of several files. Its paths count from its own file; what
it needs (networks, volumes, services) is not brought along. Services of an included file, or of the files
before, can't be extended without naming their file (docker compose 2.40.3, observed).
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from orchestrator.model.frozen import dataclass, field
from orchestrator.stackfile import problem
from orchestrator.stackfile.check import check, check_ports
from orchestrator.stackfile.clash import tell
from orchestrator.stackfile.combine import Clash, bare_map, extend, pile
from orchestrator.stackfile.enable import nearest
from orchestrator.stackfile.intake import MAX_CHAIN, Intake, absolute, at, remote
from orchestrator.stackfile.paths import move
from orchestrator.stackfile.problem import Mark
from orchestrator.stackfile.trail import Base, Layer
from orchestrator.stackfile.tree import Map, Node, Tagged

_TOO_LONG = f"more than {MAX_CHAIN} services extend one another"
_Chain = tuple[tuple[str, str, str], ...]
"""The services that are being written out: path of the file, name, file as shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """The services of one document, or of one file that others extend, each written out once."""

    services: Map
    file: str
    path: str
    folder: str
    """Where the relative paths of `extends.file` count from."""
    variables: Mapping[str, str]
    intake: Intake
    books: dict[str, Book | None]
    """The other files, by path; shared by all books with the same variables."""
    via: tuple[str, ...] = ()
    layers: list[Layer] = field(default_factory=list)
    """For the trail; empty without one."""
    done: dict[str, Map] = field(default_factory=dict)
    bare: dict[str, Map] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    """What could not be written out: told once, not again for each service that stands on it."""
    depth: dict[str, int] = field(default_factory=dict)
    """How many services a written out one stands on."""


def write_out(tree: Map, book: Book) -> Map:
    """The document with every service written out; what is wrong goes to the report."""
    section = tree.get("services")
    services = section.value if isinstance(section, Tagged) else section
    if not isinstance(services, Map):
        return tree
    names = [
        name for name, service in book.services.items() if isinstance(service, Map) and "extends" in service
    ]
    if not names:
        return tree
    fresh = services.copy()
    for name in names:
        written = _service(book, name, ())
        if written is not None:
            tagged = services[name]
            fresh[name] = Tagged(tagged.tag, written) if isinstance(tagged, Tagged) else written
    result = tree.copy()
    result["services"] = Tagged(section.tag, fresh) if isinstance(section, Tagged) else fresh
    return result


def services_of(tree: Map) -> Map:
    """The services of a document: those that are reset are not there."""
    section = tree.get("services")
    services = section.value if isinstance(section, Tagged) and section.tag == "override" else section
    if not isinstance(services, Map):
        return Map()
    if not any(isinstance(service, Tagged) for service in services.values()):
        return services
    fresh = Map()
    for name, service in services.items():
        if not isinstance(service, Tagged):
            fresh.take(name, services)
        elif service.tag == "override":
            fresh.put(name, service.value, services.at.get(name), services.key_at.get(name))
    return fresh


def _service(book: Book, name: str, chain: _Chain) -> Map | None:
    """A service on top of what it extends; None when there is a problem, which was told."""
    if name in book.done:
        return book.done[name]
    if name in book.failed:
        return None
    service = book.services.get(name)
    if not isinstance(service, Map):
        book.intake.report.error(
            book.services.mark(name), problem.WRONG_VALUE, f"services.{name} must be a mapping"
        )
        return None
    written: Map | None = service
    if "extends" in service:
        written = _extended(book, name, service, chain)
    if written is None:
        book.failed.add(name)
    else:
        book.done[name] = written
    return written


def _extended(book: Book, name: str, service: Map, chain: _Chain) -> Map | None:
    own = service.without("extends")
    said, mark = service["extends"], service.mark("extends")
    if isinstance(said, Tagged):
        if said.tag == "reset":
            return own
        said = said.value
    reference = _reference(book, name, said, mark)
    if reference is None:
        return None
    base_name, file = reference
    chain = (*chain, (book.path, name, book.file))
    via = f"extended by service {name} in {at(mark)}"
    base_book = book if file is None else _other(book, file, said, mark, (via, *book.via))
    if base_book is None or _goes_round(book, base_book, base_name, chain, mark):
        return None
    if base_name not in base_book.services:
        where = "" if base_book is book else f" in {base_book.file}"
        book.intake.report.error(
            _inner(said, "service", mark),
            problem.UNDEFINED,
            f"service {name!r} extends {base_name!r}, which is not a service{where}",
            hint=_missing_hint(book, base_book, base_name),
            path=f"services.{name}.extends",
        )
        return None
    base = _base(base_book, base_name, chain)
    if base is None:
        return None
    for layer in book.layers:
        if name in services_of(layer.tree):
            layer.bases[name] = Base(service=base_name, layers=base_book.layers, via=via)
    book.intake.take(base, mark)
    book.depth[name] = base_book.depth.get(base_name, 0) + 1
    if book.depth[name] > MAX_CHAIN:
        book.intake.report.error(mark, problem.LIMIT, _TOO_LONG)
        return None
    try:
        return extend(base, own, name)
    except Clash as clash:
        tell(clash, book.intake.report)
        return None


def _base(book: Book, name: str, chain: _Chain) -> Map | None:
    """A service as others build on it: its tags have had their effect."""
    if name not in book.bare:
        written = _service(book, name, chain)
        if written is None:
            return None
        book.bare[name] = bare_map(written)
    return book.bare[name]


def _reference(book: Book, name: str, said: Node, mark: Mark | None) -> tuple[str, str | None] | None:
    """The service and the file that `extends` names; None when it has the wrong shape, which was told."""
    if isinstance(said, str):
        return said, None
    found: tuple[str, str | None] | None = None
    if isinstance(said, Map):
        service, file = said.get("service"), said.get("file")
        if isinstance(service, str) and (file is None or isinstance(file, str)):
            found = service, file
            if said.keys() <= {"service", "file"}:
                return found
    services, service_tree, tree = Map(), Map(), Map()
    service_tree.put("extends", said, mark)
    services.put(name, service_tree, mark)
    tree.put("services", services, mark)
    before = len(book.intake.report.problems)
    check(tree, book.intake.report)
    if found is None and len(book.intake.report.problems) == before:
        book.intake.report.error(mark, problem.WRONG_VALUE, f"services.{name}.extends must name a service")
    return found


def _inner(said: Node, key: str, mark: Mark | None) -> Mark | None:
    return (said.mark(key) or mark) if isinstance(said, Map) else mark


def _missing_hint(book: Book, base_book: Book, name: str) -> str:
    if near := nearest(name, base_book.services):
        return near
    if base_book is book:
        return "a service of another file is named with its file: extends: {service: NAME, file: FILE}"
    return ""


def _goes_round(book: Book, base_book: Book, name: str, chain: _Chain, mark: Mark | None) -> bool:
    """Services that extend one another in a circle, or without an end."""
    if len(chain) > MAX_CHAIN:
        book.intake.report.error(mark, problem.LIMIT, _TOO_LONG)
        return True
    begin = next(
        (at for at, (path, service, _) in enumerate(chain) if (path, service) == (base_book.path, name)), None
    )
    if begin is None:
        return False
    ring = [*chain[begin:], chain[begin]]
    files = {path for path, _, _ in ring}
    words = [service if len(files) == 1 else f"{service} in {file}" for _, service, file in ring]
    book.intake.report.error(
        mark, problem.CYCLE, f"services extend each other in a circle: {' -> '.join(words)}"
    )
    return True


def _other(book: Book, file: str, said: Node, mark: Mark | None, via: tuple[str, ...]) -> Book | None:
    """The services of another file, read and interpolated once; None when it has none, which was told."""
    intake, place = book.intake, _inner(said, "file", mark)
    if remote(file):
        message = f"{file:.80} is on another machine: such files are not supported"
        intake.report.error(place, problem.UNSUPPORTED, message, hint="fetch it, and name the copy")
        return None
    path = absolute(file, book.folder, intake.files.home)
    if path not in book.books:
        book.books[path] = _open(book, path, place, via)
    found = book.books[path]
    if found is not None and not found.services:
        intake.report.error(place, problem.UNDEFINED, f"{found.file} has no services to extend")
        return None
    return found


def _open(book: Book, path: str, mark: Mark | None, via: tuple[str, ...]) -> Book | None:
    intake = book.intake
    documents = intake.documents(path, mark, via)
    if documents is None:
        return None
    trees = [intake.filled(document, book.variables) for document in documents]
    for tree in trees:
        intake.check(bare_map(tree), "read")
        check_ports(bare_map(tree), intake.report)
    intake.report.settle()
    folder = posixpath.dirname(path)
    try:
        tree = move(pile(trees), folder, intake.files.home)
    except Clash as clash:
        tell(clash, intake.report)
        return None
    intake.take(tree, mark)
    return Book(
        services=services_of(tree),
        file=documents[0].file if documents else intake.shown(path),
        path=path,
        folder=folder,
        variables=book.variables,
        intake=intake,
        books=book.books,
        via=via,
        layers=[
            Layer(file=document.file, written=document.tree, tree=tree, variables=book.variables)
            for document, tree in zip(documents, trees, strict=True)
        ]
        if book.layers
        else [],
    )
