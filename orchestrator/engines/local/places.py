"""Which file stands where, below the two directories of a state root.

`run` vanishes with the machine's uptime; `data` outlives it. A container's id is 64 hex digits, a stack's
and a volume's name is checked before it comes here, so no part of a path is free text.
"""

from __future__ import annotations

import functools
from pathlib import Path

from orchestrator.kernel import interfaces
from orchestrator.model.frozen import dataclass


@functools.lru_cache(maxsize=4096)
def _below(base: Path, *names: str) -> Path:
    """Remembered: a start asks for the same two directories some forty times."""
    return base.joinpath(*names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The paths of one state root."""

    run: Path
    data: Path

    @property
    def tag(self) -> str:
        """Tells the kernel objects of different state roots apart: interfaces, cgroups, firewall tables."""
        return interfaces.tag(str(self.run))

    @property
    def keeper_socket(self) -> Path:
        return self.run / "keeper.sock"

    @property
    def supervisor_socket(self) -> Path:
        return self.run / "supervisor.sock"

    @property
    def supervisor_lock(self) -> Path:
        return self.run / "supervisor.lock"

    @property
    def supervisor_log(self) -> Path:
        return self.run / "supervisor.log"

    @property
    def bundles(self) -> Path:
        return self.run / "containers"

    def bundle(self, container_id: str) -> Path:
        return _below(self.run, "containers", container_id)

    @property
    def networks(self) -> Path:
        """Kept over a restart of the machine: containers keep their addresses."""
        return self.data / "networks"

    def network(self, name: str) -> Path:
        return self.networks / f"{name}.json"

    @property
    def seccomp(self) -> Path:
        """Compiled filters, which take longer to make than a container."""
        return self.data / "seccomp"

    @property
    def stacks(self) -> Path:
        return self.data / "stacks"

    def stack(self, name: str) -> Path:
        return self.stacks / name

    def desired(self, stack: str) -> Path:
        return self.stack(stack) / "desired.json"

    def container(self, stack: str, container_id: str) -> Path:
        return _below(self.data, "stacks", stack, "containers", container_id)

    def log(self, stack: str, container_id: str) -> Path:
        """The current log file of a container."""
        return self.container(stack, container_id) / "container.log"

    @property
    def boot(self) -> Path:
        """In which life of the machine a supervisor was here last."""
        return self.data / "boot.json"

    @property
    def shutdown(self) -> Path:
        """Which life of the machine has ended in order: its supervisor was told to go."""
        return self.data / "shutdown.json"

    @property
    def volumes(self) -> Path:
        return self.data / "volumes"

    def volume(self, name: str) -> Path:
        return self.volumes / name

    @property
    def known_volumes(self) -> Path:
        """Records once more, out of the way of who deletes a volume's directory: what was there is known."""
        return self.data / "known-volumes"

    def known_volume(self, name: str) -> Path:
        return self.known_volumes / f"{name}.json"

    @property
    def images(self) -> Path:
        return self.data / "images"

    @property
    def host_root(self) -> Path:
        return self.data / "hostroot"

    @property
    def programs(self) -> Path:
        """Where our own pid 1 for `init: true` stands."""
        return self.data / "programs"

    @property
    def cgroup(self) -> str:
        return f"pystack-{self.tag}"
