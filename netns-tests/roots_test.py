# SPDX-License-Identifier: GPL-2.0-only
"""The root: nothing outside of it is touched, what is in it is read as one state, and it is nobody else's."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from lab import BPFFS, run, until
from traffic import Filter

NOBODY = 65534


def leaves(netctl, words=()):
    """(words, usage) of every command of the program's table."""
    text = netctl(*words, "--help").stdout
    children = re.search(r"^commands:\n((?:  .*\n)+)", text, re.MULTILINE)
    if not children:
        yield words, re.search(r"^usage: netctl (.*)$", text, re.MULTILINE)[1]
        return
    for line in children[1].splitlines():
        yield from leaves(netctl, (*words, line.split()[0]))


class Examples:
    """Makes a command line that does something out of a usage line."""

    def __init__(self, directory, cgroup):
        self.rules = directory / "rules"
        self.capture = directory / "none.pcap"
        # A capture without packets: magic, version, zone, accuracy, length, Ethernet.
        self.capture.write_bytes(
            bytes.fromhex("d4c3b2a1 0200 0400 00000000 00000000 00000400 01000000")
        )
        self.elements = directory / "elements"
        self.elements.write_text("192.0.2.7\n")
        self.options = {
            "policy enable": ("--cgroup", cgroup.path, "--mode", "audit"),
            "redirect enable": ("--cgroup", cgroup.path),
            "redirect bench": ("--rounds", 3),
            "set create": ("--type", "cidr"),
            "set watch": ("--duration", "1ms"),
            "xdp set": ("--log-rate", 99),
            "tc set": ("--log-rate", 99),
            "trace http": ("--duration", 1, "--har", directory / "har"),
            "trace tcp connlat": ("--duration", 1),
            "trace tcp states": ("--duration", 1),
            "trace tcp life": ("--duration", 1),
            "trace tcp rtt": ("--duration", 1),
            "trace tcp drops": ("--duration", 1),
            "trace tcp reset": ("--duration", 1),
            "trace tcp retrans": ("--duration", 1),
            "trace func": ("--duration", 1),
            "trace profile": ("--duration", 1, "--svg", directory / "svg"),
            "trace usdt": ("--duration", 1, "--file", "stdc++"),
            "trace gc": ("--duration", 1, "--file", "/usr/bin/python3"),
            "trace tls": ("--duration", 1),
            "xdp log": ("--write", directory / "xdp.pcap"),
            "tc log": ("--write", directory / "tc.pcap"),
            "xdp capture": ("--duration", "1ms"),
            "tc capture": ("--write", directory / "captured.pcap", "--duration", "1ms"),
            "top": ("--count", 1),
            "detach": ("--all",),
            "save": ("--file", directory / "kept" / "saved.yaml"),
            "restore": ("--file", directory / "kept" / "saved.yaml"),
            "metrics": ("--textfile", directory / "netctl.prom", "--once"),
        }
        self.foreign = directory / "foreign"
        self.foreign.write_text("create foreign hash:net family inet\nadd foreign 192.0.2.0/28\n")
        self.config = directory / "config.yaml"
        self.config.write_text("absent: [set none]\n")
        self.words = {
            "xdp": "dport 7 drop", "tc": "dport 7 drop", "policy": "dport 7 audit",
            "redirect rule": "dport 7 allow",
            "redirect to": "dst 192.0.2.9 dport 7 target 127.0.0.1:7",
        }  # fmt: skip

    def line(self, words, usage):
        spoken = " ".join(words)
        rule = next((rule for about, rule in self.words.items() if spoken.startswith(about)), "")
        self.rules.write_text(f"{rule}\n")
        file = {"simulate": self.capture, "import": self.elements}.get(words[-1], self.rules)
        file = self.config if words[-1] in ("check", "plan", "diff", "apply") else file
        file = self.elements if spoken == "set diff" else file
        file = self.foreign if spoken == "import" else file
        known = {
            "IFACE": ["eth0"], "ingress|egress": ["ingress"], "NAME": ["names"], "ID": ["1"],
            "ELEMENT": ["192.0.2.7"], "RULE": rule.split(), "DST": ["192.0.2.9"],
            "PORT": ["7"], "PROTO": ["tcp"], "FILE": [file], "PACKET": ["dport", "7"],
            "GROUP": ["nogroup"], "OTHER": ["others"], "ADDRESS": ["192.0.2.53"], "PID": ["1"],
            "TARGET": ["c:getaddrinfo"], "PROBE": ["libstdcxx:throw"],
        }  # fmt: skip
        said = []
        for word in re.sub(r"\[--[^]]*\]", "", usage).split()[len(words) :]:
            name = re.sub(r"[][.]", "", word)
            assert name in known, f"`{usage}` is new: say here what {name} may be"
            said += known[name]
        return [*words, *said, *self.options.get(spoken, ())]


