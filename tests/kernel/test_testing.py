"""The plugin as users have it: a project of its own, pytest with xdist, real containers, nothing left."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.kit.patience import patient

pytestmark = pytest.mark.kernel

STACK = """
name: shop
services:
  web:
    x-rootfs: host
    container_name: the-only-web
    command: [python3, -m, http.server, "80"]
    working_dir: /etc
    ports: ["8765:80"]
    restart: always
    init: true
    networks: {front: {ipv4_address: 10.77.0.5}}
    healthcheck: {test: [CMD, python3, -c, "import socket; socket.create_connection(('127.0.0.1', 80))"], interval: 200ms}
    volumes: [data:/data]
networks: {front: {name: the-front, ipam: {config: [{subnet: 10.77.0.0/24}]}}}
volumes: {data: {name: the-data}}
"""
TESTS = """
import urllib.request
import pytest

@pytest.mark.parametrize("turn", range(2))
def test_it_serves_and_heals(stack, turn):
    shop = stack("stack.yml")
    shop.up()
    assert shop.wait("web", "healthy") < 20
    assert b"passwd" in urllib.request.urlopen(shop.url("web", 80), timeout=10).read()
    assert shop.exec("web", "sh", "-c", "echo $((6 * 7)); ls /data") == "42\\n"
    shop.crash("web")
    assert shop.healed(timeout=20) < 20
    shop.wait("web", "healthy")
    assert "GET / " in shop.logs("web")

def test_it_is_left_by_a_test_that_fails(stack):
    stack("stack.yml").up()
    raise RuntimeError("on purpose")

def test_it_says_what_is_wrong(stack):
    shop = stack("stack.yml")
    with pytest.raises(AssertionError, match="web is not running after 0.1 s: none"):
        shop.wait("web", timeout=0.1)
    with pytest.raises(AssertionError, match="web does not run"):
        shop.crash("web")
    with pytest.raises(AssertionError, match="pystack .* ended with 1[0-9]*:"):
        stack("nowhere.yml")

def test_the_laws_hold(simulated_stack):
    simulated_stack("stack.yml").check("{lasts: 1m, faults: {retryable: 0.1}, events: [{at: 30s, kill: web}]}", seeds=range(3))
    assert simulated_stack("stack.yml").play("lasts: 10s").converged is not None
"""


def test_copies_live_side_by_side_and_nothing_is_left(
    state_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = tmp_path_factory.mktemp("project")
    (project / "stack.yml").write_text(STACK)
    (project / "test_shop.py").write_text(TESTS)
    words = ["-n", "2", "-q", "-p", "no:cacheprovider", "--pystack-root", str(state_root)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *_plugin()],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        text=True,
        capture_output=True,
        timeout=patient(110),
    )
    assert "1 failed, 4 passed" in done.stdout, done.stdout + done.stderr
    assert "RuntimeError: on purpose" in done.stdout


def _plugin() -> list[str]:
    """pytest finds it by itself where the package is installed, and takes no plugin twice."""
    installed = any(point.name == "pystack" for point in entry_points(group="pytest11"))
    return [] if installed else ["-p", "orchestrator.testing.plugin"]
