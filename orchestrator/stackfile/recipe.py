"""One service of a complete tree -> model.Service."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.model import stack as model
from orchestrator.model.frozen import replace
from orchestrator.stackfile import problem
from orchestrator.stackfile.complete import Setting
from orchestrator.stackfile.limits import resources, ulimits
from orchestrator.stackfile.placed import placed
from orchestrator.stackfile.probing import condition, line, probe
from orchestrator.stackfile.reader import Reader
from orchestrator.stackfile.sound import sound
from orchestrator.stackfile.wiring import attachments, extra_hosts, ports, sharing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias, cast

    Remedy: TypeAlias = Literal["ignore", "restart", "recreate"]
    Restarting: TypeAlias = Literal["no", "always", "on-failure", "unless-stopped"]
else:

    def cast(_, value):
        return value


_LOCAL_LOGS = ("json-file", "local", "none")
_CONDITIONS = {"any": "always", "on-failure": "on-failure", "none": "no"}
_RESTARTS = ("no", "always", "on-failure", "unless-stopped")
_REMEDIES = ("ignore", "restart", "recreate")
_PULLS = ("always", "never", "build", "missing", "refresh", "daily", "weekly")
_PULL_EVERY = r"every_([0-9]+[wdhms])+"
MOST_REPLICAS = 10_000


def recipe(name: str, said: Reader, files: Mapping[str, model.FileMount], setting: Setting) -> model.Service:
    """The service; `files` are the stack's configs and secrets. What is wrong goes to the reader's report."""
    sound(said)
    network_mode = sharing(said, "network_mode")
    service = model.Service(
        name=name,
        root=_root(name, said, setting),
        replicas=_replicas(said),
        attach=said.flag("attach", default=True),
        command=said.words("command"),
        entrypoint=said.words("entrypoint"),
        environment=said.pairs("environment"),
        working_dir=said.text("working_dir"),
        user=said.text("user"),
        group_add=said.texts("group_add"),
        init=said.flag("init"),
        tty=said.flag("tty"),
        stdin_open=said.flag("stdin_open"),
        stop_signal=said.text("stop_signal"),
        stop_grace_period=_grace(said),
        drain=_drain(said),
        hostname=said.text("hostname"),
        domainname=said.text("domainname"),
        container_name=said.text("container_name"),
        labels=said.pairs("labels"),
        annotations=said.pairs("annotations"),
        depends_on=_dependencies(said),
        healthcheck=_healthcheck(said.part("healthcheck")) if said.has("healthcheck") else None,
        log_ready=line(said) if said.has("x-log-ready") else None,
        restart=_restart(said),
        logging=_logging(said.part("logging")),
        pull_policy=_pull_policy(said),
        mounts=placed(said, files),
        read_only=said.flag("read_only"),
        shm_size=said.bytes("shm_size"),
        devices=_devices(said),
        network_mode=network_mode,
        networks=attachments(said),
        ports=ports(said, network_mode),
        expose=said.texts("expose"),
        extra_hosts=extra_hosts(said),
        dns=said.texts("dns"),
        dns_search=said.texts("dns_search"),
        dns_opt=said.texts("dns_opt"),
        privileged=said.flag("privileged"),
        cap_add=said.texts("cap_add"),
        cap_drop=said.texts("cap_drop"),
        security_opt=said.texts("security_opt"),
        pid=sharing(said, "pid"),
        ipc=sharing(said, "ipc"),
        uts=sharing(said, "uts"),
        sysctls=said.pairs("sysctls"),
        ulimits=ulimits(said),
        resources=resources(said),
        oom_score_adj=said.whole("oom_score_adj"),
        place=said.place,
    )
    return _with_rest(_with_sections(service, said, setting), said)


_SECTIONS = (
    "blkio_config build credential_spec develop gpus models post_start pre_start pre_stop provider"
).split()
_DEPLOY = ("endpoint_mode", "labels", "mode", "placement", "rollback_config", "update_config")
_REST = (
    "cgroup cgroup_parent device_cgroup_rules external_links isolation platform runtime storage_opt "
    "use_api_socket userns_mode volumes_from"
).split()


def _with_rest(service: model.Service, said: Reader) -> model.Service:
    """What few services say."""
    if not any(key in said.node for key in _REST):
        return service
    return replace(
        service,
        cgroup=said.text("cgroup"),
        cgroup_parent=said.text("cgroup_parent"),
        device_cgroup_rules=said.texts("device_cgroup_rules"),
        external_links=said.texts("external_links"),
        isolation=said.text("isolation"),
        platform=said.text("platform"),
        runtime=said.text("runtime"),
        storage_opt=said.pairs("storage_opt"),
        use_api_socket=said.flag("use_api_socket"),
        userns_mode=said.text("userns_mode"),
        volumes_from=said.texts("volumes_from"),
    )


def _with_sections(service: model.Service, said: Reader, setting: Setting) -> model.Service:
    if not (any(key in said.node for key in _SECTIONS) or _deploys(said) or _mounts_image(said)):
        return service
    from orchestrator.stackfile import carried

    variables = setting.variables.get
    blkio = carried.blkio(said.part("blkio_config")) if said.has("blkio_config") else None
    return replace(
        service,
        resources=replace(service.resources, blkio=blkio),
        build=carried.build(said.part("build")) if said.has("build") else None,
        credential_spec=carried.credential(said.part("credential_spec"))
        if said.has("credential_spec")
        else None,
        deploy=carried.deploy(said.part("deploy")) if said.has("deploy") else None,
        watch=carried.watches(said, variables),
        device_requests=carried.requests(said),
        models=carried.uses(said),
        post_start=carried.hooks(said, "post_start", variables),
        pre_start=carried.init_containers(said, variables),
        pre_stop=carried.hooks(said, "pre_stop", variables),
        provider=carried.provider(said.part("provider")) if said.has("provider") else None,
        image_mounts=tuple(carried.image_mounts(said)),
    )


def _deploys(said: Reader) -> bool:
    """Does the deploy section say more than how many there are, their limits and restarts?"""
    if "deploy" not in said.node:
        return False
    deploy = said.part("deploy")
    reservations = deploy.part("resources").part("reservations").node
    return any(key in deploy.node for key in _DEPLOY) or any(key != "memory" for key in reservations)


def _mounts_image(said: Reader) -> bool:
    return any(entry.text("type") == "image" for entry in said.listed("volumes"))


def _root(name: str, said: Reader, setting: Setting) -> model.RootFilesystem:
    """What a build makes is called <stack>-<service>, unless `image` names it."""
    image = said.text("image")
    root = said.node.get("x-rootfs")
    if root is None:
        if image is None and "build" in said.node:
            return model.ImageRoot(reference=f"{setting.name}-{name}")
        if image is None and not said.has("provider"):
            said.wrong(
                "a service needs an image (or x-rootfs)",
                code=problem.MISSING_KEY,
                hint="add `image: NAME`, or `x-rootfs: host` to use this machine's own programs",
            )
        return model.ImageRoot(reference=image or "")
    if image is not None:
        said.wrong("image and x-rootfs exclude each other", key="x-rootfs")
    path = said.part("x-rootfs").text("path")
    return model.DirectoryRoot(path=path) if path else model.HostRoot()


def _replicas(said: Reader) -> int:
    """`scale` and deploy.replicas must agree; more than one container can't share one name."""
    scale, replicas = said.whole("scale"), said.part("deploy").whole("replicas")
    if scale is not None and replicas is not None and scale != replicas:
        said.wrong(f"scale is {scale} but deploy.replicas is {replicas}", key="scale")
    count = scale if scale is not None else replicas if replicas is not None else 1
    if count > MOST_REPLICAS:
        where, key = (said, "scale") if scale is not None else (said.part("deploy"), "replicas")
        where.refuse(f"{count} containers of one service are more than {MOST_REPLICAS}", key=key)
    if count > 1 and said.has("container_name"):
        said.wrong(f"{count} containers can't all have one container_name", key="container_name")
    return count


