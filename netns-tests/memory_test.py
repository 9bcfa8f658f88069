# SPDX-License-Identifier: GPL-2.0-only
"""When the kernel has no memory for maps: an error that says so, and all as it was before."""

import os
import signal
from pathlib import Path

import pytest
from lab import run, until
from traffic import Filter


def memory_controller():
    """A directory in which control groups have the memory controller, and the name of their limit."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, source = line.partition(" - ")
        kind, _, options = source.split()
        where = Path(fields.split()[4])
        if kind == "cgroup" and "memory" in options.split(","):
            return where, "memory.limit_in_bytes"
        if kind == "cgroup2" and "memory" in (where / "cgroup.subtree_control").read_text().split():
            return where, "memory.max"
    return pytest.skip("control groups have no memory controller here")


class MemoryLimit:
    """A control group of its own; run(megabytes, argv) runs a command in it."""

    def __init__(self):
        where, self._file = memory_controller()
        self._group = where / f"netctl-memory-{os.getpid()}"

    def __enter__(self):
        self._group.mkdir()
        return self

    def run(self, kilobytes, argv):
        (self._group / self._file).write_text(f"{kilobytes}K")
        enter = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', self._group]
        return run(*enter, *argv, check=False)

    def __exit__(self, *_):
        until(lambda: not (self._group / "cgroup.procs").read_text(), what="empty cgroup")
        self._group.rmdir()


def test_a_set_that_does_not_fit(netctl):
    with MemoryLimit() as limit:
        done = limit.run(24 << 10, netctl.argv("set", "create", "big", "--type", "host", "--size", "20000000"))
        assert done.returncode == 1, done
        assert "the kernel has no memory for maps of about" in done.stderr
        assert "Cannot allocate memory" in done.stderr
    assert not netctl.root.exists()


def test_rules_that_do_not_fit(netctl, link, tmp_path):
    """At whatever point the memory ends: refused, or the process is ended; the old rules stay."""
    _, server = link
    filter = Filter(netctl, server)
    filter.add("dport 7 drop")
    before = filter.status()["generation"]
    # Each pair of addresses is a row of the tables of its own.
    rules = [f"src 10.{i % 250}.{i // 250}.0/24 dst 192.168.{i // 40}.{i % 40 * 6}/31 drop" for i in range(8000)]
    listing = tmp_path / "rules"
    listing.write_text("\n".join(rules))
    words = netctl.argv("xdp", "rule", "replace", server.name, listing, netns=server.netns)
    refused = ended = 0
    with MemoryLimit() as limit:

        def fits(kilobytes):
            nonlocal refused, ended
            done = limit.run(kilobytes, words)
            if done.returncode == 0:
                return True
            if "the kernel has no memory for maps of about" in done.stderr:
                refused += 1
            else:
                assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done
                ended += 1
            assert filter.rules() == ["dport 7 drop"]
            assert filter.status()["generation"] == before
            return False

        enough = next((megabytes << 10 for megabytes in range(16, 200) if fits(megabytes << 10)), None)
        assert enough, "it never had enough"
        assert len(filter.rules()) == len(rules)
        # Where a process needs the most, and where its maps are made, are close together: then it takes smaller steps.
        kilobytes = enough - 8192
        while refused == 0 and kilobytes < enough:
            filter("rule replace", input="dport 7 drop\n")
            before = filter.status()["generation"]
            fits(kilobytes)
            kilobytes += 128
    assert refused > 0, f"ended {ended} times"
