"""What makes a definition another one, and in which words."""

from __future__ import annotations

from orchestrator.model import fingerprint
from orchestrator.model.frozen import replace
from orchestrator.model.stack import Place, Service
from tests.kit.stacks import check, service, stack


def made(**fields: object) -> Service:
    return stack("shop", web=service(**fields)).services["web"]  # type: ignore[arg-type]


BEFORE = made(image="a", environment={"A": "1", "B": "2"}, ports=(":80",), user="1")


def test_keys_are_named_as_the_file_has_them_and_values_are_not() -> None:
    after = made(image="b", environment={"A": "secret", "C": "3", "B": "2"}, volumes=("d:/x",), user="2")
    assert fingerprint.differing(BEFORE, after) == (
        "environment.A",
        "environment.C",
        "image",
        "ports",
        "user",
        "volumes",
    )


def test_what_is_told_and_what_is_counted_are_the_same() -> None:
    """A difference is named exactly when the fingerprint differs."""
    others = [
        BEFORE,
        replace(BEFORE, replicas=5),
        replace(BEFORE, depends_on=made(after="db").depends_on),
        replace(BEFORE, pull_policy="always"),
        replace(BEFORE, place=Place(file="x", line=1, column=1)),
        replace(BEFORE, healthcheck=check()),
        replace(BEFORE, stop_grace_period=1.0),
        replace(BEFORE, labels={"a": "b"}),
    ]
    for other in others:
        same = fingerprint.of_service(BEFORE) == fingerprint.of_service(other)
        assert same == (fingerprint.differing(BEFORE, other) == ())
    assert sum(fingerprint.differing(BEFORE, other) != () for other in others) == 3
