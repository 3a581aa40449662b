"""CVE-2019-5736 against `pystack-oci`, which has no keeper: whoever calls it is the first process' first program."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.security.test_interpreter import ATTACK, needed_loader
from tests.kit.keeper import until
from tests.kit.oci import Runtime, reap
from tests.kit.programs import REPOSITORY

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("way", ["run", "exec"])
def test_the_interpreter_of_pystack_oci_cannot_be_written_to(
    state_root: Path, loader: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else runs it, so nothing but the seal is in the way once the command has ended."""
    python = state_root / "python3"
    shutil.copy(os.path.realpath(sys.executable), python)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    before = hashlib.sha256(python.read_bytes()).hexdigest()
    with Runtime(state_root, (str(python), "-m", "orchestrator.oci")) as oci:
        place = oci.rootfs / needed_loader(python).lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(loader, place)
        (oci.rootfs / "attack.sh").write_text(ATTACK)
        said = oci.rootfs / "said"
        if way == "run":
            oci.bundle(["/proc/self/exe"])
            assert oci.ask("run", "--detach", "thief").code == 0
        else:
            oci.bundle(["sleep", "100"])
            assert oci.ask("run", "--detach", "thief").code == 0
            assert oci.ask("exec", "--detach", "thief", "/proc/self/exe").code == 0
        until(lambda: said.exists() and said.read_text().count("\n") > 5, "attempts")
        assert subprocess.run(["pgrep", "-f", str(python)], capture_output=True).stdout == b""
        assert "wrote" not in said.read_text()
        assert "Read-only file system" in said.read_text()
        # What an exec left behind is ours to collect, and the first process can't go before.
        oci.do("kill", "thief", "KILL")
        reap()
    assert hashlib.sha256(python.read_bytes()).hexdigest() == before
