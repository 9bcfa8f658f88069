# SPDX-License-Identifier: GPL-2.0-only
"""netctl trace profile against a program whose functions share its time in known parts."""

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest

from lab import run, until

TENTHS = {"one_tenth": 1, "three_tenths": 3, "six_tenths": 6}
SOURCE = Path(__file__).with_name("profile_target.c")


def build(path, *flags):
    run("gcc", "-O2", "-g", *flags, "-o", path, SOURCE)
    return path


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    return build(tmp_path_factory.mktemp("profile") / "target", "-fno-omit-frame-pointer")


class Target:
    def __init__(self, lab, program, *words, cgroup=None):
        argv = [program, *words]
        self.process = lab.start(*(cgroup.wrap(argv) if cgroup else argv), stdin=subprocess.PIPE)
        self.process.expect("^ready$")
        self.pid = self.process.pid

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) / os.sysconf("SC_CLK_TCK")

    def runs_for(self, seconds):
        """Until it had the CPU for so long, however many others want it."""
        begin = self.cpu_seconds()
        until(lambda: self.cpu_seconds() >= begin + seconds, 120, "its time")

    def close(self):
        self.process.popen.stdin.close()
        assert self.process.wait() == 0


def watch(lab, netctl, *argv, json=True):
    tracer = netctl.start(lab, "trace", "profile", *argv, json=json)
    tracer.expect("^netctl: (sampling|tracing)", timeout=60)
    return tracer


def finish(tracer):
    """Ends it; returns its functions, stacks and the last object."""
    assert tracer.stop(signal.SIGINT, timeout=60) == 0, str(tracer)
    *rows, end = tracer.json_lines()
    assert end["event"] == "end" and end["not_written"] == end["lost"] == 0
    functions = [row for row in rows if row["event"] == "function"]
    stacks = [row for row in rows if row["event"] == "stack"]
    assert len(rows) == len(functions) + len(stacks)
    assert sum(stack["samples"] for stack in stacks) == end["samples"]
    assert sum(stack["samples"] for stack in stacks if stack["ends_early"]) == end["ended_early"]
    return functions, stacks, end


def names(stack):
    return [frame["function"] for frame in stack["frames"]]


def check_shares(counts, spelled=lambda name: name):
    """Of a hundred samples and more; the bounds are four times what chance makes of a hundred."""
    found = {name: counts[spelled(name)] for name in TENTHS}
    total = sum(found.values())
    assert total >= 100, counts
    for name, tenths in TENTHS.items():
        assert abs(found[name] / total - tenths / 10) < 0.2, found
    assert found["one_tenth"] < found["three_tenths"] < found["six_tenths"]


@pytest.mark.kernel
def test_shares_of_functions(lab, netctl, program):
    target = Target(lab, program, "run")
    tracer = watch(lab, netctl, "--pid", target.pid, "-F", 499)
    target.runs_for(2)
    functions, stacks, end = finish(tracer)
    by_name = {row["function"]: row for row in functions}
    check_shares(Counter({name: by_name[name]["self_samples"] for name in TENTHS}))
    for name in TENTHS:
        assert by_name[name]["file"] == str(program) and by_name[name]["kind"] == "user"
    assert by_name["main"]["total_samples"] >= sum(by_name[name]["total_samples"] for name in TENTHS)
    assert by_name["main"]["self_samples"] == 0
    assert all(stack["process"] == {"pid": target.pid, "comm": "target"} and stack["waited_ns"] is None for stack in stacks)
    spins = sum(stack["samples"] for stack in stacks if {"main", "run", "spin_all", "six_tenths"} <= set(names(stack)))
    assert spins >= 0.9 * by_name["six_tenths"]["total_samples"]
    assert end["ended_early"] < end["samples"] / 2 and end["gone"] == end["waiting"] == 0
    target.close()


def varints(data):
    value = shift = 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield value
            value = shift = 0


def fields(data):
    """Of a message of Protocol Buffers: numbers and bytes, by the numbers of their fields."""
    found, at = {}, 0

    def varint():
        nonlocal at
        begin = at
        while data[at] >= 128:
            at += 1
        at += 1
        return next(varints(data[begin:at]))

    while at < len(data):
        tag = varint()
        value = varint()
        if tag & 7 == 2:
            value, at = data[at:at + value], at + value
            assert len(value) <= len(data)
        else:
            assert tag & 7 == 0
        found.setdefault(tag >> 3, []).append(value)
    return found


