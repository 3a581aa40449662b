"""The error that ends a command."""

from __future__ import annotations


class Complaint(Exception):
    """One sentence for whoever called, and the exit code. 1 is runc's for everything but `exec` (255)."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UsageError(Complaint):
    """The command line itself is wrong."""
