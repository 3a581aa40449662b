"""Probes of our own against servers that answer well, badly, slowly or not at all."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio

from orchestrator.engines.local.asking import HEAD_LIMIT, TIMED_OUT, answer
from orchestrator.model.observation import ProbeResult
from orchestrator.model.sections import HttpProbe, TcpProbe
from orchestrator.model.stack import Healthcheck

Serve = Callable[[trio.SocketStream], Awaitable[None]]


class Server:
    """Answers every connection with `says`, after having heard a request."""

    def __init__(self) -> None:
        self.says: list[bytes] = []
        self.heard = b""
        self.endless = False
        self.port = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            with trio.move_on_after(1.0):
                self.heard = await stream.receive_some(4096)
            try:
                for piece in self.says:
                    await stream.send_all(piece)
                    await trio.sleep(0.005)
                while self.endless:
                    await stream.send_all(b"x" * 4096)
            except trio.BrokenResourceError:
                pass


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        found.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, found.serve, [listener])
        yield found
        nursery.cancel_scope.cancel()


async def asked(probe: HttpProbe | TcpProbe, timeout: float = 2.0) -> ProbeResult:
    def connection() -> trio.socket.SocketType:
        return trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    return await answer(connection, Healthcheck(probe=probe, timeout=timeout))


async def test_a_status_in_the_range_is_success_and_its_line_is_kept(server: Server) -> None:
    server.says = [b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n"]
    result = await asked(HttpProbe(port=server.port, path="/health?a=b", host="shop"))
    assert (result.exit_code, result.output) == (0, "HTTP/1.1 204 No Content")
    request = server.heard.decode().split("\r\n")
    assert request[:2] == ["GET /health?a=b HTTP/1.1", f"Host: shop:{server.port}"]
    assert "Connection: close" in request


@pytest.mark.parametrize(
    ("said", "lowest", "highest", "code"),
    [
        (b"HTTP/1.0 200 OK\r\n", 200, 399, 0),
        (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n", 200, 399, 0),
        (b"HTTP/1.1 302 Found\r\n\r\n", 200, 299, 1),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", 200, 399, 1),
        (b"HTTP/1.1 503\r\n\r\n", 503, 503, 0),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 200, 399, 0),
        (b"HTTP/1.1 100 Continue\r\n\r\n", 200, 399, 1),
        (b"HTTP/1.1 2000 OK\r\n\r\n", 200, 399, 1),
        (b"HTTP/1.1 -20 OK\r\n\r\n", 200, 399, 1),
        (b"SSH-2.0-OpenSSH\r\n", 200, 399, 1),
        (b"\x1b[2J\r\n", 200, 399, 1),
        (b"", 200, 399, 1),
    ],
)
async def test_what_counts_as_success(
    server: Server, said: bytes, lowest: int, highest: int, code: int
) -> None:
    server.says = [said[:9], said[9:]]
    result = await asked(HttpProbe(port=server.port, lowest=lowest, highest=highest))
    assert result.exit_code == code
    assert result.output.isprintable()


async def test_an_answer_without_an_end_is_not_read_for_ever(server: Server) -> None:
    server.endless = True
    result = await asked(HttpProbe(port=server.port), timeout=10.0)
    assert result.exit_code == 1
    assert result.ended - result.started < 5.0
    assert len(result.output) < HEAD_LIMIT


async def test_interim_answers_without_an_end_are_not_read_for_ever(server: Server) -> None:
    """Each is whole by itself, so it is all of them together that has a limit."""
    server.says = [b"HTTP/1.1 100 Continue\r\n\r\n" * 2000] * 5
    result = await asked(HttpProbe(port=server.port), timeout=10.0)
    assert (result.exit_code, result.ended - result.started < 5.0) == (1, True)


async def test_who_does_not_answer_in_time_has_failed(server: Server) -> None:
    server.says = [b"HTTP/1.1"]

    async def silent(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    server.serve = silent  # type: ignore[method-assign]
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, silent, [listener])
        result = await asked(HttpProbe(port=listener.socket.getsockname()[1]), timeout=0.1)
        nursery.cancel_scope.cancel()
    assert (result.exit_code, result.output) == (TIMED_OUT, "Health check exceeded timeout (0.1s)")


async def test_a_connection_is_success_and_a_refused_one_is_not(server: Server) -> None:
    assert (await asked(TcpProbe(port=server.port))).exit_code == 0
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        result = await asked(TcpProbe(port=nobody.getsockname()[1]))
    assert (result.exit_code, result.output) == (1, "Connection refused")


async def test_plain_text_where_tls_was_meant_is_a_failure_that_says_so(server: Server) -> None:
    server.says = [b"HTTP/1.1 400 Bad Request\r\n\r\n"]
    result = await asked(HttpProbe(port=server.port, scheme="https"))
    assert result.exit_code == 1
    assert "SSL" in result.output or "WRONG_VERSION" in result.output
