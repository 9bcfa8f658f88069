# SPDX-License-Identifier: GPL-2.0-only
"""netctl trace usdt against a program with probes of its own, and Python's."""

import json
import shutil
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest

from lab import run, until
from trace_func_test import Target, by_name
from trace_func_test import finish as finish_func
from trace_tls_test import stack_depths

PYTHON = shutil.which("python3", path="/usr/bin:/bin")


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    built = tmp_path_factory.mktemp("usdt") / "target"
    run("gcc", "-O2", "-o", built, Path(__file__).with_name("usdt_target.c"))
    return built


@pytest.fixture
def target(lab, program):
    return Target(lab, program)


def watch(lab, netctl, *argv, json=True):
    tracer = netctl.start(lab, "trace", "usdt", *argv, json=json)
    tracer.expect("^netctl: tracing", timeout=60)
    return tracer


def listed(netctl, *argv):
    out = run(*netctl.argv("trace", "usdt", "--list", *argv, options=("--json",))).stdout
    return list(map(json.loads, out.splitlines()))


def finish(tracer, **wanted):
    return by_name(finish_func(tracer, **wanted))


@pytest.mark.kernel
def test_the_time_between_two(lab, netctl, program, target):
    tracer = watch(lab, netctl, "--file", program, "netctl:begin..done")
    took = [target.call("work", 2000) for _ in range(5)]
    row = finish(tracer)["netctl:begin..done"]
    assert row["file"] == str(program) and row["calls"] == 5 == sum(slot["calls"] for slot in row["histogram"])
    assert 5 * 2_000_000 <= row["total_ns"] <= sum(took)
    assert all(slot["below_ns"] > 2_000_000 for slot in row["histogram"])


@pytest.mark.kernel
def test_each_place_of_a_probe_counts(lab, netctl, program, target):
    """Of all processes, or of one."""
    other = Target(lab, program)
    tracers = {words: watch(lab, netctl, *words, "netctl:t*ck", "netctl:begin") for words in (
        ("--file", program), ("--pid", target.pid), ("--pid", other.pid, "--file", "target"))}  # fmt: skip
    target.call("tick", 4)
    target.call("work", 10)
    other.call("tick", 1)
    calls = {words: {name: row["calls"] for name, row in finish(tracer).items()} for words, tracer in tracers.items()}
    assert list(calls.values()) == [
        {"netctl:tick": 5 + 2, "netctl:begin": 1}, {"netctl:tick": 5, "netctl:begin": 1}, {"netctl:tick": 2}
    ]  # fmt: skip


def semaphore(target):
    return target.call("semaphore", 0)


@pytest.mark.kernel
def test_semaphores_go_up_and_down(lab, netctl, program, target):
    """Also when the tracer is killed, and also for a process that starts later. They count places, not tracers."""
    assert semaphore(target) == 0
    tracer = watch(lab, netctl, "--file", program, "netctl:begin")
    other = watch(lab, netctl, "--file", program, "netctl:begin..done")
    late = Target(lab, program)
    assert semaphore(target) > 0 and semaphore(late) > 0
    assert tracer.stop(signal.SIGINT, timeout=60) == 0
    assert semaphore(target) > 0 and semaphore(late) > 0
    other.send(signal.SIGKILL)
    other.wait()
    until(lambda: semaphore(target) == semaphore(late) == 0, 60, "nobody listens")


def test_one_that_is_not_done(lab, netctl, program, target):
    """What is begun again and again has no time, and takes no room from what is done."""
    tracer = watch(lab, netctl, "--pid", target.pid, "netctl:begin..done")
    for _ in range(40):
        target.call("abandon", 0)
    took = target.call("work", 1000)
    row = finish(tracer, left=range(32, 41))["netctl:begin..done"]
    assert row["calls"] == 1 and 1_000_000 <= row["total_ns"] <= took