# ---- nothing outside, and all under the lock ----

# What takes away a directory of these names at the top of the file system has lost its root.
DECOYS = ("bases", "xdp", "tc", "sets", "redirect", "policy", "trace")

# System calls that change something at a path.
CHANGES = (
    "open openat creat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat "
    "symlink symlinkat mknod mknodat chmod fchmod fchmodat chown fchown lchown fchownat truncate "
    "ftruncate utimensat setxattr lsetxattr fsetxattr removexattr mount umount2 move_mount "
    "pivot_root bpf"
).split()
WAITS = ("epoll_wait", "epoll_pwait", "poll", "ppoll", "clock_nanosleep")

BEGINNING, ENDING = ("attach", "enable", "create"), ("detach", "disable", "destroy")
READING = ("status", "list", "test", "learn")


class Top:
    """A copy of the file system's top, in a mount namespace of its own, with the decoys in it."""

    def __init__(self, lab, directory):
        self.path = directory / "top"
        build = """
            set -e
            mkdir "$0"
            mount -t tmpfs none "$0"
            for name in /*; do
                if [ -L "$name" ]; then cp -P "$name" "$0"; continue; fi
                [ -d "$name" ] || continue
                mkdir "$0$name"
                mount --rbind "$name" "$0$name"
            done
            mkdir "$0/victim"; echo precious >"$0/victim/file"
            for name; do mkdir "$0/$name"; done
            echo precious >"$0/bases/file"
            ln -s /victim "$0/bases/link"
            echo ready
            exec sleep infinity
        """
        holder = lab.start("unshare", "--mount", "sh", "-c", build, self.path, *DECOYS)
        holder.expect("^ready$", 30)
        self._pid = holder.pid
        self.before = self.decoys()

    def inside(self, *argv):
        """The command line that runs `argv` where the decoys are."""
        return ["nsenter", f"--mount=/proc/{self._pid}/ns/mnt", "chroot", self.path, *argv]

    def decoys(self):
        """What there is, by inode."""
        top = Path(f"/proc/{self._pid}/root{self.path}")
        roots = [top / name for name in (*DECOYS, "victim")]
        paths = [path for root in roots if root.exists() for path in (root, *root.rglob("*"))]
        return {str(path.relative_to(top)): path.lstat().st_ino for path in paths}


class Trace:
    """System calls of a command."""

    def __init__(self, log):
        self.log = log

    def wrap(self, *argv):
        calls = ",".join([*CHANGES, *WAITS, "fcntl", "dup", "flock", "close"])
        return ["strace", "-f", "-y", "-qq", "-s", 4096, "-o", self.log, "-e", f"trace={calls}", *argv]

    def calls(self):
        """(name, arguments, what a line says) of each that came back."""
        for line in self.log.read_text(errors="replace").splitlines():
            call = re.match(r"\d+ +(\w+)\((.*)", line)
            if call:
                yield call[1], call[2], line

    def waits(self):
        return any(name in WAITS for name, _, _ in self.calls())

    def paths(self):
        """(name, path, line) of each that changes something at a path, or opens a pin. What goes through a
        descriptor in /proc ends where the descriptor leads to."""
        descriptors = {}
        for name, rest, line in self.calls():
            for number, path in re.findall(r"(\d+)<(/[^>]*)>", rest):
                descriptors[number] = path
            if name not in CHANGES:
                continue
            if name in ("open", "openat") and not re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC)", rest):
                continue
            if name == "bpf" and not rest.startswith(("BPF_OBJ_PIN", "BPF_OBJ_GET,")):
                continue
            first = re.match(r"\w+<([^>]*)>", rest)
            # Each path is below the directory right before it; linkat and renameat have two.
            pairs = re.findall(r'(?:<([^>]*)>, )?"((?:[^"\\]|\\.)*)"', rest)
            pairs = pairs[1:2] if name == "mount" else pairs or [("", "")]
            for directory, text in pairs:
                path = os.path.join(directory or (first[1] if first else "/"), text)
                through = re.match(r"/proc/self/fd/(\d+)(/.*)?$", path)
                if through:
                    path = descriptors[through[1]] + (through[2] or "")
                yield ("OBJ_GET" if rest.startswith("BPF_OBJ_GET,") else name), path, line


