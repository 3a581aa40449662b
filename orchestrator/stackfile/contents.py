"""What configs and secrets hold that are files of this machine: a digest goes into the Stack, never the
content. So the next `up` sees that a file has changed, and what it names is known to be there before anything
is touched.
"""

from __future__ import annotations

from orchestrator.model import stack as model
from orchestrator.model.frozen import replace
from orchestrator.stackfile import problem
from orchestrator.stackfile.complete import Setting
from orchestrator.stackfile.files import why
from orchestrator.stackfile.problem import Report


def digest(services: dict[str, model.Service], setting: Setting, report: Report) -> None:
    """Note the digests in the services' mounts; a file that can't be read is refused with its place."""
    known: dict[str, str | OSError] = {}
    for name, service in services.items():
        if any(isinstance(mount, model.FileMount) and mount.path for mount in service.mounts):
            mounts = tuple(_noted(name, mount, known, setting, report) for mount in service.mounts)
            services[name] = replace(service, mounts=mounts)


def _noted(
    service: str, mount: model.Mount, known: dict[str, str | OSError], setting: Setting, report: Report
) -> model.Mount:
    if not isinstance(mount, model.FileMount) or mount.path is None:
        return mount
    if mount.path not in known:
        try:
            known[mount.path] = setting.files.digest(mount.path)
        except OSError as error:
            known[mount.path] = error
    found = known[mount.path]
    if isinstance(found, OSError):
        _refuse(service, mount, why(found), report)
        return mount
    if not found and mount.on_change:
        _refuse(service, mount, "x-on-change needs a plain file of at most 64 MiB", report)
    return replace(mount, digest=found)


def _refuse(service: str, mount: model.FileMount, because: str, report: Report) -> None:
    path = f"services.{service}"
    place = mount.place
    mark = None if place is None else (place.file, place.line, place.column, place.end_column or 0)
    message = f"{path}: {mount.kind} {mount.name}: {mount.path}: {because}"
    report.refuse(mark, problem.FILE, message, path=path, service=service)
