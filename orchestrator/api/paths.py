"""Where a state root keeps its sockets and its data."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Paths:
    """The two directories of a state root: `run` goes with the last stack, `data` stays.

    Not a dataclass and holding text: importing `dataclasses` and `pathlib` would cost every command 15 ms.
    """

    __slots__ = ("data_dir", "default", "run_dir")

    def __init__(self, run: str | Path, data: str | Path, *, default: bool = False) -> None:
        self.run_dir = os.fspath(run)
        self.data_dir = os.fspath(data)
        self.default = default
        """Whether these are the user's own directories, not some that `--root` has named."""

    @classmethod
    def find(cls, root: str | None, environ: Mapping[str, str]) -> Paths:
        """The directories that `--root`, the environment and the user's id select.

        Variables: PYSTACK_ROOT; for users other than root XDG_RUNTIME_DIR and XDG_DATA_HOME (XDG Base
        Directory Specification), without these the usual places. Who came by su(1) or cron(8) has no
        directory below /run, and is served from beside the data: /tmp is everybody's.
        """
        chosen = root or environ.get("PYSTACK_ROOT")
        if chosen:
            chosen = os.path.abspath(chosen)
            return cls(f"{chosen}/run", f"{chosen}/data")
        user = os.geteuid()
        if user == 0:
            return cls("/run/pystack", "/var/lib/pystack", default=True)
        home = environ.get("HOME") or "/"
        data = environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
        runtime, usual = environ.get("XDG_RUNTIME_DIR"), f"/run/user/{user}"
        if not runtime and os.path.isdir(usual):
            runtime = usual
        return cls(
            f"{runtime}/pystack" if runtime else f"{data}/pystack-run", f"{data}/pystack", default=True
        )

    @property
    def run(self) -> Path:
        from pathlib import Path

        return Path(self.run_dir)

    @property
    def data(self) -> Path:
        from pathlib import Path

        return Path(self.data_dir)

    @property
    def images(self) -> Path:
        return self.data / "images"

    @property
    def socket(self) -> str:
        return f"{self.run_dir}/supervisor.sock"

    @property
    def log(self) -> str:
        """What the supervisor says on its standard output and error."""
        return f"{self.run_dir}/supervisor.log"

    @property
    def tag(self) -> str:
        """Goes into names that all state roots of a machine share; "" for the default root."""
        if self.default:
            return ""
        import hashlib

        return hashlib.sha256(self.run_dir.encode("utf-8", "surrogateescape")).hexdigest()[:6]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Paths) and (self.run_dir, self.data_dir) == (other.run_dir, other.data_dir)

    def __hash__(self) -> int:
        return hash((self.run_dir, self.data_dir))

    def __repr__(self) -> str:
        return f"Paths(run={self.run_dir!r}, data={self.data_dir!r})"
