"""Complete tree -> model.Stack: the last phase, where text ends and the nouns begin.

Everything here reads a tree whose shape was checked; what only the whole can show (limits that contradict
each other, an address outside its network) is reported with its place.
"""

from __future__ import annotations

import re

from orchestrator.model import stack as model
from orchestrator.model.frozen import replace
from orchestrator.model.names import scoped_name
from orchestrator.stackfile import contents, problem
from orchestrator.stackfile.borrowed import borrow
from orchestrator.stackfile.complete import Completed, Setting
from orchestrator.stackfile.probing import check_lines
from orchestrator.stackfile.problem import Report
from orchestrator.stackfile.reader import Reader
from orchestrator.stackfile.recipe import recipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from orchestrator.model import sections


def resolve(completed: Completed, setting: Setting, sources: tuple[str, ...], report: Report) -> model.Stack:
    """The Stack; what is wrong goes to `report`, and the Stack is then worth nothing."""
    tree = Reader(completed.tree, report)
    networks = {key: _network(key, said) for key, said in tree.named("networks")}
    volumes = {key: _volume(key, said) for key, said in tree.named("volumes")}
    files = _files(tree, setting)
    services = {name: recipe(name, said, files, setting) for name, said in tree.named("services")}
    borrow(services, tree)
    _add_links(services, tree)
    if setting.strict:
        contents.digest(services, setting, report)
    _check_addresses(services, networks, tree)
    _check_container_names(services, tree)
    check_lines(services, tree)
    return model.Stack(
        name=setting.name,
        services=services,
        networks=networks,
        volumes=volumes,
        configs=_cluster_files("configs", tree, setting),
        secrets=_cluster_files("secrets", tree, setting),
        models=_models(tree),
        disabled=completed.disabled,
        working_dir=setting.working_dir,
        files=sources,
    )


_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)
_NAME_LIMIT = 200


def _check_name(said: Reader) -> None:
    name = said.text("name") or ""
    if _NAME.fullmatch(name) is None or len(name) > _NAME_LIMIT:
        said.refuse(
            f"{name:.24}{'...' if len(name) > _NAME_LIMIT else ''} can't be a name on this machine",
            key="name",
            hint=f"at most {_NAME_LIMIT} letters, digits, _, . and -, the first a letter or digit",
        )


def _network(key: str, said: Reader) -> model.Network:
    driver = said.text("driver") or "bridge"
    if driver != "bridge" and not said.flag("external"):
        said.refuse(
            f"the network driver {driver!r} is not supported yet", key="driver", code=problem.UNSUPPORTED
        )
    _check_name(said)
    ipam = said.part("ipam")
    rows = [row for row in ipam.listed("config") if row.has("subnet")]
    return model.Network(
        key=key,
        name=said.text("name") or key,
        external=said.flag("external"),
        internal=said.flag("internal"),
        driver=driver,
        driver_opts=said.pairs("driver_opts"),
        subnets=tuple(_subnet(row) for row in rows if not _is_v6(row)),
        subnets6=tuple(_subnet6(row) for row in rows if _is_v6(row)),
        ipam_driver=ipam.text("driver"),
        enable_ipv4=said.flag("enable_ipv4") if said.has("enable_ipv4") else None,
        enable_ipv6=said.flag("enable_ipv6") if said.has("enable_ipv6") else None,
        attachable=said.flag("attachable"),
        labels=said.pairs("labels"),
        place=said.place,
    )


def _is_v6(said: Reader) -> bool:
    return ":" in (said.text("subnet") or "")


def _subnet6(said: Reader) -> model.Subnet:
    said.warn("is not supported yet: networks are IPv4", key="subnet")
    return model.Subnet(
        subnet=said.text("subnet") or "",
        gateway=said.text("gateway"),
        ip_range=said.text("ip_range"),
        aux_addresses=said.pairs("aux_addresses"),
    )


def _subnet(said: Reader) -> model.Subnet:
    from ipaddress import AddressValueError, IPv4Network, NetmaskValueError

    subnet = said.text("subnet") or ""
    gateway, ip_range = said.text("gateway"), said.text("ip_range")
    found = model.Subnet(
        subnet=subnet, gateway=gateway, ip_range=ip_range, aux_addresses=said.pairs("aux_addresses")
    )
    try:
        network = IPv4Network(subnet)
    except (AddressValueError, NetmaskValueError, ValueError):
        said.refuse(f"{subnet!r} is not an IPv4 network", key="subnet", hint="as 10.5.0.0/24")
        return found
    if gateway is not None and _address(said, "gateway") not in network:
        said.refuse(f"{gateway} lies outside {subnet}", key="gateway", code=problem.CONFLICT)
    if ip_range is not None:
        try:
            inside = IPv4Network(ip_range).subnet_of(network)
        except ValueError:
            said.refuse(f"{ip_range!r} is not an IPv4 network", key="ip_range")
        else:
            if not inside:
                said.refuse(f"{ip_range} lies outside {subnet}", key="ip_range", code=problem.CONFLICT)
    return found


