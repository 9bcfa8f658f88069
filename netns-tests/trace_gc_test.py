# SPDX-License-Identifier: GPL-2.0-only
"""netctl trace gc against what Python and Java themselves say of their collections."""

import json
import re
import shutil
import signal
import subprocess
import textwrap

import pytest

from lab import run, until
from trace_usdt_test import PYTHON

JAVA, JAVAC = (shutil.which(name, path="/usr/bin:/bin") for name in ("java", "javac"))
needs_python = pytest.mark.skipif(
    "gc__start" not in subprocess.run(["readelf", "-n", PYTHON], capture_output=True, text=True).stdout,
    reason="this Python was built without probes",
)
COLLECTS = """
    import gc, sys
    class Node: pass
    gc.disable()
    print("ready", flush=True)
    for line in sys.stdin:
        generation, cycles = map(int, line.split())
        for _ in range(cycles):
            node = Node(); node.node = node
        del node
        print("collected", gc.collect(generation), flush=True)
"""


class Python:
    def __init__(self, lab, cgroup=None):
        argv = [PYTHON, "-c", textwrap.dedent(COLLECTS)]
        self.process = lab.start(*(cgroup.wrap(argv) if cgroup else argv), stdin=subprocess.PIPE)
        self.process.expect("^ready$")
        self.pid = self.process.pid
        self.say("2 1")  # what the interpreter's start has left
        self.told(1)

    def say(self, line):
        self.process.popen.stdin.write(f"{line}\n".encode())
        self.process.popen.stdin.flush()

    def told(self, count):
        found = until(lambda: len(all_of := re.findall(r"^collected (\d+)$", self.process.stdout, re.M)) >= count and all_of, 60,
                      "a collection")  # fmt: skip
        return list(map(int, found))

    def collect(self, generation, cycles):
        """Returns how many objects were collected, as Python says."""
        known = len(self.told(1))
        self.say(f"{generation} {cycles}")
        return self.told(known + 1)[known]


def watch(lab, netctl, *argv, json=True):
    tracer = netctl.start(lab, "trace", "gc", *argv, json=json)
    tracer.expect("^netctl: tracing collections", timeout=60)
    return tracer


def finish(tracer):
    """Ends it; returns its collections and its sums by collector."""
    assert tracer.stop(signal.SIGINT, timeout=60) == 0, str(tracer)
    *rows, end = tracer.json_lines()
    collections = [row for row in rows if row["event"] == "collection"]
    sums = {(row["process"]["pid"], row["collector"]): row for row in rows if row["event"] == "collector"}
    assert len(collections) + len(sums) == len(rows) and end["event"] == "end" and end["lost"] == 0, str(tracer)
    assert end["collections"] == sum(row["calls"] for row in sums.values())
    return collections, sums


@needs_python
@pytest.mark.kernel
def test_collections_of_python(lab, netctl):
    python = Python(lab)
    tracer = watch(lab, netctl, "--pid", python.pid)
    wanted = [(generation, python.collect(generation, cycles)) for generation, cycles in ((0, 3), (1, 5), (2, 40), (2, 1000))]
    until(lambda: len(tracer.json_lines()) == len(wanted), 60, str(tracer))
    collections, sums = finish(tracer)
    assert [(int(row["collector"].removeprefix("generation ")), row["collected"]) for row in collections] == wanted
    assert max(collected for _, collected in wanted) >= 1000
    for row in collections:
        assert row["process"] == {"pid": python.pid, "comm": "python3"} and row["thread"] == python.pid
        assert row["runtime"] == "python" and row["full"] is None and row["pools"] == [] and row["took_ns"] > 0
    assert {collector: row["calls"] for (_, collector), row in sums.items()} == {
        "generation 0": 1, "generation 1": 1, "generation 2": 2
    }  # fmt: skip
    assert sums[python.pid, "generation 2"]["total_ns"] == sum(row["took_ns"] for row in collections[2:])


