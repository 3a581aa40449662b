"""What no container could be started with is refused with its place, before anything is touched."""

from __future__ import annotations

import pytest

from orchestrator.model.errors import ExitCode
from orchestrator.stackfile.files import read_text
from orchestrator.stackfile.problem import StackfileError
from tests.unit.stackfile.given import Disk, loaded, refused, unrunnable, web

WRONG = {
    "working_dir: srv/app": "services.web.working_dir: 'srv/app' must be an absolute path in the container",
    "stop_signal: SIGTREM": "services.web.stop_signal: 'SIGTREM' is not a signal",
    "stop_signal: '65'": "services.web.stop_signal: '65' is not a signal",
    "environment: ['=x']": "services.web.environment: '' can't be the name of a variable",
    "environment: {A=B: x}": "services.web.environment.A=B: 'A=B' can't be the name of a variable",
    "logging: {options: {max-size: 10x}}": (
        "services.web.logging.options.max-size: '10x' is not a size such as 10m"
    ),
    "logging: {options: {max-file: '0'}}": (
        "services.web.logging.options.max-file: '0' is not a number of files"
    ),
    "hostname: a b": "services.web.hostname: 'a b' can't be the name of a machine",
    f"hostname: {'a' * 65}": f"services.web.hostname: '{'a' * 65}' can't be the name of a machine",
    "dns: [9.9.9.9, 1.2.3]": "services.web.dns[1]: '1.2.3' is not an IP address",
    "extra_hosts: [db=there]": "services.web.extra_hosts[0]: 'there', for db, is not an IP address",
    "cap_add: [NET_ADMN]": "services.web.cap_add[0]: 'NET_ADMN' is not a capability of Linux",
    "cap_drop: [CAP_FOO]": "services.web.cap_drop[0]: 'CAP_FOO' is not a capability of Linux",
    "security_opt: [no-new-privilege]": (
        "services.web.security_opt[0]: 'no-new-privilege' is not an option of security"
    ),
    "sysctls: {vm.swappiness: 1}": (
        "services.web.sysctls.vm.swappiness: belongs to the whole machine, not to a container"
    ),
    "cpuset: 0-x": "services.web.cpuset: '0-x' is not a list of CPUs such as 0-2,4",
    "shm_size: -1": "services.web.shm_size: a size can't be negative",
}

RIGHT = (
    "working_dir: /srv",
    "stop_signal: usr1",
    "stop_signal: '9'",
    "stop_signal: SIGRTMIN+3",
    "environment: [A=, B==]",
    "logging: {options: {max-size: 1.5k, max-file: '3'}}",
    "hostname: web_1.example.com",
    "dns: ['::1', 1.1.1.1]",
    "extra_hosts: ['a=::1', 'b:host-gateway', 'c:[fe80::1]']",
    "cap_add: [all, CAP_SYS_PTRACE]",
    "security_opt: ['no-new-privileges:true', seccomp=unconfined, no-new-privileges]",
    "sysctls: {net.core.somaxconn: 1, kernel.msgmax: 2, net/ipv4/ip_forward: 1}",
    "cpuset: 0,2-3",
    "shm_size: 64m",
)


@pytest.mark.parametrize("body", WRONG)
def test_what_no_container_can_have_is_refused(body: str) -> None:
    (problem,) = unrunnable(web(body))
    assert problem.message == WRONG[body]
    assert problem.service == "web"
    assert problem.place is not None
    assert problem.place.line > 2


@pytest.mark.parametrize("body", RIGHT)
def test_what_a_container_can_have_is_taken(body: str) -> None:
    assert loaded(web(body)).warnings == ()


def test_little_memory_is_warned_about_and_taken() -> None:
    (warned,) = loaded(web("mem_limit: 4m")).warnings
    assert warned.message == "services.web.mem_limit: hardly a program runs with less than 6m"


def test_memory_without_a_unit_is_explained() -> None:
    (warned,) = loaded(web("mem_limit: '512'")).warnings
    assert warned.message.endswith("; a number without a unit counts bytes")


def test_a_hint_never_makes_it_worse() -> None:
    """Quotes turn 1 into a text, which is no better where true or a number is wanted."""
    assert refused(web("tty: 1"))[0].hint == ""
    assert refused(web("scale: 1.5"))[0].hint == ""
    assert refused(web("stop_grace_period: 10"))[0].hint == "did you mean 10s?"
    assert refused(web("stop_signal: 9"))[0].hint == 'put it in quotes: "9"'


def test_a_hint_for_what_is_not_defined_is_valid_itself() -> None:
    (problem,) = refused(web("secrets: [s]"))
    assert problem.hint == "add it: `secrets: {s: {file: PATH}}`"


def test_a_text_that_no_system_call_takes_is_refused() -> None:
    (problem,) = refused(web(r'command: ["echo", "a\0b"]'))
    assert problem.message == r"a text can't hold the character \0"


def test_a_name_that_is_too_long_is_named() -> None:
    (problem,) = refused(f"services:\n  {'a' * 101}: {{image: x}}\n")
    assert problem.message == "services: 'aaaaaaaaaaaaaaaaaaaaaaa is longer than 100 characters"


def test_a_file_that_is_not_utf8_is_wrong_where_it_stops_to_be() -> None:
    class Latin(Disk):
        def read(self, path: str) -> str:
            return b"services:\n  caf\xe9: {image: x}\n".decode()

    with pytest.raises(StackfileError) as caught:
        read_text(Latin(), "/s.yml")
    assert str(caught.value) == "/s.yml:2:6: error[E001]: the file is not UTF-8 text"
    assert caught.value.exit_code is ExitCode.INVALID_STACK
