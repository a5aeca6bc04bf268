"""`--run-log FILE`: what each test begins, how it ends and how it failed, as it happens.

A run that is cut short has told by then what failed, and what it was at. Processes of pytest-xdist write the same file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-log", metavar="FILE", help="append each test's outcome, and how it failed, as it happens")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _write(item, f"started  {item.nodeid}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[Any]:
    report: pytest.TestReport = yield
    if report.when == "call" or report.outcome != "passed":
        told = f"\n{report.longreprtext}" if report.failed else ""
        _write(item, f"{report.outcome:9}{item.nodeid} {report.when} {report.duration:.1f} s{told}")
    # After an illegal access every call of this process fails: pytest-xdist starts another.
    if call.excinfo is not None and "CUDA error" in str(call.excinfo.value) and hasattr(item.config, "workerinput"):
        os._exit(1)
    return report


def _write(item: pytest.Item, line: str) -> None:
    path = item.config.getoption("--run-log")
    if path:
        with open(path, "a", encoding="utf-8") as log:
            log.write(line + "\n")
