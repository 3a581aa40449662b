"""Configs and secrets whose content changes under containers that stay."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.model import effects
from orchestrator.model.action import StartContainer, SwapFiles, verb
from orchestrator.model.desired import Desired
from orchestrator.model.observation import Observation
from orchestrator.model.plan import Plan
from orchestrator.model.stack import FileMount
from orchestrator.planner.drift import differences
from orchestrator.planner.plan import plan
from tests.kit.stacks import apply_all, converge, nothing, service, stack, up, wanting

NOW = 100.0


def steps(decided: Plan) -> list[str]:
    return [f"{verb(a)} {a.target.partition(':')[2]}: {a.because}" for a in decided.actions]


def config(digest: str = "1", name: str = "app", on_change: str | None = "SIGHUP") -> FileMount:
    return FileMount(
        kind="config", name=name, target=f"/{name}", path=f"/host/{name}", digest=digest, on_change=on_change
    )


def wish(*mounts: FileMount, **fields: object) -> Desired:
    found = service(**fields)  # type: ignore[arg-type]
    return up(stack(web=replace(found, mounts=mounts)))


def seen(world: Observation, **files: str) -> Observation:
    """The host's files as they are now."""
    return replace(world, files={f"/host/{name}": digest for name, digest in files.items()})


def test_a_changed_file_of_the_host_is_swapped_and_told_by_a_signal() -> None:
    desired = wish(config(), config(name="other", on_change="USR1"))
    world = seen(converge(desired, nothing()), app="2", other="1")
    (action,) = plan(desired, world, NOW).actions
    assert isinstance(action, SwapFiles)
    assert (action.name, action.signals, action.because) == ("shop-web-1", (1,), "config app changed")
    assert [file.digest for file in action.files] == ["2"]
    after = effects.expect(world, action, NOW)
    assert plan(desired, after, NOW).actions == ()
    assert effects.expect(after, action, NOW) == after


def test_with_no_repair_it_is_told_and_swapped_by_the_next_up() -> None:
    desired = replace(wish(config()), repair=False)
    world = seen(converge(desired, nothing()), app="2")
    decided = plan(desired, world, NOW)
    assert decided.actions == ()
    assert decided.warnings == (
        "config app of web: /host/app has changed since its containers were made; `up` exchanges it",
    )
    assert [row.what for row in differences(desired, world, NOW)] == ["config app"]
    assert steps(plan(replace(wish(config("2")), repair=False), world, NOW)) == [
        "swap shop-web-1: config app changed"
    ]


def test_new_content_of_the_stack_file_is_swapped_too_and_nothing_is_replaced() -> None:
    inline = FileMount(kind="secret", name="key", target="/k", content="a", on_change="HUP")
    before = wish(inline)
    world = converge(before, nothing())
    after = wish(replace(inline, content="b"))
    assert steps(plan(after, world, NOW)) == ["swap shop-web-1: secret key changed"]


def test_without_x_on_change_the_next_up_replaces_and_until_then_it_is_told() -> None:
    before = wish(config(on_change=None))
    world = seen(converge(before, nothing()), app="2")
    decided = plan(before, world, NOW)
    assert decided.actions == ()
    (warning,) = decided.warnings
    assert warning == (
        "config app of web: /host/app has changed since its containers were made; `up` replaces them"
    )
    (row,) = differences(before, world, NOW)
    assert (row.target, row.what, row.found, row.mendable) == (
        "container:shop-web-1",
        "config app",
        "changed",
        False,
    )
    again = wish(config("2", on_change=None))
    assert steps(plan(again, world, NOW)) == ["stop shop-web-1: config app changed"]
    assert plan(before, seen(world, app="1"), NOW).warnings == ()


def test_a_file_that_is_gone_is_told_and_changes_nothing() -> None:
    for on_change in ("HUP", None):
        desired = wish(config(on_change=on_change))
        decided = plan(desired, seen(converge(desired, nothing()), app=""), NOW)
        assert decided.actions == ()
        assert decided.warnings == ("config app of web: /host/app is gone; what its containers have stays",)


def test_who_does_not_run_gets_the_files_before_its_start() -> None:
    desired = wish(config(), restart="always")
    world = converge(desired, nothing())
    (web,) = world.containers
    world = seen(effects.expect_exit(world, web.id, NOW - 10, 1), app="2")
    (first,) = plan(desired, world, NOW).actions
    assert isinstance(first, SwapFiles)
    world = apply_all(world, [first], NOW)
    (second,) = plan(desired, world, NOW).actions
    assert isinstance(second, StartContainer)


def test_who_is_stopping_or_was_stopped_by_the_user_is_left_alone() -> None:
    desired = wish(config())
    world = seen(converge(desired, nothing()), app="2")
    stop = wanting(desired, "web", wanted="stopped")
    decided = plan(stop, world, NOW)
    assert not any(isinstance(action, SwapFiles) for action in decided.actions)
    world = apply_all(world, decided.actions, NOW)
    assert not any(isinstance(action, SwapFiles) for action in plan(stop, world, NOW).actions)


def test_what_was_not_looked_at_yet_is_as_the_stack_says() -> None:
    desired = wish(config())
    world = converge(desired, nothing())
    assert plan(desired, world, NOW).actions == ()
    assert steps(plan(wish(config("2")), world, NOW)) == ["swap shop-web-1: config app changed"]


def test_a_one_off_keeps_what_it_began_with() -> None:
    desired = wish(config(), oneoff=True)
    assert plan(desired, seen(converge(desired, nothing()), app="2"), NOW).actions == ()
