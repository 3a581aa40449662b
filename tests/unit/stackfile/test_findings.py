"""`pystack check`: each rule with what it finds and what it leaves alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.planner.plan import plan
from orchestrator.stackfile import findings
from orchestrator.stackfile.catalogue import page
from orchestrator.stackfile.finding import Finding
from tests.kit.stacks import converge, nothing, up
from tests.unit.stackfile.given import loaded

DOCS = Path(__file__).parents[3] / "docs"
KEY = "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"
OF_ITS_OWN = "networks: {default: {ipam: {config: [{subnet: 10.9.0.0/24}]}}}\n"


def found(text: str, **given: object) -> tuple[Finding, ...]:
    stack = loaded(text, **given)  # type: ignore[arg-type]
    return findings.find(stack.tree, stack.stack, stack.texts)


def one(body: str, rest: str = "") -> str:
    """A service that nothing is said against, and these lines more."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"services:\n  web:\n{lines}{rest}"


def other(body: str, needs: str) -> str:
    return one(f"image: x:1\ndepends_on: {{db: {{condition: {needs}}}}}", f"  db: {body}\n")


def rolling(body: str, order: str = "start-first", rollback: str = "", rest: str = "") -> str:
    """How it is updated in the fourth line, and how it goes back in the fifth."""
    back = f"\n  rollback_config: {{order: {rollback}}}" if rollback else ""
    lines = f"deploy:\n  update_config: {{order: {order}}}{back}\nimage: x:1\n{body}"
    return one(f"{lines}", rest)


SMALL = "networks: {default: {ipam: {config: [{subnet: 10.0.0.0/28}]}}}\n"
RANGE = SMALL.replace("0/28", "0/28, ip_range: 10.0.0.8/31")
FIXED = "  c: {image: x:1, networks: {default: {ipv4_address: 10.0.0.3}}}\n"

