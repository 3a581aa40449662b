"""Configs and secrets whose content changes under containers that stay."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.model import effects
from orchestrator.model.action import SignalContainer, StartContainer, SwapFiles, verb
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


def row(desired: Desired, world: Observation) -> tuple[str, str, str, str] | None:
    found = [(one.what, one.wanted, one.found, one.service) for one in differences(desired, world, NOW)]
    assert len(found) <= 1
    return found[0] if found else None


def test_a_row_of_drift_says_whether_a_file_has_changed_or_is_gone() -> None:
    desired = wish(config(on_change=None))
    world = converge(desired, nothing())
    assert row(desired, seen(world, app="1")) is None
    assert row(desired, seen(world, app="2")) == ("config app", "as it was made with", "changed", "web")
    assert row(desired, seen(world, app="")) == ("config app", "as it was made with", "gone", "web")
    once = wish(config(on_change=None), oneoff=True)
    assert row(once, seen(converge(once, nothing()), app="2")) is None
    going = Desired(stack=desired.stack, down=True)
    assert not any(one.what == "config app" for one in differences(going, seen(world, app="2"), NOW))
    strange = replace(world, containers=tuple(replace(one, service="old") for one in world.containers))
    assert not any(one.what == "config app" for one in differences(desired, seen(strange, app="2"), NOW))


def test_a_file_that_is_new_in_the_definition_is_not_swapped_into_an_old_container() -> None:
    """It never had any: another container is made, or with `up --no-recreate` nothing is."""
    world = seen(converge(wish(config()), nothing()), app="1", other="1")
    desired = wanting(wish(config(), config(name="other")), "web", keep_stale=True)
    assert plan(desired, world, NOW).actions == ()


def test_what_is_about_to_be_restarted_begins_with_the_new_files_and_what_is_stopping_too() -> None:
    desired = wish(config())
    world = seen(converge(desired, nothing()), app="2")
    restart = plan(wanting(desired, "web", restart_turn=2), world, NOW)
    assert steps(restart) == ["stop shop-web-1: asked to restart"]
    (web,) = apply_stop(world).containers
    assert not any(isinstance(one, SwapFiles) for one in plan(desired, apply_stop(world), NOW).actions)
    assert web.run is not None
    unstarted = replace(world, containers=(replace(web, run=None),))
    first, *_ = plan(desired, unstarted, NOW).actions
    assert isinstance(first, SwapFiles)


def apply_stop(world: Observation) -> Observation:
    """It was told to stop, and has not ended yet."""
    stop = SignalContainer(id=world.containers[0].id, name="shop-web-1", signal=15, stopping=True)
    return effects.expect(world, stop, NOW)


def test_what_was_found_as_it_should_be_is_looked_at_again_when_a_file_has_changed() -> None:
    """And what was not, each time, until it is."""
    desired = wish(config(on_change=None))
    world = converge(desired, nothing())
    for digest, count in (("1", 0), ("2", 1), ("2", 1), ("3", 1), ("1", 0), ("1", 0), ("2", 1)):
        assert len(plan(desired, seen(world, app=digest), NOW).warnings) == count


def test_inline_content_without_a_digest_is_what_the_last_up_says() -> None:
    """A file of the host that was not looked at is no reason to swap what stands in the stack file."""
    inline = FileMount(kind="config", name="a", target="/a", content="x", on_change="HUP")
    world = converge(wish(inline), nothing())
    assert plan(wish(inline), world, NOW).actions == ()
    empty = replace(inline, content="")
    assert steps(plan(wish(empty), world, NOW)) == ["swap shop-web-1: config a changed"]
