"""Health checks of our own, asked in the container's network: no program of the image takes part."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.kit.site import Site

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


STACK = """
name: probed
services:
  web:
    x-rootfs: {path: $BOX}
    command: sh -c 'sleep 0.3; exec httpd -f -p 127.0.0.1:80 -h /etc'
    healthcheck: {x-http: {port: 80, path: /passwd}}
  beside:
    x-rootfs: {path: $BOX}
    command: sleep 1000
    network_mode: service:web
    healthcheck: {x-tcp: {port: 80}}
  host:
    x-rootfs: {path: $BOX}
    command: sleep 1000
    network_mode: host
    healthcheck: {x-tcp: {port: PORT}}
  lost:
    x-rootfs: {path: $BOX}
    command: httpd -f -p 80 -h /etc
    healthcheck: {x-http: {port: 80, path: /nothing}, interval: 200ms, retries: 2}
  app:
    x-rootfs: {path: $BOX}
    command: sleep 1000
    depends_on: {web: {condition: service_healthy}, beside: {condition: service_healthy}}
"""


def test_http_and_tcp_probes_in_every_kind_of_network(anchored_site: Site) -> None:
    """Their interval is 30 s: gates open as soon as the servers answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        anchored_site.up(STACK.replace("PORT", str(server.getsockname()[1])))
        for service in ("web", "beside", "host"):
            anchored_site.becomes("probed", service, health="healthy")
        assert time.monotonic() - began < 10.0
        anchored_site.becomes("probed", "lost", health="unhealthy")
        said = anchored_site.ask("inspect", names=["probed-lost-1"]).result
        assert "HTTP/1.1 404 Not Found" in str(said)
        anchored_site.down("probed", timeout=0)
