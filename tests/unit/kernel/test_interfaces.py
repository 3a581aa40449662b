"""Names that fit the kernel and no one else's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.kernel import interfaces


@given(st.text(), st.text(), st.text())
def test_names_fit_and_bear_the_mark_of_their_state_root(root: str, container: str, network: str) -> None:
    tag = interfaces.tag(root)
    further = interfaces.bridge(tag, network, 1), *interfaces.trunk(tag, network, 1)
    for name in (interfaces.bridge(tag, network), interfaces.port(tag, container, network), *further):
        assert len(name.encode()) <= 15
        assert name.startswith(interfaces.prefix(tag))
        assert name.isalnum()
        assert name == name.lower()
    assert 0 < interfaces.group(tag, network) < 1 << 31


def test_different_things_have_different_names() -> None:
    tag, other = interfaces.tag("/run/pystack"), interfaces.tag("/run/other")
    names = {
        interfaces.bridge(tag, "a"),
        interfaces.bridge(tag, "b"),
        interfaces.bridge(other, "a"),
        interfaces.port(tag, "a", "bc"),
        interfaces.port(tag, "ab", "c"),
        interfaces.port(other, "a", "bc"),
        interfaces.bridge(tag, "a", 1),
        interfaces.bridge(tag, "a", 2),
        *interfaces.trunk(tag, "a", 1),
        *interfaces.trunk(tag, "b", 1),
    }
    assert len(names) == 12
    assert interfaces.group(tag, "a") != interfaces.group(other, "a")


def test_names_stay_what_they_were() -> None:
    """A newer version must find the interfaces that an older one made."""
    assert interfaces.tag("/run/pystack") == "bhqb"
    assert interfaces.bridge("abcd", "shop_default") == "psabcdbjlwoz4hw"
    assert interfaces.port("abcd", "0123456789ab", "shop_default") == "psabcdvgyzgzlsr"
    assert interfaces.bridge("abcd", "shop_default", 1) == "psabcdskdce6les"
    assert interfaces.trunk("abcd", "shop_default", 1) == ("psabcddkdce6les", "psabcdukdce6les")
    assert interfaces.group("abcd", "shop_default") == 314_392_928
