"""Which ids an ordinary user gets, by what stands in subuid(5)."""

from __future__ import annotations

from orchestrator.kernel import userns
from orchestrator.kernel.userns import Extent


def test_lines_for_the_name_or_the_number_count() -> None:
    text = "ada:100000:65536\nbob:165536:65536\n1001:500000:1000\n\n# ada:1:1\nada:300000:5"
    assert userns.ranges(text, ["ada", "1001"]) == [(100000, 65536), (500000, 1000), (300000, 5)]


def test_nonsense_gives_nothing() -> None:
    text = "ada:x:65536\nada:5\nada:1:0\nada:4294967290:100\nada:-5:3\nada:\u00b2:1\nada:1:2:3"
    assert userns.ranges(text, ["ada"]) == []


def test_there_is_an_end_to_ranges() -> None:
    assert len(userns.ranges("ada:1:1\n" * 1000, ["ada"])) == 16


def test_root_is_the_user_and_ranges_follow_without_a_gap() -> None:
    assert userns.plan(1000, [(100000, 65536), (300000, 5)]) == (
        Extent(0, 1000, 1),
        Extent(1, 100000, 65536),
        Extent(65537, 300000, 5),
    )
    assert userns.plan(1000, []) == (Extent(0, 1000, 1),)
