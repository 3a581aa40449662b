"""One service of a complete tree -> model.Service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from orchestrator.model import stack as model
from orchestrator.stackfile import problem
from orchestrator.stackfile.limits import resources, ulimits
from orchestrator.stackfile.placed import placed
from orchestrator.stackfile.reader import Reader
from orchestrator.stackfile.sound import sound
from orchestrator.stackfile.wiring import attachments, extra_hosts, ports, sharing

_LOCAL_LOGS = ("json-file", "local", "none")
_CONDITIONS = {"any": "always", "on-failure": "on-failure", "none": "no"}
_RESTARTS = ("no", "always", "on-failure", "unless-stopped")
_RestartCondition = Literal["no", "always", "on-failure", "unless-stopped"]


def recipe(name: str, said: Reader, files: Mapping[str, model.FileMount]) -> model.Service:
    """The service; `files` are the stack's configs and secrets. What is wrong goes to the reader's report."""
    sound(said)
    network_mode = sharing(said, "network_mode")
    return model.Service(
        name=name,
        root=_root(said),
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
        hostname=said.text("hostname"),
        domainname=said.text("domainname"),
        container_name=said.text("container_name"),
        labels=said.pairs("labels"),
        annotations=said.pairs("annotations"),
        depends_on=_dependencies(said),
        healthcheck=_healthcheck(said.part("healthcheck")) if said.has("healthcheck") else None,
        restart=_restart(said),
        logging=_logging(said.part("logging")),
        pull_policy=said.text("pull_policy") or "missing",
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


def _root(said: Reader) -> model.RootFilesystem:
    image = said.text("image")
    root = said.node.get("x-rootfs")
    if root is None:
        if image is None and not any(said.has(key) for key in ("build", "extends", "provider")):
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
    if count > 1 and said.has("container_name"):
        said.wrong(f"{count} containers can't all have one container_name", key="container_name")
    return count


def _grace(said: Reader) -> float:
    grace = said.seconds("stop_grace_period")
    return 10.0 if grace is None else max(0.0, grace)


def _dependencies(said: Reader) -> tuple[model.Dependency, ...]:
    return tuple(
        model.Dependency(
            service=name,
            condition=cast(model.DependencyCondition, need.text("condition") or "service_started"),
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
        said.wrong("start_interval needs a start_period", key="start_interval")
    retries = said.whole("retries")
    if retries is not None and retries < 0:
        said.wrong("retries can't be negative", key="retries")
    for key in ("interval", "timeout", "start_period", "start_interval"):
        if (said.seconds(key) or 0.0) < 0:
            said.wrong("a duration here can't be negative", key=key)
    return model.Healthcheck(
        test=None if disable else test,
        interval=said.seconds("interval"),
        timeout=said.seconds("timeout"),
        retries=retries,
        start_period=said.seconds("start_period"),
        start_interval=said.seconds("start_interval"),
        disable=disable,
    )


def _restart(said: Reader) -> model.RestartPolicy:
    """deploy.restart_policy wins over restart."""
    policy = said.part("deploy").part("restart_policy")
    if policy.node:
        condition = _CONDITIONS.get(policy.text("condition") or "any", "always")
        return model.RestartPolicy(
            condition=cast(_RestartCondition, condition),
            max_attempts=policy.whole("max_attempts") or None,
            delay=policy.seconds("delay"),
            window=policy.seconds("window"),
        )
    word, _, count = (said.text("restart") or "no").partition(":")
    if word not in _RESTARTS or (count and (word != "on-failure" or not count.isdecimal())):
        said.wrong(
            f"{said.text('restart')!r} is not a restart policy",
            key="restart",
            code=problem.WRONG_VALUE,
            hint="no, always, unless-stopped, on-failure or on-failure:3",
        )
        return model.RestartPolicy()
    return model.RestartPolicy(
        condition=cast(_RestartCondition, word), max_attempts=int(count[:9]) or None if count else None
    )


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
            device.wrong(
                f"{source!r} is not a path of a device",
                code=problem.UNSUPPORTED,
                hint="devices are like /dev/fuse",
            )
        devices.append(
            model.Device(
                source=source,
                target=device.text("target") or source,
                permissions=device.text("permissions") or "rwm",
            )
        )
    return tuple(devices)
