"""A pytest plugin: says at once why a test failed, for a run of an hour may not come to its end."""

from __future__ import annotations

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        print(f"\n{report.when} of {report.nodeid} failed:\n{report.longreprtext[-3000:]}\n", flush=True)
