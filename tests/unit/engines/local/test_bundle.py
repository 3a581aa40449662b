"""A container becomes an OCI bundle: pure data, so that every rule can be read off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engines.local import bundle, program
from orchestrator.engines.local.bundle import Foreign, Ground, HostDevice, RootLayer, Seeding
from orchestrator.engines.local.places import Places
from orchestrator.images.config import ImageConfig
from orchestrator.kernel import layout
from orchestrator.kernel.reading import Document
from orchestrator.model.errors import EngineError
from orchestrator.model.observation import Container
from orchestrator.model.stack import (
    BindMount,
    FileMount,
    Isolated,
    OfHost,
    OfService,
    Service,
    TmpfsMount,
    Ulimit,
    VolumeMount,
)
from tests.kit import specification
from tests.kit.stacks import service

PLACES = Places(run=Path("/r"), data=Path("/d"))
IMAGE = ImageConfig(
    id="sha256:1",
    environment={"PATH": "/bin", "LANG": "C"},
    command=("serve",),
    entrypoint=("/entry",),
    user="web",
    working_dir="/srv",
)
EVERY = tuple(sorted({*program.DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN", "CAP_NET_ADMIN"}))
LAYERS = (RootLayer(target="", lower=("/l2", "/l1")),)


@pytest.fixture(autouse=True)
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever config.json these tests see is one by the specification."""
    plain = bundle.config

    def config(of: Container, ground: Ground) -> dict[str, Any]:
        found = plain(of, ground)
        assert specification.wrong(found) == []
        return found

    monkeypatch.setattr(bundle, "config", config)


def container(definition: Service | None = None, **fields: Any) -> Container:
    made = Container(
        id="0123456789ab" + "c" * 52,
        name="shop-web-1",
        stack="shop",
        service="web",
        slot=1,
        definition=replace(definition or service(command=("run",)), name="web"),
        fingerprint="",
        generation=0,
        image_id="",
        created=0,
    )
    return replace(made, **fields)


def ground(**fields: Any) -> Ground:
    return Ground(**{"places": PLACES, "image": None, "root": LAYERS, "all_capabilities": EVERY, **fields})


def mount(of: Service, target: str, **fields: Any) -> dict[str, Any]:
    rows = [row for row in bundle.mounts(container(of), ground(**fields)) if row["destination"] == target]
    assert len(rows) == 1, rows
    return rows[0]


# --- the program ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "image", "argv"),
    [
        ({"command": ("a", "b")}, None, ["a", "b"]),
        ({}, IMAGE, ["/entry", "serve"]),
        ({"command": ("other",)}, IMAGE, ["/entry", "other"]),
        ({"command": ()}, IMAGE, ["/entry"]),
        ({"entrypoint": ("mine",)}, IMAGE, ["mine"]),
        ({"entrypoint": ("mine",), "command": ("x",)}, IMAGE, ["mine", "x"]),
        ({"entrypoint": (), "command": ("x",)}, IMAGE, ["x"]),
    ],
)
def test_an_entrypoint_of_one_s_own_drops_the_image_s_command(
    fields: dict[str, Any], image: ImageConfig | None, argv: list[str]
) -> None:
    assert program.arguments(service(**fields), image) == argv


def test_nothing_to_run_is_127_and_names_the_service() -> None:
    with pytest.raises(EngineError, match="web: no command") as caught:
        program.arguments(replace(service(), name="web"), None)
    assert (caught.value.exit_code, caught.value.retryable) == (127, False)


def test_more_than_can_be_passed_on_names_the_largest_variable_and_shows_no_value() -> None:
    environment = {f"V{number}": "z" * 100_000 for number in range(60)} | {"LARGEST": "z" * 100_010}
    with pytest.raises(EngineError) as refused:
        bundle.texts(container(service(environment=environment, command=("true",))), ground())
    assert "the largest variable is LARGEST, 100010 bytes" in refused.value.message
    assert "zzz" not in refused.value.message
    assert (refused.value.exit_code, refused.value.retryable) == (126, False)


def test_the_environment_is_ours_below_the_image_s_below_the_service_s() -> None:
    made = container(service(environment={"LANG": "de", "A": "1"}, tty=True, hostname="h"))
    assert program.environment(made, IMAGE, "host") == {
        "PATH": "/bin",
        "HOSTNAME": "h",
        "TERM": "xterm",
        "LANG": "de",
        "A": "1",
    }
    assert program.environment(container(), None, "host") == {
        "PATH": program.PATH,
        "HOSTNAME": "0123456789ab",
    }


