# SPDX-License-Identifier: GPL-2.0-only
"""scripts/suite and scripts/report: what had run is told, also of a suite that is ended before its end."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from lab import run, until

REPOSITORY = Path(__file__).resolve().parent.parent

PYTEST = '''
import signal, pytest

def test_first():
    pass

def test_second():
    assert 1 + 1 == 3

def test_third():
    pytest.skip("not on a Monday")

def test_long():
    signal.pause()

def test_last():
    pass
'''

GTEST = """
[==========] Running 4 tests from 1 test suite.
[ RUN      ] tiny.first
[       OK ] tiny.first (0 ms)
[ RUN      ] tiny.second
tiny.cpp:7: Failure
[  FAILED  ] tiny.second (3 ms)
[ RUN      ] tiny.third
[  SKIPPED ] tiny.third (0 ms)
[ RUN      ] tiny.long
"""


@pytest.fixture
def repository(tmp_path):
    """One with the same scripts, a tiny suite `netns` and a tiny suite `unit`."""
    where = tmp_path / "repository"
    tests = where / "netns-tests"
    tests.mkdir(parents=True)
    (where / "scripts").mkdir()
    for name in ("suite", "lib.sh", "report"):
        shutil.copy(REPOSITORY / "scripts" / name, where / "scripts")
    for name in ("progress.py", "pytest.ini"):
        shutil.copy(REPOSITORY / "netns-tests" / name, tests)
    (tests / "conftest.py").write_text('pytest_plugins = ["progress"]\n')
    (tests / "tiny_test.py").write_text(PYTEST)
    log = where / "log"
    log.write_text(GTEST)
    (where / "build/meson-info").mkdir(parents=True)
    (where / "build/meson-info/intro-tests.json").write_text(json.dumps([{
        "name": "unit", "suite": ["netctl:unit"], "protocol": "gtest", "timeout": 600, "is_parallel": False,
        "env": {}, "cmd": ["/bin/sh", "-c", 'cat "$0"; exec sleep 600', str(log)],
    }]))  # fmt: skip
    (where / "results").mkdir()
    return where


def start(lab, repository, suite, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NETCTL")}
    return lab.start(repository / "scripts/suite", "--results", repository / "results", suite,
                     env=kept | environment)  # fmt: skip


def report(repository):
    return run(repository / "scripts/report", repository, "results", check=False).stdout


def check_report(text, why):
    lines = text.splitlines()
    assert any("test_second: assert (1 + 1) == 3" in line or "tiny.second: see the log" in line for line in lines), text
    assert any("test_third: Skipped: not on a Monday" in line or "tiny.third" in line for line in lines), text
    assert any(f"long: was running: {why}" in line for line in lines), text
    # Those two, and that the suite did not end.
    assert lines[-1] == "1 passed, 3 failed, 1 skipped", text


@pytest.mark.parametrize("suite", ("netns", "unit"))
def test_an_interrupted_suite(lab, repository, suite):
    running = start(lab, repository, suite)
    where = repository / "results" / (f"{suite}.progress" if suite == "netns" else f"{suite}.log")
    until(lambda: where.exists() and "long" in where.read_text(), timeout=30)
    running.send(signal.SIGTERM)
    assert running.wait() == 128 + signal.SIGTERM
    check_report(report(repository), "it was interrupted")


@pytest.mark.parametrize("suite", ("netns", "unit"))
def test_a_suite_that_runs_out_of_its_time(lab, repository, suite):
    running = start(lab, repository, suite, NETCTL_SUITE_LIMIT="10")
    assert running.wait() == 1
    check_report(report(repository), "ended after 10 s")


SECOND_TRY = '''
from pathlib import Path
import pytest

def test_steady():
    pass

@pytest.mark.parametrize("word", ["a b", "c"])
def test_unsteady(word):
    tried = Path(__file__).with_name(f"tried-{word}")
    first = not tried.exists()
    tried.touch()
    assert not first or word != "a b", "too early"

@pytest.mark.parametrize("n", range(WRONG))
def test_wrong(n):
    assert n == -1
'''


@pytest.mark.parametrize("wrong, last", ((1, "3 passed, 1 failed, 0 skipped"), (3, "2 passed, 4 failed, 0 skipped")))
def test_a_few_that_fail_are_tried_again(lab, repository, wrong, last):
    """What passes then is listed all the same; many failures are not tried again."""
    (repository / "netns-tests/tiny_test.py").write_text(SECOND_TRY.replace("WRONG", str(wrong)))
    start(lab, repository, "netns").wait()
    text = report(repository)
    listed = "unsteady:\n  results tiny_test.test_unsteady[a b]: AssertionError: too early"
    assert (listed in text) == (wrong < 3), text
    assert text.splitlines()[-1] == last, text
    assert (repository / "results/netns-again.xml").exists() == (wrong < 3)
