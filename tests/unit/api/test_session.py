"""One client's request on the server's side, over real sockets."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import AsyncIterator

import pytest
import trio

from orchestrator.api import session as module
from orchestrator.api import wire
from orchestrator.api.session import Gone, Session


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Session, socket.socket]]:
    """A session and its client's end."""
    ours, theirs = socket.socketpair()
    made = Session(trio.socket.from_stdlib_socket(ours))
    theirs.settimeout(5)
    yield made, theirs
    made.close()
    theirs.close()


async def send_without_end(session: Session) -> None:
    while True:
        await session.send({"event": "x" * 100_000})


async def test_messages_come_one_by_one_however_they_were_cut(pair: tuple[Session, socket.socket]) -> None:
    session, client = pair
    data = b'{"a": 1}\n{"b": 2}\n{"c"'
    for byte in (data[:3], data[3:12], data[12:]):
        client.sendall(byte)
    assert [await session.receive() for _ in range(2)] == [{"a": 1}, {"b": 2}]
    client.sendall(b": 3}\n")
    assert await session.receive() == {"c": 3}


async def test_descriptors_come_along_and_are_closed_with_the_session(
    pair: tuple[Session, socket.socket],
) -> None:
    session, client = pair
    reading, writing = os.pipe()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing]))]
    client.sendmsg([b'{"verb": "exec"}\n'], rights)
    os.close(writing)
    await session.receive()
    assert len(session.fds) == 1
    [own] = session.take_fds()
    assert not os.get_inheritable(own)
    os.write(own, b"x")
    assert os.read(reading, 1) == b"x"
    session.fds = [own]
    session.close()
    assert os.read(reading, 1) == b""
    os.close(reading)


async def test_a_client_that_goes_is_gone_for_both_directions(pair: tuple[Session, socket.socket]) -> None:
    session, client = pair
    client.close()
    with pytest.raises(Gone):
        await session.receive()
    with pytest.raises(Gone):
        await send_without_end(session)


async def test_garbage_is_no_message(pair: tuple[Session, socket.socket]) -> None:
    session, client = pair
    client.sendall(b"garbage\n")
    with pytest.raises(wire.WireError):
        await session.receive()


async def test_a_client_that_reads_nothing_is_cut_off(
    pair: tuple[Session, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEND_SECONDS", 0.05)
    session, _ = pair
    with trio.fail_after(5), pytest.raises(Gone):
        await send_without_end(session)


async def test_the_end_carries_the_code_the_error_and_the_result(pair: tuple[Session, socket.socket]) -> None:
    session, client = pair
    await session.end([1], exit_code=3, error="no", hint="try")
    assert wire.decode(client.recv(4096)) == {
        "end": {"exit_code": 3, "error": {"message": "no", "hint": "try"}, "result": [1]}
    }
    await session.end()
    assert wire.decode(client.recv(4096)) == {"end": {"exit_code": 0, "error": None, "result": None}}


async def test_who_only_watches_says_so() -> None:
    ours, theirs = socket.socketpair()
    changes = 0

    def changed() -> None:
        nonlocal changes
        changes += 1

    session = Session(trio.socket.from_stdlib_socket(ours), changed)
    assert not session.watches
    session.watch()
    assert (session.watches, changes) == (True, 1)
    session.close()
    theirs.close()


async def test_lines_of_several_tasks_are_never_mixed(pair: tuple[Session, socket.socket]) -> None:
    session, client = pair
    texts = [letter * 60_000 for letter in "abcdef"]
    received = b""

    async def read() -> None:
        nonlocal received
        while received.count(b"\n") < len(texts):
            received += await trio.to_thread.run_sync(client.recv, 65536)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for text in texts:
                nursery.start_soon(session.send, {"text": text})
    assert sorted(wire.decode(line)["text"] for line in received.splitlines()) == texts
