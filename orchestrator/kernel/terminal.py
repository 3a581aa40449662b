"""Pseudo-terminals of a container's own devpts: the program gets the slave, the supervisor the master."""

from __future__ import annotations

import fcntl
import os
import stat
import struct

from orchestrator.kernel import syscalls

# include/uapi/asm-generic/ioctls.h; the same on x86-64 and aarch64.
_TIOCSCTTY = 0x540E
_TIOCSWINSZ = 0x5414
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_PTMX = os.makedev(5, 2)


def open_pair(root: int, height: int, width: int) -> tuple[int, int]:
    """Master and slave of a new pty from /dev/pts below `root`; the size is set when it is not 0.

    The slave is opened through the master (TIOCGPTPEER), not by a name that could have been replaced
    (CVE-2025-52565). Raises OSError when /dev/pts/ptmx isn't the multiplexer itself.
    """
    master = syscalls.openat2(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    found = os.fstat(master)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _PTMX:
        os.close(master)
        raise OSError(0, "/dev/pts/ptmx is not a terminal multiplexer")
    os.set_blocking(master, True)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if height and width:
        resize(master, height, width)
    return master, slave


def resize(terminal: int, height: int, width: int) -> None:
    """Set rows and columns; the foreground program gets SIGWINCH."""
    fcntl.ioctl(terminal, _TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def take(slave: int) -> None:
    """Make it the controlling terminal of this session leader (TIOCSCTTY)."""
    fcntl.ioctl(slave, _TIOCSCTTY, 0)
