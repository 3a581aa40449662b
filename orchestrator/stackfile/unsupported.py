"""The one table of keys of the Compose Specification that we know and don't (yet) honour.

    refuse   leaving it out would change what runs: commands that run it stop; `config` prints it and warns
    warn     the stack runs, but something the user asked for does not happen: said once, with its place
    inert    has no meaning on one machine, or is a note to the reader: printed by `config`, nothing else

A key of our schemas is either read by `resolve` or stands here; a test holds the schemas to that.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.model.frozen import dataclass
from orchestrator.stackfile import problem
from orchestrator.stackfile.problem import Mark, Report
from orchestrator.stackfile.tree import Map, Node, Seq, dotted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

Verdict: TypeAlias = 'Literal["refuse", "warn", "inert"]'


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A key by its path; * stands for a name the user chose or an entry of a list."""

    path: str
    verdict: Verdict
    because: str
    fine: tuple[str, ...] = ()
    """Values that ask for nothing but what is done anyway."""


def _row(path: str, verdict: Verdict, because: str, *fine: str) -> Row:
    return Row(path=path, verdict=verdict, because=because, fine=fine)


_LATER = "is not supported yet"
_WINDOWS = "means something on Windows only"
_CLUSTER = "means something in a cluster only"
_SERVICE = "services.*"

