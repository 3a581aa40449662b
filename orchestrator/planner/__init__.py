"""The judgement: plan(desired, observation, now) -> Plan. Pure.

    plan       the front door: one pass, in order
    layout     what follows from the stack alone, kept between passes: order, fingerprints, names
    survey     what is there: containers by service, seats taken and free
    draft      the plan in the making; back-off after failed actions
    changes    why a container is out of date (ordered rules)
    seating    who keeps a seat of a service, and which seats are free
    fates      what is to become of each container: keep, stop, cycle, replace, remove
    updates    which containers make room now, when a service is updated step by step
    rollouts   how far such an update has come, what is a failure, and what then becomes of it
    rotation   who gets the connections to a host port that containers share; who leaves it first
    stopping   signals, in reverse order of dependency, and their grace
    restarts   what follows the end of a run (ordered rules)
    gates      what a start waits for (ordered rules)
    creating   new occupants for free seats
    starting   who may start now
    probing    which health checks are due
    networks   subnets and addresses
    ports      host ports
    volumes    named and anonymous volumes
    leaving    what `down` takes away, and when it is finished
    progress   how far a stack has come, for the commands that wait
    rehearse   the same planner run against the effect model, in advance; steps keeps it and compares
    drift      what is wanted against what is there, as the planner sees it

A pass works on one Survey (read) and one Draft (written). Only the frontier is planned: what can be done
now. Everything else waits, with its reason.

Does not belong here: clocks, randomness, any input but the arguments.
"""
