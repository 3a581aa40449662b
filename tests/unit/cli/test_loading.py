"""The user's files as the loader sees them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from orchestrator.cli.loading import READ_LIMIT, UserFiles


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("services: {}\n")
    assert UserFiles().read(f"{tmp_path}/a.yml") == "services: {}\n"


def test_what_is_no_file_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        UserFiles().read(f"{tmp_path}/gone")
    with pytest.raises(IsADirectoryError):
        UserFiles().read(str(tmp_path))
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(UnicodeDecodeError):
        UserFiles().read(f"{tmp_path}/latin")


def test_a_pipe_that_nobody_writes_to_is_empty(tmp_path: Path) -> None:
    """`env_file: pipe` must not wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert UserFiles().read(f"{tmp_path}/pipe") == ""


def test_a_pipe_is_read_to_its_end() -> None:
    """-f <(generate)"""
    reading, writing = os.pipe()
    writer = threading.Thread(target=_write, args=(writing, ["services:", " {}\n"]))
    writer.start()
    try:
        assert UserFiles().read(f"/dev/fd/{reading}") == "services: {}\n"
    finally:
        os.close(reading)
        writer.join()


def _write(number: int, texts: list[str]) -> None:
    with open(number, "w") as file:
        for text in texts:
            file.write(text)
            file.flush()


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(OSError, match=f"larger than {READ_LIMIT >> 20} MiB"):
        UserFiles().read("/dev/zero")
