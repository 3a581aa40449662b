"""Canonical tree -> complete tree: names, absolute paths, environments, implied dependencies, nothing unused.

This is what `pystack config` prints. Names as in Compose: <stack>_<key> unless `name:` says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model.frozen import dataclass, field
from orchestrator.model.names import scoped_name
from orchestrator.stackfile import dotenv, mounts, problem
from orchestrator.stackfile.contexts import built, check_build, watched
from orchestrator.stackfile.enable import active, check_dependencies, nearest
from orchestrator.stackfile.files import Files, try_text
from orchestrator.stackfile.problem import Mark, Report
from orchestrator.stackfile.switches import ALL, Switches
from orchestrator.stackfile.tree import Map, Node, Plain, Seq

_NUMBERS = frozenset(
    (
        "cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus mem_limit "
        "mem_reservation mem_swappiness memswap_limit oom_score_adj pids_limit shm_size"
    ).split()
)
"""Of these, 0 is the same as nothing."""
_LEAST = {
    "networks": "{}",
    "volumes": "{}",
    "configs": "{file: PATH}",
    "secrets": "{file: PATH}",
    "models": "{model: NAME}",
}
"""What has to be written of each at least."""
NOUNS = ("networks", "volumes", "configs", "secrets", "models")
_SECTIONS = frozenset(
    "blkio_config build credential_spec deploy develop healthcheck logging provider".split()
)
"""Sections that say something by being there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Everything outside the text that its meaning depends on."""

    name: str
    working_dir: str
    files: Files
    variables: Mapping[str, str]
    """The user's environment over .env."""
    contents: Mapping[str, str] = field(default_factory=dict)
    """What configs and secrets of included files take from variables of their own: secrets.KEY -> value."""
    profiles: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    strict: bool = True
    """False for commands that only take things away: env files and secrets' variables may be missing."""
    switches: Switches = ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A tree with its defaults."""

    tree: Map
    disabled: tuple[str, ...]


def complete(tree: Map, setting: Setting, report: Report) -> Completed:
    """What is wrong goes to `report`."""
    everything = _section(tree, "services")
    switches = setting.switches
    on = active(everything, setting.profiles, setting.services) if switches.interpolate else list(everything)
    told = report if switches.consistency and switches.interpolate else Report()
    implied = Map()
    for name, service in everything.items():
        implied.take(name, everything)
        if isinstance(service, Map) and switches.normalise:
            implied[name] = _implied(service)
    if told is report:
        services = check_dependencies(implied, on, report)
    else:
        services = implied.without(*(name for name in everything if name not in on))
    buildable = {name: isinstance(part, Map) and "build" in part for name, part in services.items()}
    result = tree.copy()
    if switches.normalise or switches.interpolate:
        result.put("name", setting.name, tree.mark("name"))
    fresh = Map()
    for name, service in services.items():
        fresh.take(name, services)
        if isinstance(service, Map):
            check_build(name, service, buildable, told)
            fresh[name] = _service(name, service, setting, report)
    result["services"] = fresh
    for noun in NOUNS:
        section = _used(noun, _section(tree, noun), fresh, setting, told)
        if section:
            result[noun] = section
        else:
            result.pop(noun, None)
    off = set(everything) - set(on)
    return Completed(tree=result, disabled=tuple(name for name in everything if name in off))


def _section(tree: Map, key: str) -> Map:
    section = tree.get(key)
    return section if isinstance(section, Map) else Map()


# --- services --------------------------------------------------------------------------------------


def _implied(service: Map) -> Map:
    """Sharing a namespace, and links, mean a dependency that restarts along."""
    fresh = service.copy()
    needs = _section(service, "depends_on").copy()
    for key in ("network_mode", "ipc", "pid"):
        mode = service.get(key)
        if isinstance(mode, str) and mode.startswith("service:"):
            _need(needs, mode.removeprefix("service:"), service.mark(key))
    links = service.get("links")
    if isinstance(links, Seq):
        for index, link in enumerate(links):
            if isinstance(link, str):
                _need(needs, link.partition(":")[0], links.mark(index))
    sources = service.get("volumes_from")
    if isinstance(sources, Seq):
        for index, source in enumerate(sources):
            if isinstance(source, str) and not source.startswith("container:"):
                _need(needs, source.partition(":")[0], sources.mark(index), restart=False)
    if needs:
        fresh["depends_on"] = needs
    return fresh


def _need(needs: Map, name: str, mark: Mark | None, *, restart: bool = True) -> None:
    if name in needs:
        return
    entry = Map()
    entry.update(condition="service_started", required=True)
    if restart:
        entry["restart"] = True
    needs.put(name, entry, mark)


def _service(name: str, service: Map, setting: Setting, report: Report) -> Map:
    fresh = service.copy()
    switches = setting.switches
    alone = service.get("network_mode") == ""
    if alone:
        where = f"services.{name}.network_mode"
        report.refuse(
            service.mark("network_mode"),
            problem.WRONG_VALUE,
            f"{where} is empty",
            hint="leave it out, or write none",
            path=where,
            service=name,
        )
    if switches.interpolate:
        for key in [key for key, value in fresh.items() if _says_nothing(key, value)]:
            del fresh[key]
    if switches.normalise and not alone:
        _attach(fresh, name, report)
    if switches.interpolate:
        _scale(fresh)
        _label_files(fresh, setting, report)
        if switches.environment:
            _environment(fresh, setting, report)
    _paths(fresh, setting)
    return fresh


def _says_nothing(key: str, value: Node) -> bool:
    """What is the default anyway is not printed. An empty command is not nothing: it clears the image's."""
    if key in ("command", "entrypoint") or (key in _SECTIONS and value == {}):
        return value is None
    if key in _NUMBERS:
        return value in ("0", 0, None)
    return value is None or value in ("", [], {}) or (value is False and key not in ("attach", "init"))


