"""Images by their digests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.api.paths import Paths
from orchestrator.cli.pin import images_only, pinned
from orchestrator.images.store.content import Store
from orchestrator.model.errors import ExitCode, UserError
from tests.kit.archives import Entry, Image, layer
from tests.kit.faults import Faults
from tests.unit.cli import command

ONE, TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
TREE = {"name": "s", "services": {"a": {"image": "nginx:1", "init": True}, "b": {"build": {}}}}


def test_an_image_gets_its_full_name_and_digest() -> None:
    asked: list[str] = []

    def find(name: str) -> str:
        asked.append(name)
        return ONE

    found = pinned(TREE, find)

    assert asked == ["docker.io/library/nginx:1"]
    assert found["services"]["a"] == {"image": f"docker.io/library/nginx:1@{ONE}", "init": True}
    assert found["services"]["b"] == {"build": {}}
    assert images_only(found) == {
        "services": {"a": {"image": f"docker.io/library/nginx:1@{ONE}"}, "b": {}},
    }


@pytest.mark.parametrize("name", [f"reg:5000/x@{TWO}", f"reg:5000/x:1@{TWO}"])
def test_a_digest_that_is_there_stays_and_nobody_is_asked(name: str) -> None:
    found = pinned({"services": {"a": {"image": name}}}, lambda _: pytest.fail("asked"))

    assert found["services"]["a"]["image"] == f"reg:5000/x@{TWO}"


def test_all_images_that_are_not_here_are_named() -> None:
    tree = {"services": {"a": {"image": "x"}, "b": {"image": "y:2"}, "c": {"image": "z"}}}

    with pytest.raises(UserError) as caught:
        pinned(tree, lambda name: ONE if "z" in name else None)

    assert "no digest is known of x (service a), y:2 (service b)" in caught.value.message
    assert caught.value.exit_code is ExitCode.IMAGE


def test_registries_are_asked_for_images_that_are_not_here(tmp_path: Path, shelf: Faults) -> None:
    digest = shelf.put_image("app:1", Image((layer(Entry("file", b"x")),)))
    text = f"services: {{a: {{image: '{shelf.name('app:1')}'}}, b: {{image: '{shelf.name('app:1')}'}}}}\n"
    (tmp_path / "stack.yml").write_text(text)
    code, out, err = command.run(tmp_path, "config", "--lock-image-digests")
    assert (code, err) == (0, "")
    assert out.count(f"{shelf.name('app:1')}@{digest}") == 2
    assert [one.method for one in shelf.requests] == ["HEAD"]
    (tmp_path / "stack.yml").write_text(text.replace("app:1'}, b", "app:2'}, b"))
    code, out, err = command.run(tmp_path, "config", "--resolve-image-digests")
    assert (code, out) == (6, "")
    assert (
        f"no digest is known of {shelf.name('app:2')} (service a): manifest for {shelf.name('app:2')} not found"
        in err
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root unpacks images")
def test_an_image_that_is_here_is_called_what_its_registry_called_it(tmp_path: Path, shelf: Faults) -> None:
    (tmp_path / "tree").mkdir()
    name = shelf.name("app:1")
    assert command.run(tmp_path, "import", "tree", name)[0] == 0
    (tmp_path / "stack.yml").write_text(f"services: {{a: {{image: '{name}'}}}}\n")
    store = Store(Paths.find(str(tmp_path), {}).images)
    own = store.demand(name).manifest
    assert f"{name}@{own}" in command.run(tmp_path, "config", "--lock-image-digests")[1]
    store.note_origin(name, TWO)
    assert f"{name}@{TWO}" in command.run(tmp_path, "config", "--lock-image-digests")[1]
    assert shelf.requests == []


def test_a_lock_is_an_override_file(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(f"services: {{a: {{image: 'x:1@{ONE}', scale: 2}}}}\n")
    code, lock, err = command.run(tmp_path, "config", "--lock-image-digests")
    (tmp_path / "lock.yml").write_text(lock)

    assert (code, err) == (0, "")
    assert lock == f"services:\n  a:\n    image: docker.io/library/x@{ONE}\n"
    assert command.run(tmp_path, "-f", "stack.yml", "-f", "lock.yml", "config", "--images")[1] == (
        f"docker.io/library/x@{ONE}\n"
    )
