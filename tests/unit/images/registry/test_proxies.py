"""Proxies of the environment."""

from __future__ import annotations

import pytest

from orchestrator.images.registry.proxies import is_loopback, proxy_for

HTTPS = {"HTTPS_PROXY": "http://proxy:3128"}


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("https://ghcr.io/v2/", {}, ""),
        ("https://ghcr.io/v2/", HTTPS, "http://proxy:3128"),
        ("http://ghcr.io/v2/", HTTPS, ""),
        ("http://ghcr.io/v2/", {"http_proxy": "proxy:80"}, "http://proxy:80"),
        ("https://ghcr.io/v2/", {"https_proxy": "http://small", "HTTPS_PROXY": "http://BIG"}, "http://small"),
        ("https://ghcr.io/v2/", {"ALL_PROXY": "http://all"}, "http://all"),
        ("https://localhost:5000/v2/", HTTPS, ""),
        ("https://127.8.8.8/v2/", HTTPS, ""),
        ("https://[::1]:5000/v2/", HTTPS, ""),
        *(
            ("https://reg.example.com:5000/", {**HTTPS, "NO_PROXY": listed}, "")
            for listed in (
                "*",
                "reg.example.com",
                "example.com",
                ".example.com",
                "*.example.com",
                "other, EXAMPLE.com ",
                "example.com:5000",
            )
        ),
        *(
            ("https://reg.example.com:5000/", {**HTTPS, "no_proxy": listed}, "http://proxy:3128")
            for listed in ("", ",", "ample.com", "reg.example", "example.com:443", "10.0.0.0/8")
        ),
        ("https://10.1.2.3/", {**HTTPS, "NO_PROXY": "10.0.0.0/8"}, ""),
        ("https://10.1.2.3:444/", {**HTTPS, "NO_PROXY": "10.1.2.3:443"}, "http://proxy:3128"),
        ("https://[fd00::1]/", {**HTTPS, "NO_PROXY": "fd00::/8"}, ""),
        ("https://[fd00::1]/", {**HTTPS, "NO_PROXY": "fd00::1"}, ""),
    ],
)
def test_the_environment_names_a_proxy(url: str, environment: dict[str, str], proxy: str) -> None:
    assert proxy_for(url, environment) == proxy


def test_loopback_is_by_name_or_address() -> None:
    assert all(map(is_loopback, ("localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1")))
    assert not any(map(is_loopback, ("localhost.example", "128.0.0.1", "", "127.0.0.1.nip.io")))
