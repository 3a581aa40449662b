"""Configs and secrets change under a running container: swapped and told by a signal, or said and left."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel

STACK = """
name: files
services:
  swapped:
    x-rootfs: {path: $BOX}
    command:
      - sh
      - -c
      - |
        exec 3</app.conf
        trap 'echo heard $$(cat /app.conf) $$(cat /key) had $$(cat <&3)' HUP
        echo up
        while :; do sleep 0.05; done
    configs: [{source: app, target: /app.conf}, key]
    x-on-change: {signal: SIGHUP}
  bound:
    x-rootfs: {path: $BOX}
    command: sleep 1000
    stop_grace_period: 0s
    configs: [app]
configs: {app: {file: CONF}, key: {content: KEY}}
"""
SECONDS = 2.0
"""In which a changed file is noticed."""


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


def write_anew(path: Path, text: str) -> None:
    """As editors do."""
    path.with_name("new").write_text(text)
    path.with_name("new").replace(path)


def events(site: Site) -> list[tuple[str, str, str]]:
    rows = site.ask("events", stack="files", history=True, follow=False).lines
    return [(row["target"], row["verb"], row["because"]) for row in rows if "verb" in row]


def test_a_changed_file_is_swapped_whole_and_the_process_hears_of_it(site: Site, tmp_path: Path) -> None:
    conf = tmp_path / "app.conf"
    conf.write_text("one")
    conf.chmod(0o640)
    text = STACK.replace("CONF", str(conf)).replace("KEY", "k1")
    site.up(text)
    site.prints("files", "swapped", b"up")
    before, bound = site.row("files", "swapped"), site.row("files", "bound")
    began = time.monotonic()
    write_anew(conf, "two")
    site.prints("files", "swapped", b"heard two k1 had one")
    assert time.monotonic() - began < SECONDS
    assert site.execute("files", "swapped", "stat", "-c", "%a", "/app.conf").strip() == "644"
    conf.write_text("three")
    site.prints("files", "swapped", b"heard three k1")
    text = text.replace("k1", "k2")
    site.up(text, "swapped")
    site.prints("files", "swapped", b"heard three k2")
    after = site.row("files", "swapped")
    assert (after["id"], after["pid"], after["restarts"]) == (before["id"], before["pid"], 0)
    mounted = Path(f"/proc/{after['pid']}/mountinfo").read_text()
    assert mounted.count(" /app.conf ") == mounted.count(" /key ") == 1
    assert " ro," in next(line for line in mounted.splitlines() if " /app.conf " in line)
    assert site.row("files", "bound")["pid"] == bound["pid"]
    said = "config app of bound: "
    until(lambda: any(one[2].startswith(said) for one in events(site)), "the event")
    site.up(text)
    assert site.row("files", "bound")["id"] != bound["id"]
    assert site.row("files", "swapped")["id"] == before["id"]
    assert ("container:files-bound-1", "kill", "config app changed") in events(site)
    site.ask("kill", stack="files", services=["swapped"], signal="SIGKILL")
    site.becomes("files", "swapped", state="exited")
    site.up(text)
    assert site.execute("files", "swapped", "cat", "/app.conf") == "three"
    site.down("files")


def test_what_a_container_puts_in_the_way_is_not_taken_away(site: Site, tmp_path: Path) -> None:
    """Its directories may lead elsewhere by now; then nothing is mounted and nothing unmounted."""
    conf = tmp_path / "app.conf"
    conf.write_text("one")
    text = """
name: files
services:
  evil:
    x-rootfs: {path: $BOX}
    command: sh -c 'mv /etc/x /etc/y; ln -s /etc /etc/x; echo done; sleep 1000'
    configs: [{source: app, target: /etc/x/hosts}]
    x-on-change: {signal: SIGHUP}
configs: {app: {file: CONF}}
"""
    site.up(text.replace("CONF", str(conf)))
    site.prints("files", "evil", b"done")
    pid = site.row("files", "evil")["pid"]
    before = Path(f"/proc/{pid}/mountinfo").read_text()
    assert " /etc/hosts " in before
    conf.write_text("two")
    until(lambda: any("something else is mounted" in one[2] for one in events(site)), "the refusal")
    assert Path(f"/proc/{pid}/mountinfo").read_text() == before
    site.down("files")
