"""What somebody changes behind our back is put right within two seconds, and no container is restarted."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.kernel import cgroups, interfaces
from orchestrator.model import codec
from tests.kit.patience import patient
from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel

STACK = """
name: one
services:
  a:
    x-rootfs: {path: $BOX}
    command: sleep 1000
    networks: [front, back]
    mem_limit: 64m
    cpus: 0.5
    pids_limit: 50
  b: {x-rootfs: {path: $BOX}, command: httpd -f -p 80 -h /etc, networks: [front], ports: ["127.0.0.1:PORT:80"]}
networks: {front: {}, back: {}}
"""


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def one(anchored_site: Site, port: int) -> Iterator[Site]:
    """The stack, up."""
    anchored_site.up(STACK.replace("PORT", str(port)))
    yield anchored_site
    anchored_site.down("one", timeout=0)


def bridge(site: Site) -> str:
    return interfaces.bridge(site.places.tag, "one_front")


def link(site: Site, service: str) -> str:
    return interfaces.port(site.places.tag, site.row("one", service)["id"], "one_front")


def gateway(site: Site) -> str:
    listed = subprocess.run(
        ["ip", "-o", "-4", "address", "show", "dev", bridge(site)], check=True, capture_output=True, text=True
    )
    return listed.stdout.split()[3]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def carry_off(site: Site) -> None:
    """Into a network namespace that goes away, and the link with it."""
    with subprocess.Popen(["unshare", "-n", "sleep", "60"]) as other:
        until(
            lambda: Path(f"/proc/{other.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink(), "it"
        )
        ip("link", "set", link(site, "b"), "netns", str(other.pid))
        time.sleep(0.3)
        other.kill()


def inside(site: Site, service: str, *words: str) -> None:
    pid = site.row("one", service)["pid"]
    subprocess.run(["nsenter", "-t", str(pid), "-n", *words], check=True, capture_output=True)


def group(site: Site, service: str, controller: str) -> Path:
    """The control group of a service's container, where the files of a controller are."""
    hierarchies = site.hierarchies
    base = hierarchies.unified if controller in hierarchies.v2 else hierarchies.v1.get(controller)
    return Path(f"{base}/{site.places.cgroup}/one/{site.row('one', service)['id']}")


def limit(site: Site, controller: str, of_v1: str, of_v2: str, value: str) -> None:
    file = of_v2 if controller in site.hierarchies.v2 else of_v1
    (group(site, "a", controller) / file).write_text(value)


def freeze(site: Site) -> None:
    hierarchies = site.hierarchies
    path = f"{site.places.cgroup}/one/{site.row('one', 'b')['id']}"
    cgroups.freeze(hierarchies, path, frozen=True)


def take_the_group_away(site: Site) -> None:
    """As somebody does who moves processes about: out of the group, and the group is removed."""
    hierarchies, directory = site.hierarchies, group(site, "a", "pids")
    on_v2 = "pids" in hierarchies.v2
    root = (hierarchies.unified or "").removesuffix(hierarchies.above) if on_v2 else hierarchies.v1["pids"]
    for pid in (directory / "cgroup.procs").read_text().split():
        Path(root, "cgroup.procs").write_text(pid)
    directory.rmdir()


def close_the_name_server(site: Site) -> None:
    pid = str(site.row("one", "a")["pid"])
    asked = ["nsenter", "-t", pid, "-n", "ss", "-K", "-Htul", "src", "127.0.0.11"]
    if not subprocess.run(asked, check=True, capture_output=True).stdout:
        pytest.skip("this kernel destroys no sockets (CONFIG_INET_DIAG_DESTROY)")


def nft(site: Site, *words: str) -> None:
    subprocess.run(["nft", *words], check=True, capture_output=True)


