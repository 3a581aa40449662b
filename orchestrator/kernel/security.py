"""`security_opt`: what a container asks of the kernel's security features. Pure, but for `machine_lsms`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

_BOOLEANS = {"": True, "true": True, "false": False}
_KNOWN = "seccomp, no-new-privileges, apparmor, label, systempaths"


class SecurityOptionError(ValueError):
    """An option that is unknown, or that this machine can't honour; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions:
    """What `security_opt` asks for."""

    seccomp: Literal["default", "unconfined", "file"] = "default"
    seccomp_file: str | None = None
    """As written; relative to the stack file's directory."""
    no_new_privileges: bool = False
    apparmor: str | None = None
    """The profile's name; None for none."""
    labels: tuple[str, ...] = ()
    """SELinux: type:T, level:L, user:U, role:R, or disable."""
    system_paths: Literal["masked", "unconfined"] = "masked"


def parse_security_opt(options: Sequence[str], lsms: Collection[str] = ()) -> SecurityOptions:
    """Read the options, later ones winning. `lsms` are the security modules of this machine.

    The forms are Docker's: `key=value`, or `key:value` where there is no equals sign. Raises
    SecurityOptionError.
    """
    found: dict[str, str] = {}
    labels: list[str] = []
    for option in options:
        key, separator, value = option.partition("=")
        if not separator:
            key, separator, value = option.partition(":")
        if key not in {"seccomp", "no-new-privileges", "apparmor", "label", "systempaths"}:
            raise SecurityOptionError(f"security_opt: {option!r} is not known, only {_KNOWN}")
        if key != "no-new-privileges" and not value:
            raise SecurityOptionError(f"security_opt: {option!r} needs a value, as in {key}=...")
        if key == "label":
            labels.append(value)
        else:
            found[key] = value
    seccomp = found.get("seccomp", "builtin")
    mode: Literal["default", "unconfined", "file"] = (
        "default" if seccomp == "builtin" else "unconfined" if seccomp == "unconfined" else "file"
    )
    return SecurityOptions(
        seccomp=mode,
        seccomp_file=seccomp if mode == "file" else None,
        no_new_privileges=_boolean("no-new-privileges", found.get("no-new-privileges", "false")),
        apparmor=_apparmor(found.get("apparmor", "unconfined"), lsms),
        labels=_labels(labels, lsms),
        system_paths=_system_paths(found.get("systempaths")),
    )


def _boolean(key: str, value: str) -> bool:
    if value not in _BOOLEANS:
        raise SecurityOptionError(f"security_opt: {key}={value} must be true or false")
    return _BOOLEANS[value]


def _apparmor(profile: str, lsms: Collection[str]) -> str | None:
    if profile == "unconfined":
        return None
    if "apparmor" not in lsms:
        raise SecurityOptionError(f"security_opt: apparmor={profile}: this machine has no AppArmor")
    return profile


def _labels(labels: Sequence[str], lsms: Collection[str]) -> tuple[str, ...]:
    for label in labels:
        if label != "disable" and label.partition(":")[0] not in {
            "type",
            "level",
            "user",
            "role",
            "filetype",
        }:
            raise SecurityOptionError(f"security_opt: label={label} is not known")
        if label != "disable" and "selinux" not in lsms:
            raise SecurityOptionError(f"security_opt: label={label}: this machine has no SELinux")
    return tuple(label for label in labels if label != "disable" or "selinux" in lsms)


def _system_paths(value: str | None) -> Literal["masked", "unconfined"]:
    if value is None:
        return "masked"
    if value != "unconfined":
        raise SecurityOptionError(f"security_opt: systempaths={value} is not known, only unconfined")
    return "unconfined"


def machine_lsms(path: str = "/sys/kernel/security/lsm") -> frozenset[str]:
    """The Linux security modules of this machine; none where securityfs isn't mounted."""
    try:
        with open(path, encoding="ascii") as file:
            return frozenset(file.read(4096).strip().split(","))
    except OSError:
        return frozenset()
