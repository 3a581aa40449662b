"""Complete tree -> model.Stack: the last phase, where text ends and the nouns begin.

Everything here reads a tree whose shape was checked; what only the whole can show (limits that contradict
each other, an address outside its network) is reported with its place.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from orchestrator.model import stack as model
from orchestrator.stackfile import problem
from orchestrator.stackfile.complete import Completed, Setting
from orchestrator.stackfile.problem import Report
from orchestrator.stackfile.reader import Reader
from orchestrator.stackfile.recipe import recipe


def resolve(completed: Completed, setting: Setting, sources: tuple[str, ...], report: Report) -> model.Stack:
    """The Stack; what is wrong goes to `report`, and the Stack is then worth nothing."""
    tree = Reader(completed.tree, report)
    networks = {key: _network(key, said) for key, said in tree.named("networks")}
    volumes = {key: _volume(key, said) for key, said in tree.named("volumes")}
    files = _files(tree, setting)
    services = {name: recipe(name, said, files) for name, said in tree.named("services")}
    _add_links(services, tree)
    _check_addresses(services, networks, tree)
    _check_container_names(services, tree)
    return model.Stack(
        name=setting.name,
        services=services,
        networks=networks,
        volumes=volumes,
        disabled=completed.disabled,
        working_dir=setting.working_dir,
        files=sources,
    )


def _network(key: str, said: Reader) -> model.Network:
    driver = said.text("driver") or "bridge"
    if driver != "bridge" and not said.flag("external"):
        said.wrong(
            f"the network driver {driver!r} is not supported yet", key="driver", code=problem.UNSUPPORTED
        )
    return model.Network(
        key=key,
        name=said.text("name") or key,
        external=said.flag("external"),
        internal=said.flag("internal"),
        driver=driver,
        driver_opts=said.pairs("driver_opts"),
        subnets=tuple(_subnet(row) for row in said.part("ipam").listed("config") if row.has("subnet")),
        labels=said.pairs("labels"),
        place=said.place,
    )


def _subnet(said: Reader) -> model.Subnet:
    subnet = said.text("subnet") or ""
    gateway, ip_range = said.text("gateway"), said.text("ip_range")
    try:
        network = IPv4Network(subnet)
    except (AddressValueError, NetmaskValueError, ValueError):
        said.wrong(
            f"{subnet!r} is not an IPv4 network",
            key="subnet",
            code=problem.WRONG_VALUE,
            hint="as 10.5.0.0/24",
        )
        return model.Subnet(subnet=subnet)
    if gateway is not None and _address(said, "gateway") not in network:
        said.wrong(f"{gateway} lies outside {subnet}", key="gateway")
    if ip_range is not None:
        try:
            inside = IPv4Network(ip_range).subnet_of(network)
        except ValueError:
            said.wrong(f"{ip_range!r} is not an IPv4 network", key="ip_range", code=problem.WRONG_VALUE)
        else:
            if not inside:
                said.wrong(f"{ip_range} lies outside {subnet}", key="ip_range")
    return model.Subnet(subnet=subnet, gateway=gateway, ip_range=ip_range)


def _address(said: Reader, key: str) -> IPv4Address:
    text = said.text(key) or ""
    try:
        return IPv4Address(text)
    except AddressValueError:
        said.wrong(f"{text!r} is not an IPv4 address", key=key, code=problem.WRONG_VALUE)
        return IPv4Address(0)


def _volume(key: str, said: Reader) -> model.Volume:
    driver = said.text("driver") or "local"
    if driver != "local":
        said.wrong(
            f"the volume driver {driver!r} is not supported yet", key="driver", code=problem.UNSUPPORTED
        )
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


def _content(said: Reader, setting: Setting) -> str:
    variable = said.text("environment")
    if variable is None:
        content = said.node.get("content")
        return content if isinstance(content, str) else ""
    value = setting.variables.get(variable)
    if value is None and setting.strict:
        said.wrong(
            f"the variable {variable} is not set",
            key="environment",
            code=problem.VARIABLE,
            hint=f"set {variable} in the environment or in .env",
        )
    return value or ""


def _add_links(services: dict[str, model.Service], tree: Reader) -> None:
    """`links: [db:store]` gives db the name store, on the networks both are on.

    Docker gives that name to the linking container alone; ours is seen by all on those networks.
    """
    for name, said in tree.named("services"):
        for link in said.texts("links"):
            target, _, alias = link.partition(":")
            if alias and alias != target and target in services:
                shared = {row.network for row in services[name].networks}
                rows = services[target].networks
                fresh = [
                    replace(row, aliases=(*row.aliases, alias))
                    if row.network in shared and alias not in row.aliases
                    else row
                    for row in rows
                ]
                services[target] = replace(services[target], networks=tuple(fresh))
                said.warn(f"the name {alias!r} is seen by every service on the shared networks", key="links")


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
                entry.wrong("several replicas can't share one address", key="ipv4_address")
            ranges = [row.subnet for row in network.subnets]
            try:
                inside = any(address in IPv4Network(row) for row in ranges)
            except ValueError:
                continue
            if not inside:
                where = f"outside {', '.join(ranges)}" if ranges else "in no subnet"
                hint = f"give it one: `networks: {{{key}: {{ipam: {{config: [{{subnet: ...}}]}}}}}}`"
                entry.wrong(f"{address} is {where}", key="ipv4_address", hint="" if ranges else hint)


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
