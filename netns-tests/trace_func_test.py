# SPDX-License-Identifier: GPL-2.0-only
"""netctl trace func against a program that measures its own calls."""

import json
import platform
import re
import signal
import subprocess
from pathlib import Path

import pytest

from lab import run, until
from trace_tls_test import stack_depths

X86 = platform.machine() == "x86_64"


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    built = tmp_path_factory.mktemp("func") / "target"
    run("gcc", "-O2", "-pthread", "-o", built, Path(__file__).with_name("func_target.c"))
    return built


class Target:
    """The program, which calls what it is told to."""

    def __init__(self, lab, program, cgroup=None, netns=None):
        argv = [program]
        if cgroup:
            argv = cgroup.wrap(argv)
        self.process = (netns or lab).start(*argv, stdin=subprocess.PIPE)
        self.process.expect("^ready$")
        self.pid = self.process.pid

    def call(self, name, number):
        """Returns how long the call took, in nanoseconds, as the program sees it."""
        known = len(self.process.stdout)
        self.process.popen.stdin.write(f"{name} {number}\n".encode())
        self.process.popen.stdin.flush()
        return int(until(lambda: re.search(rf"^{name} (\d+)$", self.process.stdout[known:], re.M), 60, name)[1])

    def close(self):
        self.process.popen.stdin.close()
        assert self.process.wait() == 0


@pytest.fixture
def target(lab, program):
    return Target(lab, program)


def watch(lab, netctl, *argv, json=True, **options):
    tracer = netctl.start(lab, "trace", "func", *argv, json=json, **options)
    tracer.expect("^netctl: tracing", timeout=60)
    return tracer


def finish(tracer, **wanted):
    """Ends it; returns its rows by their functions' names. What the last object counts is as `wanted`, or nothing."""
    assert tracer.stop(signal.SIGINT, timeout=60) == 0, str(tracer)
    *rows, end = tracer.json_lines()
    assert end["event"] == "end" and end["not_written"] == 0
    for name in ("lost", "too_deep", "left"):
        assert end[name] in wanted.get(name, (0,)), (name, str(tracer))
    if rows and rows[0]["event"] == "function":
        assert sum(row["calls"] for row in rows) == end["calls"]
    return rows


def by_name(rows):
    return {row["function"]: row for row in rows}


@pytest.mark.kernel
def test_each_call_has_its_time(lab, netctl, program, target):
    """Nested, recursive, left by longjmp, and one that ends with a jump to another."""
    names = ("nap", "nested", "recurse", "tail", "jump")
    tracer = watch(lab, netctl, "--pid", target.pid, *(f"{program}:{name}" for name in names))
    took = {name: [] for name in names}
    for name, number, times in (("nap", 2000, 5), ("nested", 1000, 3), ("tail", 1000, 2), ("recurse", 10, 2)):
        took[name] += [target.call(name, number) for _ in range(times)]
    jumps = 40  # more than a stack has room for
    took["jump"] += [target.call("jump", 100) for _ in range(jumps)]
    target.call("recurse", 0)
    rows = by_name(finish(tracer, left=(jumps, jumps - 1)))
    assert {name: row["calls"] for name, row in rows.items()} == {
        "nap": 5 + 2 * 3 + 2 + 2 * 11 + jumps + 1, "nested": 3, "recurse": 2 * 11 + 1, "tail": 2,
    }  # fmt: skip
    least = {"nap": 100_000, "nested": 2_000_000, "recurse": 100_000, "tail": 1_000_000}
    for name, row in rows.items():
        assert row["file"] == str(program) and row["process"] is row["thread"] is row["cgroup"] is None
        assert sum(slot["calls"] for slot in row["histogram"]) == row["calls"]
        assert all(slot["below_ns"] > least[name] for slot in row["histogram"])
        assert least[name] <= row["p50_ns"] <= row["p90_ns"] <= row["p99_ns"] <= row["max_ns"]
        assert row["mean_ns"] == row["total_ns"] // row["calls"]
        if took[name]:
            assert row["max_ns"] * 8 / 9 <= max(sum(took.values(), []))
    assert 2 * 1_000_000 <= rows["tail"]["total_ns"] <= sum(took["tail"])
    assert 3 * 2_000_000 <= rows["nested"]["total_ns"] <= sum(took["nested"])


