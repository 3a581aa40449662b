"""The loaded stack as the command line changes it. Pure."""

from __future__ import annotations

from orchestrator.cli.change import no_such_service, usage
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import replace
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


def pulled(stack: Stack, policy: str | None) -> Stack:
    """The stack with another `pull_policy` for all services, if one is given (`--pull`)."""
    if policy is None:
        return stack
    services = {name: replace(service, pull_policy=policy) for name, service in stack.services.items()}
    return replace(stack, services=services)


def tighten(stack: Stack) -> Stack:
    """The stack with the defaults of `--strict`: no-new-privileges where a service says nothing of it."""
    services = {
        name: service
        if any(option.startswith("no-new-privileges") for option in service.security_opt)
        else replace(service, security_opt=(*service.security_opt, "no-new-privileges:true"))
        for name, service in stack.services.items()
    }
    return replace(stack, services=services)


def demand_ports(stack: Stack, services: Iterable[str]) -> None:
    """Raises UserError when two containers of these services are to have the same port of the machine, unless
    they share it.

    The supervisor would find it out too, but only when the others have been started.
    """
    taken: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for name in sorted(services, key=list(stack.services).index):
        service = stack.services[name]
        for port in service.ports:
            first, last = port.published
            if not first or first != last:
                continue
            seat = f"{first}/{port.protocol}"
            place = f"{port.place}: " if port.place else ""
            if service.replicas > 1 and port.mode == "host":
                raise _in_use(
                    f"{place}{service.replicas} containers of service {name} can't all have port {seat}",
                    "with `mode: ingress`, the default, they share it; a range has one for each",
                )
            holders = taken.setdefault((port.protocol, first), [])
            for holder, address in holders:
                if port.host_ip == address or {port.host_ip, address} & _EVERYWHERE:
                    raise _in_use(f"{place}service {name}: port {seat} is that of service {holder} already")
            if service.replicas:
                holders.append((name, port.host_ip))


_EVERYWHERE = {"", "0.0.0.0", "::"}  # noqa: S104 - compared, not bound


def _in_use(message: str, hint: str = "") -> UserError:
    return UserError(message, exit_code=ExitCode.CONFLICT, hint=hint)


def demand(stack: Stack, services: Iterable[str]) -> None:
    """Raises UserError for a name that is no service of the stack."""
    for name in services:
        if name not in stack.services:
            raise no_such_service(name)
