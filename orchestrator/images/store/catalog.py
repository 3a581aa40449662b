"""What is good to know of images but not needed: ROOT/store.db, SQLite in WAL mode.

Which digest a registry gave for a name, and when it was asked. A file that is damaged or gone is made anew;
the next pull then asks the registry.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from orchestrator.images import scratch
from orchestrator.model.errors import EngineError
from orchestrator.model.frozen import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3

_FORMAT = 1
_BUSY_SECONDS = 10.0
_TABLES = """
CREATE TABLE IF NOT EXISTS pulls
(name TEXT PRIMARY KEY, digest TEXT NOT NULL, at REAL NOT NULL, etag TEXT NOT NULL)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """What a registry said of a name: the digest (of an index, for several platforms), when, and its ETag."""

    name: str
    digest: str
    at: float
    """Seconds since 1970: shown to people, and compared with `pull_policy: every_...` across boots."""
    etag: str = ""


class Catalog:
    """The notes of one store. Opens the file anew for each question: commands ask once."""

    def __init__(self, path: Path, *, lock: Path) -> None:
        self._path = path
        self._lock = lock

    def note_pull(self, pull: Pull) -> None:
        with self._open() as base:
            row = (pull.name, pull.digest, pull.at, pull.etag)
            base.execute("INSERT OR REPLACE INTO pulls (name, digest, at, etag) VALUES (?, ?, ?, ?)", row)

    def last_pull(self, name: str) -> Pull | None:
        if not self._path.exists():
            return None
        with self._open() as base:
            row = base.execute("SELECT name, digest, at, etag FROM pulls WHERE name = ?", (name,)).fetchone()
        return Pull(name=row[0], digest=row[1], at=row[2], etag=row[3]) if row else None

    def forget(self) -> None:
        """Start anew."""
        with scratch.locked(self._lock):
            self._unlink()

    def _unlink(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def check(self) -> str:
        """What is wrong with the file; "" when it is sound or not there."""
        import sqlite3

        if not self._path.exists():
            return ""
        try:
            with contextlib.closing(self._connect()) as base:
                found = base.execute("PRAGMA quick_check").fetchone()[0]
        except sqlite3.Error as error:
            return str(error)
        return "" if found == "ok" else str(found)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(self._sound()) as base, base:
            yield base

    def _sound(self) -> sqlite3.Connection:
        import sqlite3

        try:
            return self._prepared()
        except sqlite3.OperationalError as error:
            raise EngineError(f"{self._path}: {error}") from error
        except sqlite3.DatabaseError:
            # Not a database, or a damaged one. Under the lock, and once more: another may have mended it.
            with scratch.locked(self._lock):
                try:
                    return self._prepared()
                except sqlite3.DatabaseError:
                    self._unlink()
                return self._prepared()

    def _prepared(self) -> sqlite3.Connection:
        base = self._connect()
        try:
            if base.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
                base.execute("PRAGMA journal_mode = WAL")
                base.execute(f"PRAGMA user_version = {_FORMAT}")
            base.execute(_TABLES)
        except BaseException:
            base.close()
            raise
        return base

    def _connect(self) -> sqlite3.Connection:
        import sqlite3

        base = sqlite3.connect(self._path, timeout=_BUSY_SECONDS)
        base.execute("PRAGMA synchronous = NORMAL")
        return base
