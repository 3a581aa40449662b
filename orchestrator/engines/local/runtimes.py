"""Another runtime than ours for a container: where its program is, and what it needs. Plain, synchronous."""

from __future__ import annotations

import functools
import os
import shutil

from orchestrator.engines.local.bundle import Foreign
from orchestrator.kernel import cgroups
from orchestrator.kernel.limits import Hierarchies, Limits
from orchestrator.model.errors import EngineError, ExitCode
from orchestrator.model.stack import Service

PLAIN = frozenset(("runc", "crun", "youki", "pystack-oci"))
"""Runtimes whose containers are namespaces and cgroups of this kernel, so that we can enter them."""
_DIRECTORIES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find(service: Service, hierarchies: Hierarchies, group: str) -> Foreign | None:
    """What runs a service's containers; None when we do. Raises EngineError when it is not there."""
    name = service.runtime
    if not name:
        return None
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_DIRECTORIES}")
    if path is None:
        raise EngineError(
            f"service {service.name}: runtime {name} is not there or can't be executed",
            retryable=False,
            exit_code=ExitCode.COMMAND_NOT_FOUND,
        )
    hybrid = hierarchies.unified if hierarchies.mode == "hybrid" else None
    return Foreign(
        path=os.path.abspath(path),
        enter=os.path.basename(path) in PLAIN,
        # On v2 a runtime wants its group empty; elsewhere the unified one is not its business, but ours.
        cgroups=(f"{hybrid}/{group}",) if hybrid else (),
        hidden=hybrid or "",
    )


def make_group(hierarchies: Hierarchies, service: Service, group: str) -> tuple[str, ...]:
    """Our own group, in which the container is killed and counted: the limits are the runtime's to write.

    Returns every directory that it may make of it, for processes that join later. Raises EngineError.
    """
    try:
        cgroups.create(hierarchies, group, Limits(all_devices=True))
    except cgroups.CgroupError as error:
        raise EngineError(f"service {service.name}: {error}") from error
    return tuple(f"{base}/{group}" for base in hierarchies.bases)


def counts_swap(hierarchies: Hierarchies) -> bool:
    """Whether the kernel can limit swap: other runtimes fail on a limit that it can't keep."""
    if "memory" in hierarchies.v2:
        return True
    return "memory" in hierarchies.v1 and _counts_swap(hierarchies.v1["memory"])


@functools.cache
def _counts_swap(memory: str) -> bool:
    return os.path.exists(f"{memory}/memory.memsw.limit_in_bytes")
