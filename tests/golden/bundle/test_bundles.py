"""Whole bundles, as text: a change of any default shows here. PYSTACK_BLESS=1 writes them anew.

Each config.json is held to schemas/oci-runtime.json. Of the seccomp policy, which has its own tests, a short one
stands for all.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.engines.local import allowed, bundle
from orchestrator.engines.local.bundle import Foreign, Ground, RootLayer
from orchestrator.engines.local.places import Places
from orchestrator.kernel import capabilities
from orchestrator.kernel.limits import Limits
from orchestrator.model.observation import Container
from orchestrator.model.stack import (
    BindMount,
    HostRoot,
    OfHost,
    OfService,
    Resources,
    Service,
    TmpfsMount,
    VolumeMount,
)
from tests.kit import specification

HERE = Path(__file__).parent
PLACES = Places(run=Path("/run/pystack"), data=Path("/var/lib/pystack"))
SERVICES = {
    "plain": Service(name="web", root=HostRoot(), command=("sleep", "1")),
    "rich": Service(
        name="web",
        root=HostRoot(),
        command=("serve",),
        entrypoint=("/entry",),
        environment={"A": "1"},
        hostname="page",
        user="app",
        tty=True,
        read_only=True,
        cap_drop=("ALL",),
        cap_add=("NET_BIND_SERVICE",),
        mounts=(
            BindMount(source="/srv", target="/srv", read_only=True),
            TmpfsMount(target="/tmp", size=1 << 20),
            VolumeMount(source="data", target="/data", subpath="in"),
        ),
    ),
    "shared": Service(
        name="web",
        root=HostRoot(),
        command=("x",),
        network_mode=OfService(service="db"),
        pid=OfHost(),
        uts=OfHost(),
    ),
    "privileged": Service(name="web", root=HostRoot(), command=("x",), privileged=True),
    "foreign": Service(
        name="web",
        root=HostRoot(),
        command=("x",),
        runtime="runc",
        user="1000:100",
        resources=Resources(memory=64 << 20, cpus=0.5, pids=100),
        mounts=(VolumeMount(source="data", target="/data", subpath="in"),),
    ),
}
POLICY = '{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[]}'
RUNC = Foreign(
    path="/usr/sbin/runc", enter=True, cgroups=("/sys/fs/cgroup/unified/x",), hidden="/sys/fs/cgroup/unified"
)


@pytest.mark.parametrize("name", SERVICES)
def test_bundle(name: str) -> None:
    service = SERVICES[name]
    container = Container(
        id="0123456789ab" * 5 + "cdef",
        name="shop-web-1",
        stack="shop",
        service="web",
        slot=1,
        definition=service,
        fingerprint="",
        generation=0,
        image_id="",
        created=0,
    )
    ground = Ground(
        places=PLACES,
        image=None,
        root=(RootLayer(target="", lower=("/top", "/bottom")), RootLayer(target="usr", lower=("/usr",))),
        volumes={"/data": "/var/lib/pystack/volumes/shop_data/_data"},
        etc={f"/etc/{file}": f"/etc/of/{file}" for file in ("hosts", "hostname", "resolv.conf")},
        cgroups=("/sys/fs/cgroup/unified/pystack-tag/shop/id",),
        resources=allowed.resources(
            Limits(
                memory=service.resources.memory,
                cpus=service.resources.cpus,
                pids=service.resources.pids,
                all_devices=service.privileged,
            )
        ),
        seccomp=None if service.privileged else "/run/pystack/seccomp/x",
        policy="" if service.privileged else POLICY,
        joined=frozenset({"network"}),
        runtime=RUNC if service.runtime else None,
        all_capabilities=capabilities.NAMES,
    )
    if not any(isinstance(mount, VolumeMount) for mount in service.mounts):
        ground = replace(ground, volumes={})
    documents = {key: json.loads(text) for key, text in bundle.texts(container, ground).items()}
    assert specification.wrong(documents["config"]) == []
    text = json.dumps(documents, indent=1, sort_keys=True) + "\n"
    golden = HERE / f"{name}.json"
    if os.environ.get("PYSTACK_BLESS"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_golden_has_its_service() -> None:
    assert {path.stem for path in HERE.glob("*.json")} == set(SERVICES)
