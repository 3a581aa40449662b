"""Which groups lie in a scope of ours."""

from __future__ import annotations

import pytest

from orchestrator.kernel import scope


@pytest.mark.parametrize(
    ("group", "answer"),
    [
        ("/system.slice/pystack-ab2c.scope/pystack-processes", "/system.slice/pystack-ab2c.scope"),
        ("/system.slice/pystack-ab2c.scope", "/system.slice/pystack-ab2c.scope"),
        ("/system.slice/pystack-ab2c.scope/pystack-ab2c/s/0f", "/system.slice/pystack-ab2c.scope"),
        ("/system.slice/pystack-tests.service", None),
        ("/pystack-ab2c/s/0f", None),
        ("/user.slice/user-0.slice/session-1.scope", None),
        ("/", None),
        ("", None),
    ],
)
def test_the_scope_is_found_in_the_name_of_a_group(group: str, answer: str | None) -> None:
    assert scope.of(group) == answer