@needs_python
def test_who_is_selected(lab, netctl):
    """Of all processes that run a file, also those that come later; of a cgroup; and only those that took long."""
    cgroup = lab.cgroup("collects")
    inside, outside = Python(lab, cgroup), Python(lab)
    tracers = {words: watch(lab, netctl, *words) for words in (
        ("--file", PYTHON), ("--file", PYTHON, "--cgroup", cgroup.path), ("--file", PYTHON, "--slower", "1h"))}  # fmt: skip
    later = Python(lab)
    for python in (inside, outside, later):
        python.collect(1, 10)
    results = list(map(finish, tracers.values()))
    everybody = {inside.pid, outside.pid, later.pid}
    seen = [{row["process"]["pid"] for row in collections if row["collector"] == "generation 1"} & everybody for collections, _ in results]
    assert seen == [everybody, {inside.pid}, set()]
    assert {pid for pid, collector in results[2][1] if collector == "generation 1"} >= everybody


@needs_python
def test_text(lab, netctl):
    python = Python(lab)
    tracer = watch(lab, netctl, "--pid", python.pid, json=False)
    collected = python.collect(2, 10)
    tracer.expect(rf"python3\[{python.pid}\] +\S+  generation 2, {collected} objects", timeout=60)
    assert tracer.stop(signal.SIGINT, timeout=60) == 0
    assert re.search(rf"python3\[{python.pid}\] +generation 2 +1 ", tracer.stdout), str(tracer)
    assert "netctl: 1 collections, 0 lost" in tracer.stderr


PROGRAM = """
import java.util.*;
public class Garbage {
    public static void main(String[] words) throws Exception {
        System.out.println("ready");
        System.in.read();
        List<byte[]> kept = new ArrayList<>();
        for (int i = 0; i < 400; i++) {
            byte[] some = new byte[1 << 20];
            if (i % 20 == 0) kept.add(some);
        }
        System.gc();
        System.out.println("done " + kept.size());
        System.in.read();
    }
}
"""


@pytest.mark.skipif(not JAVA or not JAVAC, reason="no Java development kit is installed")
@pytest.mark.parametrize("collector", ("Serial", "Parallel"))
def test_collections_of_java(lab, netctl, tmp_path, collector):
    """As many as -Xlog:gc says, in the same order. With Parallel, a full one that was asked for has a young one within."""
    (tmp_path / "Garbage.java").write_text(PROGRAM)
    run(JAVAC, "-d", tmp_path, tmp_path / "Garbage.java", timeout=300)
    java = lab.start(JAVA, f"-XX:+Use{collector}GC", "-Xmx64m", f"-Xlog:gc:file={tmp_path}/log", "-cp", tmp_path, "Garbage",
                     stdin=subprocess.PIPE)  # fmt: skip
    java.expect("^ready$", timeout=120)
    log = (tmp_path / "log").read_text
    begun = len(re.findall(r"\bPause .*\d\n", log()))
    tracer = watch(lab, netctl, "--pid", java.pid)
    java.popen.stdin.write(b"\n")
    java.popen.stdin.flush()
    java.expect("^done", timeout=120)
    pauses = [kind for kind, cause in re.findall(r"\bPause (Young|Full) \((.*?)\) \d", log())[begun:]
              if (kind, cause) != ("Young", "System.gc()")]  # fmt: skip
    collections, sums = finish(tracer)
    assert len(pauses) > 3 and "Full" in pauses
    assert ["Full" if row["full"] else "Young" for row in collections] == pauses, (log(), collections)
    for row in collections:
        assert row["runtime"] == "java" and row["collector"] and row["collected"] is None and row["took_ns"] > 0
        assert row["pools"] and any(pool["after_bytes"] < pool["before_bytes"] for pool in row["pools"]), row


@pytest.mark.parametrize("words, status, told", [
    (("--file", "/usr/bin/env"), 1, "/usr/bin/env has no probes"),
    (("--file", "/no/such"), 1, "cannot open /no/such"),
    (("--pid", 4194303), 1, "there is no process"),
    (("--file", "{python}", "--slower", "long"), 2, "'long'"),
])  # fmt: skip
def test_bad_input(netctl, words, status, told):
    filled = [str(word).format(python=PYTHON) for word in words]
    assert told in netctl.fails("trace", "gc", *filled, status=status)
    assert not netctl.root.exists()


@needs_python
def test_other_probes_are_none(netctl, lab):
    """A library with probes, but of no collections."""
    libraries = json.loads(run(*netctl.argv("trace", "usdt", "--list", "--file", "stdc++", options=("--json",))).stdout.splitlines()[0])
    assert "none of collections" in netctl.fails("trace", "gc", "--file", libraries["file"], status=1)