def check_lock(trace, words, root):
    """Pins are opened, made and removed under the root's lock; who reads has it once, and nobody who waits
    for others. Returns whether it did anything there, and what was wrong."""
    lock = f"{root}/lock"
    held, times, opened, wrong = None, 0, False, []
    paths = {line: path for _, path, line in trace.paths()}
    for name, rest, line in trace.calls():
        if name == "flock" and f"<{lock}>" in rest and rest.endswith("= 0"):
            held = rest.split("<")[0]
            times += 1
        elif name == "close" and held and rest.startswith(f"{held}<"):
            held = None
        elif name in WAITS and words[-1] in ("log", "run") and opened and held:
            wrong.append(f"{words} waits with the lock: {line}")
        path = paths.get(line, "")
        # The root and its lock have to be made before.
        if path.startswith(f"{root}/") and path != lock:
            opened = True
            if not held:
                wrong.append(f"{words} without the lock: {line}")
    if words[-1] in READING and times > 1:
        wrong.append(f"{words} read {times} states")
    return opened, wrong


@pytest.mark.timeout(900)
def test_nothing_outside_the_root_is_touched(netctl, lab, link, tmp_path):
    _, server = link
    top = Top(lab, tmp_path)
    trace = Trace(tmp_path / "strace")
    examples = Examples(tmp_path, lab.cgroup())
    commands = list(leaves(netctl))
    assert len(commands) > 50
    fine = (
        f"{netctl.root}/", "/proc/", "/dev/", f"{tmp_path}/", "/sys/fs/cgroup/", "/sys/kernel/",
        "pipe:", "socket:", "anon_inode:",
    )  # fmt: skip

    def life(command):
        verb = command[0][-1]
        return 0 if verb in BEGINNING else 2 if verb in ENDING else 1

    ran = changes = under_lock = 0
    failed, outside, unlocked, misused = [], [], [], []
    # On a root that is not there, and then each at its time.
    alone = [command for command in commands if life(command) != 0]
    for words, usage in [*alone, *sorted(commands, key=life)]:
        argv = trace.wrap(*netctl.argv(*examples.line(words, usage)))
        process = lab.start(*top.inside(*server.netns.wrap(argv)))
        if words[-1] in ("log", "run"):
            # It waits, or it has ended because there is nothing to wait for.
            until(lambda: not process.alive() or trace.waits(), 30, f"{process}")
            while process.alive():  # strace itself takes no notice
                for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                    os.kill(int(child), signal.SIGINT)
                try:
                    process.wait(1)
                except subprocess.TimeoutExpired:
                    continue
        status = process.wait(120)
        if status not in (0, 1, 3, 4, 130):
            misused.append(f"{words}: exit status {status}: {process.stderr}")
        ran += 1
        if status != 0:
            failed.append(" ".join(words))
        for name, path, line in trace.paths():
            if name == "OBJ_GET":
                continue
            changes += 1
            if path != str(netctl.root) and not path.startswith(fine):
                outside.append(f"{' '.join(words)}: {line}")
        opened, complaints = check_lock(trace, words, netctl.root)
        under_lock += opened
        unlocked += complaints
        if top.decoys() != top.before:
            outside.append(f"{' '.join(words)} took {top.before.keys() - top.decoys().keys()} away")
            top.before = top.decoys()
    assert not misused, "\n".join(misused)
    assert not outside, "\n".join(outside)
    assert not unlocked, "\n".join(unlocked)
    assert changes > 300, "the log was not understood"
    assert under_lock > 40, "few commands were seen to open a pin"
    assert not netctl.root.exists()
    print(f"{ran} commands, {changes} changes, 0 outside; {under_lock} with the lock; failed: {failed}")


