"""What is put into the store piece by piece: kept while it is being fetched, found again after a cut."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.images.layers import meta
from orchestrator.images.layers.meta import Meta
from orchestrator.images.store.content import Store
from orchestrator.images.store.index import digest_of

BLOB = b"a layer as it came"
DIGEST = digest_of(BLOB)
LAYER = digest_of(b"the same, plain")

FETCHER = """
import sys
from pathlib import Path
from orchestrator.images.store.content import Store
store = Store(Path(sys.argv[1]))
with store.lease() as lease, store.partial(sys.argv[2]) as path:
    path.write_bytes(b"half of")
    lease.keep(*sys.argv[3:])
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def fetcher(store: Store, *kept: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCHER, str(store.root), DIGEST, *kept]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def put(store: Store) -> None:
    """Blob and layer, by somebody who then fails."""
    with contextlib.suppress(KeyboardInterrupt), store.lease() as lease, store.scratch() as work:
        (work / "blob").write_bytes(BLOB)
        (work / "layer" / "fs").mkdir(parents=True)
        meta.write_meta(work / "layer", Meta(diff_id=LAYER))
        store.put_blob(DIGEST, work / "blob", lease)
        store.put_layer(LAYER, work / "layer", lease)
        raise KeyboardInterrupt


def test_what_a_failed_pull_has_put_stays_for_the_next_one_until_its_time_is_up(store: Store) -> None:
    put(store)
    assert store.has_blob(DIGEST)
    assert store.has_layer(LAYER)
    assert store.sweep() == 0
    assert store.has_layer(LAYER)
    assert store.sweep(grace=0) == 2
    assert not store.has_blob(DIGEST)
    assert not store.has_layer(LAYER)
    assert os.listdir(store.root / "leases") == []


def test_a_second_pull_that_ends_well_ends_what_the_first_one_had_kept(store: Store) -> None:
    """Else the layers would stay on disk for a week after the image was removed."""
    put(store)
    with contextlib.suppress(KeyboardInterrupt), store.lease() as lease:
        lease.keep(digest_of(b"of another image"))
        raise KeyboardInterrupt
    with fetcher(store, DIGEST) as living:
        with store.lease() as lease:
            lease.keep(DIGEST, LAYER)
        assert len(os.listdir(store.root / "leases")) == 2
        living.communicate("")
    assert store.sweep() == 2
    assert len(os.listdir(store.root / "leases")) == 1


def test_the_lease_of_a_living_process_holds_whatever_its_age(store: Store) -> None:
    put(store)
    with fetcher(store, DIGEST, LAYER) as process:
        assert store.sweep(grace=0) == 0
        process.send_signal(signal.SIGKILL)
    assert store.sweep(grace=0) == 2


def test_our_own_lease_holds_too_and_looking_at_it_does_not_drop_it(store: Store) -> None:
    put(store)
    with store.lease() as lease:
        lease.keep(DIGEST)
        assert store.sweep(grace=0) == 1
        command = (
            "import sys; from pathlib import Path; from orchestrator.images.store.content import Store\n"
        )
        command += "print(Store(Path(sys.argv[1])).sweep(grace=0))"
        other = subprocess.run(
            [sys.executable, "-c", command, str(store.root)], capture_output=True, text=True
        )
        assert other.stdout == "0\n", other.stderr
        assert store.has_blob(DIGEST)
    assert store.sweep() == 1


def test_what_is_here_already_is_left_where_it_was(store: Store) -> None:
    put(store)
    with store.lease() as lease, store.scratch() as work:
        (work / "blob").write_bytes(BLOB)
        store.put_blob(DIGEST, work / "blob", lease)
        assert (work / "blob").exists()


def test_a_blob_in_part_belongs_to_one_process_and_is_found_again(store: Store) -> None:
    with fetcher(store) as process:
        with store.partial(DIGEST, wait=False) as path:
            assert path is None
        process.send_signal(signal.SIGKILL)
    assert store.sweep() == 0
    with store.partial(DIGEST, wait=False) as path:
        assert path is not None
        assert path.read_bytes() == b"half of"
        with store.partial(DIGEST, wait=False) as other:
            assert other is None
        assert store.sweep(grace=0) == 0
        assert path.exists()
        path.write_bytes(BLOB)
        with store.lease() as lease:
            store.put_blob(DIGEST, path, lease)
    assert os.listdir(store.root / "partial") == []
    assert store.blob(DIGEST, limit=100) == BLOB


def test_a_forgotten_beginning_is_swept(store: Store) -> None:
    with store.partial(DIGEST) as path:
        assert path is not None
        path.write_bytes(b"half of")
    os.utime(path, (0, 0))
    (store.root / "partial" / f"{'0' * 64}.lock").touch()
    store.sweep()
    assert os.listdir(store.root / "partial") == []
