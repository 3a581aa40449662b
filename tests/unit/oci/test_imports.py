"""What a command loads decides what it costs: it is a new interpreter each time."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {
    "asyncio", "email", "http", "ipaddress", "logging", "pathlib", "selectors", "socket", "ssl", "subprocess",
    "traceback", "urllib", "orchestrator.kernel.links", "orchestrator.kernel.netlink",
}  # fmt: skip


def test_to_run_a_container_loads_neither_netlink_nor_what_comes_with_it() -> None:
    script = "import sys; import orchestrator.oci.__main__, orchestrator.oci.run; print(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert not HEAVY & set(said.stdout.split())
