"""The nouns, as frozen values, and what can be said of them without touching the world.

    stack        what a stack file asks for: Stack, Service, Network, Volume and their parts
    sections     the larger sections of a service that this machine's engine does not (yet) act on
    desired      what the user wants of a stack right now: the Stack and an Intent for each service
    observation  what an engine reported: Container, Run, Health, NetworkState, VolumeState
    action       one repeatable step on one target, with its reason
    plan         the actions possible now, what the rest waits for, when to look again
    effects      what an action is expected to change (rehearsal, simulation, contract tests)
    world        an observation that changes in place, for those who play many actions
    graph        who needs whom; cycles; order
    fingerprint  digest of exactly those fields whose change requires a new container
    health       how one probe result changes a health state
    names        names of containers, networks, volumes; checks of user-chosen names
    codec        values <-> JSON, by type
    compact      JSON, quickly
    errors       the three families of errors and their exit codes

Does not belong here: reading anything, the clock, randomness, decisions (planner), YAML (stackfile).
"""
