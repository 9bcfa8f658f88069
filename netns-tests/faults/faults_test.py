# SPDX-License-Identifier: GPL-2.0-only
"""Every command that writes, with each of its system calls failing, or being its last (invariants I2 and I13).

Behind each such fault the old state is in force or the new one, whole; which one, the exit status tells:
0 if and only if it is the new one. Nothing is attached or pinned that the state does not have; what a killed
command left aside is gone behind the next one, which works.

NETCTL_FAULTS is how many points are tried in all (default 300), or `all`. NETCTL_FAULTS_SEED chooses them
(default 1, so that who changes nothing sees nothing change), and is printed. NETCTL_FAULTS_SHARD=I/N: the I-th of N parts of
the commands, counted from 0. NETCTL_FAULTS_TIME is for how many seconds points are tried (default 900); what is left then
is told, and no failure: a slow machine tries fewer.
"""

import os
import re
import time

import pytest
from faults import injection
from faults.commands import KNOWN, ROWS
from faults.world import World, without, without_counts
from lab import PATIENCE

SEED = int(os.environ.get("NETCTL_FAULTS_SEED") or 1)
WANTED = os.environ.get("NETCTL_FAULTS") or "300"
END = time.monotonic() + float(os.environ.get("NETCTL_FAULTS_TIME") or (900 if WANTED != "all" else 1e9)) * PATIENCE
SHARD, SHARDS = map(int, os.environ.get("NETCTL_FAULTS_SHARD", "0/1").split("/"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("world"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def count(record_testsuite_property):
    """Counts points; the sums end up in the report."""
    sums = {"points tried": 0, "points in all": 0, "killed": 0, "not reached": 0, "out of time": 0, "commands": 0}
    yield sums
    for name, value in sums.items():
        record_testsuite_property(name, value)
    record_testsuite_property("NETCTL_FAULTS_SEED", SEED)
    print(f"faults: {sums}, NETCTL_FAULTS_SEED={SEED}")


class Trial:
    """One row's states, old and new, and its trials."""

    def __init__(self, world, row):
        self.world = world
        self.row = row
        self.before = None  # the state that the next trial begins with, if that is the old one
        self.missed = 0
        self.log = world.directory / "strace"
        self.set_up()
        self.old = self.before
        argv, options = world.command(row.command, row.on)
        done, self.calls = injection.trace(argv, self.log, **options)
        if done.returncode == 3:
            world.scrub()
            pytest.skip(f"this kernel cannot: {done.stderr.strip()}")
        assert done.returncode == 0, done
        self.new = self.state()
        assert not row.shows or self.new.differences(self.old), "one cannot tell the new state from the old one"
        problems = self.new.differences(self.new, before=self.old)
        problems += self.take_down()
        assert not problems, problems

    def state(self):
        return without(self.world.state(self.row.features, self.row.on), self.row.aside)

    def set_up(self):
        for words in self.row.before:
            done = self.world.run(words, self.row.on, check=False)
            if done.returncode == 3:
                self.world.scrub()
                pytest.skip(f"this kernel cannot: {done.stderr.strip()}")
            assert done.returncode == 0, done
        self.before = self.counted_anew(self.state())

    def counted_anew(self, state):
        """The state with the counters as its probes have raised them."""
        state.told = self.world.told(self.row.features)
        state.told = without(state, self.row.aside).told
        return state

    def take_down(self):
        """Undoes what stands when the command has been done, with netctl. Returns what is wrong then."""
        made = []
        for words in () if self.row.undo else (*self.row.before, self.row.command):
            match = re.match(r"(xdp|tc|set|policy|redirect) (attach|detach|create|destroy|enable|disable)(.*)", words)
            if not match:
                continue
            feature, verb, rest = match.groups()
            place = (feature, *rest.split()[: {"xdp": 1, "tc": 2, "set": 1}.get(feature, 0)])
            if verb not in ("attach", "create", "enable"):
                made.remove(place)
            elif place not in made:
                made.append(place)
        problems = []
        undone = [" ".join([feature, {"xdp": "detach", "tc": "detach", "set": "destroy"}.get(feature, "disable"), *place])
                  for feature, *place in reversed(made)] or list(self.row.undo)  # fmt: skip
        if not undone:
            # What the command, an undoing one itself, could not tidy up is found by the same again, or another.
            self.world.run(self.row.command, self.row.on, check=False)
            undone = ["set create other --type port", "set destroy other"]
        for words in undone:
            done = self.world.run(words, self.row.on, check=False)
            if done.returncode != 0:
                problems.append(f"`{words}` behind it fails: {done.stderr}")
        state = self.state()
        if state.pins or state.attached["net"] or state.attached.get("cgroup"):
            problems.append(f"left behind: {state.pins} {state.attached}")
        if "clsact" in state.qdiscs or "fq" in state.qdiscs:
            problems.append(f"left behind: qdiscs {state.qdiscs}")
        self.before = None
        if problems:
            self.world.scrub()
        return problems

    def try_point(self, point):
        """Returns what is wrong, a list of sentences."""
        if self.before is None:
            self.set_up()
        before = self.before
        argv, options = self.world.command(self.row.command, self.row.on)
        done, struck = injection.strike(point, argv, self.log, **options)
        after = self.state()
        told = f"exit status {done.returncode}: {done.stderr.strip()[-300:]}"
        # A command need not make the same calls again; what does not come to the point has to be right all the same.
        self.missed += not struck
        killed = struck and point.fault == injection.KILLED
        # A failure that is told has left nothing, and who says nothing is done. What cannot be tidied up behind
        # the commit is told, and waits for the next.
        tidied = not killed and "could not be tidied up" not in done.stderr
        is_old = after.differences(before, tidy=not killed)
        is_new = after.differences(self.new, before, tidy=tidied)
        if killed:
            outcome = "old" if not is_old else "new" if not is_new else "half" if self.is_half(after, before) else None
        elif done.returncode == 0:
            outcome = "new" if not is_new else None
        else:
            outcome = "old" if not is_old else None
        if not killed and done.returncode not in (0, 1, 3):
            outcome = None  # it hung, or crashed
        if outcome is None and done.returncode == 0 and "could not be tidied up" in done.stderr:
            # Detached, and said so: what is left of it is the next one's to take away.
            self.world.run(self.row.command, self.row.on, check=False)
            is_new = self.state().differences(self.new, before)
            outcome = "new" if not is_new else None
        if outcome is None:
            self.world.scrub()
            self.before = None
            return [f"{told}; from the old state it differs in: {is_old or 'nothing'}; from the new: {is_new or 'nothing'}"]
        if outcome == "old" and not killed:
            # It is as if nothing had been: the next trial may begin here.
            self.counted_anew(before)
            return []
        problems = []
        if outcome in ("old", "half"):
            problems += self.again(after)
        elif not tidied and not killed:
            # It said so: the next of its like takes away what is left.
            self.world.run(self.row.command, self.row.on, check=False)
        return problems + self.take_down()

    def is_half(self, after, before):
        """Whether what a killed command left is one of two things that no write alone can make or undo, which netctl
        itself tells of, and which change nothing for connections. Hooks on a cgroup that let everything pass; or a
        redirection that is being disabled: nothing joins any more, and of the `to` rules all are in force or none."""
        if after.seen not in (before.seen, self.new.seen):
            return False
        ours = {tuple(hook) for hook in after.attached.get("cgroup", ())}
        whole = {tuple(hook) for state in (before, self.new) for hook in state.attached.get("cgroup", ())}
        if not ours <= whole or after.attached["net"] not in (before.attached["net"], self.new.attached["net"]):
            return False
        if self.world.unfinished(self.row.features):
            idle = self.new if self.row.command.split()[1] == "disable" else before
            return after.seen == idle.seen and without_counts(after.told) == without_counts(idle.told)
        if not self.row.draining:
            return False
        status, rules, to = after.told["redirect"]
        old_status, old_rules, old_to = before.told["redirect"]
        same = without_counts({**status, "draining": False, "to_rules": 0})
        rewritten = after.seen == before.seen
        return (status.get("draining") is True
                and same == without_counts({**old_status, "draining": False, "to_rules": 0})
                and without_counts(rules) == without_counts(old_rules)
                and without_counts(to) == (without_counts(old_to) if rewritten else []))  # fmt: skip

    def again(self, before):
        """The command as it is, behind one that had no effect."""
        self.counted_anew(before)
        done = self.world.run(self.row.command, self.row.on, check=False)
        if done.returncode != 0:
            return [f"done again, it fails: {done.stderr}"]
        return [f"done again: {one}" for one in self.state().differences(self.new, before)]


def _quota(row):
    shares = sum(one.share for one in ROWS)
    return max(2, round(int(WANTED) * row.share / shares))


@pytest.mark.parametrize("row", [row for i, row in enumerate(ROWS) if i % SHARDS == SHARD], ids=lambda row: row.name)
def test_faults(world, count, row):
    if time.monotonic() > END:
        count["out of time"] += _quota(row) if WANTED != "all" else 1
        pytest.skip("out of time")
    world.scrub()
    trial = Trial(world, row)
    known = [one for one in KNOWN if re.fullmatch(one[0], row.name)]
    everything = [point for point in injection.points(trial.calls)
                  if not any(re.search(call, point.call) and re.fullmatch(fault, point.fault) for _, call, fault, _ in known)]  # fmt: skip
    chosen = everything
    if WANTED != "all":
        chosen = injection.sample(everything, _quota(row), f"{SEED} {row.name}")
    # What fails leaves the old state more often than not, for the next to begin with.
    chosen = sorted(chosen, key=lambda point: point.fault == injection.KILLED)
    count["commands"] += 1
    count["points in all"] += len(everything)
    failures = []
    for number, point in enumerate(chosen):
        if time.monotonic() > END:
            count["out of time"] += len(chosen) - number
            break
        count["points tried"] += 1
        count["killed"] += point.fault == injection.KILLED
        failures += [f"{point}: {problem}" for problem in trial.try_point(point)]
    count["not reached"] += trial.missed
    if trial.before is not None:
        failures += [f"at the end: {problem}" for problem in trial.again(trial.before) + trial.take_down()]
    assert not failures, f"NETCTL_FAULTS_SEED={SEED}: {len(failures)} of {len(chosen)} points:\n" + "\n".join(failures)


if KNOWN and SHARD == 0:

    @pytest.mark.parametrize("reason", [pytest.param(one[3], id="-".join(one[:3])) for one in KNOWN])
    def test_known(reason):
        pytest.skip(reason)