@pytest.mark.kernel
def test_single_calls(lab, netctl, program, target):
    """They come as they return, the innermost first, and each takes longer than the one in it."""
    tracer = watch(lab, netctl, "--pid", target.pid, "--slower", "0us", ":recurse")
    took = target.call("recurse", 9)
    until(lambda: len(tracer.json_lines()) == 10, 60, str(tracer))
    calls = finish(tracer)
    assert [one["depth"] for one in calls] == list(range(9, -1, -1))
    times = [one["took_ns"] for one in calls]
    assert times == sorted(times) and times[0] >= 100_000 and times[-1] <= took
    assert {(one["process"]["pid"], one["process"]["comm"], one["thread"], one["function"]) for one in calls} == {
        (target.pid, "target", target.pid, "recurse")
    }
    assert sorted(one["time"] for one in calls) == [one["time"] for one in calls]


@pytest.mark.kernel
def test_what_is_nested_too_deep_is_told(lab, netctl, program, target):
    tracer = watch(lab, netctl, "--pid", target.pid, ":recurse")
    target.call("recurse", 39)
    target.call("recurse", 1)
    (row,) = finish(tracer, too_deep=(8,))
    assert row["calls"] == 32 + 2


def test_slow_ones_only(lab, netctl, program, target):
    tracer = watch(lab, netctl, "--slower", "50ms", f"{program}:nap", json=False)
    took = [target.call("nap", number) for number in (100, 60_000, 100, 60_000)]
    until(lambda: tracer.stdout.count("target:nap") >= 2, 60, str(tracer))
    assert tracer.stop(signal.SIGINT, timeout=60) == 0
    head, *lines = tracer.stdout.splitlines()
    assert head.split() == ["TIME", "PROCESS", "THREAD", "TOOK", "FUNCTION"]
    assert 2 <= len(lines) <= sum(one >= 50_000_000 for one in took)
    for line in lines:
        span, unit = re.search(rf" target\[{target.pid}\] +{target.pid} +([\d.]+)(ms|s) +target:nap$", line).groups()
        assert unit == "s" or float(span) >= 50
    assert f"{len(lines)} calls, 0 lost" in tracer.stderr


@pytest.mark.kernel
def test_groups(lab, netctl, program):
    """By thread, process and cgroup; what is selected counts alone."""
    group, other = lab.cgroup("one"), lab.cgroup("two")
    one, two = Target(lab, program, cgroup=group), Target(lab, program, cgroup=other)
    nap = f"{program}:nap"
    tracers = {words: watch(lab, netctl, *words, nap) for words in (
        ("--by", "thread"), ("--by", "process,function"), ("--by", "cgroup"), ("--pid", two.pid), ("--cgroup", group.path),
        ("--comm", "target"), ("--comm", "targe"))}  # fmt: skip
    one.call("threads", 100)
    two.call("nap", 100)
    rows = {words: finish(tracer) for words, tracer in tracers.items()}
    threads = set(map(int, re.findall(r"^thread (\d+)$", one.process.stdout, re.M)))
    assert {(row["thread"]["tid"], row["thread"]["pid"], row["calls"]) for row in rows["--by", "thread"]} == {
        *((tid, one.pid, 2) for tid in threads), (two.pid, two.pid, 1),
    }  # fmt: skip
    assert {(row["process"]["pid"], row["process"]["comm"], row["function"], row["calls"])
            for row in rows["--by", "process,function"]} == {
        (one.pid, "target", "nap", 6), (two.pid, "target", "nap", 1)}  # fmt: skip
    assert {(Path(row["cgroup"]).name, row["calls"]) for row in rows["--by", "cgroup"]} == {
        (Path(group.path).name, 6), (Path(other.path).name, 1)}  # fmt: skip
    calls = {words: sum(row["calls"] for row in told) for words, told in rows.items()}
    assert calls["--pid", two.pid] == 1 and calls["--cgroup", group.path] == 6
    assert calls["--comm", "target"] == 7 and calls["--comm", "targe"] == 0
    one.close()
    two.close()


def test_a_namespace_is_selected(lab, netctl, program):
    here, there = lab.namespace("here"), lab.namespace("there")
    one, two = Target(lab, program, netns=here), Target(lab, program, netns=there)
    tracer = watch(lab, netctl, "--by", "process", f"{program}:nap", netns=here)
    one.call("nap", 100)
    two.call("nap", 100)
    (row,) = finish(tracer)
    assert (row["process"]["pid"], row["calls"]) == (one.pid, 1)


