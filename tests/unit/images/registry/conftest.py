"""A client of the test's own: no file of this machine has a say, waiting takes no time."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.images.registry import client as clients
from orchestrator.images.registry.client import open_registry
from orchestrator.images.registry.transport import Timing
from tests.kit.archives import Entry, Image, layer
from tests.kit.registries import Registry, fresh


class Client:
    """Opens registries. `home` and `etc` hold the files that are read; `slept` is how long it waited each time."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.etc = folder / "etc"
        self.home.mkdir()
        self.slept: list[float] = []
        self.said: list[str] = []
        self.seconds = 1000.0
        """The clock that tokens expire by."""

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home / "run"), "PATH": "/usr/bin:/bin"}

    def open(
        self, host: str, environment: Mapping[str, str] | None = None, **more: Any
    ) -> AbstractAsyncContextManager[clients.Registry]:
        return self._open(host, {**self.environment, **(environment or {})}, more)

    @asynccontextmanager
    async def _open(
        self, host: str, environment: Mapping[str, str], more: Mapping[str, Any]
    ) -> AsyncIterator[clients.Registry]:
        timing = Timing(
            sleep=self._sleep, chance=lambda: 0.0, now=lambda: 1_792_000_000.0, clock=lambda: self.seconds
        )
        async with open_registry(
            host, environment, warn=self.said.append, timing=timing, etc=self.etc, **more
        ) as registry:
            yield registry

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds

    def settings(self, text: str) -> None:
        """registries.toml."""
        path = self.home / ".config/pystack/registries.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def log_in(self, host: str, pair: str, **more: str) -> None:
        """An entry of docker's config.json."""
        path = self.home / ".docker/config.json"
        path.parent.mkdir(exist_ok=True)
        data = json.loads(path.read_text()) if path.exists() else {"auths": {}}
        data["auths"][host] = {"auth": base64.b64encode(pair.encode()).decode(), **more}
        path.write_text(json.dumps(data))

    def trust(self, host: str, *files: Path) -> None:
        """Copies into the certificates of a host."""
        folder = self.home / ".config/containers/certs.d" / host
        folder.mkdir(parents=True, exist_ok=True)
        for one in files:
            (folder / one.name).write_bytes(one.read_bytes())


IMAGE = Image((layer(Entry("etc/motd", b"hello")),), run={"Cmd": ["sh"]})


_SEEDED: dict[tuple[int, str], tuple[str, str]] = {}


def seeded(registry: Registry, prefix: str = "") -> tuple[str, str]:
    """A repository of a registry whose tag 1 is IMAGE, pushed by skopeo once a session; and its digest."""
    key = (registry.port, prefix)
    if key not in _SEEDED:
        path = f"{prefix}{fresh('seeded')}"
        _SEEDED[key] = path, registry.seed(f"{path}:1", IMAGE)
        if registry.tokens:
            registry.tokens.reset()
    return _SEEDED[key]


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)
