"""The loaded stack as the command line changes it. Pure."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.cli.change import no_such_service, usage
from orchestrator.model.stack import Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def arrange(stack: Stack, counts: dict[str, int]) -> Stack:
    """The stack with other numbers of replicas. Raises UserError."""
    if not counts:
        return stack
    demand(stack, counts)
    for name, count in counts.items():
        if count > 1 and stack.services[name].container_name:
            raise usage(
                f"--scale: {name} has a container_name, so there can be only one", "remove container_name"
            )
    services = {
        name: replace(service, replicas=counts.get(name, service.replicas))
        for name, service in stack.services.items()
    }
    return replace(stack, services=services)


def demand(stack: Stack, services: Iterable[str]) -> None:
    """Raises UserError for a name that is no service of the stack."""
    for name in services:
        if name not in stack.services:
            raise no_such_service(name)
