"""The files of containers, for as long as a command needs them: where they are, and how to get at them."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from orchestrator.api import client
from orchestrator.cli import say
from orchestrator.model.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from orchestrator.api.wire import Message
    from orchestrator.cli.scope import Scope
    from orchestrator.images.files.visiting import Entry


class Lent(NamedTuple):
    """One container. `init`: pidfd of its first process, -1 when it does not run."""

    id: str
    name: str
    image: str
    init: int
    definition: Any
    view: dict[str, Any]
    run: str

    def entry(self, *, bare: bool = False) -> Entry:
        """How the worker gets in; `bare`: to the root alone, without what is mounted into it."""
        from orchestrator.images.files.visiting import Entry

        parts = tuple(piece["target"] for piece in self.view["root"][1:])
        view = {**self.view, "mounts": [], "seed": [], "readonly": False} if bare else self.view
        return Entry(
            name=self.name,
            init=self.init,
            view=view,
            mountpoint=self.view["mountpoint"],
            run=self.run,
            bare=bare,
            targets=parts,
        )


@contextlib.contextmanager
def borrow(
    scope: Scope,
    word: str,
    *,
    many: bool = False,
    index: int | None = None,
    every: bool = False,
    pause: bool = False,
) -> Iterator[list[Lent]]:
    """The container that is meant, or with `many` all of a service; with `every` those of `run` as well. They
    don't start meanwhile, and stand still with `pause`. Raises PystackError."""
    from orchestrator.cli.steer import stack_of

    request: Message = {
        "verb": "files",
        "stack": stack_of(scope, (word,)),
        "word": word,
        "many": many,
        "index": index,
        "all": every,
        "pause": pause,
    }
    connection = client.find(scope.paths, request)
    if connection is None:
        raise UserError(f"no such service or container: {word}")
    with connection:
        try:
            yield _lent(connection, scope)
        finally:
            for fd in connection.received_fds:
                os.close(fd)


def _lent(connection: client.Connection, scope: Scope) -> list[Lent]:
    rows = []
    for message in connection.lines():
        if message.get("event") == "container":
            rows.append(message)
        elif message.get("event") == "warning":
            say.warning(str(message["message"]))
        elif message.get("event") == "ready":
            break
        elif "end" in message:
            client.outcome(message["end"])
    pidfds = iter(connection.received_fds)
    return [
        Lent(
            id=str(row["id"]),
            name=str(row["name"]),
            image=str(row["image"] or ""),
            init=next(pidfds) if row["running"] else -1,
            definition=row["definition"],
            view=row["view"],
            run=str(scope.paths.run_dir) if os.geteuid() else "",
        )
        for row in rows
    ]


def descriptors() -> int:
    """A descriptor of /proc/self/fd, and room for many: a tree takes one for each level."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
