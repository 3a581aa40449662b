"""What a registry asks for, as headers have it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.images.registry.challenges import Challenge, parse


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", []),
        ('Basic realm="Registry Realm"', [("basic", {"realm": "Registry Realm"})]),
        ("basic realm=plain", [("basic", {"realm": "plain"})]),
        (
            'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "registry.example",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ("Negotiate", [("negotiate", {})]),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("Negotiate YII=, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        (
            'Basic realm="a, Bearer b", Bearer realm="c"  ,  scope="x y"',
            [("basic", {"realm": "a, Bearer b"}), ("bearer", {"realm": "c", "scope": "x y"})],
        ),
        (r'Basic realm="a \"b\" \\ c"', [("basic", {"realm": r"a " + '"b" ' + "\\" + " c"})]),
        (", ,Basic  realm = x", [("basic", {"realm": "x"})]),
        ('Basic realm="first", realm="second"', [("basic", {"realm": "first"})]),
        ('Basic REALM="x"', [("basic", {"realm": "x"})]),
        ('Bearer realm="never closed', [("bearer", {})]),
        ("Bearer =", [("bearer", {})]),
        ("=x", []),
    ],
)
def test_headers_hold_challenges(header: str, found: list[tuple[str, dict[str, str]]]) -> None:
    assert list(parse(header)) == [Challenge(scheme=scheme, parameters=rest) for scheme, rest in found]


def test_scopes_are_parted_by_blanks_and_insufficient_ones_are_told() -> None:
    header = 'Bearer realm="r",scope="repository:a:pull repository:b:pull,push",error="insufficient_scope"'
    (one,) = parse(header)
    assert one.scopes == {"repository:a:pull", "repository:b:pull,push"}
    assert one.insufficient
    assert not parse('Bearer error="invalid_token"')[0].insufficient


@given(st.text(alphabet='Ba=", \\\t-x', max_size=60))
def test_any_header_is_read_without_an_error(header: str) -> None:
    for one in parse(header):
        assert one.scheme == one.scheme.lower() != ""


def test_a_long_header_takes_no_long_time() -> None:
    assert len(parse('Basic realm="x", ' * 100_000)) < 2000
    assert parse('a="' + "\\" * 100_000) == ()
