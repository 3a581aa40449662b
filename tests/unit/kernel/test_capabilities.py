"""Capability names, masks, and which sets a process gets."""

from __future__ import annotations

import pytest

from orchestrator.kernel.capabilities import NAMES, Sets, every, mask, wanted

ALL = (1 << len(NAMES)) - 1


def test_masks() -> None:
    assert mask([]) == 0
    assert mask(["CAP_CHOWN", "CAP_SYS_ADMIN"]) == 1 | 1 << 21
    assert mask(["CAP_CHECKPOINT_RESTORE"]) == 1 << 40


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="CAP_FLY"):
        mask(["CAP_FLY"])
    with pytest.raises(ValueError, match="sideways"):
        wanted({"sideways": []}, ALL)


def test_nothing_asked_for_is_nothing_given() -> None:
    assert wanted(None, ALL) == wanted({}, ALL) == Sets(0, 0, 0, 0, 0)


def test_what_the_machine_lacks_is_left_out() -> None:
    held = ALL & ~mask(["CAP_SYS_RESOURCE"])
    asked = {"bounding": list(NAMES), "permitted": list(NAMES), "effective": list(NAMES)}
    assert wanted(asked, held) == Sets(held, held, held, 0, 0)
    assert every(held) == Sets(held, held, held, 0, 0)


def test_effective_needs_permitted() -> None:
    assert wanted({"effective": ["CAP_KILL"]}, ALL).effective == 0


def test_ambient_needs_permitted_and_inheritable() -> None:
    """The kernel would refuse the others with EPERM (capabilities(7))."""
    asked = {
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_KILL", "CAP_CHOWN"],
    }
    assert wanted(asked, ALL).ambient == mask(["CAP_KILL"])
