"""Fails a run in CI in which a test was skipped for a reason that is not expected there.

A plugin of pytest, active where FIRSTHAND_CI is set (`.ci/run` sets it): a skip that nobody reads is a test that nobody
runs. What CI installs, such as an extra, is no reason to skip there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from namespaces import WHY_NOT

MACHINE = [
    "needs a GPU",
    "there is a GPU",
    "triton is not installed",
    r"this processor has no \w+",
    "needs a CPU with AMX",
    "needs the (compiled|packed float16) kernels",
    "needs equal rows",
    "MKL's rows depend on the batch",
    ".*(needs root|only root|by root).*",
    "no file system can be mounted here",
    "no memory cgroup can be made here",
    "this kernel has no such rules",
    "no sandbox, or this Python is not kept",
    "no Python that nobody can run",
    "the kernel's headers are not installed",
    "the headers of another architecture",
    "the numbers of these system calls are those of x86_64",
    "the program inside is for Linux",
    "counts open descriptors in /proc",
    ".*openssl.*",
    "trl is not installed",
    "TransformerLens is not installed",  # it needs an older transformers
    "bfcl-eval is not installed",  # its pinned requirements are those of every model's provider
    r"needs pip install 'firsthand\[(gym|textworld)\]'",  # requirements that are built by a C compiler
    r"FIRSTHAND_(ENDPOINT|FOLDER) .*",
    "found out while it was read",
    "(zsh|fish|chromium) is not installed",
    "the npm registry cannot be reached",
    "PostgreSQL with pgvector and psycopg are not installed",
    "MariaDB and pymysql are not installed",
    "root cannot become somebody else here",
    "bubblewrap is not installed",
    "bubblewrap may make no namespaces here",
    "this engine has no fused search",
    "Node 22 is not installed",
    "the A2A TCK is not installed",
    "the whole tour is run by FIRSTHAND_THOROUGH alone",
    r"FIRSTHAND_THOROUGH alone runs it: \S+ (has the figure|trains a smaller one)",
    "the SDKs for traces (cannot be installed|are installed by FIRSTHAND_THOROUGH alone)",
]
"""What the machine may lack, or not be."""
DATA = [".*(is|are) not (here|on this machine)", "needs the item results of .*"]
"""Expected only where FIRSTHAND_DATA names no folder."""


def is_expected(reason: str) -> bool:
    """True if CI may skip a test for this reason."""
    data = os.environ.get("FIRSTHAND_DATA")
    known = MACHINE if data and Path(data).is_dir() else MACHINE + DATA
    return reason == WHY_NOT or any(re.fullmatch(each, reason) for each in known)


class ExpectedSkips:
    """Collects what was skipped, and fails the session for what was not expected."""

    def __init__(self) -> None:
        self.unexpected: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        told = report.longrepr
        reason = str(told[2] if isinstance(told, tuple) else told).removeprefix("Skipped: ")
        if not is_expected(reason):
            self.unexpected.setdefault(reason, []).append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unexpected and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for reason, nodes in self.unexpected.items():
            terminalreporter.write_line(f"SKIPPED UNEXPECTEDLY {len(nodes)}: {reason} ({nodes[0]} ...)", red=True)
