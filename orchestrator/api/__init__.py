"""The control socket: protocol, server, client.

    paths   where a state root keeps its sockets and its data
    wire    messages <-> bytes: one JSON object a line, file descriptors beside the first byte
    client  the blocking client of the commands; starts a supervisor when none is there
    server  the supervisor's side

paths, wire and client use the standard library alone, and little of it: the start-up time of every
command depends on them. Does not belong here: what a verb means (reconciler, engines), how an answer is
shown (cli).
"""
