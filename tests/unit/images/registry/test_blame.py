"""What the user is told of a registry's refusal."""

from __future__ import annotations

import json

import pytest

from orchestrator.images.registry import blame
from orchestrator.images.registry.blame import (
    BrokenAnswerError,
    DeniedError,
    NotFoundError,
    UnavailableError,
)


def errors(*rows: dict[str, object]) -> bytes:
    return json.dumps({"errors": rows}).encode()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (errors({"code": "DENIED", "message": "no such right"}), "denied: no such right"),
        (errors({"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}), "manifest unknown"),
        (errors({"code": "TOOMANYREQUESTS"}), "toomanyrequests"),
        (errors({"code": "A", "message": "x"}, {"code": "B", "message": "y"}), "a: x; b: y"),
        (errors(*[{"code": f"C{n}"} for n in range(9)]), "c0; c1; c2"),
        (b'{"details": "incorrect username or password"}', "incorrect username or password"),
        (b'{"error": "invalid_grant", "error_description": "gone"}', "invalid grant: gone"),
        (b'{"message": "rate exceeded"}', "rate exceeded"),
        (errors({"code": 7, "message": ["x"]}), "503 Service Unavailable"),
        (errors({"code": "X", "message": "a\x1b[31m\nb"}), "x: a [31m b"),
        (errors({"code": "X", "message": "m" * 9999}), "x: " + "m" * 300),
        (b"<html><body>Bad <b>gateway</b></body></html>", "503 Service Unavailable"),
        (b'{"errors": 7}', "503 Service Unavailable"),
        (b"[" * 100_000, "503 Service Unavailable"),
        (b"", "503 Service Unavailable"),
    ],
)
def test_a_registrys_own_words_are_shown_and_pages_never(body: bytes, words: str) -> None:
    assert blame.said(503, body) == words


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, NotFoundError),
        (401, DeniedError),
        (403, DeniedError),
        (408, UnavailableError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
        (400, BrokenAnswerError),
        (405, BrokenAnswerError),
        (302, BrokenAnswerError),
        (799, UnavailableError),
        (299, BrokenAnswerError),
    ],
)
def test_the_status_decides_what_is_raised(status: int, kind: type[Exception]) -> None:
    assert type(blame.of_status(status, b"", "manifest for x", host="h")) is kind


def test_denied_says_how_to_log_in() -> None:
    body = errors({"code": "UNAUTHORIZED", "message": "authentication required"})
    error = blame.of_status(401, body, "push to reg:5000/x", host="reg:5000")
    assert error.message == (
        "push to reg:5000/x: denied: requested access to the resource is denied "
        "(unauthorized: authentication required)"
    )
    assert "`pystack login reg:5000`" in error.hint
    assert "`pystack login`" in blame.denied("x", "", host="docker.io").hint


def test_the_wait_that_is_asked_for_is_told() -> None:
    error = blame.of_status(429, b"", "manifest for x", host="docker.io", retry_after=30.0)
    assert isinstance(error, UnavailableError)
    assert error.retry_after == 30.0
    assert "asks to wait for 30 s" in error.message
