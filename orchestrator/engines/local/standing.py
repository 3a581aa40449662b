"""Whether a supervisor is still found where others look for it."""

from __future__ import annotations

import trio

from orchestrator.engines.local.places import Places
from orchestrator.kernel import inotify
from orchestrator.kernel.inotify import Inotify
from orchestrator.kernel.lock import stands_at

LOOK_SECONDS = 10.0
"""Between two looks where nothing is announced, as of a file system that was unmounted."""
COMPANY = 0.05
_GONE = inotify.DELETE | inotify.MOVED_FROM | inotify.DELETE_SELF | inotify.MOVE_SELF


async def until_lost(places: Places, lock: int) -> None:
    """Return when our lock, our socket or the keeper's is gone, or the whole run directory."""
    announced = _watch(places)
    try:
        while _stands(places, lock):
            with trio.move_on_after(LOOK_SECONDS):
                if announced is None:
                    await trio.sleep_forever()
                await trio.lowlevel.wait_readable(announced)
                for _ in announced.read():
                    pass
                await trio.sleep(COMPANY)
    finally:
        if announced is not None:
            trio.lowlevel.notify_closing(announced)
            announced.close()


def _watch(places: Places) -> Inotify | None:
    try:
        announced = Inotify()
    except OSError:
        return None
    try:
        announced.add(str(places.run), _GONE)
    except OSError:
        announced.close()
        return None
    return announced


def _stands(places: Places, lock: int) -> bool:
    sockets = (places.supervisor_socket, places.keeper_socket)
    return stands_at(lock, places.supervisor_lock) and all(path.exists() for path in sockets)
