"""Servers of the kit's own on loopback, in threads, and the certificates they show."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

NAMES = ("localhost", "127.0.0.1", "::1")
"""What certificates are made out to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A CA of our own, with a server's and a client's certificate; all as PEM files."""

    ca: Path
    certificate: Path
    key: Path
    client_certificate: Path
    client_key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def made(folder: Path) -> Authority:
    """A new CA and its certificates, below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    server, client = authority.issue_cert(*NAMES), authority.issue_cert("client@localhost")
    found = Authority(
        ca=folder / "ca.crt",
        certificate=folder / "server.crt",
        key=folder / "server.key",
        client_certificate=folder / "client.cert",
        client_key=folder / "client.key",
    )
    authority.cert_pem.write_to_path(found.ca)
    for pair, certificate, key in (
        (server, found.certificate, found.key),
        (client, found.client_certificate, found.client_key),
    ):
        for number, part in enumerate(pair.cert_chain_pems):
            part.write_to_path(certificate, append=number > 0)
        pair.private_key_pem.write_to_path(key)
        key.chmod(0o600)
    return found


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    owner: object = None

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is what the tests are about."""


@contextlib.contextmanager
def serving(
    handler: type[BaseHTTPRequestHandler],
    *,
    owner: object = None,
    authority: Authority | None = None,
    address: str = "127.0.0.1",
) -> Iterator[Server]:
    """A server in threads of this process, at a port of the kernel's choice."""
    server = Server((address, 0), handler)
    server.owner = owner
    if authority:
        # The handshake is for the connection's own thread, else one slow client stops all.
        server.socket = authority.server_context().wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
