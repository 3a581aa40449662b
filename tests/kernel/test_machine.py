"""What the commands about the whole machine say and do: names, volumes, images, events, stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.images.archives.importing import import_directory
from orchestrator.images.store.content import Store
from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machine")


@pytest.fixture(scope="module")
def image(anchored_site: Site) -> str:
    """An image that says what runs in it; returns its id."""
    store = Store(anchored_site.places.images)
    return import_directory(store, anchored_site.box, "says:1", changes=('CMD ["sleep", "77"]',)).id


# --- names -----------------------------------------------------------------------------------------------

NAMED = """
    name: NAME
    services:
      SERVICE: {x-rootfs: {path: $BOX}, command: sleep 100, stop_grace_period: 0s, container_name: the-only-one}
"""


def test_a_container_name_of_another_stack_is_refused_before_anything_is_done(site: Site) -> None:
    first = NAMED.replace("NAME", "n1").replace("SERVICE", "db")
    second = NAMED.replace("NAME", "n2").replace("SERVICE", "web")
    site.up(first)
    refused = site.up(second, exit_code=7)
    assert (
        "service web: container name the-only-one is already in use by service db of stack n1"
        in refused.error
    )
    assert "`pystack -p n1 down`" in refused.hint
    assert refused.actions() == []
    assert [row["name"] for row in site.ask("ls").result] == ["anchor", "n1"]
    site.ask("restart", stack="n1", timeout=0)
    site.down("n1")
    site.up(second)
    site.down("n2")


def test_a_container_name_of_an_orphan_is_refused_until_the_orphan_is_to_go(site: Site) -> None:
    site.up(NAMED.replace("NAME", "n3").replace("SERVICE", "old"))
    renamed = NAMED.replace("NAME", "n3").replace("SERVICE", "new")
    refused = site.up(renamed, exit_code=7)
    assert "container name the-only-one is already in use by service old" in refused.error
    assert site.row("n3", "old")["state"] == "running"
    site.up(renamed, remove_orphans=True)
    assert [row["service"] for row in site.ps("n3")] == ["new"]
    site.down("n3")


# --- images ----------------------------------------------------------------------------------------------


def test_the_command_shown_and_the_users_of_an_image_come_from_the_image(site: Site, image: str) -> None:
    site.up("name: i1\nservices: {a: {image: says:1}, b: {image: says:1, command: sleep 5}}\n")
    assert [row["command"] for row in site.ps("i1")] == ["sleep 77", "sleep 5"]
    site.ask("stop", stack="i1", services=["b"], timeout=0)
    assert site.ask("image_users").result == {
        image: [{"container": "i1-a-1", "running": True}, {"container": "i1-b-1", "running": False}]
    }
    site.down("i1")


# --- room ------------------------------------------------------------------------------------------------


def test_room_is_told_by_container_and_volume_and_only_what_rests_is_pruned(site: Site, image: str) -> None:
    """A container that has ended goes; one that will be started again, or has a running brother, stays."""
    site.up(
        "name: r1\nservices:\n"
        "  stays: {image: says:1, stop_grace_period: 0s, volumes: ['/d']}\n"
        "  ends: {image: says:1, command: dd if=/dev/zero of=/big bs=1k count=300}\n"
        "  again: {image: says:1, command: 'false', restart: always}\n"
    )
    until(lambda: site.row("r1", "ends")["state"] == "exited", "the end of r1-ends-1")
    told = site.ask("disk").result
    rows = {row["name"]: row for row in told["containers"] if row["name"].startswith("r1")}
    assert rows["r1-ends-1"]["size"] > 300_000 > rows["r1-stays-1"]["size"]
    assert rows["r1-stays-1"]["image_id"] == image
    assert [volume["users"] for volume in told["volumes"] if not volume["key"]] == [1]

    pruned = site.ask("container_prune").result
    assert pruned["removed"] == [rows["r1-ends-1"]["id"]]
    assert pruned["gained"] == rows["r1-ends-1"]["size"]
    assert sorted(row["service"] for row in site.ps("r1")) == ["again", "stays"]
    assert site.ask("container_prune").result == {"removed": [], "gained": 0}
    site.down("r1", remove_volumes=True)


# --- inspect ---------------------------------------------------------------------------------------------

INSPECTED = """
    name: p1
    services:
      w:
        image: says:1
        stop_grace_period: 0s
        environment: {A: "1"}
        labels: {team: blue}
        ports: ["127.0.0.1::7777"]
        volumes: ["data:/data", "$DIR:/host:ro"]
        mem_limit: 64m
        restart: on-failure:3
        healthcheck: {test: "exit 0", interval: 1h, start_interval: 100ms, start_period: 10s}
        networks: {inside: {aliases: [other]}}
    networks: {inside: {}}
    volumes: {data: {}}