def _grace(said: Reader) -> float:
    grace = said.seconds("stop_grace_period")
    return 10.0 if grace is None else max(0.0, grace)


def _drain(said: Reader) -> float:
    try:
        span = said.seconds("x-drain")
    except ValueError as error:
        said.refuse(f"{said.text('x-drain')!r} is not a duration: {error}", key="x-drain")
        span = None
    if span is not None and span < 0:
        said.refuse("a duration here can't be negative", key="x-drain")
    return model.DRAIN if span is None else max(0.0, span)


def _dependencies(said: Reader) -> tuple[model.Dependency, ...]:
    return tuple(
        model.Dependency(
            service=name,
            condition=cast("model.DependencyCondition", condition(need)),
            required=need.flag("required", default=True),
            restart=need.flag("restart"),
            place=need.place,
        )
        for name, need in said.named("depends_on")
    )


def _healthcheck(said: Reader) -> model.Healthcheck:
    test = said.words("test") or None
    disable = said.flag("disable") or bool(test and test[0] == "NONE")
    if said.has("start_interval") and not said.seconds("start_period"):
        said.refuse("start_interval needs a start_period", key="start_interval")
    if test and test[0] == "CMD-SHELL" and len(test) != 2:
        said.refuse("CMD-SHELL takes exactly one text", key="test")
    retries = said.whole("retries")
    if retries is not None and retries < 0:
        said.wrong("retries can't be negative", key="retries")
    for key in ("interval", "timeout", "start_period", "start_interval"):
        if (said.seconds(key) or 0.0) < 0:
            said.refuse("a duration here can't be negative", key=key)
    return model.Healthcheck(
        test=None if disable else test,
        probe=None if said.flag("disable") else probe(said),
        interval=said.seconds("interval"),
        timeout=said.seconds("timeout"),
        retries=retries,
        start_period=said.seconds("start_period"),
        start_interval=said.seconds("start_interval"),
        disable=disable,
    )