def test_on_the_host_s_network_the_host_s_name_is_the_container_s_unless_it_has_its_own() -> None:
    """As docker; also where the uts namespace is the host's."""
    names = [
        program.hostname(container(service(command=("x",), **fields)), "machine")
        for fields in (
            {},
            {"network_mode": OfHost()},
            {"uts": OfHost()},
            {"network_mode": OfHost(), "hostname": "own"},
        )
    ]
    assert names == ["0123456789ab", "machine", "machine", "own"]


def test_init_stands_before_the_command_and_is_bound_read_only() -> None:
    made = ground(init="/d/programs/init")
    assert bundle.process(container(), made)["args"] == [bundle.INIT, "--", "run"]
    row = next(row for row in bundle.mounts(container(), made) if row["destination"] == bundle.INIT)
    assert row["source"] == "/d/programs/init"
    assert "ro" in row["options"]


def test_user_directory_and_limits() -> None:
    made = container(
        service(
            working_dir="/w",
            user="1000:2",
            group_add=("log",),
            ulimits=(Ulimit(name="nofile", soft=10, hard=-1),),
            oom_score_adj=500,
            command=("x",),
        )
    )
    process = bundle.process(made, ground(image=IMAGE))
    assert process["cwd"] == "/w"
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 2**64 - 1}]
    assert process["oomScoreAdj"] == 500
    launch = bundle.launch(made, ground(image=IMAGE))
    assert (launch["user"], launch["groups"]) == ("1000:2", ["log"])
    plain = bundle.launch(container(service()), ground(image=IMAGE))
    assert plain["user"] == "web"
    assert bundle.process(container(service()), ground(image=IMAGE))["cwd"] == "/srv"


@pytest.mark.parametrize(
    ("fields", "more", "less"),
    [
        ({}, set(), {"CAP_SYS_ADMIN", "CAP_NET_ADMIN"}),
        ({"cap_add": ("net_admin",)}, {"CAP_NET_ADMIN", "CAP_CHOWN"}, {"CAP_SYS_ADMIN"}),
        ({"cap_drop": ("CHOWN",)}, {"CAP_KILL"}, {"CAP_CHOWN"}),
        ({"cap_drop": ("ALL",), "cap_add": ("CAP_CHOWN",)}, {"CAP_CHOWN"}, {"CAP_KILL", "CAP_SETUID"}),
        ({"cap_add": ("ALL",), "cap_drop": ("KILL",)}, {"CAP_SYS_ADMIN"}, {"CAP_KILL"}),
        ({"cap_add": ("SYS_RESOURCE",)}, set(), {"CAP_SYS_RESOURCE"}),
        ({"privileged": True, "cap_drop": ("ALL",)}, set(EVERY), set()),
    ],
)
def test_capabilities_as_docker_computes_them(fields: dict[str, Any], more: set[str], less: set[str]) -> None:
    """What this machine can't give (SYS_RESOURCE here) is not asked for."""
    held = set(program.capabilities(service(**fields), EVERY))
    assert more <= held
    assert not less & held


def test_nothing_is_inheritable_or_ambient() -> None:
    """A non-empty inheritable set was CVE-2022-24769."""
    sets = bundle.process(container(), ground())["capabilities"]
    assert sets["inheritable"] == sets["ambient"] == []
    assert sets["bounding"] == sets["effective"] == sets["permitted"]


# --- mounts --------------------------------------------------------------------------------------------------


def test_binds_volumes_and_files() -> None:
    of = replace(
        service(command=("x",)),
        mounts=(
            BindMount(source="/h", target="/ro", read_only=True),
            BindMount(source="/h", target="/flat", recursive="disabled", propagation="rshared"),
            VolumeMount(source="data", target="/data"),
            FileMount(kind="config", name="c", target="/c", content="text"),
            FileMount(kind="secret", name="s", target="/run/secrets/s", path="/h/s"),
        ),
    )
    found = {"volumes": {"/data": "/d/volumes/v/_data"}, "written_files": {"/c": "/d/files/0"}}
    assert mount(of, "/ro", **found)["options"] == ["rbind", "rprivate", "ro"]
    assert mount(of, "/flat", **found)["options"] == ["bind", "rshared", "rw"]
    assert mount(of, "/data", **found)["source"] == "/d/volumes/v/_data"
    assert (mount(of, "/c", **found)["source"], mount(of, "/c", **found)["options"][-1]) == (
        "/d/files/0",
        "ro",
    )
    assert mount(of, "/run/secrets/s", **found)["source"] == "/h/s"


def test_volumes_that_the_image_declares_are_mounted_too() -> None:
    rows = bundle.mounts(container(), ground(volumes={"/declared": "/d/volumes/a/_data"}))
    assert rows[-1]["destination"] == "/declared"