"""


def test_a_container_is_told_with_the_fields_of_docker(site: Site, image: str) -> None:
    site.up(INSPECTED)
    row = site.row("p1", "w")
    address = row["addresses"]["p1_inside"]
    told = site.ask("inspect", names=["p1-w-1", row["id"][:5], "p1_data", "p1_inside", "none"]).result
    assert sorted(told["containers"]) == sorted(["p1-w-1", row["id"][:5]])
    box = told["containers"]["p1-w-1"]
    assert told["containers"][row["id"][:5]]["Id"] == row["id"]

    assert (box["Id"], box["Name"], box["Image"]) == (row["id"], "/p1-w-1", image)
    assert (box["Path"], box["Args"]) == ("sleep", ["77"])
    assert {key: box["State"][key] for key in ("Status", "Running", "Pid", "ExitCode")} == {
        "Status": "running",
        "Running": True,
        "Pid": row["pid"],
        "ExitCode": 0,
    }
    assert box["State"]["Health"]["Status"] in ("starting", "healthy")
    assert box["State"]["StartedAt"].endswith("Z")
    assert box["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert Path(box["LogPath"]).parent.is_dir()
    assert Path(box["HostsPath"]).read_text().count(address) == 1

    assert (Path(box["GraphDriver"]["Data"]["UpperDir"]) / "host").is_dir()
    config, limits, net = box["Config"], box["HostConfig"], box["NetworkSettings"]
    assert (config["Image"], config["Cmd"], config["Hostname"]) == ("says:1", ["sleep", "77"], row["id"][:12])
    assert "A=1" in config["Env"]
    assert (config["Labels"]["team"], config["Labels"]["com.docker.compose.project"]) == ("blue", "p1")
    assert (limits["Memory"], limits["RestartPolicy"]["Name"]) == (64 << 20, "on-failure")
    assert limits["RestartPolicy"]["MaximumRetryCount"] == 3
    (port,) = net["Ports"]["7777/tcp"]
    assert (port["HostIp"], int(port["HostPort"]) > 0) == ("127.0.0.1", True)
    assert net["Networks"]["p1_inside"]["IPAddress"] == net["IPAddress"] == address
    assert "other" in net["Networks"]["p1_inside"]["Aliases"]
    mounts = {mount["Destination"]: mount for mount in box["Mounts"]}
    assert (mounts["/data"]["Type"], mounts["/data"]["Name"]) == ("volume", "p1_data")
    assert (mounts["/host"]["Type"], mounts["/host"]["RW"]) == ("bind", False)

    assert told["volumes"]["p1_data"]["Mountpoint"] == mounts["/data"]["Source"]
    segment = told["networks"]["p1_inside"]
    assert segment["Containers"][row["id"]]["IPv4Address"].partition("/")[0] == address
    site.ask("stop", stack="p1", timeout=0)
    box = site.ask("inspect", names=["p1-w-1"]).result["containers"]["p1-w-1"]
    assert (box["State"]["Status"], box["State"]["ExitCode"], box["State"]["Pid"]) == ("exited", 137, 0)
    assert box["State"]["FinishedAt"] > box["State"]["StartedAt"]
    assert box["NetworkSettings"]["IPAddress"] == ""
    site.down("p1")


# --- volumes ---------------------------------------------------------------------------------------------

STORED = """
    name: NAME
    services:
      w: {x-rootfs: {path: $BOX}, command: sleep 100, stop_grace_period: 0s, volumes: ["data:/data", /anon]}
    volumes: {data: {labels: {kept: "yes"}}}
