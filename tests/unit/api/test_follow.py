"""What a client that follows the logs hears."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.api import follow as module
from orchestrator.model.desired import Desired, Wanted
from orchestrator.model.observation import Container, Run, Stopping
from tests.kit.stacks import service, stack, up, wanting


def container(run: Run, restart: str) -> Container:
    return Container(
        id="a" * 64,
        name="shop-web-1",
        stack="shop",
        service="web",
        slot=1,
        definition=replace(service(restart=restart), name="web"),
        fingerprint="",
        generation=0,
        image_id="",
        created=0,
        run=run,
    )


WISH = up(stack("shop", web=service()))
FAILED = Run(turn=1, started=1.0, finished=2.0, exit_code=1)


@pytest.mark.parametrize(
    ("run", "restart", "desired", "restarting"),
    [
        (FAILED, "no", WISH, False),
        (FAILED, "always", WISH, True),
        (FAILED, "on-failure", WISH, True),
        (replace(FAILED, exit_code=0), "on-failure", WISH, False),
        (FAILED, "always", None, False),
        (FAILED, "always", wanting(WISH, "web", wanted=Wanted.STOPPED), False),
        (replace(FAILED, stopping=Stopping(since=1.5, signal=15, by="user")), "always", WISH, False),
        (replace(FAILED, error="not found", exit_code=127), "always", WISH, False),
    ],
)
def test_an_end_says_whether_another_run_follows(
    run: Run, restart: str, desired: Desired | None, restarting: bool
) -> None:
    line: dict[str, Any] = module.ended(container(run, restart), desired)
    assert line["restarting"] is restarting
    assert (line["event"], line["name"], line["exit_code"]) == ("exited", "shop-web-1", run.exit_code)