def read_pprof(path):
    """Samples by their stacks, outermost first."""
    profile = fields(gzip.decompress(path.read_bytes()))
    strings = [one.decode() for one in profile[6]]
    assert strings[0] == "" and [tuple(strings[fields(one)[key][0]] for key in (1, 2)) for one in profile[1]] == [
        ("samples", "count"), ("cpu", "nanoseconds")]  # fmt: skip
    functions = {one[1][0]: strings[one[2][0]] for one in map(fields, profile[5])}
    locations = {one[1][0]: functions[fields(one[4][0])[1][0]] for one in map(fields, profile[4])}
    stacks = Counter()
    for sample in map(fields, profile[2]):
        count, ns = varints(sample[2][0])
        assert ns == count * profile[12][0]
        stacks[tuple(locations[one] for one in varints(sample[1][0]))[::-1]] += count
    return stacks


def read_svg(path):
    """Samples of each frame by where it is drawn: left edge, depth; and its name and width."""
    text = path.read_text()
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")  # it loads nothing
    drawn = []
    for group in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}g"):
        title = group.find("{http://www.w3.org/2000/svg}title").text
        name, samples = re.fullmatch(r"(.*) \((\d+) samples, [\d.]+%\)", title).groups()
        drawn.append((name, int(samples), float(group.get("data-x")), float(group.get("data-w")), int(group.get("data-d"))))
    return drawn


def test_compiled_functions_and_files(lab, netctl, program, tmp_path):
    """One run as folded stacks, as a flame graph and for pprof: the same samples. Names come from whoever wrote the map."""
    target = Target(lab, program, "compiled")
    written = Path(f"/tmp/perf-{target.pid}.map")
    try:
        svg, pprof = tmp_path / "graph.svg", tmp_path / "profile.pb.gz"
        tracer = watch(lab, netctl, "--pid", target.pid, "-F", 499, "--folded", "--svg", svg, "--pprof", pprof, json=False)
        other = watch(lab, netctl, "--pid", target.pid, "-F", 499)
        target.runs_for(2)
        assert tracer.stop(signal.SIGINT, timeout=60) == 0, str(tracer)
        functions, _, _ = finish(other)
    finally:
        written.unlink()
    assert "\x1b" not in tracer.stdout + svg.read_text()
    folded = Counter()
    for line in tracer.stdout.splitlines():
        stack, _, count = line.rpartition(" ")
        comm, *frames = stack.split(";")
        assert comm == "target"
        folded[tuple(frames)] += int(count)
    spelled = {"one_tenth": r"<one&\x1b[31m tenth>_[j]", "three_tenths": "three_tenths_[j]", "six_tenths": "Lhot:::six_tenths_[j]"}
    leaves = Counter()
    for frames, count in folded.items():
        leaves[frames[-1]] += count
    check_shares(leaves, spelled.get)
    assert f"{sum(folded.values())} samples, 0 lost" in tracer.stderr
    kinds = {row["function"]: row["kind"] for row in functions}
    assert kinds["Lhot;::six_tenths"] == kinds["<one&\x1b[31m tenth>"] == "compiled" and kinds["main"] == "user"

    assert sum(read_pprof(pprof).values()) == sum(folded.values())
    assert {tuple(frame.replace(";", ":") for frame in frames) for frames in read_pprof(pprof)} == {
        tuple(re.sub(r"_\[[jk]\]$", "", frame) for frame in frames) for frames in folded}  # fmt: skip

    drawn = read_svg(svg)
    (everything,) = [frame for frame in drawn if frame[4] == 0]
    assert everything[:4] == ("all", sum(folded.values()), 0, 1)
    widths = Counter()
    for name, samples, left, width, depth in drawn:
        assert abs(width - samples / everything[1]) < 1e-6 and left + width < 1 + 1e-6
        widths[depth] += samples
        if depth > 0:  # it stands on the one that called it
            assert any(one[2] <= left + 1e-6 and left + width <= one[2] + one[3] + 1e-6 for one in drawn if one[4] == depth - 1)
    assert all(widths[depth] >= widths[depth + 1] for depth in widths)
    tops = Counter()
    for name, samples, *_ in drawn:
        tops[name] += samples
    for name in spelled.values():
        assert tops[name] == sum(count for frames, count in folded.items() for frame in set(frames) if frame == name)
    target.close()


