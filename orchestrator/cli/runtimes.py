"""`runtime:` and --runtime: which program runs a service's containers, found on the user's own PATH."""

from __future__ import annotations

import os

from orchestrator.cli import change
from orchestrator.model.frozen import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from orchestrator.model.stack import Stack
    from orchestrator.stackfile.load import Loaded

OWN = "pystack"
NAMES = ("crun", "runc", "runsc", "youki", "pystack-oci")
"""Programs with the command line of OCI runtimes that are meant by their name."""
_ALIASES = {"io.containerd.runc.v2": "runc"}
"""Docker's name for what it uses when nothing is said."""
_DIRECTORIES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def settle(
    loaded: Loaded,
    stack: Stack,
    about: Collection[str],
    default: str | None = None,
    which: Callable[[str], str | None] | None = None,
) -> Stack:
    """The stack with the path of each service's runtime; our own is None. `default` is for services that say
    nothing, and `about` are those that are to run.

    Raises StackfileError for one that is unknown or not there, UserError for such a `default`.
    """
    find = which or _which
    usual = _usual(default, find)
    if usual is None and not any(service.runtime for service in stack.services.values()):
        return stack
    services = dict(stack.services)
    wrong: list[tuple[str, str, str]] = []
    for name, service in services.items():
        if not service.runtime:
            services[name] = replace(service, runtime=usual)
            continue
        path, problem, hint = look(service.runtime, find)
        if problem and name in about:
            wrong.append((name, problem, hint))
        services[name] = replace(service, runtime=service.runtime if problem else path)
    if wrong:
        raise _refusal(loaded, wrong)
    return replace(stack, services=services)


def look(name: str, find: Callable[[str], str | None]) -> tuple[str | None, str, str]:
    """(path, "", "") of a runtime, None for ours; or (None, what is wrong, what would be right)."""
    meant = _ALIASES.get(name, name)
    if meant == OWN:
        return None, "", ""
    if "/" in meant:
        if not meant.startswith("/"):
            return None, f"{name} is neither a name nor an absolute path", ""
    elif meant not in NAMES:
        return None, f"{name} is no runtime that is known", f"{', '.join((OWN, *NAMES))} or an absolute path"
    path = find(meant)
    if path is None:
        where = "not there, or can't be executed" if "/" in meant else "not on the PATH"
        return None, f"{name} is {where}", f"install it, or leave it out: {OWN} has a runtime of its own"
    if os.geteuid() != 0:
        return None, f"{name} can only be used by root", ""
    return path, "", ""


def _usual(default: str | None, find: Callable[[str], str | None]) -> str | None:
    if not default:
        return None
    path, problem, hint = look(default, find)
    if problem:
        raise change.usage(f"--runtime: {problem}", hint)
    return path


def _which(name: str) -> str | None:
    import shutil

    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_DIRECTORIES}")
    return path and os.path.abspath(path)


def _refusal(loaded: Loaded, wrong: list[tuple[str, str, str]]) -> Exception:
    from orchestrator.stackfile import problem
    from orchestrator.stackfile.tree import find

    found = []
    for name, message, hint in wrong:
        path = ("services", name, "runtime")
        mark = find(loaded.tree, path)
        found.append(
            problem.Problem(
                code=problem.UNSUPPORTED,
                message=f"{'.'.join(path)}: {message}",
                place=problem.place_of(mark),
                path=".".join(path),
                hint=hint,
                excerpt=problem.excerpt(loaded.texts, mark),
                service=name,
            )
        )
    return problem.StackfileError(found)
