"""Bytes that are no stack file end in a message: never a traceback, 2 s or 500 MiB (tests/property/fuzz.py).

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

INPUTS = int(os.environ.get("PYSTACK_FUZZ_INPUTS", "2000"))
FEW = 10_000
WORKERS = min(4, os.cpu_count() or 1)


@pytest.mark.timeout(120 + INPUTS // 20)
def test_whatever_the_bytes_there_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    share = -(-INPUTS // WORKERS)
    command = [sys.executable, "-m", "tests.property.fuzz", "--count", str(share)]
    seeds = [["--seed", str(number)] if INPUTS <= FEW else [] for number in range(WORKERS)]
    running = [
        subprocess.Popen(
            [*command, *seed], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for seed in seeds
    ]
    ended = [(process.communicate(), process.returncode) for process in running]
    assert [code for _, code in ended] == [0] * WORKERS, "\n\n".join(
        err[-6000:] for (_, err), code in ended if code
    )
    figures = [json.loads(out) for (out, _), _ in ended]
    with capsys.disabled():
        print(f"\n  {figures}")
    assert sum(found["inputs"] for found in figures) >= INPUTS * 0.9
    # Were nearly all refused at the first look, little would be tested.
    assert sum(found["loaded"] for found in figures) > INPUTS * 0.1


def test_the_fuzzer_finds_what_it_looks_for() -> None:
    """An input over the limits, and an error that is not the user's, end it with the input shown."""
    for patch, expected in (
        ("fuzz.attempt = lambda *_: [0] * 10**9", "MemoryError"),
        ("fuzz.attempt = lambda *_: [None for _ in iter(int, 1) if _]", "TooSlow"),
        ("fuzz.attempt = lambda *_: {}['key']", "KeyError"),
    ):
        code = f"import sys; from tests.property import fuzz; {patch}; sys.exit(fuzz.main(['--count', '2', '--seed', '1']))"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1
        assert expected in done.stderr
        assert "files={" in done.stderr
