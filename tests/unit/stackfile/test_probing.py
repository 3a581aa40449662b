"""`x-http` and `x-tcp` of a healthcheck."""

from __future__ import annotations

import pytest

from orchestrator.model.sections import HttpProbe, TcpProbe
from orchestrator.model.stack import Healthcheck
from tests.unit.stackfile.given import loaded, refused


def check(said: str) -> str:
    return f"services:\n  web:\n    image: x:1\n    healthcheck:\n      {said}\n"


def read(said: str) -> Healthcheck | None:
    return loaded(check(said), env={"PORT": "81"}).stack.services["web"].healthcheck


def test_an_http_probe_is_read_with_its_defaults() -> None:
    assert read("x-http: {port: 80}") == Healthcheck(probe=HttpProbe(port=80))


def test_an_http_probe_is_read_as_it_is_said() -> None:
    found = read('x-http: {port: "$PORT", path: "/a?b", status: 204, scheme: https, host: h}')
    wanted = HttpProbe(port=81, path="/a?b", scheme="https", host="h", lowest=204, highest=204)
    assert found == Healthcheck(probe=wanted)


def test_a_tcp_probe_stands_beside_a_test_that_docker_compose_uses() -> None:
    found = read("{x-tcp: {port: 80}, test: nc -z localhost 80, interval: 5s}")
    assert found is not None
    assert (found.probe, found.interval) == (TcpProbe(port=80), 5.0)


@pytest.mark.parametrize(
    ("said", "column", "words"),
    [
        ("x-http: {port: 0}", 22, "0 is not a port"),
        ("x-tcp: {port: 65536}", 21, "65536 is not a port"),
        ("x-http: {port: 80, host: .a}", 32, "is not the name of a host"),
        (f"x-http: {{port: 80, host: {'a' * 256}}}", 32, "is not the name of a host"),
        ("x-http: {port: 80, path: health}", 32, "is not the path of a request"),
        ('x-http: {port: 80, path: "/a b"}', 32, "is not the path of a request"),
        ('x-http: {port: 80, path: "/a\\r\\nHost: b"}', 32, "is not the path of a request"),
        ("x-http: {port: 80, host: ä}", 32, "is not the name of a host"),
        ("x-http: {port: 80, status: 399-200}", 34, "is no status"),
        ("x-http: {port: 80, status: 99}", 34, "is no status"),
    ],
)
def test_what_can_never_work_is_refused_with_its_place(said: str, column: int, words: str) -> None:
    (refusal,) = loaded(check(said)).refusals
    assert refusal.place is not None
    assert (refusal.place.line, refusal.place.column) == (5, column)
    assert words in refusal.message
    assert refusal.service == "web"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("x-http: {}", "port"),
        ("x-http: {port: 80, status: 2xx}", "a status such as 204 or 200-399"),
        ("x-http: {port: 80, scheme: ftp}", "http or https"),
        ("x-http: {port: 80, verb: POST}", "verb"),
        ("x-http: 80", "mapping"),
        ("{x-http: {port: 80}, x-tcp: {port: 80}}", "exclude each other"),
    ],
)
def test_what_has_the_wrong_form_is_an_error(said: str, words: str) -> None:
    found = refused(check(said))
    assert words in found[0].message


# --- lines that say that a service is ready --------------------------------------------------------------


def waiting(db: str, entry: str) -> str:
    return f"services:\n  db: {{image: 'x:1'{db}}}\n  web: {{image: 'x:1', depends_on: {{db: {entry}}}}}\n"


@pytest.mark.parametrize(
    "entry",
    [
        "{condition: service_log_ready}",
        "{condition: service_started, x-condition: service_log_ready}",
    ],
)
def test_a_dependent_waits_for_a_line(entry: str) -> None:
    found = loaded(waiting(", x-log-ready: 'ready in [0-9]+ ms$$'", entry)).stack.services
    assert found["db"].log_ready == "ready in [0-9]+ ms$"
    assert found["web"].depends_on[0].condition == "service_log_ready"


def test_who_waits_for_a_line_that_nobody_named_is_refused() -> None:
    (refusal,) = loaded(waiting("", "{condition: service_log_ready}")).refusals
    assert str(refusal.place) == "stack.yml:3:52"
    assert "db does not say which line" in refusal.message


@pytest.mark.parametrize("pattern", ["(", "*a", "a{99999999999}", "(" * 500])
def test_what_is_no_regular_expression_is_refused(pattern: str) -> None:
    found = loaded(waiting(f", x-log-ready: '{pattern}'", "{condition: service_started}")).refusals
    assert [str(one.place) for one in found] == ["stack.yml:2:35"]
    assert "is no regular expression" in found[0].message


@pytest.mark.parametrize(
    ("pattern", "because"),
    [
        ("x" * 1001, "is longer than 1,000 characters"),
        ("(?i)" + "[!-\ufffd]" * 17, "has more than 16 sets of characters"),
        (r"[\u0100-\uffff]" * 17, "has more than 16 sets of characters"),
    ],
)
def test_a_pattern_that_takes_long_to_be_understood_is_refused(pattern: str, because: str) -> None:
    found = loaded(waiting(f", x-log-ready: '{pattern}'", "{condition: service_started}")).refusals
    assert [str(one.place) for one in found] == ["stack.yml:2:35"]
    assert because in found[0].message


@pytest.mark.parametrize("pattern", ["x" * 1000, "[a-z0-9]" * 100, "(?i)" + "[!-\ufffd]" * 16, "é[a-z]" * 30])
def test_a_long_pattern_that_is_soon_understood_is_none_of_those(pattern: str) -> None:
    assert loaded(waiting(f", x-log-ready: '{pattern}'", "{condition: service_started}")).refusals == ()
