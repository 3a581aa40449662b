"""The larger sections of a service, and of the stack, as the Stack carries them: see model.sections.

Imported only when a stack has one of them: making their nouns takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, cast

from orchestrator.model import sections as model
from orchestrator.stackfile.limits import ulimits
from orchestrator.stackfile.reader import Reader
from orchestrator.stackfile.tree import Map
from orchestrator.stackfile.wiring import extra_hosts

Variables = Callable[[str], str | None]


def build(said: Reader) -> model.Build:
    return model.Build(
        context=said.text("context"),
        dockerfile=said.text("dockerfile"),
        dockerfile_inline=said.text("dockerfile_inline"),
        args=said.pairs("args"),
        ssh={name: path for name, _, path in (key.partition("=") for key in said.texts("ssh"))},
        labels=said.pairs("labels"),
        cache_from=said.texts("cache_from"),
        cache_to=said.texts("cache_to"),
        additional_contexts=said.pairs("additional_contexts"),
        no_cache=said.flag("no_cache"),
        no_cache_filter=said.texts("no_cache_filter"),
        pull=said.flag("pull"),
        network=said.text("network"),
        target=said.text("target"),
        secrets=tuple(_build_secret(entry) for entry in said.listed("secrets")),
        shm_size=said.bytes("shm_size"),
        tags=said.texts("tags"),
        ulimits=tuple((limit.name, limit.soft, limit.hard) for limit in ulimits(said)),
        platforms=said.texts("platforms"),
        privileged=said.flag("privileged"),
        extra_hosts=extra_hosts(said),
        isolation=said.text("isolation"),
        entitlements=said.texts("entitlements"),
        provenance=said.text("provenance"),
        sbom=said.text("sbom"),
        place=said.place,
    )


def _build_secret(said: Reader) -> model.BuildSecret:
    mode = said.text("mode")
    return model.BuildSecret(
        source=said.text("source") or "",
        target=said.text("target"),
        uid=said.text("uid"),
        gid=said.text("gid"),
        mode=int(mode[1:] or "0", 8) if mode else None,
    )


def hooks(said: Reader, key: str, variables: Variables) -> tuple[model.Hook, ...]:
    return tuple(_hook(entry, variables) for entry in said.listed(key))


def _hook(said: Reader, variables: Variables) -> model.Hook:
    return model.Hook(
        command=said.words("command"),
        user=said.text("user"),
        privileged=said.flag("privileged"),
        working_dir=said.text("working_dir"),
        environment=_environment(said, variables),
        place=said.place,
    )


def _environment(said: Reader, variables: Variables) -> dict[str, str]:
    """A bare name takes the value it has outside, if any."""
    node = said.node.get("environment")
    found: dict[str, str] = {}
    for name, value in node.items() if isinstance(node, Map) else ():
        given = variables(name) if value is None else value
        if isinstance(given, str):
            found[name] = given
    return found


def init_containers(said: Reader, variables: Variables) -> tuple[model.InitContainer, ...]:
    return tuple(
        model.InitContainer(
            image=entry.text("image"),
            command=entry.words("command"),
            user=entry.text("user"),
            privileged=entry.flag("privileged"),
            working_dir=entry.text("working_dir"),
            environment=_environment(entry, variables),
            per_replica=entry.flag("per_replica"),
            place=entry.place,
        )
        for entry in said.listed("pre_start")
    )


_Action = Literal["rebuild", "sync", "restart", "sync+restart", "sync+exec"]


def watches(said: Reader, variables: Variables) -> tuple[model.Watch, ...]:
    return tuple(
        model.Watch(
            path=entry.text("path") or "",
            action=cast(_Action, entry.text("action")),
            target=entry.text("target"),
            ignore=entry.texts("ignore"),
            include=entry.texts("include"),
            exec=_hook(entry.part("exec"), variables) if entry.has("exec") else None,
            initial_sync=entry.flag("initial_sync"),
            place=entry.place,
        )
        for entry in said.part("develop").listed("watch")
    )


def deploy(said: Reader) -> model.Deploy | None:
    """None when it says nothing beyond what other fields of a Service have."""
    reservations = said.part("resources").part("reservations")
    placement = said.part("placement")
    found = model.Deploy(
        mode=said.text("mode"),
        endpoint_mode=said.text("endpoint_mode"),
        labels=said.pairs("labels"),
        update=_update(said.part("update_config"), _ACTIONS) if said.has("update_config") else None,
        rollback=_update(said.part("rollback_config"), _BACK) if said.has("rollback_config") else None,
        placement=_placement(placement) if placement.node else None,
        reserved_cpus=reservations.number("cpus"),
        generic_resources=tuple(
            (spec.text("kind") or "", spec.whole("value") or 0)
            for spec in (
                row.part("discrete_resource_spec") for row in reservations.listed("generic_resources")
            )
        ),
    )
    return None if found == model.Deploy() else found


_BACK = ("pause", "continue")
"""There is no way back from the way back (Compose Deploy Specification, rollback_config)."""
_ACTIONS = (*_BACK, "rollback")


def _update(said: Reader, actions: tuple[str, ...]) -> model.Update:
    action = said.text("failure_action")
    if action and action not in actions:
        said.refuse(f"{action!r} is none of {', '.join(actions)}", key="failure_action")
    for key in ("delay", "monitor"):
        if (said.seconds(key) or 0.0) < 0:
            said.refuse("a duration here can't be negative", key=key)
    ratio = said.number("max_failure_ratio") or 0.0
    if not 0 <= ratio <= 1:
        said.refuse(f"{ratio:g} is no share of failures", key="max_failure_ratio", hint="0 to 1, as 0.25")
    return model.Update(
        parallelism=said.whole("parallelism"),
        delay=said.seconds("delay") or 0.0,
        failure_action=action or None,
        monitor=said.seconds("monitor") or 0.0,
        max_failure_ratio=ratio,
        order=cast('Literal["start-first", "stop-first"] | None', said.text("order")),
    )


def _placement(said: Reader) -> model.Placement:
    return model.Placement(
        constraints=said.texts("constraints"),
        spread=tuple(row.text("spread") or "" for row in said.listed("preferences")),
        max_replicas_per_node=said.whole("max_replicas_per_node"),
    )


def requests(said: Reader) -> tuple[model.DeviceRequest, ...]:
    """`gpus`, which asks for what can do gpu, and the reservations of the deploy section."""
    reservations = said.part("deploy").part("resources").part("reservations")
    found = [_request(entry, ("gpu",)) for entry in said.listed("gpus")]
    return (*found, *(_request(entry, ()) for entry in reservations.listed("devices")))


def _request(said: Reader, capabilities: tuple[str, ...]) -> model.DeviceRequest:
    return model.DeviceRequest(
        capabilities=tuple(dict.fromkeys((*said.texts("capabilities"), *capabilities))),
        driver=said.text("driver"),
        count=said.whole("count") or 0,
        device_ids=said.texts("device_ids"),
        options=said.pairs("options"),
    )


def blkio(said: Reader) -> model.BlockIo:
    def rates(key: str) -> tuple[tuple[str, int], ...]:
        return tuple((row.text("path") or "", row.bytes("rate") or 0) for row in said.listed(key))

    return model.BlockIo(
        weight=said.whole("weight"),
        weight_device=tuple(
            (row.text("path") or "", row.whole("weight") or 0) for row in said.listed("weight_device")
        ),
        device_read_bps=rates("device_read_bps"),
        device_write_bps=rates("device_write_bps"),
        device_read_iops=rates("device_read_iops"),
        device_write_iops=rates("device_write_iops"),
    )


def provider(said: Reader) -> model.Provider:
    options = said.part("options")
    return model.Provider(
        type=said.text("type") or "", options={key: options.texts(key) for key in options.node}
    )


def uses(said: Reader) -> tuple[model.ModelUse, ...]:
    return tuple(
        model.ModelUse(model=key, endpoint_var=entry.text("endpoint_var"), model_var=entry.text("model_var"))
        for key, entry in said.named("models")
    )


def credential(said: Reader) -> model.CredentialSpec:
    return model.CredentialSpec(
        config=said.text("config"), file=said.text("file"), registry=said.text("registry")
    )


def image_mounts(said: Reader) -> Iterator[model.ImageMount]:
    for entry in said.listed("volumes"):
        if entry.text("type") == "image":
            yield model.ImageMount(
                source=entry.text("source") or "",
                target=entry.text("target") or "",
                subpath=entry.part("image").text("subpath") or "",
                place=entry.place,
            )


def llm(key: str, said: Reader) -> model.Model:
    return model.Model(
        key=key,
        model=said.text("model") or "",
        name=said.text("name"),
        context_size=said.whole("context_size"),
        runtime_flags=said.texts("runtime_flags"),
    )


def cluster_file(key: str, said: Reader) -> model.ClusterFile:
    return model.ClusterFile(
        key=key,
        name=said.text("name") or key,
        external=said.flag("external"),
        labels=said.pairs("labels"),
        driver=said.text("driver"),
        driver_opts=said.pairs("driver_opts"),
        template_driver=said.text("template_driver"),
    )