# (rule, text, the lines where it is found)
FINDS: Sequence[tuple[str, str, Sequence[int]]] = [
    ("C001", one("image: x:1\nx-check-ignore: [C999]"), [4]),
    ("C001", "x-check-ignore: {unpinned: because}\n" + one("image: x:1"), [1]),
    ("C101", one("image: nginx"), [3]),
    ("C101", one("image: host:5000/a/nginx"), [3]),
    ("C101", one("image: nginx:latest"), [3]),
    ("C102", one("build: ."), [3]),
    ("C201", one("image: x:1\nenvironment:\n  DB_PASSWORD: hunter2\n  A: b"), [5]),
    ("C201", one("image: x:1\nenvironment: [API_KEY=hunter2]"), [4]),
    ("C201", one("image: x:1\nenvironment: {URL: 'postgres://me:hunter2@db/x'}"), [4]),
    ("C201", one("image: x:1\nenvironment: {X: d41d8cd98f00b204e9800998ecf8427e}"), [4]),
    ("C201", one("image: x:1\nenvironment: {X: 'q7Rw2Zk9Lm4Xv8Bn3Tp6Yc1D'}"), [4]),
    ("C202", one(f"image: x:1\nenvironment: {{X: ghp_{KEY}}}"), [4]),
    ("C202", one(f"image: x:1\ncommand: [curl, -H, 'token ghp_{KEY}']"), [4]),
    ("C202", one("image: x:1\nlabels: [k=AKIAABCDEFGHIJKLMNOP]"), [4]),
    ("C202", one("image: x:1", "configs:\n  c:\n    content: '-----BEGIN RSA PRIVATE KEY-----'\n"), [6]),
    ("C203", one("image: x:1\nbuild: {context: ., args: {NPM_TOKEN: '${T:-a}'}}"), [4]),
    ("C301", one("image: x:1\nports: ['127.0.0.1:1:1', '8080:80']"), [4]),
    ("C301", one("image: x:1\nports:\n  - {target: 80, host_ip: 0.0.0.0}"), [5]),
    ("C302", one("image: x:1\nports: ['15432:5432']"), [4]),
    ("C303", one("image: x:1\nports: ['80:80']", "  b: {image: x:1, ports: ['127.0.0.1:80:1']}\n"), [5]),
    ("C303", one("image: x:1\nports: ['80:80', '80:81']"), [4]),
    ("C303", one("image: x:1\nports: ['80:80']", "  b: {image: x:1, ports: ['80:1'], profiles: [p]}\n"), [5]),
    ("C304", one("image: x:1\nscale: 2\nports: [{target: 80, published: 80, mode: host}]"), [5]),
    ("C304", one("image: x:1\ndeploy: {replicas: 3}\nports: ['80-81:80']"), [5]),
    ("C305", one("image: x:1\nscale: 4094"), [4]),
    ("C305", one("image: x:1\nscale: 4000", "  b: {image: x:1, deploy: {replicas: 94}}\n"), [5]),
    ("C305", one("image: x:1\nscale: 14", SMALL), [4]),
    ("C305", one("image: x:1\nscale: 3", RANGE), [4]),
    ("C401", one("image: x:1\nprivileged: true"), [4]),
    ("C402", one("image: x:1\nvolumes: ['/var/run/docker.sock:/var/run/docker.sock:ro']"), [4]),
    ("C403", one("image: x:1\ncap_add: [CHOWN, cap_sys_admin]"), [4]),
    ("C404", one("image: x:1\nnetwork_mode: host\npid: host"), [4, 5]),
    ("C405", one("image: x:1\nvolumes: ['/etc:/e', '/:/r:ro']"), [4, 4]),
    ("C406", one("image: x:1\nsecurity_opt: ['seccomp=unconfined', 'apparmor:unconfined']"), [4, 4]),
    ("C407", one("image: x:1\ndevices: ['/dev/sda:/dev/x']"), [4]),
    ("C501", other("{image: x:1}", "service_healthy"), [4]),
    ("C501", other("{image: x:1, healthcheck: {interval: 3s}}", "service_healthy"), [4]),
    ("C502", other("{image: x:1, healthcheck: {disable: true}}", "service_healthy"), [4]),
    ("C502", other("{image: x:1, healthcheck: {test: [NONE]}}", "service_healthy"), [4]),
    ("C502", other("{x-rootfs: host}", "service_healthy"), [4]),
    ("C503", one("image: x:1\ndepends_on: [db-migrate]", "  db-migrate: {image: x:1}\n"), [4]),
    (
        "C503",
        other("{image: x:1}", "service_completed_successfully") + "  b: {image: x:1, depends_on: [db]}\n",
        [6],
    ),
    ("C504", other("{image: x:1, restart: always}", "service_completed_successfully"), [4]),
    ("C505", one("image: x:1\nstop_signal: SIGKILL"), [4]),
    ("C601", one("image: x:1\ncommand: [a, '&&', b]"), [4]),
    ("C601", one("image: x:1\ncommand: cd /app"), [4]),
    ("C601", one("image: x:1\nhealthcheck: {test: [CMD, curl, x, '||', exit, '1']}"), [4]),
    ("C602", one("image: x:1\ncommand: echo $$HOME"), [4]),
    ("C602", one("image: x:1\nhealthcheck: {test: [CMD, pg_isready, -U, '$${USER}']}"), [4]),
    ("C701", one("image: x:1", "volumes: {v: }\nnetworks: {n: }\n"), [4, 5]),
    ("C701", one("image: x:1", "secrets: {s: {file: ./s}}\n"), [4]),
    ("C801", one("x-rootfs: host\nx-on-unhealthy: restart"), [4]),
    ("C801", one("image: x:1\nhealthcheck: {disable: true}\nx-on-unhealthy: recreate"), [5]),
    ("C802", one("image: x:1\nx-on-change: {signal: HUP}\nvolumes: ['./f:/f']"), [4]),
    ("C803", one("image: x:1\nx-drain: 9s"), [4]),
    ("C803", one("image: x:1\nx-drain: 9s\nports: ['80-81:80', '82']"), [4]),
    ("C803", one("image: x:1\nx-drain: 9s\nnetwork_mode: host\nports: ['80:80']"), [4]),
    ("C803", one("image: x:1\nx-drain: 9s\nports: [{target: 80, published: 80, mode: host}]"), [4]),
    ("C804", rolling("container_name: it", rollback="start-first"), [4, 5]),
    ("C805", one("image: x:1\ndeploy:\n  rollback_config: {delay: 1s}"), [5]),
    ("C805", rolling("", rollback="stop-first"), [5]),
    (
        "C806",
        one("image: x:1\ndeploy: {update_config: {failure_action: continue, max_failure_ratio: 0.5}}"),
        [4],
    ),
]
LEAVES: Sequence[tuple[str, str]] = [
    ("C001", one("image: x:1\nx-check-ignore: [C101, public-port, W001]")),
    ("C101", one("image: nginx:1.29")),
    ("C101", one(f"image: nginx@sha256:{'a' * 64}")),
    ("C101", one("image: nginx:${TAG:-1}")),
    ("C101", one("image: nginx\nbuild: .")),
    ("C101", one("x-rootfs: host")),
    ("C102", one("build: .\nimage: x:1")),
    ("C201", one("image: x:1\nenvironment: {DB_PASSWORD: '${PW}', B_TOKEN: , C_SECRET: ''}")),
    ("C201", one("image: x:1\nenvironment: {DB_PASSWORD_FILE: /run/x, SECRET_NAME: db, USE_TOKEN: 'true'}")),
    ("C201", one("image: x:1\nenvironment: {PASSWORD: change-me, MONKEY: banana, TOKEN: /run/token}")),
    ("C201", one("image: x:1\nenvironment: {URL: 'postgres://me:${PW-a}@db/x', V: 'http://a:80/@'}")),
    ("C201", one("image: x:1\nenvironment: {X: com.example.some.long.java.ClassName.Of.Mine}")),
    ("C202", one("image: x:1\nenvironment: {X: ghp_short, Y: '${T:-ghp_" + KEY + "}'}")),
    ("C203", one("image: x:1\nbuild: {context: ., args: {VERSION: '1', NPM_TOKEN: }}")),
    ("C301", one("image: x:1\nports: ['127.0.0.1:80:80', '5432:5432']")),
    ("C302", one("image: x:1\nports: ['127.0.0.1:5432:5432', '8080:80']")),
    ("C303", one("image: x:1\nports: ['1:1', '2:1/udp', '2:1']", "  b: {image: x:1, ports: ['3:1']}\n")),
    ("C303", one("image: x:1\nports: ['127.0.0.1:1:1']", "  b: {image: x:1, ports: ['127.0.0.2:1:1']}\n")),
    ("C303", one("image: x:1\nports: ['1:1']", "  b: {image: x:1, ports: ['1:1'], scale: 0}\n")),
    ("C304", one("image: x:1\nscale: 2\nports: ['80-81:80', '90', '91:91']")),
    ("C305", one("image: x:1\nscale: 4093", "  b: {image: x:1, scale: 9, network_mode: none}\n")),
    ("C305", one("image: x:1\nscale: 13", SMALL)),
    ("C305", one("image: x:1\nscale: 2", RANGE)),
    ("C305", one("image: x:1\nscale: 3", FIXED + RANGE)),
    ("C305", one("image: x:1\nscale: 9999", "networks: {default: {external: true}}\n")),
    ("C401", one("image: x:1\nprivileged: false")),
    (
        "C402",
        one("image: x:1\nvolumes: ['/var/run/my.sock:/x', 'docker.sock:/y']", "volumes: {docker.sock: }\n"),
    ),
    ("C403", one("image: x:1\ncap_add: [NET_BIND_SERVICE]\ncap_drop: [ALL]")),
    ("C404", one("image: x:1\nnetwork_mode: none\nipc: private")),
    ("C405", one("image: x:1\nvolumes: ['/etc:/e:ro', '/etc/hosts:/h', '/srv:/s', './etc:/x']")),
    ("C406", one("image: x:1\nsecurity_opt: ['no-new-privileges:true']")),
    ("C407", one("image: x:1\ndevices: ['/dev/fuse']")),
    ("C501", other("{image: x:1, healthcheck: {test: [CMD, a]}}", "service_healthy")),
    ("C501", other("{image: x:1}", "service_started")),
    ("C502", other("{image: x:1}", "service_healthy")),
    ("C503", other("{image: x:1}", "service_started")),
    ("C503", one("image: x:1\ndepends_on: [init]", "  init: {image: x:1, restart: always}\n")),
    ("C504", other("{image: x:1, restart: on-failure}", "service_completed_successfully")),
    ("C505", one("image: x:1\nstop_signal: SIGINT")),
    ("C601", one("image: x:1\ncommand: [sh, -c, 'a && b']")),
    ("C601", one("image: x:1\nentrypoint: [sh, -c]\ncommand: ['&&']")),
    ("C601", one("image: x:1\nhealthcheck: {test: 'a || b'}")),
    ("C602", one("image: x:1\ncommand: [bash, -c, 'echo $$HOME']")),
    ("C602", one("image: x:1\ncommand: echo $$ 5$$")),
    ("C701", one("image: x:1\nvolumes: ['v:/v']", "volumes: {v: }\nnetworks: {default: }\n")),
    ("C701", one("image: x:1", "  b: {image: x:1, profiles: [p], volumes: ['v:/v']}\nvolumes: {v: }\n")),
    ("C801", one("image: x:1\nx-on-unhealthy: restart")),
    ("C801", one("x-rootfs: host\nx-on-unhealthy: restart\nhealthcheck: {x-tcp: {port: 80}}")),
    ("C801", one("x-rootfs: host\nx-on-unhealthy: ignore")),
    ("C802", one("image: x:1\nx-on-change: {signal: HUP}\nconfigs: [c]", "configs: {c: {content: a}}\n")),
    ("C802", one("image: x:1\nx-on-change: {signal: HUP}\nsecrets: [c]", "secrets: {c: {file: ./a}}\n")),
    ("C803", one("image: x:1\nx-drain: 9s\nports: ['80-81:80', '82:82']")),
    ("C804", rolling("hostname: it", rollback="start-first")),
    ("C804", rolling("container_name: it", order="stop-first")),
    ("C805", one("image: x:1\ndeploy: {update_config: {failure_action: rollback}, rollback_config: {}}")),
    (
        "C806",
        one("image: x:1\ndeploy: {update_config: {failure_action: pause, max_failure_ratio: 0.5}}"),
    ),
]