@pytest.mark.skipif(not shutil.which("node"), reason="runs the script of a flame graph, in node")
def test_the_script_of_a_flame_graph(lab, netctl, program, tmp_path):
    """Searches and zooms, with as much of a browser as it asks for."""
    svg = tmp_path / "graph.svg"
    target = Target(lab, program, "run")
    tracer = watch(lab, netctl, "--pid", target.pid, "-F", 499, "--svg", svg, json=False)
    target.runs_for(0.5)
    assert tracer.stop(signal.SIGINT, timeout=60) == 0, str(tracer)
    target.close()
    drawn = read_svg(svg)
    script = re.search(r"<script><!\[CDATA\[(.*)\]\]></script>", svg.read_text(), re.S)[1]
    browser = r"""
        const drawn = JSON.parse(process.argv[2]), listeners = {};
        const element = (attributes, text) => ({ attributes, style: {}, textContent: text, listeners: {}, marked: false,
          getAttribute(k) { return this.attributes[k]; }, setAttribute(k, v) { this.attributes[k] = String(v); },
          addEventListener(k, f) { this.listeners[k] = f; } });
        const groups = drawn.map(([name, samples, x, w, d]) => Object.assign(element({ "data-x": x, "data-w": w, "data-d": d }, ""), {
          parts: { title: element({}, `${name} (${samples} samples, 1.00%)`), rect: element({}, ""), text: element({}, "") },
          querySelector(k) { return this.parts[k]; }, classList: null }));
        for (const g of groups) g.classList = { toggle: (k, on) => { g.marked = on; } };
        const named = { whole: element({}, ""), search: element({}, ""), found: element({}, "") };
        let word = "";
        const code = require("fs").readFileSync(process.argv[3], "utf8");
        new Function("document", "window", "prompt", code)(
          { querySelectorAll: () => groups, getElementById: k => named[k] },
          { addEventListener: (k, f) => { listeners[k] = f; } }, () => word);
        const width = g => g.style.display === "none" ? 0 : Number(g.parts.rect.attributes.width ?? 1200 * g.attributes["data-w"]);
        const told = {};
        word = "SIX_"; named.search.listeners.click();
        told.found = named.found.textContent; told.marked = groups.filter(g => g.marked).map(g => g.parts.title.textContent);
        const one = groups.find(g => g.marked);
        one.listeners.click();
        told.zoomed = groups.map(width);
        named.whole.listeners.click();
        told.whole = groups.map(width);
        console.log(JSON.stringify(told));
    """
    (tmp_path / "browser.js").write_text(browser)
    (tmp_path / "script.js").write_text(script)
    told = json.loads(run("node", tmp_path / "browser.js", json.dumps(drawn), tmp_path / "script.js").stdout)
    sixes = [frame for frame in drawn if "six_" in frame[0].lower()]
    assert sixes and len(told["marked"]) == len(sixes) and all("six_" in one for one in told["marked"])
    share = float(re.search(r": ([\d.]+)%$", told["found"])[1]) / 100
    assert abs(share - sum(frame[3] for frame in sixes)) < 1e-3
    chosen = drawn.index(sixes[0])
    assert told["zoomed"][chosen] == 1200 and told["zoomed"][0] == 1200
    others = [i for i, frame in enumerate(drawn) if frame[4] == sixes[0][4] and i != chosen]
    assert all(told["zoomed"][i] == 0 for i in others)
    assert all(abs(width - 1200 * frame[3]) < 1e-3 for width, frame in zip(told["whole"], drawn, strict=True))


