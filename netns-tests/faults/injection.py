# SPDX-License-Identifier: GPL-2.0-only
"""Which system calls a command makes, and the same command with one of them failing, or its last."""

import random
import re
from collections import defaultdict
from dataclasses import dataclass

from lab import PATIENCE, run

# Whatever may change the state of the kernel or of a file system, or what is believed about it. Netlink is
# spoken through sendto and sendmsg.
CALLS = (
    "bpf sendto sendmsg flock setns openat mount umount2 ioctl "
    "?mkdir mkdirat ?rmdir ?unlink unlinkat ?rename ?renameat renameat2 ?symlink symlinkat ?link linkat "
    "?chmod fchmod fchmodat ?chown fchown fchownat write ftruncate fsync"
).split()
ERRORS = ("ENOMEM", "EPERM", "EBUSY", "E2BIG", "EAGAIN", "EINTR")
KILLED = "SIGKILL"

# These only look: to be killed at one is to be killed at the next of the others, and one error is as good as
# another.
_READS = re.compile(
    r"bpf\(BPF_(OBJ_GET|MAP_LOOKUP|MAP_GET|BTF_GET|PROG_GET|LINK_GET|PROG_QUERY)|openat\(.*O_RDONLY|ioctl\("
)
# The loader's and the C library's own files, and what is printed.
_NOT_OURS = re.compile(r'openat\(.*"(/etc/|/lib/|/usr/|/lib64/|/dev/)|write\([12]<|ioctl\([012]<')
_LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)$")


@dataclass(frozen=True)
class Point:
    """The `number`-th call of its name, counted from 1, and what befalls it. `call` is for people."""

    name: str
    number: int
    call: str
    fault: str

    def __str__(self):
        return f"{self.fault} at {self.call} ({self.name} number {self.number})"

    def inject(self):
        # Killed on its way in, a process has not made the call. Killed behind it is killed before the next.
        what = f"signal={KILLED}" if self.fault == KILLED else f"error={self.fault}"
        return f"inject={self.name}:{what}:when={self.number}"


# How long a command may take, in seconds; some that hang would do so for ever.
LIMIT = 120 * PATIENCE


def strace(argv, log, *options, **keywords):
    # timeout ends the command too, which strace alone would leave behind: a process group of their own.
    return run("timeout", "--signal=KILL", LIMIT, "strace", "-f", "-q", "-y", "-s", "200", "-o", log, *options, *argv,
               check=False, timeout=3 * LIMIT, **keywords)  # fmt: skip


def strike(point, argv, log, **keywords):
    """Runs the command with this fault. Returns how that went, and whether it came to the point."""
    # With --seccomp-bpf only the calls that are looked for stop the command, but no signal comes through then.
    quick = () if point.fault == KILLED else ("--seccomp-bpf",)
    done = strace(argv, log, *quick, "-e", f"trace={point.name}", "-e", point.inject(), **keywords)
    if point.fault == KILLED:
        return done, "+++ killed by SIGKILL +++" in log.read_text(errors="replace")
    return done, "(INJECTED)" in log.read_text(errors="replace")


def trace(argv, log, **keywords):
    """Runs the command as it is. Returns how that went, and its calls in order: (name, number, call)."""
    done = strace(argv, log, "--seccomp-bpf", "-e", "trace=" + ",".join(CALLS), **keywords)
    numbers = defaultdict(int)
    process = None
    calls = []
    for line in log.read_text(errors="replace").splitlines():
        # strace counts for each process by itself; those that netctl starts are their own masters.
        first = line.split(" ", 1)[0]
        process = process or first
        match = _LINE.match(line)
        if first != process or not match:
            continue
        name, rest = match.groups()
        numbers[name] += 1
        if not _NOT_OURS.match(f"{name}({rest}"):
            calls.append((name, numbers[name], f"{name}({rest}"))
    return done, calls


def brief(call):
    """The call without what is another each time: its name, the command, and the names in it."""
    name = call.split("(", 1)[0]
    words = re.findall(r"\b(?:BPF_[A-Z_0-9]{4,}|RTM_[A-Z]+|LOCK_[A-Z]+)\b", call)[:1]
    words += [path.rsplit("/netctl-", 1)[-1].partition("/")[2] or path for path in re.findall(r'"([^"\\]*)"', call)[:2]]
    return f"{name}({' '.join(words)})"


def points(calls):
    """All that can befall these calls, in groups of like ones."""
    groups = defaultdict(list)
    for index, (name, number, call) in enumerate(calls):
        # The same call matters otherwise before the commit and behind it.
        quarter = 4 * index // len(calls)
        kind = (name, re.sub(r"[^(]*\((BPF_\w+)?.*", r"\1", call), quarter)
        errors = ERRORS
        if _READS.match(call):
            errors = (ERRORS[number % len(ERRORS)],)
        else:
            groups[KILLED, *kind].append(Point(name, number, brief(call), KILLED))
        for error in errors:
            groups["error", *kind].append(Point(name, number, brief(call), error))
    return list(groups.values())


def sample(groups, count, seed):
    """`count` of the points, one of each group in turns: there are calls that a command makes a hundred times."""
    chance = random.Random(seed)
    groups = [chance.sample(group, len(group)) for group in groups if group]
    chance.shuffle(groups)
    chosen = []
    while groups and len(chosen) < count:
        chosen += [group.pop() for group in groups][: count - len(chosen)]
        groups = [group for group in groups if group]
    return chosen
