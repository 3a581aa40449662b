"""What runs in a container, by the service and its image: whose, with which words, variables and rights.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.images.config import ImageConfig
from orchestrator.model.errors import EngineError, ExitCode
from orchestrator.model.observation import Container
from orchestrator.model.stack import OfHost, Service

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD "
    "CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_CHROOT"
).split()
NOBODY = 65534

Json = dict[str, Any]


def hostname(container: Container, host_name: str) -> str:
    """What it is called by itself; on the host's network as the host, unless the service says otherwise."""
    service = container.definition
    of_host = host_name if isinstance(service.network_mode, OfHost) or isinstance(service.uts, OfHost) else ""
    return service.hostname or of_host or container.id[:12]


def user_text(service: Service, image: ImageConfig | None) -> str:
    """`name[:group]`, or numbers; "" is root."""
    return service.user or (image.user if image else "") or ""


def user_numbers(text: str) -> Json:
    """OCI's `user`, as far as numbers say it. A name is looked up in the container's own files, see
    launch.json; who takes this document for the whole gets nobody's rights, not root's."""
    uid, _, gid = (text or "0").partition(":")
    if not _is_id(uid) or (gid and not _is_id(gid)):
        return {"uid": NOBODY, "gid": NOBODY}
    return {"uid": int(uid), "gid": int(gid or 0)}


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < 2**31


def arguments(service: Service, image: ImageConfig | None) -> list[str]:
    """argv: setting an entrypoint drops the image's command (Compose Specification, "entrypoint")."""
    entrypoint = service.entrypoint
    command = service.command
    if entrypoint is None:
        entrypoint = image.entrypoint if image else None
        if command is None:
            command = image.command if image else None
    argv = [*(entrypoint or ()), *(command or ())]
    if not argv:
        raise EngineError(
            f"service {service.name}: no command given, and its image has none",
            retryable=False,
            exit_code=ExitCode.COMMAND_NOT_FOUND,
        )
    return argv


def environment(container: Container, image: ImageConfig | None, host_name: str) -> dict[str, str]:
    env = {"PATH": PATH, "HOSTNAME": hostname(container, host_name)}
    if container.definition.tty:
        env["TERM"] = "xterm"
    if image:
        env.update(image.environment)
    env.update(container.definition.environment)
    return env


def capabilities(service: Service, every: tuple[str, ...]) -> list[str]:
    """The set after cap_add and cap_drop, as docker computes it: drop ALL, then add, then drop others."""
    if service.privileged:
        return sorted(every)
    added = {_capability(name) for name in service.cap_add}
    dropped = {_capability(name) for name in service.cap_drop}
    held = set() if "CAP_ALL" in dropped else set(DEFAULT_CAPABILITIES)
    held |= set(every) if "CAP_ALL" in added else added
    return sorted((held - dropped) & set(every))


def _capability(name: str) -> str:
    upper = name.upper()
    return upper if upper.startswith("CAP_") else f"CAP_{upper}"


def exec_process(
    container: Container,
    image: ImageConfig | None,
    *,
    argv: list[str],
    environment_more: Mapping[str, str],
    user: str | None,
    workdir: str | None,
    tty: bool,
    privileged: bool = False,
    host_name: str = "",
) -> Json:
    """The OCI process of `exec` and of a health check: the container's user, environment and directory."""
    env = environment(container, image, host_name)
    if tty:
        env["TERM"] = "xterm"
    env.update(environment_more)
    service = container.definition
    return {
        "terminal": tty,
        "args": argv,
        "env": [f"{key}={value}" for key, value in env.items()],
        "cwd": workdir or service.working_dir or (image.working_dir if image else "") or "/",
        "user": {"uid": 0, "gid": 0},
        "user_name": user or service.user or (image.user if image else "") or "",
        **({"privileged": True} if privileged else {}),
    }
