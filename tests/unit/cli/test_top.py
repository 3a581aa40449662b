"""What `top` shows of processes."""

from __future__ import annotations

import time
from typing import Any

from orchestrator.cli.top import render

NOW = time.mktime((2026, 3, 4, 15, 0, 0, 0, 0, -1))


def process(**fields: Any) -> dict[str, Any]:
    base = {
        "pid": 100,
        "parent": 1,
        "uid": 7,
        "started": 0.0,
        "cpu": 0.0,
        "terminal": "?",
        "command": "sleep 9",
    }
    return base | fields


def lines(*processes: dict[str, Any]) -> list[list[str]]:
    rows = [{"service": "web", "name": "s-web-1", "slot": 2, "processes": processes}]
    text = render(rows, boot_now=200_000.0, now=NOW, user=lambda uid: f"u{uid}")
    return [line.split() for line in text.splitlines()]


def test_processes_are_listed_as_ps_does() -> None:
    head, *found = lines(
        process(started=199_900.0, cpu=25.0, terminal="pts/3"),
        process(pid=101, started=200_000.0 - 2 * 86400, cpu=3725.9, command="a\nb\x1b[2J"),
        process(pid=102, started=200_000.0 - 400 * 86400),
    )
    assert head == ["SERVICE", "#", "UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert found[0] == ["web", "2", "u7", "100", "1", "25", "14:58", "pts/3", "00:00:25", "sleep", "9"]
    assert found[1][5:] == ["2", "Mar02", "?", "01:02:05", "a", "b\N{REPLACEMENT CHARACTER}[2J"]
    assert found[2][6] == "2025"