def test_one_by_one(lab, netctl, program, target):
    tracer = watch(lab, netctl, "--slower", "0us", "--file", program, "netctl:begin..done")
    took = [target.call("work", 1000) for _ in range(3)]
    until(lambda: len(tracer.json_lines()) == 3, 60, str(tracer))
    assert tracer.stop(signal.SIGINT, timeout=60) == 0
    *calls, end = tracer.json_lines()
    assert end["calls"] == 3 and end["lost"] == 0
    for call, most in zip(calls, took, strict=True):
        assert call["process"] == {"pid": target.pid, "comm": "target"} and call["function"] == "netctl:begin..done"
        assert 1_000_000 <= call["took_ns"] <= most


def test_what_there_is_is_listed(lab, netctl, program, target):
    rows = listed(netctl, "--file", program)
    assert {(row["provider"], row["name"], row["places"], row["semaphore"]) for row in rows} == {
        ("netctl", "begin", 2, True), ("netctl", "done", 1, True), ("netctl", "tick", 2, True)
    }  # fmt: skip
    assert {row["name"]: len(row["arguments"].split()) for row in rows} == {"begin": 2, "done": 1, "tick": 1}
    notes = run("readelf", "-n", program).stdout
    assert all(row["arguments"] in notes and row["file"] == str(program) for row in rows)
    assert listed(netctl, "--pid", target.pid) == rows
    text = netctl("trace", "usdt", "--list", "--file", program).stdout
    assert text.splitlines()[0].split() == ["PROBE", "PLACES", "ARGUMENTS", "FILE"] and "netctl:tick" in text


@pytest.mark.skipif("gc__start" not in subprocess.run(["readelf", "-n", PYTHON], capture_output=True, text=True).stdout,
                    reason="this Python was built without probes")  # fmt: skip
def test_collections_of_python(lab, netctl):
    """It has a semaphore for each, so that without a listener it comes by none."""
    script = """
        import gc, sys
        gc.disable()
        print("ready", flush=True)
        for line in sys.stdin:
            gc.collect()
            print("collected", flush=True)
    """
    process = lab.start(PYTHON, "-c", textwrap.dedent(script), stdin=subprocess.PIPE)
    process.expect("^ready$")
    tracer = watch(lab, netctl, "--pid", process.pid, "python:gc__start..gc__done")
    for number in range(1, 8):
        process.popen.stdin.write(b"\n")
        process.popen.stdin.flush()
        until(lambda number=number: process.stdout.count("collected") == number, 60)
    row = finish(tracer)["python:gc__start..gc__done"]
    assert row["calls"] == 7 and row["total_ns"] > 0


@pytest.mark.parametrize("words, status, told", [
    (("netctl:begin",), 2, "which program's probes?"),
    (("--file", "{program}"), 2, "PROBE is missing"),
    (("--file", "{program}", "--list", "netctl:begin"), 2, "--list takes no PROBE"),
    (("--file", "{program}", "begin"), 2, "'begin' names no probe"),
    (("--file", "{program}", "netctl:begin.."), 2, "names no probe"),
    (("--file", "{program}", "netctl:begun"), 1, "no probe 'netctl:begun'; did you mean 'netctl:begin'?"),
    (("--file", "{program}", "netctl:begin..dane"), 1, "no probe 'netctl:dane'; did you mean 'netctl:done'?"),
    (("--file", "{program}", "netctl:begin..done", "netctl:tick"), 2, "is one probe, which takes no time"),
    (("--file", "{program}", "--slower", "1ms", "netctl:tick"), 2, "--slower is for what lies between"),
    (("--file", "/usr/bin/env", "--list"), 1, "/usr/bin/env has no probes"),
    (("--file", "/no/such", "--list"), 1, "cannot open /no/such"),
    (("--file", "{source}", "--list"), 1, "no program or library"),
    (("--pid", 4194303, "--list"), 1, "there is no process"),
])  # fmt: skip
def test_bad_input(netctl, program, words, status, told):
    filled = [str(word).format(program=program, source=__file__) for word in words]
    assert told in netctl.fails("trace", "usdt", *filled, status=status)
    assert not netctl.root.exists()


def test_stacks_are_small(netctl):
    depths = stack_depths(netctl, "functions")
    assert {"mark_begin", "mark_done"} <= set(depths)
    assert all(max(depths[name]) <= 48 for name in ("mark_begin", "mark_done")), depths