def test_tmpfs_options() -> None:
    of = replace(
        service(command=("x",)),
        mounts=(
            TmpfsMount(target="/a"),
            TmpfsMount(target="/b", size=4096, mode=0o1770, options=("exec", "uid=5"), read_only=True),
        ),
    )
    assert set(mount(of, "/a")["options"]) == {"nosuid", "nodev", "noexec"}
    options = mount(of, "/b")["options"]
    assert {"size=4096", "mode=1770", "uid=5", "ro"} <= set(options)
    assert "noexec" not in options


def test_shared_memory_is_one_s_own_unless_the_ipc_namespace_is_the_host_s() -> None:
    assert mount(service(command=("x",), shm_size=4096), "/dev/shm")["options"][-1] == "size=4096"
    assert mount(service(command=("x",), ipc=OfHost()), "/dev/shm")["type"] == "bind"


def test_what_lies_deeper_is_mounted_later_and_a_user_s_mount_replaces_ours() -> None:
    of = replace(
        service(command=("x",)),
        mounts=(
            BindMount(source="/h2", target="/a/b"),
            BindMount(source="/h1", target="/a"),
            TmpfsMount(target="/dev/shm"),
            BindMount(source="/hosts", target="/etc/hosts"),
        ),
    )
    etc = {f"/etc/{name}": f"/d/etc/{name}" for name in ("hosts", "hostname")}
    targets = [row["destination"] for row in bundle.mounts(container(of), ground(etc=etc))]
    assert targets.index("/a") < targets.index("/a/b")
    assert targets.count("/dev/shm") == targets.count("/etc/hosts") == 1
    assert mount(of, "/etc/hosts", etc=etc)["source"] == "/hosts"


def test_a_subpath_is_told_to_the_launcher_which_looks_for_it_below_the_volume() -> None:
    of = replace(service(command=("x",)), mounts=(VolumeMount(source="d", target="/s", subpath="in/side"),))
    made = ground(volumes={"/s": "/d/volumes/v/_data"})
    assert bundle.launch(container(of), made)["subpaths"] == {"/s": "in/side"}
    assert mount(of, "/s", volumes={"/s": "/d/volumes/v/_data"})["source"] == "/d/volumes/v/_data"


# --- isolation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "absent"),
    [
        ({}, set()),
        ({"pid": OfHost(), "ipc": OfHost(), "uts": OfHost()}, {"pid", "ipc", "uts"}),
        ({"network_mode": OfHost()}, {"network"}),
        ({"network_mode": Isolated()}, set()),
        ({"network_mode": OfService(service="db"), "pid": OfService(service="db")}, set()),
    ],
)
def test_a_namespace_of_the_host_is_the_one_that_is_not_named(
    fields: dict[str, Any], absent: set[str]
) -> None:
    kinds = set(bundle.namespaces(service(**fields)))
    assert kinds == {"mount", "cgroup", "pid", "ipc", "uts", "network"} - absent


def test_docker_s_network_settings_are_for_a_network_of_one_s_own() -> None:
    assert bundle.sysctls(service(sysctls={"net.core.somaxconn": "9"})) == {
        **bundle.NETWORK_SYSCTLS,
        "net.core.somaxconn": "9",
    }
    for mode in (OfHost(), OfService(service="db")):
        assert bundle.sysctls(service(network_mode=mode)) == {}


def test_a_host_name_is_set_only_in_a_uts_namespace_of_one_s_own() -> None:
    made = bundle.config(container(service(command=("x",), hostname="h", domainname="d")), ground())
    assert (made["hostname"], made["domainname"]) == ("h", "d")
    other = bundle.config(container(service(command=("x",), hostname="h", uts=OfHost())), ground())
    assert "hostname" not in other


def test_masks_go_with_privileged_and_with_unconfined_paths() -> None:
    assert bundle.config(container(), ground())["linux"]["maskedPaths"] == list(bundle.MASKED_PATHS)
    for made in (
        bundle.config(container(service(command=("x",), privileged=True)), ground()),
        bundle.config(container(), ground(unmasked=True)),
    ):
        assert made["linux"]["maskedPaths"] == made["linux"]["readonlyPaths"] == []


def test_every_bundle_is_one_that_the_launcher_takes() -> None:
    """What it does not know it refuses by name, so this would fail for any key of our own invention."""
    of = replace(
        service(
            command=("x",), read_only=True, tty=True, privileged=True, sysctls={"net.core.somaxconn": "9"}
        ),
        mounts=(
            BindMount(source="/h", target="/b"),
            TmpfsMount(target="/t", size=1),
            VolumeMount(source="d", target="/v"),
        ),
    )
    made = ground(
        image=IMAGE,
        volumes={"/v": "/d/volumes/v/_data"},
        seeds=(Seeding(target="/v", data="/d/volumes/v/_data", state="/d/volumes/v/seed"),),
        devices=(HostDevice(path="/dev/fuse", kind="c", major=10, minor=229, mode=0o666, uid=0, gid=0),),
        cgroups=("/sys/fs/cgroup/x",),
        etc={"/etc/hosts": "/d/hosts"},
        init="/d/init",
    )
    config, launch = bundle.config(container(of), made), bundle.launch(container(of), made)
    assert layout.compile_steps(Document(config), Document(launch)).steps


