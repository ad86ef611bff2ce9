"""What tests may skip for, and the data they share.

A test may skip for exactly: shared data absent, a browser, a GPU, or a named extra. Under CI any
other skip fails the run; the list is printed either way.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ALLOWED = re.compile(r"shared data absent|browser absent|GPU absent|extra '\w+' absent")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with ``data/`` and ``weights/`` that PLUSX_TEST_DATA names."""
    root = os.environ.get("PLUSX_TEST_DATA", "")
    if not root or not Path(root, "data").is_dir():
        pytest.skip("shared data absent (set PLUSX_TEST_DATA to a folder with data/ and weights/)")
    return Path(root)


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print every skip with its reason."""
    skipped = terminalreporter.stats.get("skipped", [])
    wrong = [r for r in skipped if not ALLOWED.search(_reason(r))]
    terminalreporter.write_line(f"skips: {len(skipped)}, of them not allowed: {len(wrong)}")
    for report in wrong:
        terminalreporter.write_line(f"  not allowed: {report.nodeid}: {_reason(report)}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under CI, fail on a skip that is not on the list."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("CI") or terminal is None:
        return
    skipped = terminal.stats.get("skipped", [])
    if any(not ALLOWED.search(_reason(r)) for r in skipped) and session.exitstatus == 0:
        session.exitstatus = 1