def unattached(tree: dict[str, Plain]) -> dict[str, Plain]:
    """A complete tree as it is printed: `network_mode: bridge` stands for the network that it means here."""
    services, networks = tree.get("services"), tree.get("networks")
    bodies = services.values() if isinstance(services, dict) else ()
    bridged, used = False, set[str]()
    for body in bodies:
        if isinstance(body, dict) and body.get("network_mode") == "bridge":
            body.pop("networks", None)
            bridged = True
        elif isinstance(body, dict) and isinstance(named := body.get("networks"), dict):
            used.update(named)
    if bridged and isinstance(networks, dict) and "default" not in used:
        networks.pop("default", None)
        if not networks:
            del tree["networks"]
    return tree


def _attach(service: Map, name: str, report: Report) -> None:
    """A service that says nothing of networks is on `default`."""
    bridged = service.get("network_mode") == "bridge"
    if bridged:
        mark, where = service.mark("network_mode"), f"services.{name}.network_mode"
        report.warn(mark, f"{where}: bridge means the network `default` here")
        if service.get("networks"):
            report.error(mark, problem.CONFLICT, f"{where} and networks exclude each other", path=where)
    private = bridged or not any(key in service for key in ("network_mode", "provider"))
    if private and not service.get("networks"):
        networks = Map()
        networks.put("default", None, None)
        service["networks"] = networks


def _scale(service: Map) -> None:
    """A deploy section repeats how many there are."""
    deploy = service.get("deploy")
    if isinstance(deploy, Map) and "scale" in service and "replicas" not in deploy:
        deploy = deploy.copy()
        deploy["replicas"] = service["scale"]
        service["deploy"] = deploy


def _environment(service: Map, setting: Setting, report: Report) -> None:
    """env_file below environment; a key without a value takes the user's, or stays out."""
    own = Map()
    for key, value in _section(service, "environment").items():
        own.take(key, _section(service, "environment"))
        if value is None:
            own[key] = setting.variables.get(key)
    merged: dict[str, str] = {}

    def lookup(name: str) -> str | None:
        for variables in (setting.variables, own, merged):
            value = variables.get(name)
            if isinstance(value, str):
                return value
        return None

    listed = service.pop("env_file", None)
    for index, entry in enumerate(listed if isinstance(listed, Seq) else ()):
        assert isinstance(listed, Seq)
        if isinstance(entry, Map):
            merged.update(_env_file(entry, listed.mark(index), lookup, setting, report))
    if not merged and "environment" not in service:
        return
    fresh = Map()
    for key, value in merged.items():
        fresh[key] = value
    for key in own:
        fresh.take(key, own)
    service["environment"] = fresh