# --- exec ----------------------------------------------------------------------------------------------------


def test_an_exec_runs_as_the_container_does_unless_told_otherwise() -> None:
    made = container(service(user="app", working_dir="/w", environment={"A": "1"}))
    plain = program.exec_process(
        made, IMAGE, argv=["ls"], environment_more={}, user=None, workdir=None, tty=False
    )
    assert (plain["args"], plain["cwd"], plain["user_name"], plain["terminal"]) == (
        ["ls"],
        "/w",
        "app",
        False,
    )
    assert "A=1" in plain["env"]
    other = program.exec_process(
        made,
        None,
        argv=["sh"],
        environment_more={"A": "2"},
        user="root",
        workdir="/x",
        tty=True,
        privileged=True,
    )
    assert (other["cwd"], other["user_name"], other["privileged"]) == ("/x", "root", True)
    assert {"A=2", "TERM=xterm"} <= set(other["env"])


@pytest.mark.parametrize(
    ("text", "size"),
    [("10", 10), ("1k", 1024), ("10m", 10 << 20), ("1.5K", 1536), ("2gb", 2 << 30), ("3 MiB", 3 << 20)],
)
def test_sizes_of_log_files(text: str, size: int) -> None:
    assert bundle.size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "10x", "1e3"])
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(EngineError, match="max-size"):
        bundle.size(text)


# --- other runtimes ------------------------------------------------------------------------------------------


FOREIGN = Foreign(path="/usr/sbin/runc", enter=True)


def test_another_runtime_gets_the_same_configuration() -> None:
    """What differs is only how launch.json has it run."""
    of = service(command=("x",), user="1000:100", cap_add=("NET_ADMIN",))
    of = replace(of, mounts=(TmpfsMount(target="/t"),))
    policy = '{"defaultAction":"SCMP_ACT_ALLOW"}'
    more = {"policy": policy, "joined": frozenset({"network"}), "resources": {"pids": {"limit": 3}}}
    ours = bundle.config(container(of), ground(**more))
    assert ours == bundle.config(container(of), ground(**more, runtime=FOREIGN))
    assert ours["linux"]["seccomp"] == json.loads(policy)
    assert ours["linux"]["resources"] == {"pids": {"limit": 3}}
    assert ours["process"]["user"] == {"uid": 1000, "gid": 100}
    spaces = {row["type"]: row.get("path") for row in ours["linux"]["namespaces"]}
    assert spaces["network"] == f"/r/containers/{container().id}/namespaces/network"
    assert spaces["pid"] is None
    assert "runtime" not in bundle.launch(container(of), ground(**more))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", (0, 0)),
        ("7", (7, 0)),
        ("7:8", (7, 8)),
        ("web", (65534, 65534)),
        ("7:web", (65534, 65534)),
        ("4294967296", (65534, 65534)),
        ("-1", (65534, 65534)),
    ],
)
def test_users_are_numbers_where_numbers_say_it(text: str, numbers: tuple[int, int]) -> None:
    """And nobody where only the image's own files could: never root by accident."""
    assert tuple(program.user_numbers(text).values()) == numbers


def test_our_launcher_is_told_where_the_policy_is_that_it_need_not_read() -> None:
    policy = '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]}'
    found = bundle.texts(container(), ground(policy=policy))
    place = json.loads(found["launch"])["policy"]
    assert found["config"].encode()[place["start"] : place["end"]] == policy.encode()
    assert "policy" not in json.loads(
        bundle.texts(container(), ground(policy=policy, runtime=FOREIGN))["launch"]
    )


def test_part_of_a_volume_is_bound_from_a_place_that_no_container_can_change() -> None:
    of = service(command=("x",))
    of = replace(of, mounts=(VolumeMount(source="v", target="/part", subpath="in/side"),))
    volumes = {"/part": "/volumes/v"}
    place = f"/r/containers/{container().id}/sources/0"
    assert mount(of, "/part", volumes=volumes, runtime=FOREIGN)["source"] == place
    launched = bundle.launch(container(of), ground(volumes=volumes, runtime=FOREIGN))
    assert launched["sources"] == [{"at": place, "source": "/volumes/v", "beneath": "in/side"}]
    assert launched["subpaths"] == {}