@pytest.mark.parametrize(("code", "text", "lines"), FINDS)
def test_a_rule_finds(code: str, text: str, lines: Sequence[int]) -> None:
    got = [finding for finding in found(text) if finding.code == code]
    assert [finding.place.line for finding in got if finding.place] == lines
    assert all(finding.path and finding.message for finding in got)


@pytest.mark.parametrize(("code", "text"), LEAVES)
def test_a_rule_leaves_alone(code: str, text: str) -> None:
    assert code not in {finding.code for finding in found(text)}


def test_every_rule_has_both_kinds_of_examples() -> None:
    codes = [rule.code for rule in findings.TABLE]
    assert set(codes) == {code for code, *_ in FINDS} == {code for code, _ in LEAVES}
    assert codes == sorted(set(codes))
    assert len({rule.name for rule in findings.TABLE}) == len(codes)


def test_a_finding_tells_place_path_and_what_to_do() -> None:
    (finding,) = found(one("image: nginx"))
    assert str(finding.place) == "stack.yml:3:12"
    assert (finding.path, finding.severity) == ("services.web.image", "warning")
    assert finding.excerpt == ("    3 |     image: nginx", "      |            ^^^^^")
    assert "nginx:1" in finding.hint


def test_the_line_of_a_secret_is_not_shown() -> None:
    text = one(f"image: x:1\nenvironment: {{A_PASSWORD: hunter2, B: ghp_{KEY}}}")
    got = found(text)
    assert {finding.code for finding in got} == {"C201", "C202"}
    assert not any(finding.excerpt for finding in got)
    assert not any("hunter2" in finding.message or KEY in finding.message for finding in got)


