"""The way out of a user's own network namespace: pasta(1) or slirp4netns(1), when one is installed.

Both are ordinary programs that carry the packets of a tap device over sockets of the host. We start one and
end it; without any, containers reach each other, and the host reaches their published ports. Standard
library only.
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from orchestrator.kernel import syscalls, userns

_TUN = "/dev/net/tun"
_USER, _NETWORK = 10, 11
"""The namespaces' descriptors in the program."""

_NO_WAY = "containers can't reach networks outside"
_COMMANDS = {
    # No ports either way: publishing is ours. No map of the gateway: the host's loopback stays the host's.
    "pasta": (
        *("--foreground", "--quiet", "--config-net", "--no-map-gw", "--no-netns-quit"),
        *("-t", "none", "-u", "none", "-T", "none", "-U", "none"),
        *("--userns", f"/proc/self/fd/{_USER}", "--netns", f"/proc/self/fd/{_NETWORK}"),
    ),
    "slirp4netns": (
        *("--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path"),
        *(f"--userns-path=/proc/self/fd/{_USER}", f"/proc/self/fd/{_NETWORK}", "tap0"),
    ),
}


class Outbound:
    """The program that runs, or why none does. `note` is a sentence for the user, "" when all is well."""

    def __init__(self, name: str = "", pid: int = 0, note: str = "", failed: tuple[str, ...] = ()) -> None:
        self.name, self.note = name, note
        self.failed = failed
        """Programs that have ended by themselves: they are not tried again."""
        self._pid = pid

    def runs(self) -> bool:
        """Whether the program is there; one that has ended is taken away."""
        if self._pid and os.waitpid(self._pid, os.WNOHANG)[0]:
            self._pid = 0
            self.failed = (*self.failed, self.name)
        return bool(self._pid)

    def stop(self) -> None:
        """End the program and wait until it has gone."""
        if self.runs():
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0


def start(user: int, network: int, failed: tuple[str, ...] = ()) -> Outbound:
    """Give the network namespace a way out, as far as this machine has one."""
    found = {name: path for name in _COMMANDS if (path := userns.find_program(name))}
    if not found:
        return Outbound(note=f"{_NO_WAY}: neither pasta (package passt) nor slirp4netns is installed")
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return Outbound(note=f"{_NO_WAY}: {_TUN} is not open to this user")
    name = next((name for name in found if name not in failed), "")
    if not name:
        return Outbound(note=f"{_NO_WAY}: {' and '.join(failed)} ended at once", failed=failed)
    pid = os.fork()  # noqa: TID251 (the porter has one thread)
    if pid == 0:
        _become(found[name], [name, *_COMMANDS[name]], user, network)
    return Outbound(name, pid, failed=failed)


def restart(last: Outbound, user: int, network: int) -> Outbound:
    """The same while it runs, or another."""
    return last if last.runs() else start(user, network, last.failed)


def _become(path: str, command: list[str], user: int, network: int) -> NoReturn:
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTTOU, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        for fd, wanted in ((user, _USER), (network, _NETWORK)):
            os.dup2(fd, wanted + 10, inheritable=False)
        for wanted in (_USER, _NETWORK):
            os.dup2(wanted + 10, wanted)
        os.execv(path, command)  # noqa: S606 (no shell is the point)
    finally:
        os._exit(127)
