"""The life of containers: starts, ends, restarts, replacement, limits, shared namespaces."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from orchestrator.kernel import cgroups
from tests.kit.patience import patient
from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel

SLEEP = "{x-rootfs: {path: $BOX}, command: sleep 100}"
OBEDIENT = 'trap "echo got TERM; exit 7" TERM; while :; do sleep 0.1; done'


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


# --- ends ----------------------------------------


def test_exit_codes_are_the_program_s_own_or_128_and_its_signal(site: Site) -> None:
    site.up(
        """
        name: c1
        services:
          zero: {x-rootfs: {path: $BOX}, command: "true"}
          three: {x-rootfs: {path: $BOX}, command: sh -c "exit 3"}
          killed: {x-rootfs: {path: $BOX}, command: sh -c "kill -9 $$$$", init: true}
        """
    )
    for service, code in (("zero", 0), ("three", 3), ("killed", 137)):
        row = site.becomes("c1", service, state="exited")
        assert row["exit_code"] == code
        assert row["status"].startswith(f"Exited ({code})")
    site.down("c1")


@pytest.mark.parametrize(
    ("command", "code", "words"), [("nothing-here", 127, "not found"), ("/etc/passwd", 126, "denied")]
)
def test_a_command_that_can_t_be_run_says_so_and_is_not_tried_for_ever(
    site: Site, command: str, code: int, words: str
) -> None:
    answer = site.up(
        f"""
        name: c2
        services: {{bad: {{x-rootfs: {{path: $BOX}}, command: {command}, restart: always}}}}
        """,
        exit_code=code,
    )
    assert command in answer.error
    assert words in answer.error
    assert site.row("c2", "bad")["status"].startswith(f"Failed to start ({code})")
    assert len(answer.actions("start", "failed")) == 1
    site.down("c2")


def test_restarts_by_policy_come_with_growing_pauses_and_stop_at_their_limit(site: Site) -> None:
    site.up(
        """
        name: c3
        services:
          thrice: {x-rootfs: {path: $BOX}, command: sh -c "cat /proc/uptime; exit 1", restart: "on-failure:3"}
          done: {x-rootfs: {path: $BOX}, command: "true", restart: on-failure}
        """
    )
    row = site.becomes("c3", "thrice", restarts=3, state="exited")
    assert row["exit_code"] == 1
    times = [float(line.split()[0]) for line in site.output("c3", "thrice").splitlines()]
    pauses = [later - former for former, later in itertools.pairwise(times)]
    assert len(pauses) == 3
    for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True):
        assert least - 0.01 <= pause < least + patient(0.4)
    assert site.row("c3", "done")["restarts"] == 0
    time.sleep(0.9)
    assert site.row("c3", "thrice")["restarts"] == 3
    site.down("c3")


def test_what_the_user_stops_stays_stopped_until_asked_for(site: Site) -> None:
    site.up("name: c4\nservices: {a: {x-rootfs: {path: $BOX}, command: sleep 100, restart: always}}")
    for verb in ("stop", "kill"):
        request = {"signal": "SIGKILL"} if verb == "kill" else {"timeout": 0}
        site.ask(verb, stack="c4", services=["a"], **request)
        site.becomes("c4", "a", state="exited")
        time.sleep(0.3)
        assert site.row("c4", "a")["state"] == "exited"
        site.ask("start", stack="c4", services=["a"])
        assert site.row("c4", "a")["state"] == "running"
    site.down("c4")


def test_the_stop_signal_comes_first_and_sigkill_after_the_grace(site: Site) -> None:
    site.up(
        f"""
        name: c5
        services:
          polite: {{x-rootfs: {{path: $BOX}}, command: ["sh", "-c", '{OBEDIENT.replace("$", "$$")}']}}
          deaf: {{x-rootfs: {{path: $BOX}}, command: sleep 100, stop_grace_period: 600ms}}
          other:
            x-rootfs: {{path: $BOX}}
            stop_signal: SIGUSR1
            command: ["sh", "-c", 'trap "exit 9" USR1; while :; do sleep 0.1; done']
        """
    )
    until(lambda: site.row("c5", "polite")["state"] == "running", "a run")
    time.sleep(0.2)
    began = time.monotonic()
    site.ask("stop", stack="c5")
    assert 0.6 <= time.monotonic() - began < 1.6
    assert {row["service"]: row["exit_code"] for row in site.ps("c5")} == {
        "polite": 7,
        "deaf": 137,
        "other": 9,
    }
    assert site.output("c5", "polite") == b"got TERM\n"
    site.down("c5")


def test_dependents_end_before_what_they_depend_on(site: Site) -> None:
    loop = 'trap "sleep 0.2; cat /proc/uptime; exit 0" TERM; echo up; while :; do sleep 0.05; done'
    site.up(
        f"""
        name: c6
        services:
          db: {{x-rootfs: {{path: $BOX}}, command: ["sh", "-c", '{loop}']}}
          app: {{x-rootfs: {{path: $BOX}}, command: ["sh", "-c", '{loop}'], depends_on: [db]}}
          web: {{x-rootfs: {{path: $BOX}}, command: ["sh", "-c", '{loop}'], depends_on: [app]}}
        """
    )
    for service in ("db", "app", "web"):
        site.prints("c6", service, b"up\n")
    site.ask("stop", stack="c6")
    ends = [float(site.output("c6", name).split()[1]) for name in ("web", "app", "db")]
    assert ends == sorted(ends)
    assert ends[1] - ends[0] >= 0.2
    site.down("c6")


# --- up again ----------------------------------------


def test_only_what_changed_is_replaced_and_a_second_up_does_nothing(site: Site) -> None:
    text = """
        name: c7
        services:
          a: {x-rootfs: {path: $BOX}, command: sleep 100, environment: {V: "VALUE"}}
          b: {x-rootfs: {path: $BOX}, command: sleep 100}
    """
    site.up(text)
    before = {row["service"]: row for row in site.ps("c7")}
    assert site.up(text).actions() == []
    site.up(text.replace("VALUE", "other"), timeout=0)
    after = {row["service"]: row for row in site.ps("c7")}
    assert after["a"]["id"] != before["a"]["id"]
    assert after["b"]["pid"] == before["b"]["pid"]
    assert site.execute("c7", "a", "sh", "-c", "echo $V") == "other\n"
    site.down("c7")


def test_scaling_adds_and_takes_the_highest_numbers(site: Site) -> None:
    text = "name: c8\nservices: {a: {x-rootfs: {path: $BOX}, command: sleep 100, scale: N}}"
    site.up(text.replace("N", "2"))
    first = {row["slot"]: row["pid"] for row in site.ps("c8")}
    site.up(text.replace("N", "4"))
    more = {row["slot"]: row["pid"] for row in site.ps("c8")}
    assert set(more) == {1, 2, 3, 4}
    assert {slot: more[slot] for slot in first} == first
    site.up(text.replace("N", "1"), timeout=0)
    until(lambda: {row["slot"]: row["pid"] for row in site.ps("c8")} == {1: first[1]}, "one seat")
    site.down("c8")


def test_up_of_one_service_starts_what_it_needs_and_leaves_the_others_alone(site: Site) -> None:
    text = """
        name: c9
        services:
          db: {x-rootfs: {path: $BOX}, command: sleep 100}
          web: {x-rootfs: {path: $BOX}, command: sleep 100, depends_on: [db], environment: {V: VALUE}}
          other: {x-rootfs: {path: $BOX}, command: sleep 100, environment: {V: VALUE}}
    """
    site.up(text, "web")
    assert {row["service"] for row in site.ps("c9")} == {"db", "web"}
    site.up(text)
    before = {row["service"]: row["id"] for row in site.ps("c9")}
    site.up(text.replace("VALUE", "new"), "web", timeout=0)
    after = {row["service"]: row["id"] for row in site.ps("c9")}
    assert after["web"] != before["web"]
    assert (after["db"], after["other"]) == (before["db"], before["other"])
    site.down("c9")


def test_orphans_stay_with_a_warning_until_they_are_to_go(site: Site) -> None:
    at_once = SLEEP.replace("}, ", "}, stop_grace_period: 0s, ")
    both = f"name: c10\nservices: {{a: {SLEEP}, b: {at_once}}}"
    one = f"name: c10\nservices: {{a: {SLEEP}}}"
    site.up(both)
    answer = site.up(one)
    assert any("c10-b-1" in line.get("message", "") for line in answer.lines)
    assert site.row("c10", "b")["orphan"]
    site.up(one, remove_orphans=True, timeout=0)
    until(lambda: {row["service"] for row in site.ps("c10")} == {"a"}, "no orphan")
    site.up(both)
    site.up(one)
    site.down("c10")
    assert any(site.places.stacks.glob("c10/containers/*"))  # the orphan is left, as with docker compose
    site.down("c10", remove_orphans=True)
    assert not any(site.places.stacks.glob("c10/**"))


def test_restart_gives_each_run_a_new_process_and_keeps_the_container(site: Site) -> None:
    site.up(f"name: c11\nservices: {{a: {SLEEP}, b: {SLEEP}}}")
    site.execute("c11", "a", "touch", "/mark")
    before = {row["service"]: row for row in site.ps("c11")}
    site.ask("restart", stack="c11", services=["a"], timeout=0)
    after = {row["service"]: row for row in site.ps("c11")}
    assert after["a"]["id"] == before["a"]["id"]
    assert after["a"]["pid"] != before["a"]["pid"]
    assert after["b"]["pid"] == before["b"]["pid"]
    site.execute("c11", "a", "test", "-f", "/mark")
    site.down("c11")


def test_health_gates_open_and_a_probe_that_hangs_is_killed_with_all_it_started(site: Site) -> None:
    site.up(
        """
        name: c12
        services:
          db:
            x-rootfs: {path: $BOX}
            command: sh -c "sleep 0.3; touch /ready; sleep 100"
            healthcheck: {test: [CMD, test, -f, /ready], interval: 100ms, retries: 20}
          web: {x-rootfs: {path: $BOX}, command: sleep 100, depends_on: {db: {condition: service_healthy}}}
          stuck:
            x-rootfs: {path: $BOX}
            command: sleep 100
            healthcheck:
              test: "test -f /hung && exit 1; touch /hung; (sleep 45 &) ; (sh -ic 'sleep 44 &'); sleep 46"
              interval: 100ms
              timeout: 300ms
              retries: 1
        """
    )
    assert site.row("c12", "db")["health"] == "healthy"
    site.becomes("c12", "stuck", health="unhealthy")
    until(lambda: "sleep 4" not in site.execute("c12", "stuck", "ps"), "the end of the probe")
    site.down("c12")


def test_a_dependency_that_fails_is_told_by_name(site: Site) -> None:
    answer = site.up(
        """
        name: c13
        services:
          sick:
            x-rootfs: {path: $BOX}
            command: sleep 100
            healthcheck: {test: "false", interval: 50ms, retries: 1}
          web: {x-rootfs: {path: $BOX}, command: sleep 100, depends_on: {sick: {condition: service_healthy}}}
        """,
        exit_code=1,
    )
    assert "sick" in answer.error
    assert "unhealthy" in answer.error
    site.down("c13")


# --- what a run may use ----------------------------------------


def test_a_container_that_takes_too_much_memory_is_killed_and_its_next_run_is_judged_anew(site: Site) -> None:
    site.up(
        """
        name: c14
        services:
          greedy:
            x-rootfs: {path: $BOX}
            command: sh -c "test -f /again && exit 4; touch /again; tail /dev/zero"
            mem_limit: 16m
            memswap_limit: 16m
          calm: {x-rootfs: {path: $BOX}, command: sleep 100, mem_limit: 64m}
        """
    )
    row = site.becomes("c14", "greedy", state="exited")
    assert row["exit_code"] == 137
    assert "OOM killed" in row["status"]
    site.ask("start", stack="c14", services=["greedy"])
    row = site.becomes("c14", "greedy", state="exited", exit_code=4)
    assert "OOM" not in row["status"]
    assert site.row("c14", "calm")["state"] == "running"
    site.down("c14")


def test_limits_of_processes_and_cpu_are_set(site: Site) -> None:
    site.up(
        """
        name: c15
        services:
          few:
            x-rootfs: {path: $BOX}
            command: sleep 100
            pids_limit: 5
            cpus: 0.5
            ulimits: {nofile: {soft: 123, hard: 456}}
        """
    )
    said = site.execute(
        "c15", "few", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 9 & done", exit_code=None
    )
    assert "can't fork" in said
    pid = site.row("c15", "few")["pid"]
    assert "123                  456" in Path(f"/proc/{pid}/limits").read_text()
    groups = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    if "cpu" not in groups:
        assert Path(f"/sys/fs/cgroup{groups['']}/cpu.max").read_text() == "50000 100000\n"
    else:
        cpu = Path(f"/sys/fs/cgroup/cpu{groups['cpu']}")
        quota, period = (int((cpu / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        assert quota / period == 0.5
    site.down("c15")


def test_processes_that_outlive_the_first_one_do_not_outlive_the_run(site: Site) -> None:
    """In the host's pid namespace the kernel does not see to it."""
    site.up(
        """
        name: c16
        services:
          parent:
            x-rootfs: {path: $BOX}
            pid: host
            command: sh -c "setsid sleep 1234 & echo started; exec sleep 1233"
        """
    )
    site.prints("c16", "parent", b"started\n")
    row = site.row("c16", "parent")
    os.kill(row["pid"], signal.SIGKILL)
    began = time.monotonic()
    site.becomes("c16", "parent", state="exited")
    until(lambda: not [row for row in site.processes() if "sleep 1234" in row], "the end of the rest")
    assert time.monotonic() - began < patient(1.0)
    assert not cgroups.populated(site.hierarchies, f"{site.places.cgroup}/c16/{row['id']}")
    site.down("c16")


