"""`security_opt` is understood as Docker understands it, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.kernel.security import (
    SecurityOptionError,
    SecurityOptions,
    machine_lsms,
    parse_security_opt,
)


@pytest.mark.parametrize(
    ("options", "meaning"),
    [
        ([], SecurityOptions()),
        (["seccomp=unconfined"], SecurityOptions(seccomp="unconfined")),
        (["seccomp:unconfined"], SecurityOptions(seccomp="unconfined")),
        (["seccomp=builtin"], SecurityOptions()),
        (["seccomp=./a=b.json"], SecurityOptions(seccomp="file", seccomp_file="./a=b.json")),
        (["seccomp=unconfined", "seccomp=builtin"], SecurityOptions()),
        (["no-new-privileges"], SecurityOptions(no_new_privileges=True)),
        (["no-new-privileges:true"], SecurityOptions(no_new_privileges=True)),
        (["no-new-privileges=true"], SecurityOptions(no_new_privileges=True)),
        (["no-new-privileges:false"], SecurityOptions()),
        (["systempaths=unconfined"], SecurityOptions(system_paths="unconfined")),
        (["apparmor=unconfined", "label=disable"], SecurityOptions()),
        (["label:disable"], SecurityOptions()),
    ],
)
def test_an_option_is_understood(options: list[str], meaning: SecurityOptions) -> None:
    assert parse_security_opt(options) == meaning


def test_what_the_machine_has_can_be_asked_for() -> None:
    meaning = parse_security_opt(
        ["apparmor=mine", "label=type:svirt_t", "label=level:s0:c1"], {"apparmor", "selinux"}
    )
    assert meaning == SecurityOptions(apparmor="mine", labels=("type:svirt_t", "level:s0:c1"))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("seccomp", "'seccomp' needs a value"),
        ("seccomp=", "needs a value"),
        ("seccmp=unconfined", "'seccmp=unconfined' is not known, only seccomp, no-new-privileges"),
        ("no-new-privileges=maybe", "no-new-privileges=maybe must be true or false"),
        ("apparmor=docker-default", "apparmor=docker-default: this machine has no AppArmor"),
        ("label=type:svirt_t", "label=type:svirt_t: this machine has no SELinux"),
        ("label=colour:red", "label=colour:red is not known"),
        ("systempaths=all", "systempaths=all is not known"),
        ("writable-cgroups=true", "is not known"),
        ("", "'' is not known"),
    ],
)
def test_an_option_is_refused_by_name(option: str, words: str) -> None:
    with pytest.raises(SecurityOptionError, match=words):
        parse_security_opt([option])


def test_the_modules_of_the_machine_are_read(tmp_path: Path) -> None:
    path = tmp_path / "lsm"
    path.write_text("capability,landlock,apparmor\n")
    assert machine_lsms(str(path)) == {"capability", "landlock", "apparmor"}
    assert machine_lsms(str(tmp_path / "missing")) == set()
