"""Health checks that need no program in the container: `x-http` and `x-tcp` of a healthcheck.

Docker Compose ignores both, so a file can say a `test` for it beside them; here they win over the test.
"""

from __future__ import annotations

from orchestrator.stackfile.reader import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.model.sections import HttpProbe, TcpProbe

MOST_TEXT = 2048


def probe(check: Reader) -> HttpProbe | TcpProbe | None:
    """What is asked; None when there is only a command, or nothing."""
    if not (check.has("x-http") or check.has("x-tcp")):
        return None
    from orchestrator.model.sections import HttpProbe, TcpProbe

    if check.has("x-http") and check.has("x-tcp"):
        check.wrong("x-http and x-tcp exclude each other", key="x-tcp")
    if check.has("x-tcp"):
        return TcpProbe(port=_port(check.part("x-tcp")))
    said = check.part("x-http")
    lowest, highest = _statuses(said)
    return HttpProbe(
        port=_port(said),
        path=_path(said),
        scheme="https" if said.text("scheme") == "https" else "http",
        host=_host(said),
        lowest=lowest,
        highest=highest,
    )


def _port(said: Reader) -> int:
    port = said.whole("port") or 0
    if not 0 < port < 65536:
        said.refuse(f"{port} is not a port", key="port", hint="1 to 65535")
    return port


def _path(said: Reader) -> str:
    """Into the request goes what is printable ASCII alone: no line of its own can come of it."""
    path = said.text("path") or "/"
    if not path.startswith("/") or not _plain(path) or len(path) > MOST_TEXT:
        said.refuse(f"{path!r:.60} is not the path of a request", key="path", hint="as /health or /a?b=c")
    return path


def _host(said: Reader) -> str:
    host = said.text("host") or "localhost"
    if not _plain(host) or len(host) > MOST_TEXT:
        said.refuse(f"{host!r:.60} is not the name of a host", key="host")
    return host


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _statuses(said: Reader) -> tuple[int, int]:
    text = said.text("status")
    if text is None:
        return 200, 399
    first, _, last = text.partition("-")
    lowest, highest = int(first), int(last or first)
    if not 100 <= lowest <= highest < 600:
        said.refuse(f"{text} is no status, or range of such", key="status", hint="as 204 or 200-399")
    return lowest, highest