def _restart(said: Reader) -> model.RestartPolicy:
    """When it ends, and when its health check fails."""
    word = said.text("x-on-unhealthy") or "ignore"
    if word not in _REMEDIES:
        said.refuse(f"{word!r} is none of {', '.join(_REMEDIES)}", key="x-on-unhealthy")
        word = "ignore"
    policy = _restart_policy(said)
    return policy if word == "ignore" else replace(policy, unhealthy=cast("Remedy", word))


def _restart_policy(said: Reader) -> model.RestartPolicy:
    """deploy.restart_policy wins over restart."""
    policy = said.part("deploy").part("restart_policy")
    if policy.node:
        said_condition = policy.text("condition") or "any"
        if said_condition not in _CONDITIONS:
            policy.refuse(f"{said_condition!r} is none of {', '.join(_CONDITIONS)}", key="condition")
        condition = _CONDITIONS.get(said_condition, "always")
        return model.RestartPolicy(
            condition=cast("Restarting", condition),
            max_attempts=policy.whole("max_attempts") or None,
            delay=policy.seconds("delay"),
            window=policy.seconds("window"),
        )
    word, _, count = (said.text("restart") or "no").partition(":")
    if word not in _RESTARTS or (count and (word != "on-failure" or not count.isdecimal())):
        said.refuse(
            f"{said.text('restart')!r} is not a restart policy",
            key="restart",
            hint="no, always, unless-stopped, on-failure or on-failure:3",
        )
        return model.RestartPolicy()
    return model.RestartPolicy(
        condition=cast("Restarting", word),
        max_attempts=int(count[:9]) or None if count else None,
    )


def _pull_policy(said: Reader) -> str:
    policy = said.text("pull_policy") or ""
    if policy and policy not in _PULLS and re.fullmatch(_PULL_EVERY, policy, re.ASCII) is None:
        said.refuse(
            f"{policy!r} is not a policy",
            key="pull_policy",
            hint="always, never, missing, build, refresh, daily, weekly, or every_12h and the like",
        )
    return policy


def _logging(said: Reader) -> model.Logging:
    driver = said.text("driver") or "json-file"
    if driver not in _LOCAL_LOGS:
        said.warn(f"the log driver {driver!r} is not supported yet: json-file is used", key="driver")
        return model.Logging()
    return model.Logging(driver=driver, options=said.pairs("options"))


def _devices(said: Reader) -> tuple[model.Device, ...]:
    devices: list[model.Device] = []
    for device in said.listed("devices"):
        source = device.text("source") or ""
        if not source.startswith("/"):
            device.refuse(
                f"{source!r} is not a path of a device",
                code=problem.UNSUPPORTED,
                hint="devices are like /dev/fuse",
            )
        if not set(device.text("permissions") or "r") <= set("rwm"):
            device.refuse(f"{device.text('permissions')!r} is not made of r, w and m", key="permissions")
        if not (device.text("target") or source).startswith("/"):
            device.refuse(
                f"{device.text('target')!r} must be an absolute path in the container", key="target"
            )
        devices.append(
            model.Device(
                source=source,
                target=device.text("target") or source,
                permissions=device.text("permissions") or "rwm",
            )
        )
    return tuple(devices)
