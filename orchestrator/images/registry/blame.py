"""A registry's answer -> the error that is raised. Pure.

Bodies are JSON `{"errors": [{code, message, detail}]}` (distribution specification, "Error Codes"); token
servers and proxies have other forms. A body that is not JSON, such as a proxy's HTML page, is never shown.
"""

from __future__ import annotations

import http
import json

from orchestrator.images.registry import backoff
from orchestrator.model.errors import EngineError, ExitCode, UserError
from orchestrator.model.frozen import dataclass

_TEXT_LIMIT = 300
_SHOWN = 3
_DENIED = "requested access to the resource is denied"


class NotFoundError(UserError):
    """The registry has no such repository, tag or blob."""


class DeniedError(UserError):
    """The registry knows us too little, or not well enough, for this. `words` are its own."""

    words = ""


class BrokenAnswerError(EngineError):
    """What came is not what was asked for: wrong digest, wrong size, too large, no sense in it."""

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        exit_code: ExitCode = ExitCode.IMAGE,
        hint: str = "",
    ) -> None:
        super().__init__(message, retryable=retryable, exit_code=exit_code, hint=hint)


class UnavailableError(EngineError):
    """No answer, or one that says: later. `retry_after` is what the registry asked for, in seconds.

    Not `passing`: it may be otherwise some day, but not within a minute (no host of that name).
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, passing: bool = True, hint: str = ""
    ) -> None:
        super().__init__(message, retryable=True, lasting=True, exit_code=ExitCode.IMAGE, hint=hint)
        self.retry_after = retry_after
        self.passing = passing


class UntrustedError(UserError):
    """The certificate is not one that this machine trusts, or TLS failed for another lasting reason."""


RegistryError = (NotFoundError, DeniedError, BrokenAnswerError, UnavailableError, UntrustedError)
"""What an endpoint can do to us: after these, another mirror may be tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """One error of an answer."""

    code: str
    message: str

    def __str__(self) -> str:
        code = self.code.lower().replace("_", " ")
        if not code or self.message.lower().startswith(code):
            return self.message or code
        return f"{code}: {self.message}" if self.message else code


def complaints(content: bytes) -> tuple[Complaint, ...]:
    """What an error answer says; () when it is not JSON that can be understood."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(data, dict):
        return ()
    rows = data.get("errors")
    if isinstance(rows, list):
        found = [
            Complaint(code=_text(row.get("code")), message=_text(row.get("message")))
            for row in rows[:_SHOWN]
            if isinstance(row, dict)
        ]
    else:
        # A token server may use OAuth's form (RFC 6749, 5.2); Docker Hub's has details, some have message.
        words = (
            data.get("error_description") or data.get("details") or data.get("message") or data.get("detail")
        )
        found = [Complaint(code=_text(data.get("error") or data.get("code")), message=_text(words))]
    return tuple(one for one in found if one.code or one.message)


def said(status: int, content: bytes) -> str:
    """One line of what a failed answer said: the registry's own words, else the meaning of the status."""
    words = "; ".join(str(one) for one in complaints(content))
    return words or f"{status} {_phrase(status)}"


def has_code(content: bytes, *codes: str) -> bool:
    return any(one.code.upper() in codes for one in complaints(content))


def of_status(
    status: int, content: bytes, what: str, *, host: str, retry_after: float | None = None
) -> UserError | EngineError:
    """The error for an answer that is not the one hoped for. `what` was asked for, as "manifest for x"."""
    words = said(status, content)
    if status == 404:
        return NotFoundError(f"{what} not found: {words}", exit_code=ExitCode.IMAGE)
    if status in (401, 403):
        return denied(what, words, host=host)
    if status in backoff.RETRIED or status >= 500:
        wait = f", the registry asks to wait for {retry_after:.0f} s" if retry_after else ""
        return UnavailableError(f"{what}: {host} answered {words}{wait}", retry_after=retry_after)
    return BrokenAnswerError(f"{what}: {host} answered {words}")


def denied(what: str, words: str, *, host: str) -> DeniedError:
    shown = "" if host == "docker.io" else f" {host}"
    more = "" if _DENIED in words else f" ({words})"
    error = DeniedError(
        f"{what}: denied: {_DENIED}{more}",
        exit_code=ExitCode.IMAGE,
        hint=f"it may not be there, or need `pystack login{shown}` with an account that may do this",
    )
    error.words = words
    return error


def _text(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(letter if letter.isprintable() else " " for letter in text[:_TEXT_LIMIT]).strip()


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "(no known status)"