"""


def stored(site: Site, stack: str) -> dict[str, list[str]]:
    """Key (or "anonymous") of each volume of a stack -> its users."""
    rows = site.ask("volumes").result
    return {row["key"] or "anonymous": row["users"] for row in rows if row["stack"] == stack}


def test_volumes_are_listed_with_their_users_and_removed_when_they_have_none(site: Site) -> None:
    site.up(STORED.replace("NAME", "v1"))
    assert stored(site, "v1") == {"data": ["v1-w-1"], "anonymous": ["v1-w-1"]}
    (row,) = (row for row in site.ask("volumes").result if row["name"] == "v1_data")
    assert row["labels"] == {
        "com.docker.compose.project": "v1",
        "com.docker.compose.volume": "data",
        "kept": "yes",
    }
    told = site.ask("volume_rm", names=["v1_data", "none"]).result
    assert told["removed"] == []
    assert [(error["message"], error["exit_code"]) for error in told["errors"]] == [
        ("remove v1_data: volume is in use by container v1-w-1", 7),
        ("get none: no such volume", 1),
    ]
    site.down("v1")
    told = site.ask("volume_rm", names=["v1_data", "none"], force=True).result
    assert (told["removed"], told["errors"]) == (["v1_data"], [])
    assert not site.places.volume("v1_data").exists()
    site.down("v1", remove_volumes=True)


def test_rm_takes_anonymous_volumes_along_only_if_asked(site: Site) -> None:
    site.up(STORED.replace("NAME", "v2"))
    site.ask("rm", stack="v2", services=["w"], stop=True)
    assert stored(site, "v2") == {"data": [], "anonymous": []}
    site.up(STORED.replace("NAME", "v2"))
    site.ask("rm", stack="v2", services=["w"], stop=True, volumes=True)
    assert stored(site, "v2") == {"data": []}
    site.down("v2", remove_volumes=True)


def test_down_v_after_a_plain_down_takes_what_that_has_left(site: Site) -> None:
    site.up(STORED.replace("NAME", "v3"))
    site.down("v3")
    assert stored(site, "v3") == {"data": [], "anonymous": []}
    site.down("v3", remove_volumes=True)
    assert stored(site, "v3") == {}


# --- stops and events ------------------------------------------------------------------------------------


def test_a_stop_tells_only_of_what_it_stops(site: Site) -> None:
    """Not of what has ended long ago, nor of what could not be started."""
    site.up(
        """
        name: s1
        services:
          long: {x-rootfs: {path: $BOX}, command: sleep 100}
          short: {x-rootfs: {path: $BOX}, command: "true"}
          sick:
            x-rootfs: {path: $BOX}
            command: sleep 100
            healthcheck: {test: ["CMD", "false"], interval: 100ms, retries: 1}
          held: {x-rootfs: {path: $BOX}, command: sleep 100, depends_on: {sick: {condition: service_healthy}}}
        """,
        exit_code=1,
    )
    site.becomes("s1", "short", state="exited")
    told = site.ask("stop", stack="s1", services=["long", "short"], timeout=0)
    assert {line["target"] for line in told.lines if "target" in line} == {"container:s1-long-1"}
    told = site.ask("stop", stack="s1", timeout=0)
    assert {line["target"] for line in told.lines if "target" in line} == {"container:s1-sick-1"}
    assert site.ask("stop", stack="s1", timeout=0).actions(outcome="begun") == []
    site.down("s1")


def test_events_begin_now_unless_the_past_is_asked_for(site: Site) -> None:
    site.up("name: e1\nservices: {a: {x-rootfs: {path: $BOX}, command: sleep 100}}\n")
    past = site.ask("events", stack="e1", history=True, follow=False)
    assert [line["verb"] for line in past.lines if line["service"] == "a"] == ["create", "start"]
    assert past.lines[-1]["id"] == site.row("e1", "a")["id"]
    now = site.begin("events", stack="e1", history=False, follow=True)
    until(lambda: site.ask("kill", stack="e1", signal="WINCH") and now.answer.lines, "the first event")
    site.ask("kill", stack="e1")
    until(lambda: now.answer.lines[-1]["verb"] == "exit", "the last event")
    verbs = list(dict.fromkeys((line["verb"], line["service"]) for line in now.answer.lines))
    assert verbs == [("signal", "a"), ("kill", "a"), ("exit", "a")]
    now.leave()
    site.down("e1")
