"""Messages <-> bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.api import wire

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_what_is_encoded_is_json_on_one_line_and_comes_back(message: dict[str, Any]) -> None:
    line = wire.encode(message)

    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    assert json.loads(line) == message
    assert wire.decode(line) == message


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_json_of_other_makers_is_understood(message: dict[str, Any]) -> None:
    assert wire.decode(json.dumps(message, ensure_ascii=False, indent=None).encode()) == message


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b"1", b'{"a":nope}', b"\xff", b"{} x", b'{"a":1}{"b":2}', b"[" * 100_000, b'{"a"'],
)
def test_what_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(line)


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError):
        wire.encode({"a": object()})
    with pytest.raises(ValueError, match=r"."):
        wire.encode({"a": float("nan")})


@given(st.lists(st.binary(max_size=50).map(lambda data: data.replace(b"\n", b"")), max_size=8), st.data())
def test_lines_come_out_whole_however_the_stream_was_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    reader, found, rest = wire.Lines(), [], stream
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        found += reader.feed(rest[:size])
        rest = rest[size:]

    assert found == lines


def test_a_line_over_the_limit_is_refused_before_it_is_complete() -> None:
    reader = wire.Lines(limit=10)
    assert reader.feed(b"12345\n1234567890") == [b"12345"]

    with pytest.raises(wire.WireError):
        reader.feed(b"1")