def _env_file(
    entry: Map, mark: Mark | None, lookup: dotenv.Lookup, setting: Setting, report: Report
) -> dict[str, str]:
    path = mounts.absolute(str(entry.get("path")), setting.working_dir, setting.files.home)
    optional = entry.get("required") is False or not setting.strict
    if optional and not setting.files.exists(path):
        return {}
    source = try_text(setting.files, path, mark, report)
    if source is None:
        return {}
    return dotenv.parse(source, lookup, report, format="raw" if entry.get("format") == "raw" else "")


def _label_files(service: Map, setting: Setting, report: Report) -> None:
    """label_file has env_file's format, but sees no variables other than its own; `labels` wins over it."""
    listed = service.pop("label_file", None)
    if not isinstance(listed, Seq):
        return
    found: dict[str, str] = {}
    for index, entry in enumerate(listed):
        path = mounts.absolute(str(entry), setting.working_dir, setting.files.home)
        source = try_text(setting.files, path, listed.mark(index), report)
        if source is not None:
            found.update(dotenv.parse(source, found.get, report))
    labels = Map()
    labels.update(found)
    own = _section(service, "labels")
    for key in own:
        labels.take(key, own)
    if labels:
        service["labels"] = labels


def _absolute(path: Node, setting: Setting) -> Node:
    if isinstance(path, str) and setting.switches.paths:
        return mounts.absolute(path, setting.working_dir, setting.files.home)
    return path


def _paths(service: Map, setting: Setting) -> None:
    volumes = service.get("volumes")
    if isinstance(volumes, Seq):
        fresh = Seq()
        for index, mount in enumerate(volumes):
            if isinstance(mount, Map) and mount.get("type") == "bind":
                mount = mount.copy()  # noqa: PLW2901
                mount["source"] = _absolute(mount.get("source"), setting)
            fresh.add(mount, volumes.mark(index))
        service["volumes"] = fresh
    root = service.get("x-rootfs")
    if isinstance(root, Map):
        root = root.copy()
        root["path"] = _absolute(root.get("path"), setting)
        service["x-rootfs"] = root
    build, develop = service.get("build"), service.get("develop")
    if isinstance(build, Map) and setting.switches.normalise:
        service["build"] = built(build, setting.variables.get, lambda path: _absolute(path, setting))
    if isinstance(develop, Map):
        service["develop"] = watched(develop, lambda path: _absolute(path, setting))
    options = service.get("security_opt")
    if isinstance(options, Seq):
        service["security_opt"] = _security(options, setting)


def _security(options: Seq, setting: Setting) -> Seq:
    fresh = Seq()
    for index, option in enumerate(options):
        if isinstance(option, str):
            key, separator, value = option.partition("=")
            if key == "seccomp" and separator and value not in ("unconfined", "builtin"):
                option = f"seccomp={_absolute(value, setting)}"  # noqa: PLW2901
        fresh.add(option, options.mark(index))
    return fresh


# --- networks, volumes, configs, secrets -----------------------------------------------------------


def _uses(noun: str, service: Map) -> list[tuple[str, Mark | None]]:
    """The keys of a section that a service names, with the places where it does."""
    part = service.get(noun)
    if noun in ("networks", "models") and isinstance(part, Map):
        return [(key, part.key_mark(key)) for key in part]
    found: list[tuple[str, Mark | None]] = []
    build = service.get("build")
    if noun == "secrets" and isinstance(build, Map):
        found += _uses(noun, build)
    if isinstance(part, Seq):
        for index, entry in enumerate(part):
            source = entry.get("source") if isinstance(entry, Map) else None
            if isinstance(source, str) and (noun != "volumes" or _names_volume(entry)):
                found.append((source, part.mark(index)))
    return found


