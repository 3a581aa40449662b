"""What is read of the sockets in a network namespace: here in that of the test itself."""

from __future__ import annotations

import os
import socket

from orchestrator.engines.local.publishing import _LISTEN, _sockets


def test_those_that_listen_are_found_without_looking_at_the_others() -> None:
    """IPv4 and IPv6 have a list each, and in both of them there are connections."""
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        ports = {f"{server.getsockname()[1]:04X}" for server in (four, six)}
        ends = [
            end
            for server in (four, six)
            for end in (socket.create_connection(server.getsockname()[:2]), server.accept()[0])
        ]
        all_of_them, listening = list(_sockets(os.getpid())), list(_sockets(os.getpid(), listening=True))
        for end in ends:
            end.close()
    assert {state for _, _, state in listening} == {_LISTEN}
    assert len(all_of_them) >= len(listening) + len(ends)
    assert ports <= {port for _, port, _ in listening}
