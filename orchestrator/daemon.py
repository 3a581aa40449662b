"""The supervisor: the one place where everything is wired. `python -m orchestrator.daemon --run R --data D`.

One per state root. The first `up` starts it; it leaves when the last stack has gone and nobody is being
served. It may be killed at any moment: the keeper starts it again, and it finds everything by records.
"""

from __future__ import annotations

import gc

gc.disable()  # while three hundred modules are loaded, of which nothing is garbage; see main()

import contextlib
import os
import sys

from orchestrator.kernel.spawn import has_keeper, spawn_keeper

if __name__ == "__main__" and "--ready-fd" in sys.argv:
    # Whom we start would keep it open, and the command would wait for us in vain if we died.
    os.set_inheritable(int(sys.argv[sys.argv.index("--ready-fd") + 1]), False)  # noqa: FBT003

if __name__ == "__main__" and os.geteuid() != 0:
    # An ordinary user: into namespaces of their own, where we are root. The keeper starts successors there.
    from orchestrator.kernel import rootless, userns

    try:
        _line = rootless.enter(sys.argv[sys.argv.index("--run") + 1])
    except (userns.RefusedError, OSError) as refused:
        sys.stderr.write(f"{refused}\n")
        sys.exit(4)  # ExitCode.NOT_PERMITTED
    os.chdir("/")

if __name__ == "__main__" and not has_keeper(sys.argv[sys.argv.index("--run") + 1]):
    # It gets ready while we load what follows, which takes as long.
    with contextlib.suppress(OSError):
        spawn_keeper(sys.argv[sys.argv.index("--run") + 1])

import resource
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from orchestrator.api import (
    asking,
    converging,
    disk,
    files,
    inspecting,
    measuring,
    processes,
    resuming,
    steering,
    volumes,
)
from orchestrator.api.server import Server, Verb, listen
from orchestrator.api.session import Gone, Session
from orchestrator.api.stacks import Stacks
from orchestrator.engines.local.machine import Machine, open_machine
from orchestrator.engines.local.places import Places
from orchestrator.engines.local.standing import until_lost
from orchestrator.engines.local.trouble import note
from orchestrator.kernel import scope
from orchestrator.kernel.lock import try_lock
from orchestrator.model.errors import ExitCode, PystackError
from orchestrator.model.frozen import dataclass

FIRST_SECONDS = 2.0
LINGER_SECONDS = 0.1
LOCK_SECONDS = 15.0

VERBS: dict[str, Verb] = {
    "ping": asking.ping,
    "ps": asking.ps,
    "ls": asking.ls,
    "stack": asking.stack,
    "image_users": asking.image_users,
    "inspect": inspecting.inspect,
    "volumes": volumes.volumes,
    "volume_rm": volumes.remove,
    "disk": disk.disk,
    "container_prune": disk.prune,
    "plan": asking.plan,
    "drift": asking.drift,
    "logs": asking.logs,
    "events": asking.events,
    "resume": resuming.resume,
    "up": converging.up,
    "start": converging.start,
    "stop": converging.stop,
    "restart": converging.restart,
    "kill": converging.kill,
    "pause": steering.pause,
    "unpause": steering.unpause,
    "update": steering.update,
    "repair": steering.repair,
    "stats": measuring.stats,
    "top": measuring.top,
    "rm": converging.remove,
    "exec": processes.execute,
    "files": files.files,
    "run": processes.run,
}


def main() -> None:
    options = _options(sys.argv[1:])
    places = Places(run=Path(options.run), data=Path(options.data))
    _make_directories(places)
    lock = _lock(places)
    if lock is None:
        sys.exit(ExitCode.OK)
    _make_directories(places)  # one that was just leaving may have taken them along
    scope.enter(places.tag)
    _raise_limits()
    gc.freeze()
    gc.enable()
    # Worker threads lay out containers; the loop must not wait 5 ms for its turn each time it is woken.
    sys.setswitchinterval(0.0005)
    try:
        trio.run(supervise, places, lock, options.ready_fd, strict_exception_groups=True)
    except* PystackError as group:
        for error in group.exceptions:
            sys.stderr.write(f"pystack supervisor: {error}\n")
        sys.exit(ExitCode.SUPERVISOR)


