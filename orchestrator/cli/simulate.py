"""`simulate`: a stack's life under a virtual clock, with the laws watched. Rendering is pure."""

from __future__ import annotations

import os
import time

from orchestrator.cli import failure, say
from orchestrator.cli.scope import Scope
from orchestrator.model.errors import ExitCode, UserError
from orchestrator.simulation.play import Played, play
from orchestrator.simulation.scenario import DAY, Scenario
from orchestrator.simulation.script import LONGEST, understand
from orchestrator.simulation.shrink import shrink
from orchestrator.stackfile.read import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.model.stack import Stack
    from orchestrator.reconciler.history import Event

SHRINKING = 30.0
"""Seconds that the search for a shorter history may take."""
SHOWN = 40
"""Of the history that broke a law, as many of the latest happenings."""


def simulate(
    scope: Scope,
    *,
    seed: int | None,
    runs: int | None,
    days: float | None,
    faults: str | None,
    quiet: bool,
    format: str | None,  # noqa: A002 - the option's name
) -> int:
    """Play the stack's life on a machine in memory. 1: a law was broken, or the stack did not converge."""
    if days is not None and not 0 < days * DAY <= LONGEST:
        raise UserError(f"--days {days:g}: more than 0 and at most 366", exit_code=ExitCode.USAGE)
    if runs is not None and not 0 < runs <= 1_000_000:
        raise UserError(f"--runs {runs}: from 1 to 1000000", exit_code=ExitCode.USAGE)
    stack = scope.load().stack
    scenario = _scenario(scope, stack, faults, None if days is None else days * DAY)
    first = 1 if seed is None else seed
    for number in range(first, first + (runs or 1)):
        shown = format != "json" and not quiet and not runs
        played = play(stack, scenario, number, tell=_tell if shown else lambda _: None)
        if format == "json":
            _dump(played)
        elif not played.broken:
            say.out(verdict(played))
        if played.broken:
            return _explain(stack, played, as_json=format == "json")
    return 0


def _scenario(scope: Scope, stack: Stack, path: str | None, lasts: float | None) -> Scenario:
    if path is None:
        return Scenario(lasts=lasts if lasts is not None else DAY)
    from orchestrator.cli.loading import UserFiles

    try:
        text = UserFiles().read(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}", exit_code=ExitCode.FILE_NOT_FOUND) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text", exit_code=ExitCode.INVALID_STACK) from None

    def load(other: str) -> Stack:
        """Another file of the same stack, in the scenario's directory."""
        beside = os.path.join(os.path.dirname(path), other)
        return scope.beside(beside, name=stack.name).load().stack

    return understand(Source(path=path, text=text), stack, lasts=lasts, load=load)


def _tell(event: Event) -> None:
    if event.outcome != "begun":
        say.out(line(event))


def line(event: Event) -> str:
    """One line of the timeline. Pure."""
    days, rest = divmod(max(event.at, 0.0), DAY)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    when = f"{int(days)}d {int(hours):02}:{int(minutes):02}:{seconds:05.2f}"
    said = f"{event.outcome}: " if event.outcome == "failed" else ""
    text = f"{when}  {say.printable(event.target):<28} {event.verb:<9} {said}{say.printable(event.because)}"
    return text.rstrip() + "\n"


def verdict(played: Played) -> str:
    """How a play that kept the laws ended. Pure."""
    runs = [container for container in played.containers if container.run and not container.run.finished]
    text = (
        f"seed {played.seed}: all laws held over {span(played.ended)}, {played.actions} actions; "
        f"{len(runs)} of {len(played.containers)} containers run; "
        f"converged {played.converged or 0.0:g} s after the last trouble\n"
    )
    if played.unquiet:
        text += f"  not asked to be at rest, by the scenario: {', '.join(played.unquiet)}\n"
    return text


def span(seconds: float) -> str:
    """Seconds as days, or as hours or minutes when it is less. Pure."""
    if seconds < 3600:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / DAY:.3g} d" if seconds >= DAY else f"{seconds / 3600:.3g} h"


def _explain(stack: Stack, played: Played, *, as_json: bool) -> int:
    """A law was broken: which, by which seed, and the shortest way there."""
    end = time.monotonic() + SHRINKING
    shortest = shrink(stack, played, go_on=lambda: time.monotonic() < end)
    if as_json:
        _dump(shortest, shortest=True)
        return 1
    say.out(breach(played, shortest))
    failure.report(UserError(f"seed {played.seed}: {played.broken}"))
    return 1


def breach(played: Played, shortest: Played) -> str:
    """The seed, and the shortest history that breaks the same law. Pure."""
    rows = [event for event in shortest.happenings if event.outcome != "begun"]
    events = [f"  at {event.at:g} s: {event}\n" for event in shortest.scenario.events]
    left_out = len(rows) - SHOWN
    return "".join(
        (
            f"\nA law was broken with seed {played.seed} at {played.ended:.2f} s: ",
            f"{say.printable(played.broken)}\n",
            f"The shortest history found that breaks it ({shortest.ended:.2f} s, {len(events)} events):\n",
            *events,
            f"  faults: {shortest.scenario.faults}\n",
            *((f"  ... {left_out} lines before\n",) if left_out > 0 else ()),
            *(f"  {line(event)}" for event in rows[-SHOWN:]),
        )
    )


def _dump(played: Played, *, shortest: bool = False) -> None:
    from orchestrator.api.wire import dumps
    from orchestrator.model import codec

    told: dict[str, Any] = {
        "seed": played.seed,
        "shortest": shortest,
        "broken": played.broken or None,
        "ended": played.ended,
        "converged": played.converged,
        "unquiet": list(played.unquiet),
        "actions": played.actions,
        "events": [str(event) for event in played.scenario.events],
        "happenings": [codec.encode(event) for event in played.happenings if event.outcome != "begun"],
        "containers": [
            {"name": one.name, "service": one.service, "state": one.state.value} for one in played.containers
        ],
    }
    say.out(dumps(told) + "\n")
