"""The limits of a container: OCI's linux.resources to control files."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.kernel import capabilities, cgroups, groups
from orchestrator.kernel.cgroups import CgroupError
from orchestrator.kernel.reading import Document, RefusedError
from orchestrator.oci.complaint import Complaint
from orchestrator.oci.record import Record
from orchestrator.oci.scope import Scope


def warnings(config: Mapping[str, object]) -> list[str]:
    """What was asked for and can't be had here, though it is no reason to stop."""
    process = config.get("process")
    asked = process.get("capabilities") if isinstance(process, dict) else None
    names = {name for names in asked.values() for name in names} if isinstance(asked, dict) else set()
    held = capabilities.held()
    lacking = sorted(name for name in names & set(capabilities.NAMES) if not capabilities.mask([name]) & held)
    return [f"process.capabilities: {name} cannot be granted, we don't have it" for name in lacking]


def check_capabilities(config: Mapping[str, object]) -> None:
    """Version 1.0 of the specification wants an error for what no kernel knows, later ones a warning."""
    process = config.get("process")
    asked = process.get("capabilities") if isinstance(process, dict) else None
    if not isinstance(asked, dict) or not str(config["ociVersion"]).startswith("1.0."):
        return
    for name in sorted({name for names in asked.values() for name in names} - set(capabilities.NAMES)):
        raise Complaint(f"config.json: process.capabilities: unknown capability {name!r}")


def make(scope: Scope, hier: cgroups.Hierarchies, path: str, config: Document) -> tuple[str, ...]:
    """Make the container's control groups with their limits; the directories to join.

    None where an ordinary user may not make any and asked for no limit. Raises CgroupError, RefusedError.
    """
    wanted = config.table("linux").table("resources")
    try:
        return groups.create(hier, path, wanted, warn=scope.journal.warning)
    except CgroupError as error:
        if scope.lenient and not _limits(wanted):
            scope.journal.warning(f"no control groups: {error}")
            return ()
        raise


def _limits(wanted: Document) -> bool:
    """Whether anything but devices is limited: those an ordinary user can't use anyway."""
    return any(wanted.raw.get(name) for name in wanted.names() if name != "devices")


def change(scope: Scope, found: Record, wanted: Mapping[str, object]) -> None:
    """Set the limits that are named. Raises Complaint."""
    if not found.cgroup:
        raise Complaint("the container has no control group to limit")
    try:
        groups.update(
            cgroups.detect(), found.cgroup, Document(dict(wanted), "resources"), warn=scope.journal.warning
        )
    except (CgroupError, RefusedError) as error:
        raise Complaint(str(error)) from None
