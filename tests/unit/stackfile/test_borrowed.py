"""`volumes_from`: the mounts of one service in another."""

from __future__ import annotations

from orchestrator.model.stack import Mount, Stack
from tests.unit.stackfile.given import loaded, refused, unrunnable

LENDER = """
  db:
    image: y
    volumes: ['data:/data', '/h:/h', './ro:/ro:ro']
    tmpfs: /tmp
volumes: {data: }
"""


def stack(body: str, lender: str = LENDER) -> str:
    return f"services:\n  web: {{image: x, {body}}}{lender}"


def mounts(found: Stack, name: str = "web") -> dict[str, Mount]:
    return {mount.target: mount for mount in found.services[name].mounts}


def test_volumes_and_bind_mounts_are_shared_memory_is_not() -> None:
    found = loaded(stack("volumes_from: [db]")).stack
    assert mounts(found).keys() == {"/data", "/h", "/ro"}
    assert mounts(found)["/data"] == mounts(found, "db")["/data"]
    assert {target for target, mount in mounts(found).items() if mount.read_only} == {"/ro"}  # type: ignore[union-attr]


def test_ro_makes_all_of_them_read_only() -> None:
    found = loaded(stack("volumes_from: ['db:ro']")).stack
    assert all(mount.read_only for mount in mounts(found).values())  # type: ignore[union-attr]


def test_a_mount_of_ones_own_wins() -> None:
    found = loaded(stack("volumes_from: [db], volumes: ['/mine:/h']")).stack
    assert mounts(found)["/h"].source == "/mine"  # type: ignore[union-attr]


def test_what_was_borrowed_is_lent_on() -> None:
    text = stack("volumes_from: [mid]", "\n  mid: {image: z, volumes_from: [db]}" + LENDER)
    assert mounts(loaded(text).stack).keys() == {"/data", "/h", "/ro"}


def test_the_lender_is_started_first_and_its_restart_is_its_own() -> None:
    (need,) = loaded(stack("volumes_from: [db]")).stack.services["web"].depends_on
    assert (need.service, need.condition, need.restart) == ("db", "service_started", False)


def test_a_volume_without_a_name_cant_be_shared() -> None:
    (problem,) = unrunnable(stack("volumes_from: [db]", "\n  db: {image: y, volumes: [/data]}\n"))
    assert problem.message == (
        "services.web.volumes_from[0]: the volume of 'db' at /data has no name, so it can't be shared"
    )


def test_services_that_borrow_from_each_other_are_a_circle() -> None:
    text = "services: {a: {image: x, volumes_from: [b]}, b: {image: x, volumes_from: [a]}}\n"
    assert [problem.code for problem in refused(text)] == ["E018"]


def test_a_lender_that_does_not_exist_is_told() -> None:
    assert [problem.code for problem in refused(stack("volumes_from: [nope]"))] == ["E016"]