def test_globs_and_libraries(lab, netctl, program, target):
    """A function that two targets name is one; a library is found by its name and by what the process has mapped."""
    tracer = watch(lab, netctl, "--pid", target.pid, ":n[ae]*", f"{program}:nap", "c:clock_nanosleep", "libc.so.6:clock_nanosleep")
    assert "tracing 3 functions" in tracer.stderr
    target.call("nested", 100)
    rows = by_name(finish(tracer))
    assert {name: row["calls"] for name, row in rows.items()} == {"nap": 2, "nested": 1, "clock_nanosleep": 2}
    assert Path(rows["clock_nanosleep"]["file"]).name.startswith("libc")


def offsets(program):
    """Of each symbol where it begins in the file; the program's code lies as it is linked."""
    listed = run("nm", program).stdout
    return {name: int(value, 16) for value, name in re.findall(r"^(\w+) . (\w+)$", listed, re.M)}


@pytest.mark.skipif(not X86, reason="other machines have other instructions")
def test_places_within_a_function(lab, netctl, program, target):
    at = offsets(program)
    nop, behind = (at[name] - at["wide"] for name in ("wide_nop", "behind_nop"))
    text = netctl.fails("trace", "func", "--calls", f"{program}:wide+{nop}")
    assert "no-operation of five bytes" in text
    assert "no-operation of five bytes" in netctl.fails("trace", "func", f"{program}:+{at['wide_nop']:#x}")
    assert "has no time" in netctl.fails("trace", "func", f"{program}:wide+{behind}", status=2)
    tracer = watch(lab, netctl, "--calls", "--pid", target.pid, f":wide+{behind:#x}", ":wide")
    for _ in range(3):
        target.call("wide", 1)
    rows = by_name(finish(tracer))
    assert {name: row["calls"] for name, row in rows.items()} == {"wide": 3, f"wide+{behind:#x}": 3}
    assert all(row["total_ns"] is row["mean_ns"] is None and row["histogram"] == [] for row in rows.values())


def test_stripped_programs_by_offset(lab, netctl, program, tmp_path):
    stripped = tmp_path / "stripped"
    run("strip", "-o", stripped, program)
    text = netctl.fails("trace", "func", f"{stripped}:nap")
    assert "has no function 'nap'" in text and "it is stripped" in text
    target = Target(lab, stripped)
    offset = f"+{offsets(program)['nap']:#x}"
    tracer = watch(lab, netctl, f"{stripped}:{offset}")
    took = target.call("nap", 1000)
    (row,) = finish(tracer)
    assert row["function"] == offset and row["calls"] == 1 and 1_000_000 <= row["total_ns"] <= took


def test_go_programs_are_only_counted(lab, netctl, program, tmp_path):
    """At a return that is looked at, a stack may not move."""
    (tmp_path / "nothing").write_bytes(b"x" * 64)
    go = tmp_path / "go"
    run("objcopy", "--add-section", f".gopclntab={tmp_path / 'nothing'}", program, go)
    go.chmod(0o755)
    text = netctl.fails("trace", "func", f"{go}:nap")
    assert "is a Go program" in text and "--calls" in text
    target = Target(lab, go)
    tracer = watch(lab, netctl, "--calls", f"{go}:nap")
    target.call("nap", 100)
    (row,) = finish(tracer)
    assert row["calls"] == 1


def test_reports_add_up_and_bars_are_drawn(lab, netctl, program, target):
    each = watch(lab, netctl, "--interval", 1, f"{program}:nap")
    whole = watch(lab, netctl, f"{program}:nap", json=False)
    target.call("nap", 100)
    until(lambda: each.json_lines(), 60, "a report")
    target.call("nap", 100)
    rows = finish(each)
    assert len(rows) >= 2 and sum(row["calls"] for row in rows) == 2
    assert whole.stop(signal.SIGINT, timeout=60) == 0
    head, figures, *bars = whole.stdout.splitlines()
    assert head.split() == ["FUNCTION", "CALLS", "MEAN", "P50", "P90", "P99", "MAX", "TOTAL"]
    assert figures.split()[:2] == ["target:nap", "2"]
    assert sum(int(re.search(r" (?:us|ms|s) +(\d+)  #*$", bar)[1]) for bar in bars) == 2
    assert "2 calls, 0 lost" in whole.stderr


def test_it_ends_with_the_process(lab, netctl, program, target):
    tracer = watch(lab, netctl, "--pid", target.pid, ":nap")
    target.call("nap", 100)
    target.close()
    assert tracer.wait() == 0 and f"process {target.pid} is gone" in tracer.stderr
    assert tracer.json_lines()[0]["calls"] == 1


