"""Who needs whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model import graph
from orchestrator.model.errors import ExitCode, Place, UserError
from orchestrator.model.stack import Dependency, OfService
from tests.kit.stacks import service, stack


def test_services_come_after_all_they_depend_on() -> None:
    wish = stack(web=service(after=("api", "cache")), api=service(after="db"), db=service(), cache=service())
    assert graph.order(wish) == ("cache", "db", "api", "web")


def test_order_does_not_depend_on_the_order_in_the_file() -> None:
    one = stack(a=service(), b=service(), c=service(after="b"))
    other = stack(c=service(after="b"), b=service(), a=service())
    assert graph.order(one) == graph.order(other)


def test_a_cycle_is_refused_with_its_path_and_place() -> None:
    place = Place(file="stack.yml", line=7, column=5)
    db = replace(service(), depends_on=(Dependency(service="web", place=place),))
    wish = stack(web=service(after="api"), api=service(after="db"), db=db, other=service(after="web"))
    api_to_db = replace(wish.services["api"], depends_on=(Dependency(service="db", place=place),))
    wish = replace(wish, services={**wish.services, "api": api_to_db})
    with pytest.raises(UserError, match="api -> db -> web -> api") as caught:
        graph.order(wish)
    assert str(caught.value).startswith("stack.yml:7:5: ")
    assert caught.value.exit_code is ExitCode.INVALID_STACK


def test_a_service_that_depends_on_itself_is_a_cycle() -> None:
    with pytest.raises(UserError, match="web -> web"):
        graph.order(stack(web=service(after="web")))


def test_optional_dependencies_count_in_cycles() -> None:
    with pytest.raises(UserError, match="a -> b -> a"):
        graph.order(stack(a=service(after={"b": "started?"}), b=service(after="a")))


def test_the_shortest_cycle_is_found_in_a_dense_graph_at_once() -> None:
    """Listing all cycles of 40 services that all depend on each other would not end."""
    names = [f"s{number:02}" for number in range(40)]
    wish = stack(**{name: service(after=tuple(n for n in names if n != name)) for name in names})
    with pytest.raises(UserError, match="s00 -> s01 -> s00"):
        graph.order(wish)


@pytest.mark.parametrize("key", ["network_mode", "pid", "ipc", "uts"])
def test_a_shared_namespace_is_a_dependency_that_restarts(key: str) -> None:
    beside = replace(service(networks=()), **{key: OfService(service="db")})
    assert graph.needs(beside) == (Dependency(service="db", restart=True),)


def test_a_written_dependency_keeps_its_condition_when_a_namespace_is_shared_too() -> None:
    beside = service(after={"db": "healthy?"}, network_mode=OfService(service="db"))
    (found,) = graph.needs(beside)
    assert (found.condition, found.required, found.restart) == ("service_healthy", True, True)


def test_a_dependency_on_an_inactive_service_does_not_count() -> None:
    assert graph.order(stack(web=service(after={"debug": "started?"}))) == ("web",)


def test_edges_of_the_drawing_run_to_the_dependency() -> None:
    drawn = graph.draw(stack(web=service(after="db"), db=service()))
    assert list(drawn.edges) == [("web", "db")]
