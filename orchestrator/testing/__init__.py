"""Tests of stack files, for pytest: bring a copy of a stack up, look, break something, see it heal.

    plugin     the fixtures `stack` and `simulated_stack`, and what cleans up
    copies     a resolved stack -> one that can live beside others like it: names, subnets, ports; pure
    live       a copy that runs, driven through the command line
    simulated  a stack file under a virtual clock, with the laws watched

pytest finds the plugin by itself where pystack is installed. Does not belong here: anything that our own
suite needs and users don't (tests/kit).
"""

from orchestrator.testing.live import CommandFailedError, LiveStack
from orchestrator.testing.simulated import SimulatedStack

__all__ = ["CommandFailedError", "LiveStack", "SimulatedStack"]
