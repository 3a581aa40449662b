"""pystack: a Compose Specification orchestrator for one Linux machine.

Rooms, top to bottom (a room imports only what stands below it; `lint-imports` checks it):

    cli         commands and rendering; imports lazily
    daemon      the supervisor: the one place where everything is wired
    api         the control socket: protocol, server, client
    reconciler  the loop: observe, plan, apply
    engines     places where containers can live; `local` is this machine
    planner     (Desired, Observation, now) -> Plan; pure
    stackfile   text -> Stack; pure
    images      content store, archives, layers
    oci         `pystack-oci`: the runtime as an OCI command line, for other engines
    kernel      Linux as plain synchronous functions; keeper and launcher
    model       the nouns: frozen values

This file stays empty of imports: the start-up time of every command depends on it.
"""

__version__ = "0.1.0"