def _address(said: Reader, key: str) -> IPv4Address:
    from ipaddress import AddressValueError, IPv4Address

    text = said.text(key) or ""
    try:
        return IPv4Address(text)
    except AddressValueError:
        said.refuse(f"{text!r} is not an IPv4 address", key=key)
        return IPv4Address(0)


def _volume(key: str, said: Reader) -> model.Volume:
    driver = said.text("driver") or "local"
    if driver != "local":
        said.refuse(
            f"the volume driver {driver!r} is not supported yet", key="driver", code=problem.UNSUPPORTED
        )
    _check_name(said)
    return model.Volume(
        key=key,
        name=said.text("name") or key,
        external=said.flag("external"),
        driver=driver,
        driver_opts=said.pairs("driver_opts"),
        labels=said.pairs("labels"),
        place=said.place,
    )


def _files(tree: Reader, setting: Setting) -> dict[str, model.FileMount]:
    """Configs and secrets by "noun.key", at their default target."""
    found: dict[str, model.FileMount] = {}
    for noun in ("configs", "secrets"):
        for key, said in tree.named(noun):
            found[f"{noun}.{key}"] = model.FileMount(
                kind="config" if noun == "configs" else "secret",
                name=key,
                target="",
                path=said.text("file"),
                content=None if said.has("file") else _content(said, setting),
            )
    return found


_CLUSTER = ("external", "labels", "driver", "driver_opts", "template_driver")


def _cluster_files(noun: str, tree: Reader, setting: Setting) -> dict[str, sections.ClusterFile]:
    """What configs or secrets say beyond their content."""
    found: dict[str, sections.ClusterFile] = {}
    for key, said in tree.named(noun):
        named = said.text("name") != scoped_name(setting.name, key)
        if named or any(part in said.node for part in _CLUSTER):
            from orchestrator.stackfile import carried

            found[key] = carried.cluster_file(key, said)
    return found


def _models(tree: Reader) -> dict[str, sections.Model]:
    if not tree.has("models"):
        return {}
    from orchestrator.stackfile import carried

    return {key: carried.llm(key, said) for key, said in tree.named("models")}


def _content(said: Reader, setting: Setting) -> str:
    variable = said.text("environment")
    if variable is None:
        content = said.node.get("content")
        return content if isinstance(content, str) else ""
    value = setting.contents.get(said.path, setting.variables.get(variable))
    if value is None and setting.strict:
        said.refuse(
            f"the variable {variable} is not set",
            key="environment",
            code=problem.VARIABLE,
            hint=f"set {variable} in the environment or in .env",
        )
    return value or ""


def _add_links(services: dict[str, model.Service], tree: Reader) -> None:
    """`links: [db:store]` gives db the name store, for the linking service alone and on shared networks."""
    for name, said in tree.named("services"):
        links: dict[tuple[str, str], None] = {}
        for link in said.texts("links"):
            target, _, alias = link.partition(":")
            if alias and alias != target and target in services:
                links[target, alias] = None
        if links:
            services[name] = replace(services[name], links=tuple(links))


def _check_addresses(
    services: dict[str, model.Service], networks: dict[str, model.Network], tree: Reader
) -> None:
    """A fixed address lies in a subnet that the file gives to its network, and is for one container only."""
    for name, said in tree.named("services"):
        for key, entry in said.named("networks"):
            if not entry.has("ipv4_address"):
                continue
            address = _address(entry, "ipv4_address")
            network = networks.get(key)
            if network is None or network.external or int(address) == 0:
                continue
            if services[name].replicas > 1:
                entry.refuse(
                    "several replicas can't share one address", key="ipv4_address", code=problem.CONFLICT
                )
            from ipaddress import IPv4Network

            ranges = [row.subnet for row in network.subnets]
            try:
                inside = any(address in IPv4Network(row) for row in ranges)
            except ValueError:
                continue
            if not inside:
                where = f"outside {', '.join(ranges)}" if ranges else "in no subnet"
                hint = f"give it one: `networks: {{{key}: {{ipam: {{config: [{{subnet: ...}}]}}}}}}`"
                entry.refuse(
                    f"{address} is {where}",
                    key="ipv4_address",
                    code=problem.CONFLICT,
                    hint="" if ranges else hint,
                )


def _check_container_names(services: dict[str, model.Service], tree: Reader) -> None:
    taken: dict[str, str] = {}
    for name, said in tree.named("services"):
        own = services[name].container_name
        if own is None:
            continue
        if own in taken:
            said.wrong(
                f"{own!r} is already the name of service {taken[own]!r}",
                key="container_name",
                code=problem.DUPLICATE,
            )
        taken.setdefault(own, name)