def test_init_reaps_and_passes_signals_on(site: Site) -> None:
    site.up(
        """
        name: c17
        services:
          a:
            x-rootfs: {path: $BOX}
            init: true
            command:
              - sh
              - -c
              - >
                (sleep 0.01 &) ; sleep 0.3; grep -l ') Z' /proc/[0-9]*/stat; cat /proc/1/comm;
                trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done
        """
    )
    site.prints("c17", "a", b"ready")
    assert site.output("c17", "a") == b"docker-init\nready\n"
    site.ask("stop", stack="c17")
    assert site.row("c17", "a")["exit_code"] == 5
    site.down("c17")


def test_pid_and_ipc_of_a_service_are_shared_and_those_of_the_host(site: Site) -> None:
    site.up(
        """
        name: c18
        services:
          a: {x-rootfs: {path: $BOX}, command: sleep 4321}
          b: {x-rootfs: {path: $BOX}, command: sleep 100, pid: "service:a", ipc: "service:a"}
          h: {x-rootfs: {path: $BOX}, command: sleep 100, pid: host, ipc: host, uts: host}
        """
    )
    assert "sleep 4321" in site.execute("c18", "b", "ps")
    namespaces = ("readlink", "/proc/self/ns/ipc")
    assert site.execute("c18", "a", *namespaces) == site.execute("c18", "b", *namespaces)
    for kind in ("ipc", "uts"):
        seen = site.execute("c18", "h", "readlink", f"/proc/self/ns/{kind}").strip()
        assert seen == str(Path(f"/proc/self/ns/{kind}").readlink())
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as shared:
        assert Path(shared.name).name in site.execute("c18", "h", "ls", "/dev/shm")
    assert f" {os.getpid()} " in site.execute("c18", "h", "sh", "-c", "cd /proc; echo '' [0-9]* ''")
    site.down("c18")


