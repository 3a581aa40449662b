"""What every test may use, and what every kernel test is held to: it leaves nothing on the machine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import leaks, registries, servers
from tests.kit.faults import Faults
from tests.kit.patience import SLOWER, patient
from tests.kit.registries import Registry
from tests.kit.servers import Authority
from tests.kit.tokens import TokenServer


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


# --- registries, one each for a session (tests/kit/registries.py) -----------------------------------------


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA of the session's own."""
    return servers.made(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Plain HTTP, and everybody may do everything."""
    with registries.running(tmp_path_factory.mktemp("open-registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def secure_registry(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Registry]:
    """TLS, and only ann may come in, with a password that has characters to trip over."""
    folder = tmp_path_factory.mktemp("secure-registry")
    with registries.running(folder, authority=authority, users={"ann": "p:ä ss"}) as registry:
        yield registry


@pytest.fixture(scope="session")
def _tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    with TokenServer({"ann": "secret", "bob": "other"}).serving(tmp_path_factory.mktemp("tokens")) as tokens:
        yield tokens


@pytest.fixture(scope="session")
def _token_registry(tmp_path_factory: pytest.TempPathFactory, _tokens: TokenServer) -> Iterator[Registry]:
    with registries.running(tmp_path_factory.mktemp("token-registry"), tokens=_tokens) as registry:
        yield registry


@pytest.fixture
def token_registry(_token_registry: Registry) -> Registry:
    """Users get tokens from `.tokens`, which is as on the first day for each test."""
    assert _token_registry.tokens
    _token_registry.tokens.reset()
    return _token_registry


@pytest.fixture
def faults(open_registry: Registry) -> Iterator[Faults]:
    """A proxy in front of the open registry that goes wrong as the test says."""
    with Faults(open_registry).serving() as proxy:
        yield proxy


@pytest.fixture
def shelf() -> Iterator[Faults]:
    """A registry that has nothing but what the test puts there, however wrong that is."""
    with Faults().serving() as proxy:
        yield proxy
