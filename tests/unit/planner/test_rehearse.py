"""The planner run in advance. Whole transcripts are in tests/golden/planner."""

from __future__ import annotations

from orchestrator.planner.rehearse import Line, rehearse
from tests.kit.stacks import check, converge, nothing, service, stack, up


def test_a_line_reads_as_time_target_verb_reason() -> None:
    line = Line(at=1.437, target="container:shop-web-1", verb="start", because="db is healthy")
    assert str(line) == "    1.44  container:shop-web-1         start    db is healthy"


def test_nothing_to_do_is_no_line() -> None:
    desired = up(stack(web=service(healthcheck=check())))
    assert rehearse(desired, converge(desired, nothing()), 500.0) == ()


def test_it_ends_where_somebody_waits_for_ever() -> None:
    wish = stack(
        db=service(healthcheck=check()), web=service(after={"db": "completed"}), x=service(after="web")
    )
    desired = up(wish)
    world = converge(desired, nothing())
    lines = rehearse(desired, world, 500.0)
    assert [line.verb for line in lines if line.verb != "probe"] == ["start", "start"]


def test_it_ends_with_the_time_it_was_given() -> None:
    wish = stack(db=service(healthcheck=check(interval=100.0)), web=service(after={"db": "healthy"}))
    assert rehearse(up(wish), nothing(), 500.0, until=50.0)[-1].target == "container:shop-db-1"
    assert rehearse(up(wish), nothing(), 500.0)[-1].target == "container:shop-web-1"


def test_a_line_that_is_waited_for_comes_half_a_second_after_the_start() -> None:
    wish = stack(db=service(log_ready="ready"), web=service(after={"db": "logged"}))
    lines = [str(line).split(None, 3) for line in rehearse(up(wish), nothing(), 500.0)]
    started = {words[1]: (float(words[0]), words[3]) for words in lines if words[2] == "start"}
    db, web = started["container:shop-db-1"], started["container:shop-web-1"]
    assert web[1] == "db has logged that it is ready"
    assert 0.5 <= web[0] - db[0] <= 1.0
