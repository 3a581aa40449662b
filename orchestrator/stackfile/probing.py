"""How a service tells that it is ready, beyond what Docker Compose knows.

`x-http` and `x-tcp` of a healthcheck need no program in the container. Docker Compose ignores both, so a file
can say a `test` for it beside them; here they win over the test. `x-log-ready` is a regular expression for a
line of output, for those that wait by `service_log_ready`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping

from orchestrator.model.stack import Service
from orchestrator.stackfile.reader import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.model.sections import HttpProbe, TcpProbe

MOST_TEXT = 2048
MOST_HOST = 255
MOST_PATTERN = 1000
MOST_SETS = 16
"""Sets of characters that reach beyond Latin-1: Python takes up to 12 ms to understand one."""
LOGGED = "service_log_ready"


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
    # TLS has no name that is empty or begins with a dot, nor one above 255 bytes (RFC 6066, 3).
    if not _plain(host) or host.startswith(".") or len(host) > MOST_HOST:
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


def condition(need: Reader) -> str:
    """What an entry of depends_on waits for; x-condition is what only we read."""
    return need.text("x-condition") or need.text("condition") or "service_started"


def line(said: Reader) -> str:
    """The regular expression of x-log-ready, found to be one."""
    pattern = said.text("x-log-ready") or ""
    because = _burden(pattern) or _fault(pattern)
    if because:
        said.refuse(
            f"{pattern!r:.60} {because}",
            key="x-log-ready",
            hint="as Python's re has them; $ is written $$",
        )
    return pattern


def _burden(pattern: str) -> str:
    """Why it would take long to be understood. Told by its looks: who tries can't be interrupted."""
    if len(pattern) > MOST_PATTERN:
        return f"is longer than {MOST_PATTERN:,} characters"
    beyond = any(ord(one) > 0xFF for one in pattern) or re.search(r"\\[uUN]", pattern)
    if beyond and pattern.count("[") > MOST_SETS:
        return f"has more than {MOST_SETS} sets of characters ([...]), and characters beyond Latin-1"
    return ""


def _fault(pattern: str) -> str:
    if not pattern:
        return "is no regular expression: it is empty"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a later Python may read otherwise
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is no regular expression: {error}"
    return ""


def check_lines(services: Mapping[str, Service], tree: Reader) -> None:
    """Who waits for a line waits for a service that says which."""
    for _, said in tree.named("services"):
        for other, need in said.named("depends_on"):
            if condition(need) != LOGGED or other not in services or services[other].log_ready:
                continue
            key = "x-condition" if need.has("x-condition") else "condition"
            hint = f"give {other} an `x-log-ready: REGEX`"
            need.refuse(f"{other} does not say which line of its output tells it", key=key, hint=hint)
