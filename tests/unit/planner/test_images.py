"""Which images are pulled, when, and what waits for them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model import effects
from orchestrator.model.action import PullImage, verb
from orchestrator.model.desired import Desired
from orchestrator.model.images import kept, period
from orchestrator.model.observation import Failure, ImageState, Observation
from orchestrator.planner.plan import plan
from orchestrator.planner.progress import progress
from orchestrator.planner.rehearse import rehearse
from tests.kit.stacks import converge, down, nothing, service, stack, up, wanting

NOW = 100_000.0
DAY = 86400.0


def pulls(desired: Desired, world: Observation, at: float = NOW) -> list[tuple[str, str]]:
    return [
        (action.reference, action.because)
        for action in plan(desired, world, at).actions
        if isinstance(action, PullImage)
    ]


def with_image(checked: float | None, world: Observation | None = None) -> Observation:
    return replace(world or nothing(), images={"web": ImageState(id="sha256:web", checked=checked)})


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [
        ("", None),
        ("missing", None),
        ("never", None),
        ("build", None),
        ("always", 0.0),
        ("refresh", 0.0),
        ("daily", DAY),
        ("weekly", 7 * DAY),
        ("every_12h", DAY / 2),
        ("every_1w2d3h4m5s", 9 * DAY + 3 * 3600 + 245),
    ],
)
def test_how_long_an_image_is_good_by_policy(policy: str, seconds: float | None) -> None:
    assert period(policy) == seconds


@pytest.mark.parametrize("policy", ["", "missing", "always", "refresh", "daily", "every_2h"])
def test_what_is_missing_is_pulled_whatever_else_the_policy_says(policy: str) -> None:
    wish = stack(web=service(image="web", pull_policy=policy, platform="linux/arm64"))
    (action,) = (one for one in plan(up(wish), nothing(), NOW).actions if isinstance(one, PullImage))
    assert (action.reference, action.stack, action.platform) == ("web", "shop", "linux/arm64")
    assert action.because == "missing"


@pytest.mark.parametrize("policy", ["never", "build"])
def test_what_may_not_be_pulled_is_not(policy: str) -> None:
    assert pulls(up(stack(web=service(image="web", pull_policy=policy))), nothing()) == []


@pytest.mark.parametrize(
    ("policy", "checked", "again"),
    [
        ("", NOW - 900 * DAY, False),
        ("missing", None, False),
        ("never", None, False),
        ("always", NOW - 11, True),
        ("always", NOW - 9, False),
        ("always", None, True),
        ("refresh", NOW - 11, True),
        ("daily", NOW - DAY - 11, True),
        ("daily", NOW - DAY - 9, False),
        ("weekly", NOW - 6 * DAY, False),
        ("weekly", NOW - 8 * DAY, True),
        ("every_1h30m", NOW - 5000, False),
        ("every_1h30m", NOW - 6000, True),
    ],
)
def test_what_is_here_is_checked_once_an_up_when_its_time_is_over(
    policy: str, checked: float | None, again: bool
) -> None:
    """`up` was said ten seconds ago; who looked after that has the answer."""
    desired = up(stack(web=service(image="web", pull_policy=policy)), asked=NOW - 10)
    assert bool(pulls(desired, with_image(checked))) == again
    assert not pulls(replace(desired, intents=up(desired.stack).intents), with_image(checked))


def test_an_order_of_an_earlier_boot_is_no_order_for_the_future() -> None:
    desired = up(stack(web=service(image="web", pull_policy="always")), asked=NOW + 5000)
    assert pulls(desired, with_image(None)) == []


def test_services_whose_images_are_here_start_while_others_are_pulled() -> None:
    wish = stack(db=service(image="db"), web=service(image="web"), api=service(image="web"))
    decided = plan(up(wish), converge(up(stack()), nothing("db")), NOW)
    assert pulls(up(wish), nothing("db")) == [("web", "missing")]
    waits = {wait.target: wait.because for wait in decided.waits}
    assert waits["container:shop-web-1"] == waits["container:shop-api-1"] == "waiting for image web"
    under_way = {action.target: action for action in decided.actions if isinstance(action, PullImage)}
    world = converge(up(stack(db=service(image="db"))), nothing("db"))
    later = plan(up(wish), world, NOW, under_way)
    assert pulls(up(wish), world) != []
    assert not any(isinstance(action, PullImage) for action in later.actions)


def test_an_old_container_serves_until_the_new_image_is_here() -> None:
    old = up(stack(web=service(image="old")))
    world = converge(old, nothing("old"))
    new = up(stack(web=service(image="new")), turn=2)
    decided = plan(new, world, NOW)
    assert [action.target for action in decided.actions] == ["image:new"]
    assert not progress(new, replace(world, at=NOW), decided).started.done
    world = replace(effects.expect(world, decided.actions[0], NOW), at=NOW)
    assert plan(new, world, NOW).actions[0].target == "container:shop-web-1"


def test_an_image_that_was_removed_is_pulled_when_a_container_is_to_be_made() -> None:
    desired = up(stack(web=service(image="web")))
    world = replace(converge(desired, nothing("web")), images={})
    assert pulls(desired, world) == []
    assert pulls(desired, replace(world, containers=())) == [("web", "missing")]


def test_a_pull_that_brings_another_image_replaces_the_container_one_that_does_not_leaves_it() -> None:
    desired = up(stack(web=service(image="web", pull_policy="always")), asked=NOW - 1)
    world = converge(desired, with_image(NOW))
    stale = replace(world, at=NOW, images={"web": ImageState(id="sha256:web", checked=NOW - 50)})
    decided = plan(desired, stale, NOW)
    assert [action.target for action in decided.actions] == ["image:web"]
    assert not progress(desired, stale, decided).started.done
    same = effects.expect(stale, decided.actions[0], NOW)
    assert plan(desired, same, NOW).actions == ()
    other = replace(same, images={"web": ImageState(id="sha256:newer", checked=NOW)})
    assert plan(desired, other, NOW).actions != ()


def test_a_pull_that_fails_for_good_is_what_its_services_fail_for() -> None:
    desired = up(stack(web=service(image="web"), db=service()))
    failure = Failure(
        target="image:web",
        verb="pull",
        count=1,
        at=NOW,
        because="manifest for web not found",
        retryable=False,
        exit_code=6,
    )
    world = replace(converge(desired, nothing()), at=NOW, images={}, failures={"image:web": failure})
    world = replace(world, containers=tuple(c for c in world.containers if c.service != "web"))
    decided = plan(desired, world, NOW + 1)
    assert pulls(desired, world, NOW + 1) == []
    found = progress(desired, world, decided).started
    assert (found.done, found.exit_code) == (True, 6)
    assert found.failures == ("container shop-web-1: manifest for web not found",)


def test_no_answer_is_told_at_once_and_tried_again_later() -> None:
    desired = up(stack(web=service(image="web")))
    failure = Failure(
        target="image:web", verb="pull", count=1, at=NOW, because="no answer", lasting=True, exit_code=6
    )
    world = replace(nothing(), at=NOW, failures={"image:web": failure})
    early = plan(desired, world, NOW + 1)
    assert pulls(desired, world, NOW + 1) == []
    assert early.wake_at is not None
    assert progress(desired, replace(world, at=NOW + 1), early).started.exit_code == 6
    assert pulls(desired, world, early.wake_at) == [("web", "missing")]


def test_nothing_is_pulled_for_a_stack_that_goes_down_or_a_service_that_nobody_wants() -> None:
    wish = stack(web=service(image="web"), idle=service(image="idle"))
    assert pulls(down(wish), nothing()) == []
    assert pulls(up(wish, "web"), nothing()) == [("web", "missing")]
    assert pulls(up(stack(web=service(image="web", replicas=0))), nothing()) == []


def test_a_rehearsal_shows_the_pull_and_what_comes_after_it() -> None:
    lines = [
        f"{line.target} {line.verb}" for line in rehearse(up(stack(web=service(image="web"))), nothing(), NOW)
    ]
    assert lines == [
        "network:shop_default create",
        "image:web pull",
        "container:shop-web-1 create",
        "container:shop-web-1 start",
    ]


def test_of_an_environment_only_what_pulling_needs_is_taken() -> None:
    assert kept({"HOME": "/h", "DOCKER_CONFIG": "/d", "https_proxy": "p", "SECRET": "x"}) == {
        "HOME": "/h",
        "DOCKER_CONFIG": "/d",
        "https_proxy": "p",
    }


def test_what_serves_is_not_given_up_for_an_image_that_is_not_here_and_may_not_be_pulled() -> None:
    """Otherwise a changed file with a wrong image would leave nothing that runs."""
    before = stack(web=service(image="web"))
    after = stack(web=service(image="other", pull_policy="never"))
    world = converge(up(before), with_image(None))
    for desired in (up(after), wanting(up(after), "web", generation=1)):
        decided = plan(desired, world, NOW)
        assert decided.actions == ()
        (wait,) = decided.waits
        assert wait.because == "image not here: other, and pull_policy is never: it stays as it was"
        assert (wait.target, wait.failed, wait.exit_code) == ("container:shop-web-1", True, 6)
        assert "pystack pull" in wait.hint
    here = replace(world, images={**world.images, "other": ImageState(id="sha256:other")})
    assert [verb(one) for one in plan(up(after), here, NOW).actions] == ["stop"]