FAULTS: dict[str, tuple[Callable[[Site], None], str]] = {
    "bridge deleted": (lambda site: ip("link", "delete", bridge(site)), "its bridge was deleted"),
    "bridge down": (lambda site: ip("link", "set", bridge(site), "down"), "its bridge was set down"),
    "bridge's address removed": (
        lambda site: ip("address", "del", gateway(site), "dev", bridge(site)),
        "its bridge had lost its address",
    ),
    "link deleted": (
        lambda site: ip("link", "delete", link(site, "b")),
        "its link to network one_front was deleted",
    ),
    "link taken off the bridge": (
        lambda site: ip("link", "set", link(site, "a"), "nomaster"),
        "its link to network one_front was taken off the bridge",
    ),
    "link down": (
        lambda site: ip("link", "set", link(site, "b"), "down"),
        "its link to network one_front was taken off the bridge",
    ),
    "link carried off": (carry_off, "its link to network one_front was deleted"),
    "table deleted": (
        lambda site: nft(site, "delete", "table", "ip", f"pystack-{site.places.tag}"),
        "its rules were changed",
    ),
    "table flushed": (
        lambda site: nft(site, "flush", "table", "ip", f"pystack-{site.places.tag}"),
        "its rules were changed",
    ),
    "address removed inside": (
        lambda site: inside(site, "b", "ip", "address", "flush", "dev", "eth0"),
        "its address on network one_front was removed",
    ),
    "route removed inside": (
        lambda site: inside(site, "b", "ip", "route", "del", "default"),
        "its default route was removed",
    ),
    "interface set down inside": (
        lambda site: inside(site, "b", "ip", "link", "set", "eth0", "down"),
        "its interface on network one_front was set down",
    ),
    "loopback set down inside": (
        lambda site: inside(site, "a", "ip", "link", "set", "lo", "down"),
        "its loopback interface was set down",
    ),
    "way to the name server flushed": (
        lambda site: inside(site, "a", "nft", "flush", "ruleset"),
        "the rules that lead to its name server were removed",
    ),
    "name server's socket closed": (close_the_name_server, "the socket of its name server was closed"),
    "memory limit changed": (
        lambda site: limit(site, "memory", "memory.limit_in_bytes", "memory.max", str(48 << 20)),
        "was changed from 67108864 to 50331648",
    ),
    "cpu limit changed": (
        lambda site: limit(site, "cpu", "cpu.cfs_quota_us", "cpu.max", "20000"),
        "was changed from 50000",
    ),
    "pids limit lifted": (
        lambda site: limit(site, "pids", "pids.max", "pids.max", "max"),
        "pids.max was changed from 50 to max",
    ),
    "frozen": (freeze, "it was frozen"),
    "control group removed": (take_the_group_away, "its control group"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_put_right_and_nobody_restarts(one: Site, port: int, fault: str) -> None:
    before = {row["service"]: row["pid"] for row in one.ps("one")}
    held = limits(one)
    assert works(one, port)
    do, because = FAULTS[fault]
    do(one)
    began = time.monotonic()
    until(lambda: repairs(one, because), f"a repair: {because}")
    until(lambda: works(one, port), "that all works again")
    assert time.monotonic() - began < patient(2.0)
    assert {row["service"]: row["pid"] for row in one.ps("one")} == before
    assert limits(one) == held


def limits(site: Site) -> dict[str, str]:
    """What a's processes may use, by the files of the groups that its first process is in."""
    where = {"memory": ("memory.limit_in_bytes", "memory.max"), "cpu": ("cpu.cfs_quota_us", "cpu.max")}
    found = {}
    for controller, files in {**where, "pids": ("pids.max", "pids.max")}.items():
        home = group(site, "a", controller)
        assert str(site.row("one", "a")["pid"]) in (home / "cgroup.procs").read_text().split()
        file = home / files[controller in site.hierarchies.v2]
        found[file.name] = file.read_text().strip()
    return found


def repairs(site: Site, because: str) -> bool:
    told = site.ask("events", stack="one", history=True, follow=False).lines
    return any(line.get("verb") == "repair" and because in line["because"] for line in told)


def works(site: Site, port: int) -> bool:
    """By name inside, by the published port from outside, and out of the other network."""
    inside = site.execute("one", "a", "ping", "-c", "1", "-W", "1", "b", exit_code=None)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as asking:
            asking.sendall(b"GET /passwd HTTP/1.0\r\n\r\n")
            return "1 packets received" in inside and b"200 OK" in asking.recv(100)
    except OSError:
        return False


def test_own_work_is_no_drift(one: Site) -> None:
    """Coming and going of our own is announced as well, and nothing of it is repaired."""
    told = one.ask("events", stack="one", history=True, follow=False).lines
    before = sum(line.get("verb") == "repair" for line in told)
    for number in range(3):
        one.up(
            f"name: two\nservices: {{s: {{x-rootfs: {{path: $BOX}}, command: sleep 9{number}, scale: 4}}}}"
        )
        one.down("two", timeout=0)
    told = one.ask("events", stack="one", history=True, follow=False).lines
    assert sum(line.get("verb") == "repair" for line in told) == before


# --- what is not made anew ------------------------------------------------------------------------------

KEEPS = """
name: one
services:
  db: {x-rootfs: {path: $BOX}, command: sleep 1000, volumes: ["data:/data"], restart: always}
  web: {x-rootfs: {path: $BOX}, command: sleep 1000, stop_grace_period: 0s}
volumes: {data: {}}
"""


def events(site: Site, verb: str) -> list[tuple[str, str, str]]:
    told = site.ask("events", stack="one", history=True, follow=False).lines
    return [(one["target"], one["because"], one["outcome"]) for one in told if one.get("verb") == verb]


def test_a_lost_volume_is_reported_and_never_made_anew(anchored_site: Site) -> None:
    """Who runs goes on; who ends is not started on an empty directory; what is put back is used again."""
    site = anchored_site
    site.up(KEEPS)
    directory = site.places.volume("one_data") / "_data"
    (directory / "precious").write_text("x")
    pid = site.row("one", "db")["pid"]
    moved = site.root / "elsewhere"
    site.places.volume("one_data").rename(moved)
    gone = f"its directory {directory} is gone"
    until(lambda: ("volume:one_data", gone, "failed") in events(site, "drift"), "a report")
    row = site.row("one", "db")
    assert row["pid"] == pid
    assert row["status"].endswith("(volume one_data is gone)")
    told = site.up(KEEPS)
    assert any("is not made anew empty" in line.get("because", "") for line in told.lines)
    site.kill(pid)
    row = until(lambda: (r := site.row("one", "db"))["state"] != "running" and r, "that it stays down")
    answer = site.up(KEEPS, exit_code=1)
    assert "is not made anew empty" in answer.error
    assert "put" in answer.hint
    assert not directory.exists()
    moved.rename(site.places.volume("one_data"))
    site.becomes("one", "db", state="running")
    assert (directory / "precious").read_text() == "x"
    assert ("volume:one_data", "its directory is there again", "ok") in events(site, "drift")
    site.down("one", remove_volumes=True)
    assert not list(site.places.known_volumes.glob("*"))


def test_a_volume_that_was_deleted_while_nobody_looked_is_not_made_anew(site: Site) -> None:
    """Record and all, with the stack down: the next `up` still knows that there was one."""
    site.up(KEEPS)
    site.down("one")
    shutil.rmtree(site.places.volume("one_data"))
    assert "is not made anew empty" in site.up(KEEPS, exit_code=1).error
    assert not site.places.volume("one_data").exists()
    assert site.row("one", "web")["state"] == "running"


def ids(site: Site, service: str) -> set[str]:
    return {row["id"] for row in site.ps("one") if row["service"] == service}


def test_a_container_that_has_lost_its_files_is_replaced(site: Site) -> None:
    site.up(KEEPS)
    before = {row["service"]: row["id"] for row in site.ps("one")}
    home = site.places.container("one", before["web"])
    shutil.rmtree(home / "layers" / "root" / "upper")
    until(lambda: ids(site, "web") - {before["web"]}, "another container")
    site.becomes("one", "web", state="running")
    assert site.row("one", "db")["id"] == before["db"]
    assert any("upper was deleted" in because for _, because, _ in events(site, "drift"))


# --- what is only told ----------------------------------------------------------------------------------


def drift(site: Site, **more: object) -> list[tuple[str, str, str, str]]:
    found = site.ask("drift", stack="one", **more).result["differences"]
    return [(row["target"], row["what"], row["wanted"], row["found"]) for row in found]


def test_without_repair_it_is_only_told(one: Site, port: int) -> None:
    """Once each, and `drift` shows it; when repair is switched on, all of it is put right."""
    assert drift(one) == []
    before, told_before = len(events(one, "repair")), len(events(one, "drift"))
    one.ask("repair", stack="one", on=False)
    limit(one, "pids", "pids.max", "pids.max", "max")
    inside(one, "b", "ip", "route", "del", "default")
    ip("link", "delete", link(one, "b"))
    because = {"pids.max was changed from 50 to max", "its link to network one_front was deleted"}
    until(lambda: because <= {said for _, said, _ in events(one, "drift")[told_before:]}, "reports")
    time.sleep(0.7)
    told = events(one, "drift")[told_before:]
    assert len(told) == len(set(told)), told
    assert events(one, "repair")[before:] == []
    assert not works(one, port)
    assert ("container:one-a-1", "pids.max", "50", "max") in drift(one)
    assert ("container:one-b-1", "link to one_front", "there", "missing") in drift(one)
    assert [row[0] for row in drift(one, services=["a"])] == ["container:one-a-1"]
    one.ask("repair", stack="one", on=True)
    until(lambda: works(one, port) and drift(one) == [], "that all is right again")


def test_who_insists_is_left_alone_for_a_while(one: Site) -> None:
    """Two that put the same thing right in turns would go on for ever."""
    file = group(one, "a", "pids") / "pids.max"
    left = "it was put right 5 times within a minute, and is left as it is"

    def is_left() -> bool:
        return any(left in said for _, said, how in events(one, "drift") if how == "failed")

    # Tests before this one may have had some of the five.
    for _ in range(6):
        file.write_text("60")
        until(lambda: file.read_text().strip() == "50" or is_left(), "a repair, or a report")
        if is_left():
            break
    assert is_left()
    assert file.read_text().strip() == "60"
    assert ("container:one-a-1", "pids.max", "50", "60") in drift(one)


def traces(site: Site) -> dict[str, object]:
    """All that a command could have changed."""
    files = {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in site.root.rglob("*")
        if not path.name.startswith("out-") and path.name != "log.db-shm"
    }
    links = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    rules = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    return {"files": files, "links": links, "rules": rules, "ps": [row["pid"] for row in site.ps("one")]}


def test_plan_and_drift_change_nothing(one: Site) -> None:
    limits(one)
    before = traces(one)
    wish = codec.encode(one.stack(STACK.replace("sleep 1000", "sleep 2000").replace("PORT", "8123")))
    assert one.ask("plan", stack=wish).result["steps"]
    assert one.ask("plan", stack=wish, down=True).result["lines"]
    assert drift(one, file=wish) == []
    assert traces(one) == before


def test_a_saved_plan_is_carried_out_or_refused(site: Site) -> None:
    """What it was made for must be there still: the same wish before, the same steps from here."""
    wish = {"stack": codec.encode(site.stack(KEEPS)), "wanted": "running", "services": [], "repair": True}
    told = site.ask("plan", **wish).result
    plan = {"base": told["base"], "steps": told["steps"]}
    site.up("name: two\nservices: {s: {x-rootfs: {path: $BOX}, command: sleep 90}}")
    moved = site.ask("up", **wish, plan=plan, exit_code=7)
    assert "the plan does not fit any more: step 1, create network:one_default" in moved.error
    assert site.ps("one") == []
    site.down("two")
    site.ask("up", **wish, plan=plan)
    assert {row["state"] for row in site.ps("one")} == {"running"}
    again = site.ask("up", **wish, plan=plan, exit_code=7)
    assert "the stack was changed since by another command" in again.error
