"""The store under SIGKILL at many moments, and under many processes at once.

Seeds are printed; PYSTACK_SEED repeats one, PYSTACK_CRASHES says how many moments (the suite takes few).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.images.archives import loading
from orchestrator.images.store.content import Store
from orchestrator.images.store.verifying import verify
from tests.kit.archives import Entry, Image, docker_save, layer, oci_layout
from tests.kit.patience import patient

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("state_root")]

SEED = int(os.environ.get("PYSTACK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
CRASHES = int(os.environ.get("PYSTACK_CRASHES", "6"))
BASE = layer(Entry("./"), Entry("etc/"), Entry("etc/motd", b"base"), Entry("root/", mode=0o700))
OLD = Image((BASE,), {"Cmd": ["old"]}, ("app:1", "old:1"))
NEW = Image((BASE, layer(Entry("root/new", b"2" * 3000))), {"Cmd": ["new"]}, ("app:1",))
# Everything that changes a file system and that Python tells of before it does it.
TOLD = frozenset(
    "open os.rename os.link os.mkdir os.remove os.rmdir os.truncate os.chmod subprocess.Popen".split()
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the old image, and archives beside it."""
    top = tmp_path_factory.mktemp("crash")
    (top / "old.tar").write_bytes(docker_save(OLD))
    (top / "new.tar").write_bytes(oci_layout(NEW))
    with open(top / "old.tar", "rb") as source:
        loading.load(Store(top / "store"), source)
    return top


def act_and_die(act: Callable[[], object], at: int) -> tuple[bool, int]:
    """Do it in a process that is killed at its `at`th event; whether it was, and how many there were."""
    read, write = os.pipe()
    pid = os.fork()  # noqa: TID251 (no event loop here, and nothing else could die at this very moment)
    if pid == 0:
        count = 0

        def hook(event: str, _: object) -> None:
            nonlocal count
            if event in TOLD:
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            sys.addaudithook(hook)
            act()
            os.write(write, str(count).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    _, status = os.waitpid(pid, 0)
    told = os.read(read, 100)
    os.close(read)
    assert status in (0, signal.SIGKILL), status
    return status != 0, int(told or 0)


def files(store: Store) -> set[str]:
    """What lies in the store but for the contents of layers; the backup of the index does not count."""
    ignored = {"lock", "index.json.before", "leases", "partial"}
    tops = [store.root, *(store.root / name for name in ("blobs/sha256", "layers", "tmp"))]
    return {str(path.relative_to(store.root)) for top in tops for path in top.iterdir()} - ignored


def swept(store: Store) -> set[str]:
    """The same when what dead processes left is gone; their workers take a moment to notice."""
    end = time.monotonic() + patient(5)
    while store.sweep(grace=0) or os.listdir(store.root / "tmp"):
        assert time.monotonic() < end, os.listdir(store.root / "tmp")
        time.sleep(0.01)
    return files(store)


def load_new(top: Path, store: Store) -> None:
    with open(top / "new.tar", "rb") as source:
        loading.load(store, source)


def moments(total: int, label: str) -> list[int]:
    print(f"PYSTACK_SEED={SEED} {label}: of {total} events")
    return sorted(random.Random(SEED).sample(range(1, total + 1), min(CRASHES, total)))


def test_a_load_killed_at_any_moment_leaves_all_old_or_all_new(start: Path, tmp_path: Path) -> None:
    def fresh() -> Store:
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        shutil.copytree(start / "store", tmp_path / "store", symlinks=True)
        return Store(tmp_path / "store")

    store = fresh()
    killed, total = act_and_die(lambda: load_new(start, store), 0)
    assert not killed
    whole = files(Store(store.root))
    assert total > 40
    both = 0
    for at in moments(total, "load"):
        store = fresh()
        killed, _ = act_and_die(lambda store=store: load_new(start, store), at)  # type: ignore[misc]
        assert killed or at > total - 5, at
        store = Store(store.root)
        assert store.demand("old:1").id == OLD.id, at
        now = store.demand("app:1").id
        assert now in (OLD.id, NEW.id), at
        both += now == NEW.id
        assert verify(store).faults == (), at
        assert len(store.layers(now)) == (1 if now == OLD.id else 3), at
        load_new(start, store)
        assert store.demand("app:1").id == NEW.id, at
        assert swept(store) == whole, at
    assert verify(store).faults == ()
    assert both < CRASHES


def test_a_removal_killed_at_any_moment_leaves_the_other_image_whole(start: Path, tmp_path: Path) -> None:
    shutil.copytree(start / "store", tmp_path / "both", symlinks=True)
    load_new(start, Store(tmp_path / "both"))
    left = {path.name for path in (start / "store" / "layers").iterdir()}

    def fresh() -> Store:
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        shutil.copytree(tmp_path / "both", tmp_path / "store", symlinks=True)
        return Store(tmp_path / "store")

    store = fresh()
    _, total = act_and_die(lambda: store.remove("app:1"), 0)
    for at in moments(total, "rmi"):
        store = fresh()
        act_and_die(lambda store=store: store.remove("app:1"), at)  # type: ignore[misc]
        store = Store(store.root)
        assert store.demand("old:1").id == OLD.id, at
        if store.resolve("app:1") is not None:
            assert len(store.layers(NEW.id)) == 3, at
            store.remove("app:1")
        swept(store)
        assert {path.name for path in (store.root / "layers").iterdir()} == left, at
        assert [path.is_dir() for path in store.layers(OLD.id)] == [True], at
    assert verify(store).faults == ()


BUSY = """
import random, sys
from pathlib import Path
from orchestrator.images.archives import loading
from orchestrator.images.store.content import Store
from orchestrator.model.errors import UserError
top, root, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
dice = random.Random(seed)
store = Store(root)
def load(name):
    with open(top / name, "rb") as source:
        loading.load(store, source)
def leased():
    with store.lease() as lease:
        image = store.demand(dice.choice(("app:1", "old:1")))
        diff_ids = store.config(image.id).diff_ids
        lease.keep(*diff_ids)
        if all(map(store.has_layer, diff_ids)):
            store.sweep(grace=0)
            assert all(map(store.has_layer, diff_ids)), "a leased layer was swept"
acts = [
    lambda: load("old.tar"), lambda: load("new.tar"), leased,
    lambda: store.tag(dice.choice(("app:1", "old:1")), f"t{dice.randrange(4)}:1"),
    lambda: store.remove(dice.choice(("app:1", "old:1", "t0:1", "t1:1"))),
    lambda: store.remove(store.demand(dice.choice(("app:1", "t2:1"))).id, force=True),
    lambda: store.sweep(grace=0), lambda: store.prune(lambda image: not image.names),
    lambda: store.note_pull(f"docker.io/library/app:{dice.randrange(3)}", "sha256:" + "0" * 64, 1.0),
]
for turn in range(14):
    try:
        dice.choice(acts)()
    except UserError as error:
        if "o such image" not in error.message and "not in the store" not in error.message:
            raise
"""


def test_processes_that_load_tag_remove_and_sweep_at_once_leave_a_sound_store(
    start: Path, tmp_path: Path
) -> None:
    print(f"PYSTACK_SEED={SEED}")
    root = tmp_path / "store"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", BUSY, str(start), str(root), str(SEED + number)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=patient(60))
        assert worker.returncode == 0, errors
    store = Store(root)
    assert verify(store).faults == ()
    load_new(start, store)
    for image in store.images():
        assert store.layers(image.id)
    assert swept(store) == files(store)
