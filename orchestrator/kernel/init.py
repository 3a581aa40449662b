"""Pid 1 for `init: true`: a static program of a kilobyte, carried as bytes and written where it is needed.

Its source is init.c beside this file, and BUILD is how it is built; a test builds it again and compares. A
container's root filesystem may hold any libc or none, so the program has to be static, and it stays for the
life of the container, so it has to be small: this one is a single page.

It runs its arguments (after an optional "--") as a child with a process group of its own, in front of the
terminal if there is one; passes every signal but SIGCHLD on to that child alone; buries orphans; and ends as
the child ends, with 128+n for signal n, 127 for a program that is not there and 126 for one that can't run.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import stat
import threading
from pathlib import Path
from typing import Final

BUILD: Final = (
    *("-Os", "-static", "-nostdlib", "-nostartfiles", "-ffreestanding", "-fno-ident", "-fno-stack-protector"),
    *("-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-pic", "-no-pie"),
    "-fno-tree-loop-distribute-patterns",
    *("-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none,-n,-s,-z,noexecstack,-z,norelro"),
)
"""Arguments for gcc before `-o init init.c`; on x86-64 -fcf-protection=none too."""

COMPILER: Final = "12.2.0"
"""The version of gcc that made the bytes below; another may make others that do the same."""

# Static programs come first: the root filesystem may have no libc for the others.
_OTHERS: Final = ("tini-static", "catatonit", "docker-init", "tini")


class InitError(Exception):
    """This machine has no program for `init: true`."""


def ensure(directory: Path, machine: str | None = None) -> Path:
    """The program as a file in `directory`, written if it isn't there; start it as [path, "--", *argv].

    For a machine type that we carry no program for (`machine`, this one's uname -m unless given) it is the
    path of a known one on PATH instead. Raises InitError if there is none, OSError if it can't be written.
    """
    machine = machine or os.uname().machine
    if machine not in _PROGRAMS:
        other = next((found for name in _OTHERS if (found := shutil.which(name))), None)
        if other is None:
            raise InitError(
                f"init: true needs {', '.join(_OTHERS[:-1])} or {_OTHERS[-1]} on {machine} machines"
            )
        return Path(other)
    # The name says what is in it: a newer version of ours never writes over a file that containers run.
    path = directory / f"init-{_PROGRAMS[machine][0][:16]}"
    content = program(machine)
    with contextlib.suppress(FileNotFoundError):
        state = path.lstat()
        if stat.S_ISREG(state.st_mode) and state.st_size == len(content) and state.st_mode & 0o777 == 0o555:
            return path
    _write(path, content)
    return path


def program(machine: str) -> bytes:
    """The program for x86_64 or aarch64. Raises ValueError if the bytes here aren't what they should be."""
    digest, text = _PROGRAMS[machine]
    content = base64.b64decode(text)
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"the init program for {machine} is damaged")
    return content


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with open(os.open(draft, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o555)  # not subject to the umask
            os.fsync(file.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


_PROGRAMS: Final = {
    "x86_64": (
        "497d680e3be8ce8f868cb11720b855d2e3e0123c5aabd9c5fc581ec786ec3504",
        (
            "f0VMRgIBAQAAAAAAAAAAAAIAPgABAAAAsABAAAAAAABAAAAAAAAAAIAFAAAAAAAAAAAAAEAAOAACAEAABAADAAEAAAAFAAAA"
            "sAAAAAAAAACwAEAAAAAAALAAQAAAAAAAswQAAAAAAACzBAAAAAAAAAEAAAAAAAAAUeV0ZAYAAAAAAAAAAAAAAAAAAAAAAAAA"
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAx7UiJ50iD5PDoggEAAPRIif4x0oA8FgB0BUj/wuv1RTHSRTHAuAEA"
            "AAC/AgAAAA8Fw0FVSInyQVRVU0iJ+0iB7IgPAABIiy9IieiKCITJdCKA+S91GEUx0kUxwLg7AAAASInvSIneDwXpFAEAAEj/"
            "wOvYgH0AAEjHwP7///8PhP4AAABIidFBubsEQABIiwFIhcB0J4A4UHUcgHgBQXUWgHgCVHUQgHgDSHUKgHgEPXUETI1IBUiD"
            "wQjr0UnHxP7///9IjXwkiEG9OwAAADHAQYoMAYTJdB2A+Tp0GEg9/g8AAHQJSP/AiEwEh+vivv4PAADrCjHJSIXAdAxIicbG"
            "RDSIL0iNTgFIie5EigZFhMB0FkiB+f8PAAB0DUj/wUj/xkSIRAyH6+JMAcjGRAyIAIA+AEmJwXUkigCEwHQEPDp1GkUx0kUx"
            "wEyJ6EiJ3g8FSIP4/nQGSIP47HUNTIng6wiA+Tp0DEn/wUGKCYTJdfHrD4TJdAtJ/8FJicTpTP///0iBxIgPAABbXUFcQV3D"
            "QVe6CAAAADHASYn5QVZIidFBuggAAABFMcBBVUFUVUiNbwhTSIPsQEyLJ0iNfCQgSI10JBBIx0QkEP/////zq7gOAAAAvwIA"
            "AABIicoPBbgNAAAASI10JCC/EQAAAA8FRTHSuJ0AAAC/JAAAAL4BAAAADwVJg3kIAEmNWRB1A0iJ60iLA0iFwHQVgDgtdRCA"
            "eAEtdQqAeAIAdQRIg8MISIM7AHUhv/gEQADo0P3//zHSRTHSRTHAuOcAAAC/fwAAAEiJ1g8FMdJFMdJFMcC4OAAAAL8RAAAA"
            "SInWDwVJicVIhcAPhckAAAAxwEyJ70yJ7kyJ6kiJRCQYuG0AAAAPBbgnAAAADwW+EFQAAIlEJAxIjVQkDLgQAAAADwVBuggA"
            "AABIjXQkGLgOAAAATInqvwIAAAAPBUqNdOUISInf6F/9//+/EQVAAEmJwegv/f//SIs76Cf9//9Jg/n+dCJJg/nsdBy/LQVA"
            "AEmD+fN1Bb8YBUAA6Ab9//+/fgAAAOsjv0MFQADo9fz//0mD+f5AD5THSYP57A+UwAnHQA+2/0iDx35FMdJFMcAx0rjnAAAA"
            "6x55Ib9QBUAA6MH8//9FMdJFMcC45wAAAL9+AAAAMdJIidYPBUiNXCQYvT0AAABJg8z/Qb7nAAAAQb8+AAAAMdJBuggAAABF"
            "McC4gAAAAEiNfCQQSInWDwVIicZIg/gRdD5IhcB+2EUx0kyJ+EyJ7w8F68uLRCQYicIPtsSD4n90Bo2CgAAAADHSSGP4RTHS"
            "RTHATInwSInWDwVNhcl+IEUx0kUxwEiJ6EyJ50iJ3roBAAAADwVJicFJOcV13eu0SYP5/HTa6XT///8vdXNyL2xvY2FsL3Ni"
            "aW46L3Vzci9sb2NhbC9iaW46L3Vzci9zYmluOi91c3IvYmluOi9zYmluOi9iaW4AaW5pdDogbm8gcHJvZ3JhbSB0byBydW4K"
            "AGluaXQ6IAA6IHBlcm1pc3Npb24gZGVuaWVkCgA6IGNhbm5vdCBiZSBleGVjdXRlZAoAOiBub3QgZm91bmQKAGluaXQ6IGNh"
            "bm5vdCBmb3JrCgAALnNoc3RydGFiAC50ZXh0AC5yb2RhdGEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAALAAAAAQAAAAYAAAAAAAAAsABAAAAAAACwAAAAAAAAAAsEAAAAAAAA"
            "AAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAEQAAAAEAAAAyAAAAAAAAALsEQAAAAAAAuwQAAAAAAACoAAAAAAAAAAAAAAAAAAAA"
            "AQAAAAAAAAABAAAAAAAAAAEAAAADAAAAAAAAAAAAAAAAAAAAAAAAAGMFAAAAAAAAGQAAAAAAAAAAAAAAAAAAAAEAAAAAAAAA"
            "AAAAAAAAAAA="
        ),
    ),
    "aarch64": (
        "4b4d9a53df93edddf0e33ebaf057c8e5e0646b35305012b6ee9823b57c8bd1dc",
        (
            "f0VMRgIBAQAAAAAAAAAAAAIAtwABAAAAsABAAAAAAABAAAAAAAAAACgGAAAAAAAAAAAAAEAAOAACAEAABAADAAEAAAAFAAAA"
            "sAAAAAAAAACwAEAAAAAAALAAQAAAAAAAXAUAAAAAAABcBQAAAAAAAAQAAAAAAAAAUeV0ZAYAAAAAAAAAAAAAAAAAAAAAAAAA"
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAdAIDS4AMAkX8AAJToAwCq4AMBquEDAqriAwOq4wMEqgQAgNIBAADU"
            "wANf1uIDAKoDAIDSQGhjOKAAADUEAIDSQQCA0gAIgNLx//8XYwQAkfn//xcMAoLS/2Msy+cDAKrpAwGq/XsAqf0DAJEMAED5"
            "4AMMqgEAQDlhBgA1gAFAOYALADQFAACQ4AMJqqWQFZEEAED5JAcAtepDAJEtAICS7gWAUgQAgNKgaGQ4H+gAcQQYQHrACABU"
            "n/g/8SEIAFSGBACRTmkkOOADDKoBAEA5YQAANN/8P/EBCABUX2kmOKsABIsAAEA5wAEANaBoZDgf6ABxBBhAekEBAFTjAwmq"
            "4gMHquEDCqoEAIDSoBuA0r///5cfCACxBBhUukEAAFTgAw2qYQFAOT/oAHEkGEB6wQUAVAEGADRlBQCR7QMAqtn//xc/vABx"
            "QQEAVP17QKnhAwyq4wMJqgwCgtLiAweq/2MsiwQAgNKgG4DSqP//FwAEAJHA//8XgQBAOT9AAXHBAQBUgQRAOT8EAXFhAQBU"
            "gQhAOT9QAXEBAQBUgQxAOT8gAXGhAABUgRBAOT/0AHFBAABUhRQAkQAgAJG1//8XQGkkOIQEAJG4//8XpPf/tQYAgNK9//8X"
            "AAQAkUFpJjjGBACRuv//F2sFAJHO//8XIACAkv17QKkMAoLS/2Msi8ADX9b9e7up5QMAqu8DAKr9AwCRAACAkqaEQPjigwCR"
            "BAGA0gMAgNJBAIDS4BMA+eAQgNL/fwOp70EAkf9/BKlz//+X4sMAkQQBgNIDAIDSIQKA0sAQgNJt//+XBACA0gMAgNIiAIDS"
            "gQSA0uAUgNJn//+X4IFf+B8AAPHvEYWa4AFA+UABALQBAEA5P7QAceEAAFQBBEA5P7QAcYEAAFQACEA5QAAANe8hAJHgAUD5"
            "QAEAtQAAAJAAhBaRXP//lwQAgNIDAIDSAgCA0uEPgNLAC4DSTv//lwQAgNIDAIDSAgCA0iECgNKAG4DSSP//l/IDAKofAADx"
            "wAkAtQQAgNIDAIDSAgCA0gEAgNJAE4DS/xcA+T7//5cEAIDSAwCA0gIAgNIBAIDSgBWA0jj//5fjcwCRBACA0gKCitIBAIDS"
            "4B8AuaADgNIx//+X4qMAkQQBgNIDAIDSQQCA0uAQgNIr//+XwQQAkeADD6qhDAGLOf//l+UDAKoAAACQAOgWkSv//5fgAUD5"
            "Kf//l78IALGkGFS64AMAVL80ALFBAwBUAAAAkAAEF5Eh//+XwQ+A0gQAgNIDAIDSAgCA0sALgNIT//+XAgCA0uGDAJEEAYDS"
            "AwCA0iARgNIN//+X4gMAqh9EAPGAAwBUHwAA8c3+/1ThAxKqBACA0gMAgNIgEIDS8P//FwAAAJAAWBeR5///FwAAAJAAsBeR"
            "Bf//l78IALGkGFS64RefmiH4AZHh//8Xqvz/VAAAAJAA5BeR/P7/lwQAgNIDAIDSAgCA0sEPgNLb//8X4qMAkQQAgNIjAIDS"
            "AQCAkoAggNLp/v+X5QMAql8CAOuBAQBU4CtAuQQAgNIDAIDSAhgAckEAAhEAPEjTAgCA0iF8QJMBAIGawAuA0tv+/5e/AADx"
            "pNhEukD9/1TF//8XL3Vzci9sb2NhbC9zYmluOi91c3IvbG9jYWwvYmluOi91c3Ivc2JpbjovdXNyL2Jpbjovc2JpbjovYmlu"
            "AGluaXQ6IG5vIHByb2dyYW0gdG8gcnVuCgBpbml0OiAAOiBwZXJtaXNzaW9uIGRlbmllZAoAOiBjYW5ub3QgYmUgZXhlY3V0"
            "ZWQKADogbm90IGZvdW5kCgBpbml0OiBjYW5ub3QgZm9yawoAAC5zaHN0cnRhYgAudGV4dAAucm9kYXRhAAAAAAAAAAAAAAAA"
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAALAAAAAQAAAAYAAAAAAAAA"
            "sABAAAAAAACwAAAAAAAAALQEAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAAAAAEQAAAAEAAAAyAAAAAAAAAGQFQAAAAAAA"
            "ZAUAAAAAAACoAAAAAAAAAAAAAAAAAAAAAQAAAAAAAAABAAAAAAAAAAEAAAADAAAAAAAAAAAAAAAAAAAAAAAAAAwGAAAAAAAA"
            "GQAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAAAAA="
        ),
    ),
}
"""Machine -> (SHA-256, the program in base64)."""