# ---- one state ----


def slow(lab, log, *argv, milliseconds=15):
    """Starts a command that stops at each bpf() for a while, and waits until it is at work."""
    process = lab.start("strace", "-f", "-o", log, "-e", "trace=bpf,flock", "-e",
                        f"inject=bpf:delay_exit={1000 * milliseconds}", *argv)  # fmt: skip
    def at_work():
        return log.exists() and "BPF_MAP_GET_NEXT_KEY" in log.read_text()

    until(lambda: at_work() or not process.alive(), 30, f"{process}")
    return process


def test_a_list_is_one_state(netctl, lab, tmp_path):
    netctl("set", "create", "names", "--type", "host")
    old = [f"192.0.2.{i}" for i in range(1, 21)]
    new = [f"198.51.100.{i}" for i in range(1, 21)]
    netctl("set", "import", "names", input="\n".join(old))
    reader = slow(lab, tmp_path / "strace", *netctl.argv("set", "list", "names"))
    netctl("set", "import", "names", "--replace", input="\n".join(new))
    assert reader.wait() == 0, reader
    assert reader.stdout.split() == old
    assert netctl("set", "list", "names").stdout.split() == new


def test_elements_deleted_by_others_do_not_double_the_rest(netctl, lab, tmp_path):
    netctl("set", "create", "names", "--type", "host")
    netctl("set", "import", "names", input="\n".join(f"192.0.2.{i}" for i in range(256)))
    pin = netctl.root / "sets" / "names" / "v4"
    entries = json.loads(run("bpftool", "--json", "map", "dump", "pinned", pin).stdout)
    # In the order in which they are walked, from behind where the reader is; faster than it walks.
    batch = tmp_path / "batch"
    keys = [" ".join(entry["key"]) for entry in entries][10:250]
    batch.write_text("".join(f"map delete pinned {pin} key {key}\n" for key in keys))
    reader = slow(lab, tmp_path / "strace", *netctl.argv("set", "list", "names"), milliseconds=20)
    until(lambda: (tmp_path / "strace").read_text().count("GET_NEXT_KEY") > 30, 30, "a walk")
    run("bpftool", "batch", "file", batch)
    assert reader.wait(60) == 0, reader
    listed = reader.stdout.split()
    assert len(set(listed)) == len(listed)
    assert len(listed) >= 16


# ---- the lock ----

