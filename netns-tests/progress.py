# SPDX-License-Identifier: GPL-2.0-only
"""Plugin of pytest: each outcome is written when it is known, a line each, to the file NETCTL_PROGRESS. JUnit files
come only at the end; of a run that does not come so far, scripts/report tells what had run from these lines."""

import json
import os


def _write(**entry):
    if path := os.environ.get("NETCTL_PROGRESS"):
        with open(path, "a") as progress:
            progress.write(json.dumps(entry) + "\n")


def pytest_runtest_logstart(nodeid, location):
    _write(test=nodeid)


def pytest_runtest_logreport(report):
    # A test has three parts; what is told of it is its body, or whatever else did not pass.
    if report.when == "call" or not report.passed:
        reason = report.longrepr[2] if report.skipped else getattr(report.longrepr, "reprcrash", None)
        _write(test=report.nodeid, outcome=report.outcome, reason=str(getattr(reason, "message", reason) or ""))