def test_two_on_at_once_is_an_error_and_never_together_a_note() -> None:
    text = one("image: x:1\nports: ['80:80']", "  b: {image: x:1, ports: ['80:1'], profiles: [p]}\n")
    given: Mapping[str, object] = {"profiles": ("p",)}
    assert [f.severity for f in found(text) if f.code == "C303"] == ["note"]
    assert [f.severity for f in found(text, **given) if f.code == "C303"] == ["error"]


@pytest.mark.parametrize("said", ["[C101]", "unpinned-image", "{C101: it is ours}", "[C401, unpinned-image]"])
def test_what_a_service_says_to_ignore_is_left_out_there_only(said: str) -> None:
    text = one(f"image: nginx\nx-check-ignore: {said}", "  b:\n    image: nginx\n")
    assert [finding.path for finding in found(text)] == ["services.b.image"]


def test_what_the_file_says_to_ignore_is_left_out_everywhere() -> None:
    text = "x-check-ignore: [C101]\n" + one(
        "image: nginx", "volumes:\n  v: {x-check-ignore: [unused]}\n  w: \n"
    )
    assert [finding.path for finding in found(text)] == ["volumes.w"]


def test_findings_come_in_the_order_of_the_file() -> None:
    got = found(one("ports: ['80:80']\nprivileged: true\nimage: nginx"))
    assert [finding.code for finding in got] == ["C301", "C401", "C101"]


