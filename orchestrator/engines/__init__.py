"""Places where containers can live, behind one port.

    base       the port: observe, apply, changed; and the second, optional one: streams
    simulated  an engine in memory, with delays and faults, that does what model.effects expects
    guarding   what that one lets nobody ask for
    local/     this machine

An engine performs; it never decides. Engines don't know each other, and the reconciler knows them by
`base` only. The contract suite (tests/contract) runs the same sentences against each.
"""
