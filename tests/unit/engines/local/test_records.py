"""What is written down is read back as it was, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.engines.local import records
from orchestrator.engines.local.records import Built, DamagedError, Mounted, RunRecord
from orchestrator.model.desired import Desired, Intent, Wanted
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import (
    Container,
    Health,
    HealthStatus,
    NetworkState,
    ProbeResult,
    PublishedPort,
    Run,
    Stopping,
    VolumeState,
)
from orchestrator.model.stack import OfHost
from tests.kit.stacks import check, service, stack, up

WISH = stack(
    "shop",
    db=service(image="db:1", volumes=("data:/d", "/x"), healthcheck=check(), restart="on-failure:3"),
    web=service(after={"db": "healthy!"}, ports=("8080:80", "127.0.0.1:53:53/udp"), environment={"A": "é\n"}),
    beside=service(network_mode=OfHost(), pid=OfHost()),
)
CONTAINER = Container(
    id="a" * 64,
    name="shop-web-1",
    stack="shop",
    service="web",
    slot=1,
    definition=WISH.services["web"],
    fingerprint="f",
    generation=2,
    image_id="",
    created=1.5,
    created_at="2026-11-22T14:00:00Z",
    addresses={"shop_default": "10.0.0.2"},
    ports=(PublishedPort(host_ip="", host_port=8080, target=80),),
    anonymous_volumes={"/x": "b" * 64},
    peers={"db": "c" * 64},
)
RUN = Run(
    turn=3,
    started=2.25,
    pid=7,
    stopping=Stopping(since=3.0, signal=15, by="user"),
    health=Health(
        status=HealthStatus.UNHEALTHY,
        failing_streak=2,
        results=(ProbeResult(started=1, ended=2, exit_code=-1),),
    ),
)
VALUES = [
    Built(
        container=CONTAINER,
        volumes=(Mounted(target="/x", volume="v", anonymous=True),),
        networks={"default": "n"},
    ),
    RunRecord(run=RUN, boot_id="boot"),
    Desired(stack=WISH, intents={"web": Intent(wanted=Wanted.STOPPED, turn=4)}, down=True, stop_timeout=0.0),
    up(WISH),
    NetworkState(name="n", subnet="10.0.0.0/24", gateway="10.0.0.1", fingerprint="f", internal=True),
    VolumeState(name="v", path="/p", fingerprint="f", users=("a",)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("durable", [False, True])
def test_a_record_is_read_back_as_it_was_written(tmp_path: Path, value: object, durable: bool) -> None:
    path = tmp_path / "record.json"
    records.write(path, value, durable=durable)
    assert records.read(path, type(value)) == value
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_no_record_is_none(tmp_path: Path) -> None:
    assert records.read(tmp_path / "nothing", RunRecord) is None


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"format": "x", "value": {}}',
        b'{"format": 1, "value": 3}',
        b"[" * 9999,
    ],
)
def test_a_damaged_record_is_named_and_counts_as_none(
    tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(damage)
    with pytest.raises(DamagedError, match=r"record\.json is damaged"):
        records.read(path, RunRecord)
    assert records.read_or_none(path, RunRecord) is None
    assert "record.json is damaged" in capsys.readouterr().err


def test_a_directory_in_a_record_s_place_is_damage_too(tmp_path: Path) -> None:
    (tmp_path / "record.json").mkdir()
    with pytest.raises(DamagedError):
        records.read(tmp_path / "record.json", RunRecord)


def test_a_newer_record_is_no_damage_and_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "container.json"
    records.write(path, VALUES[0])
    assert not records.is_newer(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": records.FORMAT + 1}))
    assert records.is_newer(path)
    with pytest.raises(EngineError, match="newer pystack") as caught:
        records.read(path, Built)
    assert not isinstance(caught.value, DamagedError)


def test_a_write_that_fails_leaves_the_old_record_and_no_half(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    records.write(path, VALUES[1])
    (tmp_path / ".record.json.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"."):
        records.write(path, VALUES[1])
    assert records.read(path, RunRecord) == VALUES[1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_records_of_all_stacks_are_found_and_damaged_ones_skipped(tmp_path: Path) -> None:
    for name in ("one", "two"):
        home = tmp_path / name / "containers" / ("a" * 64)
        home.mkdir(parents=True)
        records.write(home / "container.json", VALUES[0])
        records.write(tmp_path / name / "desired.json", VALUES[3])
    (tmp_path / "two" / "desired.json").write_bytes(b"")
    assert len(list(records.containers(tmp_path))) == 2
    assert len(list(records.stacks(tmp_path))) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"exit_code": 3, "at": 1.5, "boot_id": "b"}', (3, 1.5, "b")),
        ("", None),
        ("[]", None),
        ('{"exit_code": "x", "at": 1, "boot_id": "b"}', None),
        ("[" * 9999, None),
    ],
)
def test_the_keeper_s_exit_record(tmp_path: Path, text: str, found: object) -> None:
    (tmp_path / "exit.json").write_text(text)
    assert records.exit_of(tmp_path) == found
