"""Configs of images: what they say, and that nothing of them is believed unchecked."""

from __future__ import annotations

import json

import pytest

from orchestrator.images import config
from orchestrator.model.errors import UserError
from orchestrator.model.stack import Healthcheck

ID = "sha256:" + "1" * 64
DIFF = "sha256:" + "a" * 64


def parse(run: object = None, **more: object) -> config.ImageConfig:
    data = {"config": run, "rootfs": {"diff_ids": [DIFF]}, **more}
    return config.parse(json.dumps(data).encode(), ID)


def test_every_run_default_is_read() -> None:
    found = parse(
        {
            "Env": ["A=1", "B=x=y", "A=2", "NOTHING", "=odd"],
            "Cmd": ["a", "b c"],
            "Entrypoint": ["/e"],
            "User": "app:app",
            "WorkingDir": "/w",
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Volumes": {"/data": {}},
            "Labels": {"k": "v"},
            "StopSignal": "SIGQUIT",
        },
        architecture="amd64",
        os="linux",
        created="2024-01-01T00:00:00Z",
    )
    assert found == config.ImageConfig(
        id=ID,
        environment={"A": "2", "B": "x=y"},
        command=("a", "b c"),
        entrypoint=("/e",),
        user="app:app",
        working_dir="/w",
        exposed_ports=("53/udp", "80/tcp"),
        volumes=("/data",),
        labels={"k": "v"},
        stop_signal="SIGQUIT",
        architecture="amd64",
        os="linux",
        created="2024-01-01T00:00:00Z",
        diff_ids=(DIFF,),
    )


def test_an_image_may_say_nothing() -> None:
    assert parse() == config.ImageConfig(id=ID, diff_ids=(DIFF,))
    assert parse({"Cmd": None, "Env": None, "Healthcheck": None, "StopSignal": ""}) == parse()


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ({"Test": ["NONE"]}, Healthcheck(disable=True)),
        ({"Test": []}, Healthcheck()),
        (
            {
                "Test": ["CMD", "x"],
                "Interval": 1_500_000_000,
                "Timeout": 0,
                "Retries": 4,
                "StartPeriod": 10**9,
            },
            Healthcheck(test=("CMD", "x"), interval=1.5, retries=4, start_period=1.0),
        ),
    ],
)
def test_health_checks_count_in_nanoseconds_and_zero_is_unsaid(check: object, expected: Healthcheck) -> None:
    assert parse({"Healthcheck": check}).healthcheck == expected


@pytest.mark.parametrize(
    "run",
    [
        *([], "x", {"Env": "A=1"}, {"Env": [1]}, {"Cmd": {}}, {"Cmd": ["a\0b"]}, {"User": 0}, {"Labels": []}),
        *({"Labels": {"a": 1}}, {"Volumes": ["/x"]}, {"Healthcheck": {"Test": ["RUN", "x"]}}),
        *({"Healthcheck": {"Interval": -1}}, {"Healthcheck": {"Interval": "30s"}}, {"WorkingDir": "/a\0"}),
    ],
)
def test_a_field_of_the_wrong_kind_is_an_error_that_says_so(run: object) -> None:
    with pytest.raises(UserError, match="broken image"):
        parse(run)


@pytest.mark.parametrize("ids", [["sha256:xyz"], [DIFF[7:]], "x", [DIFF] * 501])
def test_layers_must_be_digests_and_few_enough_to_mount(ids: object) -> None:
    with pytest.raises(UserError, match="broken image"):
        parse(rootfs={"diff_ids": ids})


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b" " * (9 << 20)])
def test_what_is_not_a_json_object_of_bearable_size_is_refused(text: bytes) -> None:
    with pytest.raises(UserError, match="broken image"):
        config.parse(text, ID)
