"""A service behind a published port is changed under load: nobody who asks goes without an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.images.archives.importing import import_directory
from orchestrator.images.store.content import Store
from tests.kit.crowd import Crowd
from tests.kit.keeper import build_image
from tests.kit.programs import free_port
from tests.kit.site import Site, until

pytestmark = pytest.mark.kernel

STACK = """
name: NAME
services:
  web:
    x-rootfs: {path: $BOX}
    command: sh -c 'mkdir -p /www; echo PAGE > /www/index.html; exec httpd -f -p LISTENS -h /www'
    healthcheck: {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1/"], interval: 0.2s, retries: 2, start_interval: 0.1s}
    ports: ["PORT:80"]
    restart: always
    stop_grace_period: 0.2s
    deploy:
      replicas: 4
      update_config: {order: start-first, parallelism: 2, failure_action: rollback, monitor: 0.5s}
"""
"""The health check asks on port 80, and so does everybody."""


@pytest.fixture(scope="module")
def state_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


def wish(name: str, port: int, page: str, listens: int = 80) -> str:
    words = {"NAME": name, "PORT": str(port), "PAGE": page, "LISTENS": str(listens)}
    text = STACK
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def pages(site: Site, name: str) -> set[str]:
    """What the containers that are there were told to say."""
    return {row["command"].split("echo ")[1].split(" ")[0] for row in site.ps(name)}


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_a_change_under_load_loses_no_request(site: Site, order: str) -> None:
    """Four replicas behind one port, two at a time."""
    port = free_port()
    texts = [wish("u1", port, page).replace("start-first", order) for page in ("one", "two")]
    site.up(texts[0], wait=True)
    with Crowd(port) as crowd:
        until(lambda: crowd.said["one"] > 20, "answers of the old ones")
        site.up(texts[1])
        before = crowd.said["one"]
        until(lambda: crowd.said["two"] > 40, "answers of the new ones")
    assert crowd.lost == {}
    assert crowd.said["one"] == before, "an old one that answers after the update"
    assert pages(site, "u1") == {"two"}
    assert len(site.ps("u1")) == 4
    site.down("u1")


def test_a_change_goes_on_after_the_supervisor_was_killed_in_the_middle(state_root: Path) -> None:
    port = free_port()
    (state_root / "k").mkdir()
    with Site(state_root / "k") as site:
        site.up(wish("u3", port, "one"), wait=True)
        with Crowd(port) as crowd:
            until(lambda: crowd.said["one"] > 20, "answers of the old ones")
            site.begin_up(wish("u3", port, "two"))
            until(lambda: crowd.said["two"] > 0, "an answer of a new one")
            site.kill(site.supervisor)
            until(lambda: pages(site, "u3") == {"two"} and len(site.ps("u3")) == 4, "new ones alone")
        assert crowd.lost == {}
        site.down("u3")


def test_a_change_that_never_gets_healthy_goes_back_by_itself_and_loses_no_request(site: Site) -> None:
    port = free_port()
    site.up(wish("u2", port, "one"), wait=True)
    known = {row["id"] for row in site.ps("u2")}
    with Crowd(port) as crowd:
        until(lambda: crowd.said["one"] > 20, "answers of the old ones")
        answer = site.up(wish("u2", port, "two", listens=81), exit_code=1)
        until(lambda count=crowd.said["one"]: crowd.said["one"] > count + 20, "more answers of the old ones")
    assert crowd.lost == {}
    assert set(crowd.said) == {"one"}
    assert answer.error.startswith("the update of web was rolled back: container u2-web-")
    assert "is unhealthy" in answer.error
    assert {row["id"] for row in site.ps("u2")} == known, "none of the old ones was touched"
    assert {row["update"] for row in site.ps("u2")} == {answer.error}
    site.down("u2")


def test_an_image_that_is_no_good_is_turned_back_by_its_id(site: Site, tmp_path: Path) -> None:
    """Its name means the bad one since; what is made in place of that is of the one before."""
    text = """
        name: u4
        services:
          web:
            image: turn:1
            command: sleep 100
            healthcheck: {test: [CMD, test, -f, /well], interval: 0.1s, retries: 1}
            stop_grace_period: 0s
            deploy: {replicas: 2, update_config: {failure_action: rollback, monitor: 0.3s}}
    """
    bare = build_image(tmp_path / "box")
    (bare / "well").touch()
    import_directory(Store(site.places.images), bare, "turn:1")
    site.up(text, wait=True)
    (old,) = set(site.ask("image_users").result)
    (bare / "well").unlink()
    import_directory(Store(site.places.images), bare, "turn:1")
    answer = site.up(text, exit_code=1)
    assert (
        answer.error == "the update of web was rolled back: container u4-web-1 is unhealthy (1 of 2 failed)"
    )
    assert "container:u4-web-1" in answer.actions("create")
    users = site.ask("image_users").result
    assert {image: len(found) for image, found in users.items()} == {old: 2}
    assert [row["health"] for row in site.ps("u4")] == ["healthy", "healthy"]
    site.down("u4")
