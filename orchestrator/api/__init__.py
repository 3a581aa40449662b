"""The control socket: protocol, server, client.

    paths   where a state root keeps its sockets and its data
    wire    messages <-> bytes: one JSON object a line, file descriptors beside the first byte
    client  the blocking client of the commands; starts a supervisor when none is there
    server  the supervisor's side: who asks, and the last word; session is one of them
    stacks  the stacks under supervision; orders is what each command makes of what is wanted

    converging telling   up down start stop restart rm kill: wait for a verdict, tell what happens
    processes follow     exec, run; logs as they grow
    rehearsing           plan drift: they are given eyes and no hands
    asking show volumes  ps ls stack logs events; their rows; volumes of the machine

paths, wire and client use the standard library alone, and little of it: the start-up time of every
command depends on them. Does not belong here: what a verb means (reconciler, engines), how an answer is
shown (cli).
"""
