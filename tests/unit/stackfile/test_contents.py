"""What configs and secrets hold is part of what a service is, and is asked for before anything is touched."""

from __future__ import annotations

import pytest

from orchestrator.model import fingerprint
from orchestrator.model.stack import FileMount, Service
from tests.unit.stackfile.given import loaded

TEXT = """
services:
  web:
    image: x:1
    configs: [app]
    secrets: [{source: key, target: k}]
    ON_CHANGE
configs: {app: {file: app.conf}}
secrets: {key: {file: key.bin}}
"""


def web(on_change: str = "", **files: str) -> Service:
    said = {"app.conf": "a", "key.bin": "k"} | {name.replace("_", "."): text for name, text in files.items()}
    return loaded(TEXT.replace("ON_CHANGE", on_change), files=said).stack.services["web"]


def test_a_changed_file_makes_another_definition_and_is_named() -> None:
    before, after = web(), web(app_conf="b")
    assert fingerprint.of_service(before) != fingerprint.of_service(after)
    assert fingerprint.differing(before, after) == ("config app",)
    both = web(app_conf="b", key_bin="l")
    assert fingerprint.differing(before, both) == ("config app", "secret key")


@pytest.mark.parametrize("form", ["content: A", "environment: A"])
def test_what_stands_in_the_stack_file_or_the_environment_counts_too(form: str) -> None:
    text = "services: {web: {image: 'x:1', configs: [c]}}\nconfigs: {c: {FORM}}".replace("FORM", form)
    one = loaded(text, env={"A": "1"}).stack.services["web"]
    other = loaded(text.replace(": A", ": B"), env={"A": "1", "B": "2"}).stack.services["web"]
    assert fingerprint.differing(one, other) == ("config c",)


def test_the_content_of_an_env_file_counts() -> None:
    text = "services: {web: {image: 'x:1', env_file: a.env}}"
    one = loaded(text, files={"a.env": "A=1"}).stack.services["web"]
    other = loaded(text, files={"a.env": "A=2"}).stack.services["web"]
    assert fingerprint.differing(one, other) == ("environment.A",)


def test_with_x_on_change_the_content_makes_no_other_definition() -> None:
    said = "x-on-change: {signal: SIGHUP}"
    before, after = web(said), web(said, app_conf="b", key_bin="l")
    assert fingerprint.of_service(before) == fingerprint.of_service(after)
    assert fingerprint.differing(before, after) == ()
    assert before.mounts != after.mounts
    assert fingerprint.of_service(before) != fingerprint.of_service(web())
    assert fingerprint.of_service(before) == fingerprint.of_service(web("x-on-change: {signal: USR1}"))


def test_an_entry_says_it_for_itself() -> None:
    text = TEXT.replace("[app]", "[{source: app, x-on-change: {signal: USR1}}]").replace("ON_CHANGE", "")
    mounts = loaded(text).stack.services["web"].mounts
    assert [mount.on_change for mount in mounts if isinstance(mount, FileMount)] == ["USR1", None]


def test_a_file_that_is_not_there_is_refused_with_its_place_and_only_for_who_uses_it() -> None:
    text = TEXT.replace("ON_CHANGE", "").replace("key.bin}", "key.bin}, other: {file: nothing}")
    found = loaded(text, gone=["app.conf", "nothing"])
    (refusal,) = found.refusals
    assert (str(refusal.place), refusal.service) == ("stack.yml:5:15", "web")
    assert refusal.message == "services.web: config app: /home/proj/app.conf: there is no such file"
    assert loaded(TEXT.replace("ON_CHANGE", ""), gone=["app.conf"], strict=False).refusals == ()


def test_a_word_that_is_no_signal_is_refused() -> None:
    (refusal,) = loaded(TEXT.replace("ON_CHANGE", "x-on-change: {signal: RELOAD}")).refusals
    assert (str(refusal.place), "'RELOAD' is not a signal" in refusal.message) == ("stack.yml:7:27", True)