@pytest.mark.kernel
def test_where_threads_wait(lab, netctl, program):
    naps = 20
    target = Target(lab, program, "wait", naps)
    tracer = watch(lab, netctl, "--off-cpu", "--pid", target.pid)
    target.process.popen.stdin.write(b"\n")
    target.process.popen.stdin.flush()
    napped = int(until(lambda: re.search(r"^napped (\d+)$", target.process.stdout, re.M), 60)[1])
    until(lambda: "pipe" in Path(f"/proc/{target.pid}/wchan").read_text()
          or Path(f"/proc/{target.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S", 60, "it waits")  # fmt: skip
    functions, stacks, end = finish(tracer)
    nap = [stack for stack in stacks if "nap" in names(stack)]
    assert nap and naps / 2 <= sum(stack["samples"] for stack in nap) <= naps, stacks
    assert naps / 2 * 10_000_000 <= sum(stack["waited_ns"] for stack in nap) <= napped
    for stack in nap:
        kinds = [frame["kind"] for frame in stack["frames"]]
        assert kinds == sorted(kinds, key=["user", "kernel"].index)
        assert not [name for name in names(stack) if name and re.match("bpf_|__traceiter|_*schedule$", name)]
        assert names(stack).index("main") < names(stack).index("nap")
    assert sum(stack["waited_ns"] for stack in stacks) == end["waited_ns"]
    (total,) = [row["total_ns"] for row in functions if row["function"] == "nap"]
    assert total == sum(stack["waited_ns"] for stack in nap)
    assert end["waiting"] == 1  # for what never comes
    assert [stack for stack in stacks if "listen_to_input" in names(stack) and stack["waited_ns"] > 0]
    target.close()


def test_who_is_selected(lab, netctl, program):
    """By cgroup; the others' time is none of theirs. And the table of functions."""
    group = lab.cgroup("one")
    one, two = Target(lab, program, "run", cgroup=group), Target(lab, program, "run")
    tracer = watch(lab, netctl, "--cgroup", group.path, "-F", 199)
    table = watch(lab, netctl, "--comm", "target", "--top", 3, json=False)
    one.runs_for(0.5)
    two.runs_for(0.5)
    _, stacks, end = finish(tracer)
    assert end["samples"] > 0 and {stack["process"]["pid"] for stack in stacks} == {one.pid}
    assert {Path(stack["cgroup"]).name for stack in stacks} == {Path(group.path).name}
    assert table.stop(signal.SIGINT, timeout=60) == 0
    head, *rows = table.stdout.splitlines()
    assert head.split() == ["SELF", "TOTAL", "SAMPLES", "FUNCTION", "FILE"] and len(rows) == 3
    assert rows[0].split()[3:] == ["six_tenths", str(program)]
    one.close()
    two.close()


def test_debug_files_and_none(lab, netctl, program, tmp_path):
    """Names of a stripped program come from the file that its .gnu_debuglink names; without, there are none."""
    stripped, bare, debug = tmp_path / "stripped", tmp_path / "bare", tmp_path / "stripped.debug"
    run("objcopy", "--only-keep-debug", program, debug)
    run("strip", "-o", bare, program)
    run("objcopy", f"--add-gnu-debuglink={debug}", bare, stripped)
    for file, name in ((stripped, "six_tenths"), (bare, None)):
        target = Target(lab, file, "run")
        tracer = watch(lab, netctl, "--pid", target.pid, "-F", 199)
        target.runs_for(0.5)
        functions, _, end = finish(tracer)
        assert (functions[0]["function"], functions[0]["file"]) == (name, str(file))
        assert functions[0]["self_samples"] > end["samples"] / 4
        target.close()


def test_stacks_that_end_early(lab, netctl, tmp_path):
    program = build(tmp_path / "omits", "-fomit-frame-pointer")
    target = Target(lab, program, "run")
    tracer = watch(lab, netctl, "--pid", target.pid, "-F", 199)
    text = watch(lab, netctl, "--pid", target.pid, "-F", 199, json=False)
    target.runs_for(0.5)
    _, stacks, end = finish(tracer)
    assert end["samples"] / 2 < end["ended_early"] <= end["samples"]
    assert not [stack for stack in stacks if "main" in names(stack) and stack["ends_early"] is False]
    assert text.stop(signal.SIGINT, timeout=60) == 0
    assert re.search(r"; the stacks of \d+ end early", text.stderr)
    target.close()


def test_it_ends_with_the_process(lab, netctl, program):
    target = Target(lab, program, "run")
    tracer = watch(lab, netctl, "--pid", target.pid)
    target.runs_for(0.3)
    target.close()
    assert tracer.wait() == 0 and f"process {target.pid} is gone" in tracer.stderr
    assert tracer.json_lines()[-1]["samples"] > 0


@pytest.mark.parametrize("words, status, told", [
    (("-F", 0), 2, "--frequency"),
    (("-F", 10001), 2, "--frequency"),
    (("--off-cpu", "-F", 99), 2, "--frequency is for samples"),
    (("--folded", "--top", 5), 2, "--top is for the table"),
    (("--pid", 4194303), 1, "there is no process"),
    (("--comm", "longer-than-a-name-can-be"), 2, "no process can have the name"),
    (("--svg", "/no/such/file.svg"), 1, "cannot write /no/such/file.svg"),
    (("--pprof", "/no/such/file.gz"), 1, "cannot write /no/such/file.gz"),
])  # fmt: skip
def test_bad_input(netctl, words, status, told):
    assert told in netctl.fails("trace", "profile", *words, status=status)
    assert not netctl.root.exists()
