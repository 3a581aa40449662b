"""The program for `init: true` as a file: what it is, how it gets there, what stands in for it."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.kernel import init
from orchestrator.kernel.init import BUILD, COMPILER, InitError, ensure, program

SOURCE = Path(init.__file__).with_name("init.c")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_bytes_are_a_small_static_program(machine: str) -> None:
    content = program(machine)
    assert content[:6] == b"\x7fELF\x02\x01"
    assert int.from_bytes(content[18:20], "little") == {"x86_64": 62, "aarch64": 183}[machine]
    assert len(content) < 4096
    headers = [content[64 + 56 * n : 64 + 56 * n + 4] for n in range(content[56])]
    assert (3).to_bytes(4, "little") not in headers  # PT_INTERP: it needs no loader


@pytest.mark.parametrize(
    ("machine", "compiler", "more"),
    [("x86_64", "gcc", ["-fcf-protection=none"]), ("aarch64", "aarch64-linux-gnu-gcc", [])],
)
def test_the_bytes_are_what_the_source_gives(
    tmp_path: Path, machine: str, compiler: str, more: list[str]
) -> None:
    """If the source was changed: build it as here and put the new bytes and their SHA-256 into init.py."""
    if machine == "x86_64" and platform.machine() != "x86_64":
        compiler = "x86_64-linux-gnu-gcc"
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    asked = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=True)
    built = tmp_path / "init"
    subprocess.run([compiler, *BUILD, *more, "-o", built, SOURCE], check=True)
    if asked.stdout.strip() != COMPILER:
        pytest.skip(f"it builds, but {compiler} is not {COMPILER}: other bytes are no fault")
    assert built.read_bytes() == program(machine)


def test_it_is_written_once_and_complete(tmp_path: Path) -> None:
    path = ensure(tmp_path, "x86_64")
    assert path.read_bytes() == program("x86_64")
    assert path.stat().st_mode & 0o7777 == 0o555
    before = path.stat()
    assert ensure(tmp_path, "x86_64") == path
    assert path.stat() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["short", "mode", "link"])
def test_a_file_that_is_not_right_is_replaced(tmp_path: Path, damage: str) -> None:
    path = ensure(tmp_path, "x86_64")
    other = tmp_path / "other"
    other.write_bytes(program("x86_64"))
    match damage:
        case "short":
            path.chmod(0o755)
            path.write_bytes(b"\x7fELF")
        case "mode":
            path.chmod(0o644)
        case _:
            path.unlink()
            path.symlink_to(other)
    assert ensure(tmp_path, "x86_64") == path
    assert path.read_bytes() == program("x86_64")
    assert path.lstat().st_mode == 0o100555
    assert other.read_bytes() == program("x86_64")


def test_another_machine_uses_a_known_program_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InitError, match="needs tini-static, catatonit, docker-init or tini on riscv64"):
        ensure(tmp_path, "riscv64")
    for name in ("tini", "catatonit"):
        (tmp_path / name).touch(mode=0o755)
    assert ensure(tmp_path, "riscv64") == tmp_path / "catatonit"
