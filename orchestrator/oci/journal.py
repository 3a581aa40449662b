"""Where a command writes what went wrong: standard error, and the file of --log in the form of logrus.

conmon, podman and containerd read the last error from that file: `time`, `level`, `msg`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time

_LONGEST = 8192


class Journal:
    """The log of one command."""

    def __init__(self, path: str, *, as_json: bool, debug: bool) -> None:
        self._path = path
        self._json = as_json
        self._debug = debug

    def error(self, message: str) -> None:
        """The sentence that the command ends with."""
        self._write("error", message)

    def warning(self, message: str) -> None:
        """Something was left out, and that is no reason to stop."""
        self._write("warning", message)

    def debug(self, message: str) -> None:
        """What is done, for who asked with --debug."""
        if self._debug:
            self._write("debug", message)

    def _write(self, level: str, message: str) -> None:
        message = message[:_LONGEST]
        line = self._line(level, message)
        if self._path:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
                fd = os.open(self._path, flags, 0o644)
                try:
                    os.write(fd, line.encode(errors="backslashreplace"))
                finally:
                    os.close(fd)
            except OSError as error:
                print(f"pystack-oci: --log {self._path}: {error.strerror}", file=sys.stderr)
            if level != "error":
                return
        with contextlib.suppress(OSError, ValueError):  # nobody listens
            print(f"pystack-oci: {message}" if self._path else line.rstrip("\n"), file=sys.stderr, flush=True)

    def _line(self, level: str, message: str) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            return json.dumps({"level": level, "msg": message, "time": at}) + "\n"
        return f'time="{at}" level={level} msg={json.dumps(message, ensure_ascii=False)}\n'