def test_nothing_is_left_when_it_is_killed(lab, netctl, program, target):
    tracer = watch(lab, netctl, f"{program}:nap")
    ids = lambda: {one["id"] for one in json.loads(run("bpftool", "-j", "prog", "show").stdout)}  # noqa: E731
    told = [path.read_text() for path in Path(f"/proc/{tracer.pid}/fdinfo").iterdir()]
    mine = {int(one) for text in told for one in re.findall(r"^prog_id:\s+(\d+)$", text, re.M)}
    assert mine and mine <= ids()
    tracer.send(signal.SIGKILL)
    tracer.wait()
    assert target.call("nap", 100) >= 100_000
    until(lambda: not mine & ids(), 60)
    assert not netctl.root.exists()


@pytest.mark.kernel
def test_functions_of_the_kernel(lab, netctl, program, target):
    """Or it is said why they cannot be watched."""
    words = ("--pid", target.pid, "k:hrtimer_nanosleep", f"{program}:nap")
    tracer = netctl.start(lab, "trace", "func", *words)
    if until(lambda: not tracer.alive() or "netctl: tracing" in tracer.stderr, 60) and not tracer.alive():
        assert tracer.wait() == 3
        assert "lets no program run at its function hrtimer_nanosleep: fentry: " in tracer.stderr
        assert "kprobe: " in tracer.stderr
        return
    assert re.search(r"tracing 2 functions, the kernel's by (fentry|kprobe)$", tracer.stderr, re.M)
    took = [target.call("nap", 2000) for _ in range(5)]
    rows = by_name(finish(tracer))
    kernel = rows["hrtimer_nanosleep"]
    assert kernel["file"] is None and kernel["calls"] == rows["nap"]["calls"] == 5
    assert 5 * 2_000_000 <= kernel["total_ns"] <= rows["nap"]["total_ns"] <= sum(took)


@pytest.mark.parametrize("words, status, told", [
    (("nap",), 2, "'nap' names no function"),
    (("{program}:",), 2, "names no function"),
    (("{program}:nap+x",), 2, "'x' is no offset"),
    (("{program}:nup",), 1, "has no function 'nup'; did you mean 'nap'?"),
    (("{program}:n*z",), 1, "has no function 'n*z'"),
    (("{program}:+0x10",), 1, "there is no code"),
    (("nosuchprogram:nap",), 1, "no program 'nosuchprogram' in PATH"),
    (("/no/such:nap",), 1, "cannot open /no/such"),
    (("/tmp:nap",), 1, "/tmp is no file"),
    (("{source}:nap",), 1, "no program or library of this machine's kind"),
    (("c:*",), 1, "at most 256"),
    (("k:no_such_function_of_it",), 1, "the kernel has no function"),
    (("k:vfs_read+1",), 2, "functions alone"),
    (("--by", "colour", "{program}:nap"), 2, "--by: 'colour'"),
    (("--slower", "5", "{program}:nap"), 2, "--slower '5' is no time"),
    (("--slower", "5ms", "--calls", "{program}:nap"), 2, "exclude each other"),
    (("--slower", "5ms", "--interval", "1", "{program}:nap"), 2, "--interval is about many"),
    (("--count", 3, "{program}:nap"), 2, "--count goes with"),
    (("--pid", 4194303, ":nap"), 1, "there is no process"),
    ((":nap",), 2, "a program or a library is to be named"),
    ((), 2, "TARGET"),
])  # fmt: skip
def test_bad_input(netctl, program, words, status, told):
    filled = [str(word).format(program=program, source=__file__) for word in words]
    assert told in netctl.fails("trace", "func", *filled, status=status)
    assert not netctl.root.exists()


@pytest.mark.skipif(not X86, reason="other machines have other ways to copy memory")
def test_what_is_chosen_when_a_program_starts(netctl):
    assert "is chosen when a program starts" in netctl.fails("trace", "func", "c:memcpy")


def test_stacks_are_small(netctl):
    depths = stack_depths(netctl, "functions")
    assert {"user_enter", "user_leave"} <= set(depths)
    for name in ("user_enter", "user_leave"):
        assert max(depths[name]) <= 48, (name, depths[name])


def test_others_may_not(lab, netctl, program):
    """The binary may lie where nobody else gets to; so it is run by root without what root has."""
    done = subprocess.run(["setpriv", "--bounding-set", "-all", "--inh-caps", "-all",
                           *netctl.argv("trace", "func", f"{program}:nap")], capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1, done
    assert re.search(r"loading BPF programs takes root|takes root, or CAP", done.stderr), done.stderr