def test_a_container_beside_another_is_replaced_with_it(site: Site) -> None:
    text = """
        name: c19
        services:
          a: {x-rootfs: {path: $BOX}, command: sleep 100, environment: {V: VALUE}}
          b: {x-rootfs: {path: $BOX}, command: sleep 100, network_mode: "service:a"}
    """
    site.up(text)
    before = site.row("c19", "b")["id"]
    site.up(text.replace("VALUE", "x"), timeout=0)
    assert site.row("c19", "b")["id"] != before
    network = ("readlink", "/proc/self/ns/net")
    assert site.execute("c19", "a", *network) == site.execute("c19", "b", *network)
    site.down("c19")


def test_hostnames_of_64_characters_and_read_only_roots(site: Site) -> None:
    name = "h" * 64
    site.up(
        f"""
        name: c20
        services:
          a: {{x-rootfs: {{path: $BOX}}, command: sleep 100, hostname: {name}, read_only: true, tmpfs: [/tmp]}}
        """
    )
    assert site.execute("c20", "a", "hostname") == f"{name}\n"
    assert "Read-only" in site.execute("c20", "a", "touch", "/x", exit_code=1)
    site.execute("c20", "a", "touch", "/tmp/x")
    site.down("c20")


def test_user_groups_environment_and_directory(site: Site) -> None:
    site.up(
        """
        name: c21
        services:
          a:
            x-rootfs: {path: $BOX}
            user: app
            group_add: [web]
            working_dir: /tmp
            environment: {A: "1"}
            command: sh -c "id; pwd; echo $$A $$HOME; sleep 100"
        """
    )
    site.prints("c21", "a", b"/home/app")
    assert site.output("c21", "a") == (
        b"uid=1000(app) gid=1000(app) groups=29(audio),33(web),44(log),1000(app)\n/tmp\n1 /home/app\n"
    )
    assert site.execute("c21", "a", "id", "-u") == "1000\n"
    assert site.execute("c21", "a", "id", "-u", user="0") == "0\n"
    site.down("c21")