def _names_volume(entry: Node) -> bool:
    return isinstance(entry, Map) and entry.get("type") == "volume"


def _used(noun: str, section: Map, services: Map, setting: Setting, report: Report) -> Map:
    """The entries that some service uses, with their names; a service that names an unknown one is wrong."""
    used: set[str] = set()
    for name, service in services.items():
        for key, mark in _uses(noun, service) if isinstance(service, Map) else ():
            used.add(key)
            if key not in section and (noun, key) != ("networks", "default"):
                report.error(
                    mark,
                    problem.UNDEFINED,
                    f"service {name!r} uses the {noun[:-1]} {key!r}, which is not defined under {noun}:",
                    hint=nearest(key, section) or f"add it: `{noun}: {{{key}: {_LEAST[noun]}}}`",
                    path=f"services.{name}.{noun}",
                )
    result = Map()
    for key, entry in section.items():
        body = entry if isinstance(entry, Map) else Map()
        _check_noun(noun, key, body, section.key_mark(key), report, used=key in used)
        if key in used or not setting.switches.interpolate:
            result.take(key, section)
            result[key] = _noun(noun, key, body, setting)
    if noun == "networks" and "default" in used and "default" not in section:
        result["default"] = _noun(noun, "default", Map(), setting)
    return result


def _noun(noun: str, key: str, entry: Map, setting: Setting) -> Map:
    fresh = entry.copy()
    if noun == "models":
        return fresh
    if not fresh.get("external"):
        fresh.pop("external", None)
    if setting.switches.normalise:
        fresh.setdefault("name", key if fresh.get("external") else scoped_name(setting.name, key))
    if fresh.get("name") == "":
        del fresh["name"]
    if noun in ("configs", "secrets"):
        if isinstance(fresh.get("file"), str):
            written = str(fresh["file"])
            fresh["file"] = written if written.startswith("/") else _absolute(written, setting)
        for way in ("content", "environment"):
            if not fresh.get(way):
                fresh.pop(way, None)
    elif noun == "volumes":
        _device(fresh, setting)
        if not fresh.get("driver_opts"):
            fresh.pop("driver_opts", None)
    return fresh


def _check_noun(noun: str, key: str, entry: Map, mark: Mark | None, report: Report, *, used: bool) -> None:
    """What contradicts itself is wrong also where nobody uses it."""
    if noun in ("configs", "secrets"):
        _check_file(noun, key, entry, mark, report, used=used)
    elif noun == "volumes":
        _check_volume(key, entry, mark, report)


def _check_file(noun: str, key: str, entry: Map, mark: Mark | None, report: Report, *, used: bool) -> None:
    ways = ("file", "environment", "content") if noun == "configs" else ("file", "environment")
    said = [way for way in ways if way in entry and (noun == "configs" or way != "environment" or entry[way])]
    if len(said) == 1 or (entry.get("external") and not said):
        return
    message = f"the {noun[:-1]} {key!r} needs exactly one of {', '.join(ways)}"
    if "external" in entry and not said and noun == "configs":
        # `external: false` is enough for docker compose, until it is run
        if used:
            report.refuse(mark, problem.CONFLICT, message, path=f"{noun}.{key}")
    else:
        report.error(mark, problem.CONFLICT, message, path=f"{noun}.{key}")


def _check_volume(key: str, entry: Map, mark: Mark | None, report: Report) -> None:
    extra = [other for other in ("driver", "driver_opts", "labels") if other in entry]
    if entry.get("external") and extra:
        report.error(
            mark,
            problem.CONFLICT,
            f"the volume {key!r} is external, so it can't have {extra[0]}",
            path=f"volumes.{key}",
        )


def _device(volume: Map, setting: Setting) -> None:
    """A local volume that binds a directory of the host: a relative one counts from the project directory."""
    options = volume.get("driver_opts")
    if not isinstance(options, Map) or volume.get("driver", "local") != "local":
        return
    device = options.get("device")
    if isinstance(device, str) and "bind" in str(options.get("o", "")).split(",") and device[:1] in "./~":
        fresh = options.copy()
        fresh["device"] = _absolute(device, setting)
        volume["driver_opts"] = fresh