def _make_directories(places: Places) -> None:
    for directory in (places.run, places.data, places.stacks, places.volumes, places.bundles):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)


def _raise_limits() -> None:
    """A container costs some ten descriptors here, and a shell's usual 1024 would do for a hundred."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # The environment of every container is in our memory, and would be in a core dump.
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line: `--run DIR --data DIR [--ready-fd N]`. Nobody but us writes it."""

    run: str
    data: str
    ready_fd: int = -1


def _options(words: Sequence[str]) -> Options:
    given = dict(zip(words[::2], words[1::2], strict=True))
    return Options(run=given["--run"], data=given["--data"], ready_fd=int(given.get("--ready-fd", -1)))


def _lock(places: Places) -> int | None:
    """The state root's lock; None when another serves already. One that is leaving is waited for."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fd = try_lock(places.supervisor_lock)
        except FileNotFoundError:  # the directory has gone with it
            _make_directories(places)
            continue
        if fd is not None:
            return fd
        if _serves(places) or time.monotonic() > until:
            return None
        time.sleep(0.005)


def _serves(places: Places) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking_socket:
        try:
            asking_socket.connect(str(places.supervisor_socket))
        except OSError:
            return False
    return True


async def supervise(places: Places, lock: int, ready_fd: int) -> None:
    async with trio.open_nursery() as nursery:
        machine = await open_machine(places, nursery)
        stacks = Stacks(machine, nursery)
        stacks.resume()
        processes.resume(stacks)

        async def down(session: Session, stacks: Stacks, request: dict[str, Any]) -> None:
            """With the last stack everything of ours goes, before the client is told that it is done."""
            verdict = await converging.down(session, stacks, request)
            alone = not stacks.busy() and not server.busy(but=session)
            if alone:
                await _clear(server, machine, places)
            with contextlib.suppress(Gone):
                await converging.conclude(session, verdict)
            if alone:
                _go()

        server = Server(stacks, {**VERBS, "down": down})
        listener = listen(str(places.supervisor_socket))
        nursery.start_soon(server.serve, listener)
        nursery.start_soon(_keep_place, server, places, lock)
        nursery.start_soon(_obey_signals, machine)
        if ready_fd >= 0:
            nursery.start_soon(server.expect, ready_fd)
            with contextlib.suppress(OSError):  # it has given up already
                os.write(ready_fd, b"1")
        await _until_idle(stacks, server)
        await _clear(server, machine, places)
        _go()


async def _until_idle(stacks: Stacks, server: Server) -> None:
    """Nothing to supervise and nobody to serve. A moment's grace lets the first command in."""
    grace = FIRST_SECONDS
    while True:
        stacks_changed, server_changed = stacks.changed, server.changed
        if stacks.busy():
            await stacks_changed.wait()
        elif server.busy():
            await server_changed.wait()
        elif grace:
            await trio.sleep(grace)
            grace = 0.0
            continue
        else:
            return
        grace = LINGER_SECONDS


async def _keep_place(server: Server, places: Places, lock: int) -> None:
    """Nobody finds us once our lock or our socket is deleted, and two would serve: so we go. The keeper puts
    back its own and starts another, which makes anew what was in the run directory; containers run on.
    """
    await until_lost(places, lock)
    if server.closing:
        return
    note(f"{places.run} was cleared while we ran: another supervisor takes over")
    os._exit(ExitCode.SUPERVISOR)


async def _clear(server: Server, machine: Machine, places: Places) -> None:
    """Take away what stacks share, and dismiss the keeper. From now on nobody reaches us."""
    with trio.CancelScope(shield=True):
        server.closing = True
        places.supervisor_socket.unlink(missing_ok=True)
        await server.close()
        await machine.clear()


def _go() -> None:
    """Crash-only: nothing has to be put in order."""
    sys.stderr.flush()
    os._exit(0)


async def _obey_signals(machine: Machine) -> None:
    """SIGTERM and SIGINT: go at once; containers run on and the keeper knows it was meant.

    If the machine goes down with us, it does so in order.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        async for _ in received:
            machine.note_shutdown()
            os._exit(0)


if __name__ == "__main__":
    main()
