"""Units: their text, their place, and systemd's own judgement of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.cli.resume import line, place, unit
from tests.unit.cli.command import run

FILE = "name: shop\nservices: {web: {image: web}}\n"


def test_a_unit_says_what_is_wanted_and_when() -> None:
    assert unit("shop", ("/usr/bin/pystack", "resume", "shop"), user=False) == (
        "[Unit]\n"
        "Description=Containers of the stack shop (pystack)\n"
        "Wants=network-online.target\n"
        "After=network-online.target local-fs.target\n"
        "\n"
        "[Service]\n"
        "Type=oneshot\n"
        "RemainAfterExit=yes\n"
        "TimeoutStartSec=660\n"
        "ExecStart=/usr/bin/pystack resume shop\n"
        "\n"
        "[Install]\n"
        "WantedBy=multi-user.target\n"
    )
    assert "WantedBy=default.target" in unit("shop", ("/p",), user=True)


def test_words_come_through_systemd_s_quoting() -> None:
    text = unit("shop", ("/opt/my tools/pystack", "--root", '/a$b%c"d'), user=False)
    assert 'ExecStart="/opt/my tools/pystack" --root "/a$$b%%c\\"d"\n' in text


def test_where_units_stand() -> None:
    assert place("shop", {}, user=False) == "/etc/systemd/system/pystack-shop.service"
    found = place("shop", {"XDG_CONFIG_HOME": "/c"}, user=True)
    assert found == "/c/systemd/user/pystack-shop.service"


def test_a_container_is_a_line() -> None:
    assert line({"name": "shop-web-1", "status": "Up 2 seconds"}) == "shop-web-1  Up 2 seconds\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stack.yml").write_text(FILE)
    return tmp_path


def test_what_is_printed_is_a_unit_to_systemd(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    code, out, _ = run(folder, "systemd", "install", "--print")
    assert code == 0
    assert f"--root {folder} resume shop\n" in out
    if shutil.which("systemd-analyze"):
        path = tmp_path_factory.mktemp("units") / "pystack-shop.service"
        path.write_text(out)
        verified = subprocess.run(
            ["systemd-analyze", "verify", path], capture_output=True, text=True, check=False
        )
        assert [row for row in verified.stderr.splitlines() if "pystack-shop" in row] == []


def test_nothing_to_resume_and_nothing_to_uninstall(folder: Path) -> None:
    assert run(folder, "resume") == (0, "Nothing to resume.\n", "")
    code, _, said = run(folder, "resume", "shop")
    assert (code, said.splitlines()[0]) == (1, "error: no such stack: shop")
    code, _, said = run(folder, "systemd", "uninstall", "--user", env={"XDG_CONFIG_HOME": str(folder)})
    assert code == 1
    assert "pystack-shop.service is not there" in said


def test_a_users_unit_is_written_and_taken_away(folder: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(folder / "config")}
    path = folder / "config" / "systemd" / "user" / "pystack-shop.service"
    code, out, _ = run(folder, "systemd", "install", "--user", env=env)
    assert f"{path} written" in out
    assert path.read_text().endswith("WantedBy=default.target\n")
    if not Path("/run/systemd/system").is_dir():
        assert (code, "systemd does not run here" in out) == (0, True)
        assert run(folder, "systemd", "uninstall", "--user", env=env)[0] == 0
        assert not path.exists()