def test_an_override_is_judged_where_it_is_written() -> None:
    stack = loaded(one("image: nginx:1"), one("image: nginx"))
    (finding,) = findings.find(stack.tree, stack.stack, stack.texts)
    assert str(finding.place) == "1.yml:3:12"


def test_the_page_is_made_of_the_tables() -> None:
    assert (DOCS / "checks.md").read_text() == page()


@pytest.mark.parametrize(
    ("body", "rest"),
    [
        ("container_name: it", ""),
        ("networks: {default: {ipv4_address: 10.9.0.7}}", OF_ITS_OWN),
        ("networks: {default: {mac_address: '02:42:0a:09:00:07'}}", ""),
        ("mac_address: '02:42:0a:09:00:07'", ""),
        ("network_mode: host", ""),
        ("network_mode: service:b", "  b: {image: x:1}\n"),
        ("hostname: it", "  b: {image: x:1, network_mode: 'service:web'}\n"),
        ("hostname: it", "  b: {image: x:1, pid: 'service:web'}\n"),
        ("hostname: it", "  b: {image: x:1, ipc: 'service:web'}\n"),
        ("ports: [{target: 80, published: 80, mode: host}]", ""),
        ("ports: ['80:80', '81-81:81', '90-91:90/udp']\nscale: 2", ""),
        ("ports: ['80:80', '90-92:90/udp']\nscale: 2", ""),
        ("hostname: it", ""),
    ],
)
def test_what_stands_in_the_way_of_start_first_is_what_the_planner_says(body: str, rest: str) -> None:
    text = rolling(body, rest=rest)
    said = [finding.message for finding in found(text) if finding.code == "C804"]
    before = up(loaded(text).stack)
    world = converge(before, nothing("x:1"), 10.0)
    services = {**before.stack.services, "web": replace(before.stack.services["web"], user="2")}
    warnings = plan(replace(before, stack=replace(before.stack, services=services)), world, 100.0).warnings
    assert [f"service {one}: the old container stops first" for one in said] == list(warnings)
