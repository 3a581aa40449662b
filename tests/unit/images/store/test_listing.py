"""The quick list of images says what the store says, which reads with more care."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.api.wire import loads
from orchestrator.images.store import listing
from orchestrator.images.store.content import Store
from orchestrator.model.errors import ExitCode, UserError
from tests.kit.archives import Entry, Image, layer
from tests.kit.shelves import shelve

BASE = layer(Entry("base", b"b" * 4000))
OLD = Image((BASE,), {"Labels": {"a": "1"}}, ("web:1", "web"), {"created": "2024-05-18T22:34:17Z"})
NEW = Image((BASE, layer(Entry("new", b"n" * 70))), {}, ("web:1", "reg.example:5000/x/y:2"))


def _told(store: Store) -> list[tuple[object, ...]]:
    """What the store knows of its images."""
    rows: list[tuple[object, ...]] = []
    for image in store.images():
        config = store.config(image.id)
        known = (
            list(image.names),
            list(image.repo_digests),
            config.created,
            config.size,
            dict(config.labels),
        )
        rows.append((image.id, *known))
    return rows


def _listed(store: Store) -> list[tuple[object, ...]]:
    found = listing.read(str(store.root), loads)
    return [(one.id, one.names, one.origins, one.created, one.size, one.labels) for one in found]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = shelve(tmp_path, OLD, origin=f"sha256:{'d' * 64}")
    shelve(tmp_path, NEW)
    return store


def test_both_say_the_same(store: Store) -> None:
    """Of names, one that has moved, origins, times, sizes and labels."""
    assert _listed(store) == _told(store)
    store.tag(NEW.id, "web")
    assert any(not row[1] for row in _told(store))
    assert _listed(store) == _told(store)


def test_a_list_that_another_tool_has_written_is_read_too(store: Store) -> None:
    path = store.root / "index.json"
    data = json.loads(path.read_bytes())
    for row in data["manifests"]:
        row["annotations"].pop("io.pystack.image.id")
        row["annotations"].pop("io.pystack.image.origin", None)
    data["manifests"].append({"digest": f"sha256:{'0' * 64}", "size": 1, "annotations": {}})
    path.write_text(json.dumps(data))

    listed = _listed(Store(store.root))
    assert listed == _told(Store(store.root))
    assert {row[0] for row in listed} == {OLD.id, NEW.id}


def test_a_list_that_is_none_is_told(store: Store) -> None:
    for content in ("[[[", "", "[" * 100_000, "[]", '{"manifests": 5}'):
        (store.root / "index.json").write_text(content)
        with pytest.raises(UserError, match=r"index\.json is damaged: it ") as caught:
            _listed(store)
        assert caught.value.exit_code == ExitCode.IMAGE
    for content in ("{}", '{"manifests": [5, {"annotations": []}]}'):
        (store.root / "index.json").write_text(content)
        assert _listed(store) == []
