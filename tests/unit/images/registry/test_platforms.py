"""Which image fits which machine."""

from __future__ import annotations

import pytest

from orchestrator.images.registry import platforms
from orchestrator.images.registry.platforms import Platform
from orchestrator.model.errors import ExitCode, UserError


def of(text: str) -> Platform:
    os, architecture, *variant = text.split("/")
    return Platform(os=os, architecture=architecture, variant="".join(variant))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("Linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("arm", "linux/arm/v7"),
        ("armel", "linux/arm/v6"),
        ("linux/arm/6", "linux/arm/v6"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_platforms_have_one_spelling(text: str, shown: str) -> None:
    assert str(platforms.parse(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "linux/amd64/v1/x", "lin ux/amd64", "quantum", "linux//v7"]
)
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a platform") as caught:
        platforms.parse(text)
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("wanted", "steps"),
    [
        ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm/v5", ["linux/arm/v5"]),
        ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"]),
        ("linux/amd64", ["linux/amd64"]),
        ("linux/arm64", ["linux/arm64"]),
        ("linux/riscv64", ["linux/riscv64"]),
        ("linux/amd64/v99", ["linux/amd64/v99"]),
    ],
)
def test_newer_machines_run_what_older_ones_do(wanted: str, steps: list[str]) -> None:
    assert [str(one) for one in platforms.acceptable(of(wanted))] == steps


@pytest.mark.parametrize(
    ("present", "wanted", "position"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", 1),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", 1),
        (["linux/arm/v7"], "linux/arm/v6", None),
        (["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v3", 1),
        (["linux/amd64/v3"], "linux/amd64", None),
        (["linux/arm64/v8"], "linux/arm64", 0),
        (["windows/amd64"], "linux/amd64", None),
        (["", "linux/amd64"], "linux/amd64", 1),
        (["linux/arm64", ""], "linux/amd64", 1),
        ([], "linux/amd64", None),
        (["linux/amd64", "linux/amd64"], "linux/amd64", 0),
    ],
)
def test_the_best_entry_is_taken(present: list[str], wanted: str, position: int | None) -> None:
    assert platforms.best([of(one) if one else None for one in present], of(wanted)) == position


V2 = "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"
V3 = f"{V2} avx avx2 bmi1 bmi2 f16c fma movbe"


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        ("fpu sse2", ""),
        (V2, "v2"),
        (V3, "v3"),
        (f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl", "v4"),
        (V3.replace("popcnt ", ""), ""),
    ],
)
def test_the_level_of_a_processor_is_read_from_its_flags(flags: str, level: str) -> None:
    assert platforms.level(f"processor : 0\nflags\t\t: fpu {flags}\nbugs :\n") == level
    assert platforms.level("") == ""


def test_this_machine_runs_its_own_images() -> None:
    here = platforms.this_machine()
    assert platforms.fits(Platform(os="linux", architecture=here.architecture), here)
