"""pytest's plugin: the fixtures `stack` and `simulated_stack`.

    def test_it_heals(stack):
        shop = stack("stack.yml")
        shop.up()
        shop.crash("db")
        assert shop.healed() < 5

Heavy imports wait until a fixture is asked for: pytest loads this in every project of the environment.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.testing.live import LiveStack
    from orchestrator.testing.simulated import SimulatedStack


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pystack")
    group.addoption("--pystack-root", help="state root of the stacks that tests bring up", metavar="DIR")
    group.addoption(
        "--pystack-keep",
        action="store_true",
        help="leave stacks of failed tests as they are, to look at them",
    )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember whether the test failed, for --pystack-keep."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        item.stash[_FAILED] = True


_FAILED = pytest.StashKey[bool]()


@pytest.fixture
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., LiveStack]]:
    """Makes copies of stack files: `stack("stack.yml")`. Each has names, subnets and ports of its own, so
    tests may run at once (pytest-xdist); all are taken down at the end, volumes too, whatever happened.

    Paths count from the test's own directory. Further arguments are those of LiveStack.
    """
    from orchestrator.testing.live import LiveStack

    made: list[LiveStack] = []

    def make(path: str | os.PathLike[str], **arguments: object) -> LiveStack:
        found = _found(request, path)
        arguments.setdefault("root", request.config.getoption("--pystack-root"))
        name = f"t{secrets.token_hex(4)}"
        copy = LiveStack(found, name, tmp_path, **arguments)  # type: ignore[arg-type]
        made.append(copy)
        return copy

    try:
        yield make
    finally:
        if not (request.config.getoption("--pystack-keep") and request.node.stash.get(_FAILED, False)):
            _take_down(made)


def _take_down(made: list[LiveStack]) -> None:
    """All of them, though one may fail."""
    failed: list[Exception] = []
    for copy in reversed(made):
        try:
            copy.down()
        except Exception as error:
            failed.append(error)
    if failed:
        raise failed[0]


@pytest.fixture
def simulated_stack(request: pytest.FixtureRequest) -> Callable[..., SimulatedStack]:
    """Loads stack files for simulation: `simulated_stack("stack.yml").check("lasts: 1h")`."""
    from orchestrator.testing.simulated import SimulatedStack

    def make(path: str | os.PathLike[str], **arguments: object) -> SimulatedStack:
        return SimulatedStack(_found(request, path), **arguments)  # type: ignore[arg-type]

    return make


def _found(request: pytest.FixtureRequest, path: str | os.PathLike[str]) -> Path:
    return (request.path.parent / path).resolve()
