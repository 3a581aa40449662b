"""A stack for which this machine has no room is refused in a sentence before anything of it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.programs import Pystack

pytestmark = pytest.mark.kernel

BIG = "name: big\nservices: {web: {x-rootfs: host, command: [sleep, infinity], scale: COUNT}}\n"


@pytest.fixture
def there(state_root: Path) -> Pystack:
    return Pystack(root=state_root, directory=state_root)


def test_more_containers_than_a_network_has_addresses(there: Pystack) -> None:
    network = "networks: {default: {ipam: {config: [{subnet: 10.97.0.0/28}]}}}\n"
    (there.directory / "big.yml").write_text(BIG.replace("COUNT", "14") + network)
    said = there.run("-f", "big.yml", "up", "-d", exit_code=1)
    assert said.stderr == (
        "error: network big_default would have 14 containers, and its range has 13 addresses for them\n"
        "  hint: give it a larger `ipam` subnet\n"
    )
    assert there.run("-f", "big.yml", "ps", "-a", "-q").stdout == ""


def test_more_containers_than_the_supervisor_may_open_files_for(there: Pystack) -> None:
    (there.directory / "big.yml").write_text(BIG.replace("COUNT", "8"))
    said = there.shell("ulimit -n 256; pystack -f big.yml up -d", exit_code=1)
    assert said.stderr.splitlines()[0] == (
        "error: 8 containers need 264 open files, and the supervisor may have 256"
    )
    assert "LimitNOFILE=" in said.stderr
