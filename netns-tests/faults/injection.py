# SPDX-License-Identifier: GPL-2.0-only
"""Which system calls a command makes, and the same command with one of them failing, or its last."""

import hashlib
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
    """The `number`-th call of its name, counted from 1, and what befalls it. `call` is for people; `key` names the
    point in every run and on every machine: by the how manieth call of its like it is, not of all."""

    name: str
    number: int
    call: str
    fault: str
    key: str
    group: tuple

    def __str__(self):
        return f"{self.fault} at {self.call} ({self.name} number {self.number})"

    def inject(self):
        # Killed on its way in, a process has not made the call. Killed behind it is killed before the next.
        what = f"signal={KILLED}" if self.fault == KILLED else f"error={self.fault}"
        return f"inject={self.name}:{what}:when={self.number}"


# How long a command may take, in seconds; some that hang would do so for ever. A busy machine needs a minute for
# what the verifier looks at.
LIMIT = 600 * PATIENCE


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


def _same(text):
    """A text without its numbers: processes, descriptors and temporary names are others in each run."""
    return re.sub(r"[0-9a-f]*[0-9][0-9a-f]*", "N", text)


def _fraction(seed, key):
    """A number from 0 to 1 that both of them decide, and nothing else."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:8], "big") / 2**64


def points(calls):
    """All that can befall these calls."""
    seen = defaultdict(int)
    found = []
    for name, number, call in calls:
        short = brief(call)
        seen[_same(short)] += 1
        key = f"{_same(short)} {seen[_same(short)]}"
        kind = (name, re.sub(r"[^(]*\((BPF_\w+)?.*", r"\1", call))
        errors = ERRORS
        if _READS.match(call):
            errors = (ERRORS[int(_fraction("error", key) * len(ERRORS))],)
        else:
            found.append(Point(name, number, short, KILLED, f"{key} {KILLED}", (KILLED, *kind)))
        found += [Point(name, number, short, error, f"{key} {error}", ("error", *kind)) for error in errors]
    return found


def sample(found, count, seed):
    """`count` of the points. Of each group one, then of each a second, and so on, as there are calls that a command
    makes a hundred times. Which ones, the seed and their keys decide: a point more, or fewer, on this machine or in
    this run leaves the choice among the others as it was, but for the last."""
    groups = defaultdict(list)
    for point in found:
        groups[point.group].append((_fraction(seed, point.key), point.key, point))
    turns = [(turn, *one) for group in groups.values() for turn, one in enumerate(sorted(group, key=lambda one: one[:2]))]
    return [point for *_, point in sorted(turns, key=lambda one: one[:3])[:count]]
