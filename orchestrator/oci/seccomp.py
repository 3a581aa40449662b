"""The system call filter of a configuration, compiled once and kept by content below --root."""

from __future__ import annotations

from orchestrator.kernel.reading import Document
from orchestrator.oci.complaint import Complaint

_CACHE = ".seccomp"  # no id begins with a dot


def compiled(config: Document, root: str) -> tuple[bytes, int]:
    """The program of `linux.seccomp` and the flags to load it with; none: (b"", 0). Raises Complaint."""
    profile = config.table("linux").table("seccomp")
    if not profile.names():
        return b"", 0
    from pathlib import Path

    from orchestrator.kernel import seccomp

    try:
        flags = seccomp.filter_flags(profile.raw)
        return seccomp.compile_cached(profile.raw, Path(root, _CACHE)).read_bytes(), flags
    except seccomp.ProfileError as error:
        raise Complaint(f"config.json: linux.seccomp: {error}") from None
