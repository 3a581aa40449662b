"""What a container costs does not depend on how many there are. Calls are counted, as time would depend on
what else the machine does; `benchmarks/scale.py` measures time."""

from __future__ import annotations

import sys
from collections.abc import Callable

from orchestrator.planner.plan import plan
from tests.kit.wide import converge, settled


def calls(work: Callable[[], object]) -> int:
    """How many functions, ours, the library's and the interpreter's, are called in `work`."""
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_four_times_as_many_containers_converge_with_four_times_the_work() -> None:
    converge(100)  # what is done once in a process has been done
    few, many = calls(lambda: converge(100)) / 100, calls(lambda: converge(400)) / 400
    assert many < few * 1.15


def test_a_pass_that_finds_nothing_to_do_calls_but_few_functions_for_a_container() -> None:
    stage = converge(400)
    world = settled(stage)
    plan(stage.desired, world, world.at)
    assert calls(lambda: plan(stage.desired, world, world.at)) < 30 * 400
