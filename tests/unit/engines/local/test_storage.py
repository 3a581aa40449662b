"""Volumes and what containers find at their mount points: directories of a state root in a temporary place."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.engines.local import storage
from orchestrator.engines.local.places import Places
from orchestrator.model import fingerprint
from orchestrator.model.action import CreateVolume
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import Container, VolumeState
from orchestrator.model.stack import BindMount, Device, FileMount, Mount, Volume, VolumeMount
from tests.kit.stacks import service


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(run=tmp_path / "run", data=tmp_path / "data")


def creation(volume: Volume) -> CreateVolume:
    return CreateVolume(volume=volume, stack="shop", fingerprint=fingerprint.of_volume(volume))


def container(*mounts: Mount, **fields: object) -> Container:
    definition = replace(service(**fields), name="web", mounts=mounts)  # type: ignore[arg-type]
    return Container(
        id="a" * 64,
        name="shop-web-1",
        stack="shop",
        service="web",
        slot=1,
        definition=definition,
        fingerprint="",
        generation=0,
        image_id="",
        created=0,
    )


VOLUME = Volume(key="data", name="shop_data")


def test_a_volume_is_made_once_and_its_content_stays(places: Places) -> None:
    first = storage.create_volume(places, creation(VOLUME))
    Path(first.path, "f").write_text("kept")
    assert storage.create_volume(places, creation(replace(VOLUME, labels={"new": "label"}))) == first
    assert Path(first.path, "f").read_text() == "kept"
    storage.remove_volume(places, "shop_data")
    assert not places.volume("shop_data").exists()
    storage.remove_volume(places, "shop_data")


def test_a_volume_may_stand_for_a_directory_of_the_host_which_outlives_it(
    places: Places, tmp_path: Path
) -> None:
    home = tmp_path / "elsewhere"
    volume = replace(VOLUME, driver_opts={"type": "none", "o": "bind", "device": str(home)})
    with pytest.raises(EngineError, match="is not a directory"):
        storage.create_volume(places, creation(volume))
    home.mkdir()
    assert storage.create_volume(places, creation(volume)).path == str(home)
    storage.remove_volume(places, "shop_data")
    assert home.is_dir()


def test_other_options_are_refused_by_name(places: Places) -> None:
    with pytest.raises(EngineError, match="nfs"):
        storage.create_volume(places, creation(replace(VOLUME, driver_opts={"type": "nfs"})))


def test_a_fresh_volume_is_to_be_filled_until_it_was(places: Places) -> None:
    storage.create_volume(places, creation(VOLUME))
    plain = container(VolumeMount(source="data", target="/d"))
    [seed] = storage.seeds(places, plain, {"/d": "shop_data"})
    assert seed.target == "/d"
    for spared in (
        VolumeMount(source="data", target="/d", nocopy=True),
        VolumeMount(source="data", target="/d", subpath="x"),
    ):
        assert storage.seeds(places, container(spared), {"/d": "shop_data"}) == ()
    Path(seed.state).write_bytes(b"done")
    assert storage.seeds(places, plain, {"/d": "shop_data"}) == ()


@pytest.mark.parametrize("link", ["/etc", "../../../../../../etc", "."])
def test_a_subpath_through_a_link_is_refused(places: Places, link: str) -> None:
    state = storage.create_volume(places, creation(VOLUME))
    of = container(VolumeMount(source="data", target="/s", subpath="in"))
    mounted, volumes = {"/s": "shop_data"}, {"shop_data": state}
    with pytest.raises(EngineError, match="subpath in"):
        storage.volume_directories(of, mounted, volumes)
    Path(state.path, "in").symlink_to(link)
    with pytest.raises(EngineError, match="subpath in"):
        storage.volume_directories(of, mounted, volumes)
    Path(state.path, "in").unlink()
    Path(state.path, "in").mkdir()
    assert storage.volume_directories(of, mounted, volumes) == {"/s": state.path}


def test_a_volume_that_has_gone_is_named(places: Places) -> None:
    with pytest.raises(EngineError, match="volume gone is not there"):
        storage.volume_directories(container(), {"/d": "gone"}, dict[str, VolumeState]())


def test_contents_of_configs_and_secrets_are_written_with_owner_and_mode(tmp_path: Path) -> None:
    of = container(
        FileMount(kind="config", name="c", target="/c", content="text", mode=0o440),
        FileMount(kind="secret", name="s", target="/s", path="/host/file"),
        FileMount(kind="secret", name="t", target="/t", content="hidden", mode=0o400, uid=os.getuid()),
    )
    for _ in range(2):  # written anew at each start
        found = storage.write_files(tmp_path, of)
        assert {target: Path(path).read_text() for target, path in found.items()} == {
            "/c": "text",
            "/t": "hidden",
        }
    assert [Path(found[target]).stat().st_mode & 0o777 for target in ("/c", "/t")] == [0o440, 0o400]
    assert (tmp_path / "files").stat().st_mode & 0o777 == 0o700


def test_missing_sources_are_made_or_refused(tmp_path: Path) -> None:
    storage.check_binds(container(BindMount(source=str(tmp_path / "a/b"), target="/x")))
    assert (tmp_path / "a/b").is_dir()
    with pytest.raises(EngineError, match=f"service web: bind source {tmp_path}/c"):
        storage.check_binds(
            container(BindMount(source=str(tmp_path / "c"), target="/x", create_host_path=False))
        )
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="service web: bind source"):
        storage.check_binds(container(BindMount(source=str(tmp_path / "file/below"), target="/x")))
    with pytest.raises(EngineError, match="secret s: file"):
        storage.check_binds(
            container(FileMount(kind="secret", name="s", target="/s", path=str(tmp_path / "nothing")))
        )


def test_devices_are_what_the_host_says_they_are(tmp_path: Path) -> None:
    of = container(devices=(Device(source="/dev/null", target="/dev/nothing"),))
    [device] = storage.devices(of)
    assert (device.path, device.kind, device.major, device.minor) == ("/dev/nothing", "c", 1, 3)
    for source, words in ((str(tmp_path), "is not a device"), (str(tmp_path / "x"), "No such file")):
        with pytest.raises(EngineError, match=words):
            storage.devices(container(devices=(Device(source=source, target="/dev/x"),)))


def test_what_a_container_leaves_is_removed_without_following_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("kept")
    home = tmp_path / "home"
    (home / "upper").mkdir(parents=True)
    (home / "upper/dir").symlink_to(outside)
    (home / "upper/file").symlink_to(outside / "f")
    storage.remove_layers(home)
    storage.remove_layers(home)
    assert not home.exists()
    assert (outside / "f").read_text() == "kept"
