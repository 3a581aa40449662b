"""What every test may use, and what every kernel test is held to: it leaves nothing on the machine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import leaks
from tests.kit.patience import SLOWER, patient


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test marked `kernel` that leaves a process, mount, interface, namespace, cgroup or table.

    What wider fixtures have made before the test may stay until they end. A test that has the fixture
    `state_root` is judged by that root alone, so it may run beside other work.
    """
    if request.node.get_closest_marker("kernel") is None:
        yield
        return
    leaks.BASE = request.getfixturevalue("tmp_path_factory").getbasetemp()
    root = request.getfixturevalue("state_root") if "state_root" in request.fixturenames else None
    with leaks.nothing_left(leaks.Root(path=root) if root else None):
        yield


@pytest.fixture
def state_root(tmp_path: Path) -> Path:
    """A state root of the test's own, as `pystack --root` takes it."""
    return tmp_path


def pytest_configure() -> None:
    """Whoever runs the suite may ignore these (nohup(1), a shell's `&`), and every program of it would, too."""
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Stretches the time limit of every test where the machine is said to be slower."""
    if SLOWER != 1:
        usual = float(config.getini("timeout"))
        for item in items:
            mark = item.get_closest_marker("timeout")
            item.add_marker(pytest.mark.timeout(patient(mark.args[0] if mark else usual)), append=False)
