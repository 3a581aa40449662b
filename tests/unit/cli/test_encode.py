"""What Docker Compose's JSON says and leaves out, measured with 2.40.3."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from orchestrator.cli.encode import encoded

SAID = {"command": None, "entrypoint": None}


def service(**keys: Any) -> dict[str, Any]:
    return {"services": {"web": keys}}


@pytest.mark.parametrize(
    ("tree", "gives"),
    [
        (service(image="x"), service(**SAID, image="x")),
        (service(command=["a"], entrypoint=[]), service(command=["a"], entrypoint=[])),
        (
            service(deploy={"replicas": 2}),
            service(**SAID, deploy={"replicas": 2, "resources": {}, "placement": {}}),
        ),
        (
            service(develop={"watch": [{"action": "rebuild"}]}),
            service(**SAID, develop={"watch": [{"action": "rebuild", "exec": {"command": None}}]}),
        ),
        ({"networks": {"n": {"name": "n"}}}, {"networks": {"n": {"name": "n", "ipam": {}}}}),
        ({"name": "p", "models": {"m": {"model": "a"}}}, {"name": "p"}),
        ({"name": "p", "x-top": {"x-a": 1}}, {"name": "p", "x-top": {"x-a": 1}}),
        (service(**{"x-a": 1, "healthcheck": {"x-b": 1}}), service(**SAID, healthcheck={})),
        (service(ports=[{"target": 80, "x-a": 1}]), service(**SAID, ports=[{"target": 80}])),
        (service(**{"x-rootfs": "host"}), service(**SAID, **{"x-rootfs": "host"})),
        (
            service(blkio_config={"weight": 5, "weight_device": [{"path": "/dev/sda", "weight": 6}]}),
            service(**SAID, blkio_config={"weight": 5, "weight_device": [{"Path": "/dev/sda", "Weight": 6}]}),
        ),
        (
            service(ulimits={"core": 0, "nofile": {"soft": 0, "hard": 5}, "nproc": 7}),
            service(**SAID, ulimits={"core": {}, "nofile": {"hard": 5}, "nproc": 7}),
        ),
        # Names of the user's own are no extensions.
        ({"services": {"x-a": {"image": "x"}}}, {"services": {"x-a": {**SAID, "image": "x"}}}),
        (service(networks={"x-n": {"x-a": 1}}), service(**SAID, networks={"x-n": {}})),
        (service(labels={"x-a": "1"}), service(**SAID, labels={"x-a": "1"})),
        (service(networks={"n": None}), service(**SAID, networks={"n": None})),
    ],
)
def test_a_tree_as_json_has_it(tree: dict[str, Any], gives: dict[str, Any]) -> None:
    before = copy.deepcopy(tree)
    assert encoded(tree) == gives
    assert tree == before
