"""Configs and secrets of a container get new content, and its process is told by a signal.

The order of steps is that of repeating them: the new file stands beside the one that the container has until
it is mounted, and what the container has is written down last. A supervisor killed at any point does all of
it again, the signal included.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import trio

from orchestrator.engines.local import records, storage
from orchestrator.engines.local.shared import Shared
from orchestrator.engines.local.table import Changed, Live
from orchestrator.engines.local.trouble import of_file
from orchestrator.kernel import syscalls
from orchestrator.kernel.swap import Exchange, identity, swap
from orchestrator.model.action import SwapFiles
from orchestrator.model.effects import with_files
from orchestrator.model.errors import EngineError
from orchestrator.model.frozen import replace
from orchestrator.model.stack import FileMount


async def swap_files(shared: Shared, live: Live, action: SwapFiles) -> None:
    """Raises EngineError."""
    init = live.pidfd
    home = shared.places.container(live.container.stack, live.container.id)
    targets = {file.target for file in action.files}
    paths = {
        mount.target: path
        for mount, path in storage.own_files(home, live.container).items()
        if mount.target in targets
    }

    def exchange() -> list[FileMount]:
        written, exchanges = [], []
        for file in action.files:
            if file.target not in paths:
                continue
            path = paths[file.target]
            fresh = path.with_name(f"{path.name}.new")
            held = {one for one in (identity(str(path)), identity(str(fresh))) if one is not None}
            written.append(storage.write_file(file, fresh))
            exchanges.append(Exchange(source=str(fresh), target=file.target, held=held))
        if init is not None:
            swap(init, exchanges, live.container.id)
        for one in exchanges:
            Path(one.source).replace(one.source.removesuffix(".new"))
        return written

    try:
        written = await trio.to_thread.run_sync(exchange, limiter=shared.threads)
        if init is not None and live.pidfd == init:
            for number in action.signals:
                with contextlib.suppress(ProcessLookupError):
                    syscalls.pidfd_send_signal(init, number)
        container = replace(
            live.built.container, definition=with_files(live.built.container.definition, written)
        )
        built = replace(live.built, container=container)
        records.write(home / "container.json", built)
    except ProcessLookupError as error:
        raise EngineError(f"container {action.name} has ended just now") from error
    except OSError as error:
        raise of_file(error, f"container {action.name}", within=(shared.places.data,)) from error
    live.built = built
    live.container = replace(live.container, definition=container.definition)
    for file in written:
        if file.path is not None:
            shared.files.learn(file.path, file.digest)
    shared.table.ring(live.container.stack)
    shared.table.feed.publish(Changed(kind="container", container=live.container))
