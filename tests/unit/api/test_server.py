"""The control socket's server: who is answered what, whatever goes wrong."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from orchestrator.api import wire
from orchestrator.api.server import Server, listen
from orchestrator.api.session import Gone, Session
from orchestrator.api.stacks import Stacks
from orchestrator.model.errors import ExitCode, UserError

Ask = Callable[[bytes], Awaitable[dict[str, Any]]]


async def works(session: Session, _: Stacks, request: dict[str, Any]) -> None:
    await session.end(request["what"])


async def refuses(_: Session, __: Stacks, ___: dict[str, Any]) -> None:
    raise UserError("no", exit_code=ExitCode.CONFLICT, hint="never")


async def breaks(_: Session, __: Stacks, ___: dict[str, Any]) -> None:
    raise ZeroDivisionError("a bug")


async def breaks_inside(_: Session, __: Stacks, ___: dict[str, Any]) -> None:
    async def gone() -> None:
        raise Gone

    async with trio.open_nursery() as nursery:
        nursery.start_soon(gone)
        nursery.start_soon(refuses, _, __, ___)


async def watches(session: Session, _: Stacks, __: dict[str, Any]) -> None:
    session.watch()
    await session.send({"event": "watching"})
    await trio.sleep_forever()


VERBS = {
    "works": works,
    "refuses": refuses,
    "breaks": breaks,
    "breaks_inside": breaks_inside,
    "watches": watches,
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[Server, Path]]:
    made = Server(cast(Stacks, None), VERBS)
    path = tmp_path / "sock"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.serve, listen(str(path)))
        yield made, path
        nursery.cancel_scope.cancel()


async def ask(path: Path, message: bytes) -> dict[str, Any]:
    """The end of the answer; {} when there was none."""

    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(path))
            sock.sendall(message)
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while part := sock.recv(65536):
                answer += part
            return answer

    answer = await trio.to_thread.run_sync(talk)
    return wire.decode(answer.splitlines()[-1])["end"] if answer else {}


async def test_a_request_is_answered_with_its_result(server: tuple[Server, Path]) -> None:
    assert await ask(server[1], b'{"verb": "works", "what": [1]}\n') == {
        "exit_code": 0,
        "error": None,
        "result": [1],
    }


async def test_what_is_refused_has_its_code_and_hint(server: tuple[Server, Path]) -> None:
    end = await ask(server[1], b'{"verb": "refuses"}\n')
    assert (end["exit_code"], end["error"]) == (7, {"message": "no", "hint": "never"})


async def test_an_unknown_request_is_named(server: tuple[Server, Path]) -> None:
    end = await ask(server[1], b'{"verb": "sing"}\n')
    assert "sing" in end["error"]["message"]


async def test_a_bug_is_told_and_logged_and_the_next_request_is_served(
    server: tuple[Server, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    end = await ask(server[1], b'{"verb": "breaks"}\n')
    assert end["exit_code"] == 1
    assert "ZeroDivisionError: a bug" in end["error"]["message"]
    assert "Traceback" in capsys.readouterr().err
    missing = await ask(server[1], b'{"verb": "works"}\n')
    assert "what" in missing["error"]["message"]
    assert (await ask(server[1], b'{"verb": "works", "what": 1}\n'))["result"] == 1


async def test_of_several_reasons_the_one_that_matters_is_told(server: tuple[Server, Path]) -> None:
    assert (await ask(server[1], b'{"verb": "breaks_inside"}\n'))["error"]["message"] == "no"


@pytest.mark.parametrize("message", [b"", b"\n", b"[]\n", b"\xff\n", b'{"verb"'])
async def test_who_says_nothing_sensible_is_not_answered(server: tuple[Server, Path], message: bytes) -> None:
    assert await ask(server[1], message) == {}
    assert (await ask(server[1], b'{"verb": "works", "what": 1}\n'))["result"] == 1


async def test_who_only_watches_keeps_nobody_and_is_told_the_end(server: tuple[Server, Path]) -> None:
    made, path = server
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
        client.sendall(b'{"verb": "watches"}\n')
        assert await trio.to_thread.run_sync(client.recv, 100) == b'{"event":"watching"}\n'
        assert not made.busy()
        await made.close()
        assert b'"exit_code":0' in await trio.to_thread.run_sync(client.recv, 100)
    with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as late:
        late.connect(str(path))


async def test_who_is_being_served_keeps_the_supervisor(server: tuple[Server, Path]) -> None:
    made, path = server
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        with trio.fail_after(5):
            while not made.busy():
                await trio.sleep(0.001)
        changed = made.changed
    with trio.fail_after(5):
        await changed.wait()
    assert not made.busy()


async def test_the_socket_is_for_its_owner_alone_and_replaces_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    for _ in range(2):
        listener = listen(str(path))
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert [entry.name for entry in tmp_path.iterdir()] == ["sock"]
        listener.close()