TABLE: tuple[Row, ...] = (
    _row("version", "warn", "is obsolete and has no effect: leave it out"),
    _row("models", "inert", "is for the services that use them"),
    _row(f"{_SERVICE}.build", "warn", f"{_LATER}: the image must be in the local store"),
    _row(f"{_SERVICE}.provider", "refuse", _LATER),
    _row(f"{_SERVICE}.models", "warn", f"{_LATER}: no model is run, and its variables are not set"),
    _row(f"{_SERVICE}.external_links", "warn", f"{_LATER}: put both stacks on one external network"),
    _row(f"{_SERVICE}.use_api_socket", "warn", f"{_LATER}: the containers have no such socket"),
    _row(f"{_SERVICE}.gpus", "refuse", _LATER),
    _row(f"{_SERVICE}.post_start", "refuse", _LATER),
    _row(f"{_SERVICE}.pre_stop", "refuse", _LATER),
    _row(f"{_SERVICE}.credential_spec", "warn", _WINDOWS),
    _row(f"{_SERVICE}.develop", "warn", f"{_LATER}: files are not watched"),
    _row(f"{_SERVICE}.isolation", "warn", _WINDOWS, "default"),
    _row(f"{_SERVICE}.cgroup", "warn", f"{_LATER}: containers have a namespace of their own", "private"),
    _row(f"{_SERVICE}.cgroup_parent", "warn", f"{_LATER}: containers are below our own cgroup"),
    _row(f"{_SERVICE}.userns_mode", "warn", f"{_LATER}: containers use this machine's users", "host"),
    _row(f"{_SERVICE}.storage_opt", "warn", f"{_LATER}: the writable layer has no limit"),
    _row(f"{_SERVICE}.cpu_rt_period", "warn", _LATER),
    _row(f"{_SERVICE}.cpu_rt_runtime", "warn", _LATER),
    _row(f"{_SERVICE}.cpu_count", "warn", _WINDOWS),
    _row(f"{_SERVICE}.cpu_percent", "warn", _WINDOWS),
    _row(f"{_SERVICE}.pull_refresh_after", "warn", "has no effect: nobody reads it"),
    _row(f"{_SERVICE}.deploy.mode", "inert", _CLUSTER),
    _row(f"{_SERVICE}.deploy.endpoint_mode", "inert", _CLUSTER),
    _row(f"{_SERVICE}.deploy.labels", "inert", "labels the service in a cluster, not its containers"),
    _row(f"{_SERVICE}.deploy.placement", "warn", _CLUSTER),
    _row(f"{_SERVICE}.deploy.resources.reservations.cpus", "inert", "is for the scheduler of a cluster"),
    _row(f"{_SERVICE}.deploy.resources.reservations.devices", "refuse", _LATER),
    _row(f"{_SERVICE}.deploy.resources.reservations.generic_resources", "warn", _CLUSTER),
    _row(f"{_SERVICE}.ports.*.app_protocol", "inert", "is a note to the reader"),
    _row(f"{_SERVICE}.ports.*.name", "inert", "is a note to the reader"),
    _row(f"{_SERVICE}.volumes.*.consistency", "inert", "has no effect on Linux"),
    _row(f"{_SERVICE}.volumes.*.bind.selinux", "inert", "has no effect without SELinux"),
    _row(f"{_SERVICE}.volumes.*.volume.labels", "warn", f"{_LATER}: anonymous volumes have no labels"),
    _row(f"{_SERVICE}.volumes.*.image", "inert", "is for mounts of the type image, which are refused"),
    _row(f"{_SERVICE}.networks.*.ipv6_address", "warn", f"{_LATER}: networks are IPv4"),
    _row(f"{_SERVICE}.networks.*.link_local_ips", "warn", _LATER),
    _row(f"{_SERVICE}.networks.*.interface_name", "warn", f"{_LATER}: interfaces are eth0, eth1 ..."),
    _row(f"{_SERVICE}.networks.*.driver_opts", "warn", _LATER),
    _row("networks.*.attachable", "inert", _CLUSTER),
    _row("networks.*.enable_ipv4", "inert", "networks are always IPv4"),
    _row("networks.*.enable_ipv6", "warn", f"{_LATER}: networks are IPv4"),
    _row("networks.*.ipam.driver", "warn", f"{_LATER}: addresses are given out by pystack", "default"),
    _row("networks.*.ipam.options", "inert", "means something to other address drivers only"),
    _row("networks.*.ipam.config.*.aux_addresses", "warn", f"{_LATER}: these addresses may be given out"),
    _row("configs.*.name", "inert", "configs never leave their stack"),
    _row("configs.*.labels", "inert", _CLUSTER),
    _row("configs.*.template_driver", "refuse", _CLUSTER),
    _row("configs.*.external", "refuse", f"{_CLUSTER}: name a file"),
    _row("secrets.*.name", "inert", "secrets never leave their stack"),
    _row("secrets.*.labels", "inert", _CLUSTER),
    _row("secrets.*.driver", "refuse", _CLUSTER),
    _row("secrets.*.driver_opts", "inert", _CLUSTER),
    _row("secrets.*.template_driver", "refuse", _CLUSTER),
    _row("secrets.*.external", "refuse", f"{_CLUSTER}: name a file"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Branch:
    """The table as a tree, so that a stack is walked once, and only where the table has something to say."""

    row: Row | None
    below: dict[str, _Branch]


def _branch(rows: list[tuple[tuple[str, ...], Row]]) -> _Branch:
    groups: dict[str, list[tuple[tuple[str, ...], Row]]] = {}
    for steps, row in rows:
        if steps:
            groups.setdefault(steps[0], []).append((steps[1:], row))
    own = next((row for steps, row in rows if not steps), None)
    return _Branch(row=own, below={step: _branch(group) for step, group in groups.items()})


_TREE = _branch([(tuple(row.path.split(".")), row) for row in TABLE if row.verdict != "inert"])


def judge(tree: Map, report: Report) -> None:
    """Refuse and warn by name about everything in the tree that stands in the table."""
    for row, mark, path in _matches(tree, _TREE, (), None):
        name = dotted(path)
        if row.verdict == "refuse":
            service = str(path[1]) if path[0] == "services" else ""
            report.refuse(mark, problem.UNSUPPORTED, f"{name} {row.because}", path=name, service=service)
        else:
            report.warn(mark, f"{name} {row.because}")


def _matches(
    node: Node, branch: _Branch, path: tuple[str | int, ...], mark: Mark | None
) -> Iterator[tuple[Row, Mark | None, tuple[str | int, ...]]]:
    if branch.row is not None and node is not None and node is not False and node not in branch.row.fine:
        yield branch.row, mark, path
    every = branch.below.get("*")
    if isinstance(node, Map):
        if every is not None:
            for key, value in node.items():
                yield from _matches(value, every, (*path, key), node.key_mark(key))
        elif branch.below:
            for key in branch.below.keys() & node.keys():
                yield from _matches(node[key], branch.below[key], (*path, key), node.key_mark(key))
    elif isinstance(node, Seq) and every is not None:
        for index, entry in enumerate(node):
            yield from _matches(entry, every, (*path, index), node.mark(index))
