"""`volumes_from`: the mounts of one service in another."""

from __future__ import annotations

from orchestrator.model import stack as model
from orchestrator.model.frozen import replace
from orchestrator.stackfile import problem
from orchestrator.stackfile.reader import Reader


def borrow(services: dict[str, model.Service], tree: Reader) -> None:
    """Mounts are added to `services`; what can't be shared is refused at its place.

    As in Docker: bind mounts and volumes are shared, memory is not; a mount of one's own wins.
    """
    asked = {name: said for name, said in tree.named("services") if services[name].volumes_from}
    done: set[str] = set()

    def settle(name: str, above: tuple[str, ...]) -> None:
        if name not in asked or name in done or name in above:
            return
        for source, said in asked[name].each("volumes_from"):
            lender, _, access = source.partition(":")
            if lender in services:
                settle(lender, (*above, name))
                services[name] = _with_mounts(services[name], services[lender], access == "ro", said)
            elif source.startswith("container:"):
                said.refuse(
                    "a container that is not of this stack can't lend its mounts", code=problem.UNSUPPORTED
                )
        done.add(name)

    for name in asked:
        settle(name, ())


def _with_mounts(
    service: model.Service, lender: model.Service, read_only: bool, said: Reader
) -> model.Service:
    taken = {mount.target for mount in service.mounts}
    found = list(service.mounts)
    for mount in lender.mounts:
        if mount.target in taken or isinstance(mount, model.TmpfsMount):
            continue
        if isinstance(mount, model.VolumeMount) and mount.source is None:
            said.refuse(
                f"the volume of {lender.name!r} at {mount.target} has no name, so it can't be shared",
                code=problem.UNSUPPORTED,
                hint=f"name it: `volumes: [data:{mount.target}]`",
            )
        elif isinstance(mount, model.FileMount):
            found.append(mount)
        else:
            found.append(replace(mount, read_only=mount.read_only or read_only))
    return replace(service, mounts=tuple(found))
