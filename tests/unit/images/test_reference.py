"""Names of images, as the distribution specification and Docker read them."""

from __future__ import annotations

import pytest

from orchestrator.images import reference
from orchestrator.model.errors import ExitCode, UserError

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("redis", "docker.io/library/redis:latest", "redis:latest"),
        ("redis:7", "docker.io/library/redis:7", "redis:7"),
        ("library/redis", "docker.io/library/redis:latest", "redis:latest"),
        ("docker.io/redis", "docker.io/library/redis:latest", "redis:latest"),
        ("index.docker.io/redis", "docker.io/library/redis:latest", "redis:latest"),
        ("someone/app", "docker.io/someone/app:latest", "someone/app:latest"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("Host/app", "Host/app:latest", "Host/app:latest"),
        ("ghcr.io/a/b__c/d-e.f:v1.2_3", "ghcr.io/a/b__c/d-e.f:v1.2_3", "ghcr.io/a/b__c/d-e.f:v1.2_3"),
        (f"redis@sha256:{HEX}", f"docker.io/library/redis@sha256:{HEX}", f"redis@sha256:{HEX}"),
        (f"redis:7@sha256:{HEX}", f"docker.io/library/redis:7@sha256:{HEX}", f"redis:7@sha256:{HEX}"),
    ],
)
def test_what_is_not_said_is_filled_in_and_taken_away_again(text: str, full: str, familiar: str) -> None:
    parsed = reference.parse(text)
    assert str(parsed) == full
    assert parsed.familiar == familiar
    assert reference.parse(full) == reference.parse(familiar) == parsed


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":7",
            "redis:",
            "/redis",
            "redis/",
            "a//b",
            "Redis",
            "ghcr.io/Upper/x",
            "redis:ta g",
            "redis:-x",
        ),
        *("re dis", "a/../b", "-a", "a_", "a..b", "a___b", "redis@sha256:12", "redis@md5:" + HEX, HEX),
        *("redis:" + "x" * 129, "a/" * 130 + "a", "redis\n", "host:port/x", "host:65536/x", "https://x/y"),
    ],
)
def test_what_is_no_name_is_refused_with_the_image_exit_code(text: str) -> None:
    with pytest.raises(UserError, match="invalid reference format") as caught:
        reference.parse(text)
    assert caught.value.exit_code is ExitCode.IMAGE


def test_an_upper_case_name_is_told_what_is_wrong_with_it() -> None:
    with pytest.raises(UserError, match="must be lowercase"):
        reference.parse("Redis")
