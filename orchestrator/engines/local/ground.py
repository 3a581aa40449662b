"""Looks up and prepares on the machine what the bundle of one container needs. Plain, synchronous."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Collection
from pathlib import Path

from orchestrator.engines.local import allowed, bundle, limiting, runtimes, storage
from orchestrator.engines.local.bundle import Ground
from orchestrator.engines.local.etc import etc_files
from orchestrator.engines.local.places import Places
from orchestrator.engines.local.program import capabilities
from orchestrator.engines.local.shared import Shared
from orchestrator.engines.local.table import Live
from orchestrator.kernel import capabilities as caps
from orchestrator.kernel import seccomp, security, userns
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import Container
from orchestrator.model.stack import Service


def look_up(
    shared: Shared, live: Live, group: str, peer: Container | None, joined: Collection[str] = ()
) -> Ground:
    """Everything for one container; its control group is made. `peer`: whose network it shares; `joined`:
    kinds of namespace that are there already.

    Raises EngineError, OSError.
    """
    container, places = live.container, shared.places
    service = container.definition
    root = storage.root_of(shared.store, places, container)
    options = _security(service)
    every = _held_capabilities()
    mounted = {mounted.target: mounted.volume for mounted in live.built.volumes}
    held = capabilities(service, every)
    home = places.container(container.stack, container.id)
    hierarchies = shared.hierarchies
    runtime = runtimes.find(service, hierarchies, group)
    program = None if service.privileged else _seccomp(options, held, places.seccomp)
    return Ground(
        places=places,
        image=root.image,
        root=root.layers,
        volumes=storage.volume_directories(container, mounted, shared.table.volumes),
        written_files=storage.write_files(home, container),
        etc=etc_files(places, container, peer, shared.table.networks),
        seeds=storage.seeds(places, container, mounted),
        devices=storage.devices(container),
        cgroups=runtimes.make_group(hierarchies, service, group)
        if runtime
        else limiting.create(hierarchies, container, group),
        above=hierarchies.above,
        resources=allowed.resources(
            limiting.limits(container, limiting.device_rules(container)),
            counts_swap=runtimes.counts_swap(hierarchies),
        ),
        seccomp=str(program) if program else None,
        policy=seccomp.cached_policy(program) if program else "",
        joined=frozenset(joined),
        runtime=runtime,
        no_new_privileges=options.no_new_privileges,
        unmasked=options.system_paths == "unconfined",
        thermal=_thermal(),
        init=_init(places) if service.init else None,
        stdin=service.stdin_open and not service.tty,
        all_capabilities=every,
        host_name=os.uname().nodename,
        highest_group=bundle.EVERY_GROUP if userns.is_initial() else userns.highest(),
    )


def _init(places: Places) -> str:
    """Our own pid 1, for `init: true`."""
    from orchestrator.kernel import init

    places.programs.mkdir(parents=True, exist_ok=True, mode=0o711)
    return str(init.ensure(places.programs))


@functools.cache
def _thermal() -> tuple[str, ...]:
    return tuple(sorted(map(str, Path("/sys/devices/system/cpu").glob("cpu*/thermal_throttle"))))


@functools.cache
def _held_capabilities() -> tuple[str, ...]:
    """What this machine can give at all: a virtual machine's root may lack some."""
    held = caps.held()
    return tuple(name for number, name in enumerate(caps.NAMES) if held >> number & 1)


def _security(service: Service) -> security.SecurityOptions:
    if not service.security_opt:
        return security.SecurityOptions()
    try:
        options = security.parse_security_opt(service.security_opt, security.machine_lsms())
    except security.SecurityOptionError as error:
        raise EngineError(f"service {service.name}: {error}", retryable=False) from error
    if options.apparmor or [label for label in options.labels if label != "disable"]:
        raise EngineError(
            f"service {service.name}: security_opt apparmor and label are not honoured yet", retryable=False
        )
    return options


def _seccomp(options: security.SecurityOptions, held: list[str], directory: Path) -> Path | None:
    """The compiled program for these capabilities; None when the service asks for none."""
    if options.seccomp == "unconfined":
        return None
    if options.seccomp_file is None:
        return seccomp.default_cached(held, directory, one_id=userns.is_single())
    try:
        document = json.loads(Path(options.seccomp_file).read_bytes())
        profile = seccomp.resolve_profile(document, held)
        if userns.is_single():
            profile = seccomp.for_one_id(profile)
        return seccomp.compile_cached(profile, directory)
    except (OSError, ValueError) as error:
        raise EngineError(f"seccomp profile {options.seccomp_file}: {error}", retryable=False) from error