HOLDER = r"""
import ctypes, fcntl, os, sys, time
ctypes.CDLL(None).prctl(15, sys.argv[2].encode().decode("unicode_escape").encode("latin-1"), 0, 0, 0)
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(fd, fcntl.LOCK_SH if sys.argv[3] == "shared" else fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def hold(lab, netctl, mode, name="holder"):
    process = lab.start("python3", "-c", HOLDER, netctl.root / "lock", name, mode)
    process.expect("^held$")
    return process


def test_who_waits_is_told_for_whom_and_not_for_ever(netctl, lab):
    netctl("set", "create", "names", "--type", "host")
    holder = hold(lab, netctl, "exclusive", r"a\x1b[31m\nb")
    for words in (("set", "list"), ("set", "add", "names", "192.0.2.1"), ("xdp", "status")):
        error = netctl.fails("--lock-timeout", "2", *words)
        who = rf"a\x1b[31m\x0ab (pid {holder.pid})"
        assert f"waiting for the lock of {netctl.root}, held by {who}" in error
        assert f"the lock of {netctl.root} was not to be had within 2 s" in error
        assert "--lock-timeout" in error
    netctl.fails("--lock-timeout", "0", "set", "list")
    assert "0 to 86400" in netctl.fails("--lock-timeout", "x", "set", "list", status=2)
    holder.stop()
    assert netctl("set", "list", "names").stdout == ""


def test_who_waits_goes_on_when_the_lock_is_free(netctl, lab):
    netctl("set", "create", "names", "--type", "host")
    holder = hold(lab, netctl, "exclusive")
    waiting = lab.start(*netctl.argv("set", "add", "names", "192.0.2.1"))
    waiting.expect("held by holder", 10)
    holder.stop()
    assert waiting.wait() == 0
    assert netctl("set", "list", "names").stdout == "192.0.2.1\n"


def test_readers_share_the_lock_and_a_writer_has_its_turn(netctl, lab):
    netctl("set", "create", "names", "--type", "host")
    holder = hold(lab, netctl, "shared")
    assert netctl("set", "list", "names").stdout == ""
    writer = lab.start(*netctl.argv("set", "add", "names", "192.0.2.1"))
    writer.expect("held by holder", 10)
    # Who comes behind the writer does not go before it.
    reader = lab.start(*netctl.argv("set", "list", "names"))
    reader.expect("held by holder", 10)
    holder.stop()
    assert writer.wait() == 0
    assert reader.wait() == 0
    assert reader.stdout == "192.0.2.1\n"


# ---- whose it is ----


@pytest.mark.parametrize("what", ["owner", "group", "others"])
@pytest.mark.parametrize("where", ["", "sets", "sets/names"])
def test_a_directory_that_others_may_write_to_is_refused(netctl, what, where):
    netctl("set", "create", "names", "--type", "host")
    directory = netctl.root / where if where else netctl.root
    if what == "owner":
        os.chown(directory, NOBODY, NOBODY)
    else:
        directory.chmod({"group": 0o770, "others": 0o707}[what])
    pins = sorted(netctl.root.rglob("*"))
    for words in (("set", "list"), ("set", "destroy", "names"), ("set", "create", "b", "--type", "port")):
        error = netctl.fails(*words)
        assert f"{directory} " in error
        assert "is not trusted" in error
    assert sorted(netctl.root.rglob("*")) == pins
    os.chown(directory, 0, 0)
    directory.chmod(0o750)  # a group may look into it
    assert netctl("set", "list", "names").stdout == ""


def test_a_stranger_cannot_make_the_root_first(netctl):
    bpffs = BPFFS
    script = """
        set -e
        mount -t bpf bpf "$1" # writable by everybody, and sticky
        setpriv --reuid 65534 --regid 65534 --clear-groups mkdir -m 777 "$1/root" "$1/root/xdp"
        shift
        "$@"
    """
    done = run("unshare", "--mount", "sh", "-c", script, "sh", bpffs, netctl.binary, "--root",
               bpffs / "root", "set", "create", "names", "--type", "host", check=False)  # fmt: skip
    assert done.returncode == 1
    assert f"{bpffs}/root belongs to user {NOBODY}" in done.stderr


def test_links_in_the_root_are_not_followed(netctl, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious")
    netctl("set", "create", "names", "--type", "cidr")
    for place in ("bases/link", "sets/names/link", "link"):
        (netctl.root / place).symlink_to(victim)
    assert "link" not in netctl("set", "list").stdout
    netctl("set", "destroy", "names")
    assert (victim / "file").read_text() == "precious"
    assert not (netctl.root / "bases").exists()
    (netctl.root / "sets").symlink_to(victim)
    netctl.fails("set", "create", "names", "--type", "host")
    assert [path.name for path in victim.iterdir()] == ["file"]


# ---- where it is ----


def test_a_root_is_one_absolute_path(netctl, tmp_path):
    mounts = Path("/proc/self/mountinfo").read_text()
    for root, meant in (
        (f"{BPFFS}/../../../{tmp_path}/x", tmp_path / "x"),
        ("relative/x", Path.cwd() / "relative/x"),
        (f"{BPFFS}/./x", BPFFS / "x"),
    ):
        for words in (("set", "list"), ("set", "create", "names", "--type", "host")):
            done = run(netctl.binary, "--root", root, *words, check=False)
            assert done.returncode == 2, done
            assert "is not an absolute path" in done.stderr
            assert f"if you mean {meant}, give that" in done.stderr
    (tmp_path / "link").symlink_to(BPFFS)
    done = run(netctl.binary, "--root", tmp_path / "link" / "x", "set", "list", check=False)
    assert done.returncode == 1
    assert f"{tmp_path}/link is a symbolic link" in done.stderr
    # Slashes do no harm.
    assert run(netctl.binary, "--root", f"{netctl.root}//", "set", "list").returncode == 0
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert not (tmp_path / "x").exists()


def test_two_first_commands_mount_one_bpffs(netctl, tmp_path):
    script = """
        while mountpoint -q /sys/fs/bpf; do umount /sys/fs/bpf; done
        for i in 1 2 3 4 5 6; do "$@" set create "s$i" --type port & done
        wait
        findmnt -n -o TARGET -t bpf
        "$@" set list
    """
    done = run("unshare", "--mount", "sh", "-c", script, "sh", netctl.binary)
    mounts = [line for line in done.stdout.splitlines() if line.startswith("/")]
    assert mounts == ["/sys/fs/bpf"]
    assert done.stderr.count("mounted bpffs") == 1
    assert len(re.findall(r"^s\d ", done.stdout, re.MULTILINE)) == 6


def test_what_reads_makes_nothing(netctl, lab, link, tmp_path):
    _, server = link
    examples = Examples(tmp_path, lab.cgroup())
    for words, usage in leaves(netctl):
        if words[-1] in READING:
            server.netns.run(*netctl.argv(*examples.line(words, usage)), check=False)
            assert not netctl.root.exists(), words


def test_a_read_only_bpffs_can_be_read(netctl, lab, link, tmp_path):
    _, server = link
    bpffs = tmp_path / "bpffs"
    script = """
        set -e
        bpffs=$1; shift
        mkdir "$bpffs"; mount -t bpf -o mode=0700 bpf "$bpffs"
        "$@" set create names --type cidr
        "$@" set add names 192.0.2.0/24
        "$@" xdp attach eth0
        "$@" xdp rule add eth0 src @names drop
        "$@" tc attach eth0 ingress
        mount -o remount,ro "$bpffs"
        "$@" set list names
        "$@" set test names 192.0.2.1
        "$@" xdp status eth0
        "$@" xdp rule list eth0
        "$@" tc status eth0
        "$@" redirect status
        ! "$@" set create others --type host
        ! "$@" set add names 198.51.100.0/24
        ! "$@" set destroy names
        mount -o remount,rw "$bpffs"
        "$@" xdp detach eth0
        "$@" tc detach eth0 ingress
        "$@" set destroy names
        test ! -e "$bpffs/root"
    """
    done = run("unshare", "--mount", "sh", "-c", script, "sh", bpffs, netctl.binary, "--root",
               bpffs / "root", "--netns", server.netns.name)  # fmt: skip
    assert done.stdout.count("src @names drop") >= 2
    assert "Read-only file system" in done.stderr


@pytest.mark.timeout(300)
def test_a_namespace_that_is_not_there_is_an_error(netctl, lab, tmp_path):
    examples = Examples(tmp_path, lab.cgroup())
    for words, usage in leaves(netctl):
        error = netctl.fails("--netns", "nosuch", *examples.line(words, usage))
        assert "network namespace 'nosuch'" in error, words
    assert "is no network namespace" in netctl.fails("--netns", "/dev/null", "set", "list")


def test_what_a_namespace_left_behind_can_be_taken_away(netctl, lab):
    client, server = lab.pair()
    Filter(netctl, server)
    name = server.netns.name
    run("ip", "netns", "delete", name)
    try:
        netctl("--netns", name, "xdp", "status", "eth0")
        netctl("--netns", name, "xdp", "detach", "eth0")
        netctl.fails("--netns", name, "xdp", "status")
    finally:
        run("ip", "netns", "add", name)  # the lab deletes it


# ---- the joiner ----


def test_asking_for_the_status_does_not_keep_a_joiner_out(netctl, lab, tmp_path):
    cgroup = lab.cgroup()
    netctl("redirect", "enable", "--cgroup", cgroup.path)
    log = tmp_path / "strace"
    run("strace", "-f", "-y", "-o", log, "-e", "trace=flock,fcntl", *netctl.argv("redirect", "status"))
    assert "LOCK_SH" in log.read_text()
    locked = [line for line in log.read_text().splitlines() if f"{netctl.root}/redirect>" in line]
    assert not [line for line in locked if "flock" in line or "SETLK" in line]
    assert not netctl.json("redirect", "status")["joiner"]
    joiner = netctl.start(lab, "redirect", "run", json=False)
    until(lambda: netctl.json("redirect", "status")["joiner"], 20, f"{joiner}")
    assert "another joiner" in netctl.fails("redirect", "run")
    netctl("redirect", "disable")
    assert joiner.wait() == 0
