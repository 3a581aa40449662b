"""`pre_start`: the containers that run to their end before those of a service start, as recipes.

Nobody writes them down: they follow from the service. So they have its life (asked for, stopped and removed
with it), a container each, and what holds for containers holds for them. Source: Compose Specification.
"""

from __future__ import annotations

from itertools import pairwise

from orchestrator.model.frozen import replace
from orchestrator.model.graph import needs
from orchestrator.model.stack import (
    Attachment,
    Dependency,
    Healthcheck,
    ImageRoot,
    Private,
    RestartPolicy,
    Service,
    Stack,
    Step,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orchestrator.model.sections import InitContainer


POLICY = RestartPolicy(condition="on-failure", max_attempts=0)
"""A step that fails has failed; one that the machine, or nobody knows who, has cut short is run again. No
file can ask for this policy."""


def name_of(service: str, number: int) -> str:
    """No service of a file can have such a name."""
    return f"{service}:pre_start:{number}"


def shown(service: Service) -> str:
    """The service that a recipe is part of, or is."""
    return service.step.of if service.step is not None else service.name


def of(service: Service) -> tuple[Service, ...]:
    """The steps of a service, in order. One-offs have none: what `run` needs has been prepared by `up`."""
    if service.oneoff:
        return ()
    return tuple(_recipe(service, one, number) for number, one in enumerate(service.pre_start, 1))


def with_theirs(services: Iterable[Service]) -> Iterator[Service]:
    """Each service, and then its steps."""
    for service in services:
        yield service
        yield from of(service)


def with_steps(stack: Stack) -> Stack:
    """The stack with the recipes of its steps among the services; the same one when there are none."""
    if not any(service.pre_start for service in stack.services.values()):
        return stack
    return replace(stack, services={one.name: one for one in with_theirs(stack.services.values())})


def in_order(stack: Stack) -> Stack:
    """For sorting only: each step depends on the one before, and the service on its last one."""
    services = dict(stack.services)
    for name, service in stack.services.items():
        for before, after in pairwise([*(step.name for step in of(service)), name]):
            last = Dependency(service=before, condition="service_completed_successfully")
            services[after] = replace(services[after], depends_on=(*services[after].depends_on, last))
    return replace(stack, services=services)


def _recipe(service: Service, said: InitContainer, number: int) -> Service:
    """All that the step does not say is the service's, but what makes others find it or wait for it.

    An image of its own has an entrypoint of its own.
    """
    own = said.image is not None
    return replace(
        service,
        name=name_of(service.name, number),
        step=Step(of=service.name, number=number, each=said.per_replica),
        oneoff=True,
        replicas=1,
        root=ImageRoot(reference=said.image) if said.image is not None else service.root,
        entrypoint=None if own else service.entrypoint,
        command=said.command if said.command is not None or own else service.command,
        user=said.user if said.user is not None else service.user,
        privileged=said.privileged or service.privileged,
        working_dir=said.working_dir if said.working_dir is not None else service.working_dir,
        environment={**service.environment, **said.environment},
        container_name=None,
        hostname=None,
        tty=False,
        stdin_open=False,
        build=None,
        depends_on=tuple(replace(one, restart=False) for one in needs(service)),
        healthcheck=Healthcheck(disable=True),
        log_ready=None,
        restart=POLICY,
        pre_start=(),
        post_start=(),
        pre_stop=(),
        watch=(),
        deploy=None,
        pid=Private(),
        ipc=Private(),
        uts=Private(),
        networks=tuple(_unnamed(one) for one in service.networks),
        ports=(),
        expose=(),
        place=said.place or service.place,
    )


def _unnamed(attachment: Attachment) -> Attachment:
    """Names and addresses of one's own are the service's."""
    return replace(attachment, aliases=(), ipv4_address=None, ipv6_address=None, mac_address=None)
