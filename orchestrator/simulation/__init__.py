"""A stack's life without a machine: the real loop and planner on the simulated engine, under a virtual clock.

    scenario  what happens to the stack, as a value: how its programs behave, what fails, what somebody does
    script    a scenario file -> scenario; errors point at file:line:column
    laws      what must hold whatever happens: safety while it goes on, convergence once nothing breaks
    play      plays a scenario; the same seed is the same history
    shrink    the shortest scenario that breaks the same law

Does not belong here: what the planner decides, how the engine behaves (engines/simulated), printing (cli).
"""
