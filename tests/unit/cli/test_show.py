"""The tables of `ps`, `ls` and `port`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.paths import Paths
from orchestrator.cli import clock, show
from orchestrator.cli.scope import Scope
from orchestrator.model.errors import PystackError
from tests.unit.cli.scripted import Scripted, Talk

NOW = clock.parse("2026-11-22T14:00:10Z") / 1e9


def row(service: str = "web", slot: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": f"{service}{slot}".ljust(64, "0"),
        "name": f"shop-{service}-{slot}",
        "service": service,
        "slot": slot,
        "oneoff": False,
        "orphan": False,
        "image": "nginx:1",
        "command": "nginx -g 'daemon off;'",
        "created": "2026-11-22T14:00:00Z",
        "state": "running",
        "status": "Up 9 seconds (healthy)",
        "exit_code": None,
        "health": "healthy",
        "ports": [],
        "pid": 7,
        "restarts": 0,
        "because": "",
        **more,
    }


def port(host: int, target: int, ip: str = "0.0.0.0", protocol: str = "tcp") -> dict[str, Any]:
    return {"host_ip": ip, "host_port": host, "target": target, "protocol": protocol}


def test_the_table_is_that_of_docker_compose() -> None:
    text = show.render([row(ports=[port(8080, 80)])], NOW)

    head, line = text.splitlines()
    assert head == (
        "NAME         IMAGE     COMMAND                  SERVICE   "
        "CREATED          STATUS                   PORTS"
    )
    assert line == (
        'shop-web-1   nginx:1   "nginx -g \'daemon of…"   web       '
        "10 seconds ago   Up 9 seconds (healthy)   0.0.0.0:8080->80/tcp"
    )


def test_neighbouring_ports_are_joined() -> None:
    ports = [port(8000 + n, 80 + n) for n in range(3)]
    ports += [port(53, 53, "127.0.0.1", "udp"), port(9, 9, "::1"), port(9000, 90)]

    assert show.ports_text(ports) == (
        "0.0.0.0:8000-8002->80-82/tcp, 0.0.0.0:9000->90/tcp, 127.0.0.1:53->53/udp, [::1]:9->9/tcp"
    )


def test_a_command_cannot_write_on_the_terminal() -> None:
    assert show.command_text('sh\n\x1b[2J"', 100) == '"sh\\n\N{REPLACEMENT CHARACTER}[2J\\""'


def test_only_what_runs_is_shown_and_one_offs_with_all_only() -> None:
    rows = [
        row("web", 2),
        row("web", 1),
        row("db", state="exited"),
        row("web", 0, oneoff=True),
    ]

    def names(**more: Any) -> list[str]:
        options: dict[str, Any] = {"services": (), "every": False, "status": (), **more}
        return [one["name"] for one in show.select(rows, **options)]

    assert names() == ["shop-web-1", "shop-web-2"]
    assert names(every=True) == ["shop-db-1", "shop-web-0", "shop-web-1", "shop-web-2"]
    assert names(services=("db",)) == []
    assert names(status=("exited",)) == ["shop-db-1"]


# --- against a supervisor -----------------------------------------------------------------------------


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    return Scope(project_name="shop", root=str(tmp_path))


def _supervisor(scope: Scope, rows: list[dict[str, Any]]) -> Scripted:
    def answer(talk: Talk) -> None:
        match talk.request["verb"]:
            case "ps":
                talk.end(rows)
            case "stack":
                talk.end({"stack": {"services": {"web": {}, "idle": {}}}})
            case "ls":
                talk.end([{"name": "shop", "status": "running(1)", "files": ["/a", "/b"]}])

    return Scripted(Paths(scope.paths.run_dir, scope.paths.data_dir), answer)


def _ps(scope: Scope, **more: Any) -> int:
    options: dict[str, Any] = {
        "services": (),
        "all": False,
        "quiet": False,
        "format": None,
        "names_only": False,
        "status": (),
        "no_trunc": False,
    }
    return show.ps(scope, **{**options, **more})


def test_json_is_one_object_a_line(scope: Scope, capfd: pytest.CaptureFixture[str]) -> None:
    with _supervisor(scope, [row(), row("db", ports=[port(1, 2)], exit_code=None)]):
        assert _ps(scope, format="json") == 0

    db, web = (json.loads(line) for line in capfd.readouterr().out.splitlines())
    assert (web["Service"], web["State"], web["Health"], web["Project"]) == (
        "web",
        "running",
        "healthy",
        "shop",
    )
    assert db["Publishers"] == [{"URL": "0.0.0.0", "TargetPort": 2, "PublishedPort": 1, "Protocol": "tcp"}]
    assert db["ExitCode"] == 0


def test_quiet_prints_whole_ids(scope: Scope, capfd: pytest.CaptureFixture[str]) -> None:
    with _supervisor(scope, [row()]):
        _ps(scope, quiet=True)

    assert capfd.readouterr().out == "web1".ljust(64, "0") + "\n"


def test_an_unknown_service_is_an_error_and_an_idle_one_is_not(
    scope: Scope, capfd: pytest.CaptureFixture[str]
) -> None:
    with _supervisor(scope, [row()]):
        assert _ps(scope, services=("idle",), quiet=True) == 0
        with pytest.raises(PystackError, match="no such service: wbe"):
            _ps(scope, services=("wbe",))

    assert capfd.readouterr().out == ""


def test_without_any_stack_the_table_is_empty_and_nobody_is_started(
    scope: Scope, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _ps(scope) == 0

    assert capfd.readouterr().out.startswith("NAME ")
    assert not scope.paths.run.exists()


def test_port_prints_the_address_of_the_replica(scope: Scope, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [row(slot=2, ports=[port(32769, 80)]), row(slot=1, ports=[port(32768, 80, "127.0.0.1")])]
    with _supervisor(scope, rows):
        show.port(scope, service="web", private_port="80", protocol=None, index=None)
        show.port(scope, service="web", private_port="80/tcp", protocol=None, index=2)
        with pytest.raises(PystackError, match="no port 81/tcp for container shop-web-1"):
            show.port(scope, service="web", private_port="81", protocol=None, index=None)

    assert capfd.readouterr().out == "127.0.0.1:32768\n0.0.0.0:32769\n"


def test_ls_shows_where_a_stack_came_from(scope: Scope, capfd: pytest.CaptureFixture[str]) -> None:
    with _supervisor(scope, []):
        show.ls(scope, all=False, quiet=False, format=None)
        show.ls(scope, all=False, quiet=False, format="json")

    table, head, line = capfd.readouterr().out.splitlines()
    assert table.split() == ["NAME", "STATUS", "CONFIG", "FILES"]
    assert head.split() == ["shop", "running(1)", "/a,/b"]
    assert json.loads(line) == [{"Name": "shop", "Status": "running(1)", "ConfigFiles": "/a,/b"}]


def test_a_one_off_container_is_of_the_service_it_was_made_of(
    scope: Scope, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [row("web-run-0123456789ab", 0, oneoff=True)]
    with _supervisor(scope, rows):
        assert _ps(scope, services=("web",), all=True, names_only=True) == 0
    assert capfd.readouterr().out == "web\n"


def test_port_of_a_service_that_does_not_run_says_so(scope: Scope) -> None:
    (Path(scope.paths.run_dir).parent / "stack.yml").write_text("services:\n  web: {x-rootfs: host}\n")
    with _supervisor(scope, []), pytest.raises(PystackError, match='service "web" is not running'):
        show.port(scope, service="web", private_port="80", protocol=None, index=None)
