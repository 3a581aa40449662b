"""Bytes that are no archive, manifest, index or config end in a message (tests/property/fuzz_images.py).

PYSTACK_FUZZ_INPUTS says how many inputs there are (tests/nightly: 100,000). Few are the same in every run; many are
new ones each time, and the seed is printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.kit.programs import REPOSITORY

INPUTS = int(os.environ.get("PYSTACK_FUZZ_INPUTS", "800"))
FEW = 10_000


def fuzz(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    start = ["-c", code] if code else ["-m", "tests.property.fuzz_images"]
    return subprocess.run(
        [sys.executable, *start, *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )


@pytest.mark.timeout(120 + INPUTS // 20)
def test_whatever_the_bytes_there_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    done = fuzz("--count", str(INPUTS), *(["--seed", "1"] if INPUTS <= FEW else []))
    assert done.returncode == 0, done.stderr[-6000:]
    figures = json.loads(done.stdout)
    with capsys.disabled():
        print(f"\n  {figures}")
    assert figures["inputs"] == INPUTS
    # Were nearly all refused at the first look, little would be tested.
    for kind in ("tar", "manifest", "config"):
        assert figures[f"{kind} read"] > INPUTS * 0.005
        assert figures[f"{kind} refused"] > INPUTS * 0.005


def test_the_fuzzer_finds_what_it_looks_for() -> None:
    """An error that is not the image's, and one that takes too long, end it with the input shown."""
    for patch, expected in (
        ("fuzz.relative = lambda _: {}['key']", "KeyError"),
        ("fuzz.relative = lambda _: [None for _ in iter(int, 1) if _]", "TooSlow"),
    ):
        code = f"import sys; from tests.property import fuzz_images as fuzz; {patch}; sys.exit(fuzz.main(['--count', '40', '--seed', '1']))"
        done = fuzz(code=code)
        assert done.returncode == 1
        assert expected in done.stderr
        assert "input=['tar'" in done.stderr
