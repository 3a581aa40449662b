"""An ordinary user's supervisor lives in a network of its own and may reach no registry: the command fetches
what is wanted ahead of it, from the network that the user has."""

from __future__ import annotations

import os
import subprocess
import sys

from orchestrator.cli.images import Opened
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.model.frozen import replace
from orchestrator.model.images import period
from orchestrator.model.stack import ImageRoot
from orchestrator.model.steps import with_theirs

_NEVER = ("never", "build")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.cli.scope import Scope
    from orchestrator.model.stack import Service, Stack


def fetch(scope: Scope, stack: Stack, services: Iterable[str], *, quiet: bool = False) -> Stack:
    """The stack as the supervisor is to have it, once the images of `services` are here. For root as it is.

    A process of its own does the work: layers have owners, which ask for a user namespace, and who is in one
    does not come back. Raises UserError when an image can't be had; that was told already.
    """
    if os.geteuid() == 0:
        return stack
    named = [stack.services[name] for name in sorted(services) if name in stack.services]
    for platform, names in _lacking(scope, with_theirs(named)).items():
        words = [*(("--platform", platform) if platform else ()), *(("-q",) if quiet else ()), *names]
        done = subprocess.run([*_program(scope), "image", "pull", *words], check=False)
        if done.returncode != 0:
            raise UserError(
                "not every image could be fetched",
                exit_code=ExitCode.IMAGE,
                hint="`pystack pull` tries again",
            )
    return replace(stack, services={name: _settled(one) for name, one in stack.services.items()})


def _settled(service: Service) -> Service:
    """What has just been fetched is not asked for again."""
    return service if service.pull_policy in _NEVER else replace(service, pull_policy="missing")


def _lacking(scope: Scope, services: Iterable[Service]) -> dict[str, list[str]]:
    """Platform ("": this machine's) -> names of images that are to be asked for."""
    found: dict[str, list[str]] = {}
    with Opened(scope, write=False) as store:
        for service in services:
            if not isinstance(service.root, ImageRoot) or service.pull_policy in _NEVER:
                continue
            name = service.root.reference
            here = store is not None and store.resolve(name) is not None
            names = found.setdefault(service.platform or "", [])
            if name not in names and (not here or period(service.pull_policy) is not None):
                names.append(name)
    return {platform: names for platform, names in found.items() if names}


def _program(scope: Scope) -> list[str]:
    root = () if scope.paths.default else ("--root", os.path.dirname(scope.paths.run_dir))
    return [sys.executable, "-m", "orchestrator", *root]
