"""What names mean at their registries now: one small request each, many side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack

import trio

from orchestrator.images import reference as references
from orchestrator.images.reference import Reference
from orchestrator.images.registry.client import Registry, open_registry
from orchestrator.images.registry.credentials import Warn
from orchestrator.model.errors import PystackError

AT_ONCE = 8


async def digests(
    names: Iterable[str], environment: Mapping[str, str], *, warn: Warn
) -> tuple[dict[str, str], dict[str, PystackError]]:
    """The digests of full names with tags, and of the others why there is none."""
    found: dict[str, str] = {}
    failed: dict[str, PystackError] = {}
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def ask(name: str, reference: Reference, registry: Registry) -> None:
        async with limiter:
            try:
                found[name] = (await registry.head(reference.path, reference.tag)).digest
            except PystackError as error:
                failed[name] = error

    parsed = {name: references.parse(name) for name in names}
    async with AsyncExitStack() as stack:
        registries: dict[str, Registry] = {}
        for host in sorted({one.host for one in parsed.values()}):
            opened = open_registry(host, environment, warn=warn)
            registries[host] = await stack.enter_async_context(opened)
        async with trio.open_nursery() as nursery:
            for name, one in parsed.items():
                nursery.start_soon(ask, name, one, registries[one.host])
    return found, failed
