# SPDX-License-Identifier: GPL-2.0-only
"""`netctl policy` with real connections, and attempts to get around it. The letters I1 to I10 are the
invariants of docs/architecture.md. All of it happens on loopback, in cgroups of the tests' own."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest
from lab import IN_VM, Cgroup, bpftool, run, until

EPERM = 1
PYTHON = "/usr/bin/python3"
TCP_WAYS = ("connect", "nonblocking", "fastopen-sendto", "fastopen-connect", "mptcp",
            "uring-connect", "uring-sqpoll-connect", "thread")  # fmt: skip
UDP_WAYS = ("udp-connect", "udp-sendto", "udp-sendmsg", "udp-sendmmsg", "uring-sendmsg",
            "udp-elsewhere")  # fmt: skip


@pytest.fixture(scope="session")
def ways(tmp_path_factory):
    """The program that knows ways to reach an address."""
    directory = tmp_path_factory.mktemp("ways")
    directory.chmod(0o755)
    built = directory / "ways"
    source = Path(__file__).with_name("policy_ways.c")
    run("gcc", "-O1", "-o", built, source, "-luring", "-lpthread")
    return built


class Group:
    """A cgroup below that of a policy, with what processes in it try."""

    def __init__(self, path, ways):
        self.path, self.ways = path, ways
        path.mkdir(exist_ok=True)
        self.name = "/" + str(path.relative_to(Cgroup.mount()))

    def wrap(self, argv):
        return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(self.path), *map(str, argv)]

    def run(self, *argv, **options):
        return run(*self.wrap(argv), **options)

    def attempt(self, way, address, port, *prefix, **options):
        """The errno of an attempt, or "unavailable"."""
        out = self.run(*prefix, self.ways, way, address, port, **options).stdout.strip()
        return out if out == "unavailable" else int(out)

    def refused(self, address, port, way="connect", *prefix, **options):
        return self.attempt(way, address, port, *prefix, **options) == EPERM


class Policy:
    """The policy of a cgroup that a test made."""

    def __init__(self, netctl, cgroup, ways):
        self.netctl, self.ways = netctl, ways
        self.cgroup = cgroup
        self.name = "/" + str(cgroup.path.relative_to(Cgroup.mount()))

    def __call__(self, *argv, **options):
        return self.netctl("policy", *argv, **options)

    def json(self, *argv, **options):
        return self.netctl.json("policy", *argv, **options)

    def fails(self, *argv, **options):
        return self.netctl.fails("policy", *argv, **options)

    def enable(self, *options, layer="cgroup", **more):
        return self.json("enable", "--cgroup", self.cgroup.path, "--layer", layer, *options, **more)

    def add(self, *words):
        return self.json("rule", "add", *words)["rule_id"]

    def replace(self, *rules):
        return self.json("rule", "replace", input="\n".join(rules))

    def status(self):
        return self.json("status")

    def events(self):
        """What the log has by now."""
        out = run(*self.netctl.argv("policy", "log", options=("--json",))).stdout
        return [json.loads(line) for line in out.splitlines()]

    def group(self, name):
        return Group(self.cgroup.path / name, self.ways)

    def counts(self, layer="cgroup"):
        return {rule["rule_id"]: rule[layer] for rule in self.status()["rules"]}


@pytest.fixture
def policy(netctl, lab, ways):
    return Policy(netctl, lab.cgroup("policy"), ways)


class Listener:
    """Counts what arrives on a port of all of loopback, by TCP and UDP."""

    def __init__(self):
        self.tcp = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        self.udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        for one in (self.tcp, self.udp):
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.tcp.bind(("::", 0))
        self.port = self.tcp.getsockname()[1]
        self.udp.bind(("::", self.port))
        self.tcp.listen(128)
        self.tcp.setblocking(False)
        self.udp.setblocking(False)

    def arrived(self):
        """How many connections and datagrams came since the last time."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self.tcp.accept()[0].close()
                count += 1
        with contextlib.suppress(BlockingIOError):
            while True:
                self.udp.recv(64)
                count += 1
        return count

    def close(self):
        self.tcp.close()
        self.udp.close()


@pytest.fixture
def listener():
    made = Listener()
    yield made
    made.close()


def lsm_works():
    return IN_VM


@pytest.fixture(params=("cgroup", "lsm", "both"))
def layer(request):
    if request.param != "cgroup" and not lsm_works():
        pytest.skip("this kernel refuses LSM programs; the vm suite has kernels that take them")
    return request.param


# ---- nobody gets around it ----


@pytest.mark.kernel
def test_every_way_is_refused(policy, layer, listener):
    """Each layer alone, and both together, refuse all ways; what is refused does not arrive, and
    each of these ways arrives where nothing forbids it."""
    port = listener.port
    policy.enable(layer=layer)
    group = policy.group("inner")
    policy.replace(f"dst {{127.0.0.1, ::1}} dport {port} deny", "dst 127.0.0.9 allow")
    attempts = [(way, address) for way in TCP_WAYS + UDP_WAYS
                for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::")
                if way != "udp-elsewhere" or ":" not in address]  # fmt: skip
    attempts.append(("udp-unspec", "127.0.0.1"))
    if IN_VM:  # a process takes long there
        attempts = [(way, address) for way, address in attempts
                    if address == "127.0.0.1" or way in ("connect", "udp-sendto")]  # fmt: skip
    outcomes = {attempt: group.attempt(attempt[0], attempt[1], port) for attempt in attempts}
    passed = {attempt: errno for attempt, errno in outcomes.items() if errno not in (EPERM, "unavailable")}
    assert not passed
    assert listener.arrived() == 0
    assert group.attempt("disconnect", "127.0.0.1", port) == 0
    status = policy.status()
    (deny, _) = status["rules"]
    tried = sum(errno == EPERM for errno in outcomes.values())
    # Both layers may be asked about one attempt, but only one of them refuses it.
    assert deny["cgroup"] + deny["lsm"] == tried
    assert sum(status["layers"][name]["denied"] for name in ("cgroup", "lsm")) == tried
    # A socket from outside of the policy's cgroup is out of the cgroup layer's sight, not of the LSM
    # layer's.
    with socket.socket() as outside:
        errno = group.attempt("fd-connect", "127.0.0.1", port, stdin=outside)
    assert (errno == EPERM) == (layer != "cgroup")
    assert policy.counts("lsm")[deny["rule_id"]] == deny["lsm"] + (layer != "cgroup")
    assert listener.arrived() == (layer == "cgroup")
    # A guest's files are on an overlay: stat() and the kernel call them by different numbers.
    policy.replace(f"exe {os.path.realpath(PYTHON)} dport {port} deny")
    code = f"import socket; print(socket.socket().connect_ex(('127.0.0.1', {port})))"
    assert group.run(PYTHON, "-c", code).stdout.strip() == str(EPERM)
    policy("disable")
    for (way, address), errno in outcomes.items():
        if errno == EPERM and way not in ("uring-sqpoll-connect",):
            assert group.attempt(way, address, port) == 0, (way, address)
            assert until(listener.arrived) == 1, (way, address)


def test_a_socket_of_another_cgroup_does_not_help(policy, layer, listener, ways):
    """Rules are about the cgroup of the process that connects: a socket that it made before it was
    moved, or that another one gave it, makes no difference."""
    policy.enable(layer=layer)
    free, bound = policy.group("free"), policy.group("bound")
    policy.add(f"cgroup {bound.name} dport {listener.port} deny")
    made_in = {}
    for group in (free, bound):
        for kind, way in ((socket.SOCK_STREAM, "fd-connect"), (socket.SOCK_DGRAM, "fd-sendto")):
            # A process in the group makes the socket, and passes it on by SCM_RIGHTS.
            here, there = socket.socketpair()
            code = (
                f"import socket; made = socket.socket(socket.AF_INET, {int(kind)}); "
                "socket.send_fds(socket.socket(fileno=0), [b'x'], [made.fileno()])"
            )
            group.run(PYTHON, "-c", code, stdin=there)
            (descriptor,) = socket.recv_fds(here, 1, 1)[1]
            made_in[group, way] = descriptor
            here.close()
            there.close()
    for (maker, way), descriptor in made_in.items():
        for user in (bound, free):  # refused first: afterwards it is connected
            errno = user.attempt(way, "127.0.0.1", listener.port, stdin=descriptor)
            assert (errno == EPERM) == (user is bound), (maker.name, user.name, way)
        os.close(descriptor)
    # A process that makes a socket, is moved, and connects.
    code = (
        "import socket,sys\n"
        "s=socket.socket()\n"
        f"open({str(bound.path / 'cgroup.procs')!r},'w').write('0')\n"
        f"print(s.connect_ex(('127.0.0.1',{listener.port})))\n"
    )
    assert free.run(PYTHON, "-c", code).stdout.strip() == str(EPERM)


def test_identity_is_not_shed(policy, listener, ways, tmp_path_factory):
    """A thread, a setuid program, another name: still the same user and the same executable."""
    policy.enable()
    group = policy.group("inner")
    port = listener.port
    directory = tmp_path_factory.mktemp("identity")
    directory.chmod(0o755)
    suid, renamed = directory / "suid", directory / "renamed"
    shutil.copy(ways, suid)
    suid.chmod(0o4755)
    os.link(ways, renamed)
    policy.replace(f"uid 65534 dport {port} deny")
    as_nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    assert group.refused("127.0.0.1", port, "connect", *as_nobody)
    assert group.refused("127.0.0.1", port, "thread", *as_nobody)
    done = group.run(*as_nobody, suid, "connect", "127.0.0.1", port)
    assert done.stdout.strip() == str(EPERM)
    assert not group.refused("127.0.0.1", port)
    policy.replace(f"gid 65534 dport {port} deny")
    assert not group.refused("127.0.0.1", port, "connect", "setpriv", "--reuid", "65534", "--clear-groups")
    assert group.refused("127.0.0.1", port, "connect", "setpriv", "--regid", "65534", "--clear-groups")
    # Several who might be meant, one behind the other, and a list.
    policy.replace(f"uid 5 gid not 0 dport {port} deny", f"uid not {{65533, 65534}} dport {port} allow",
                   f"dport {port} deny")  # fmt: skip
    assert group.refused("127.0.0.1", port, "connect", *as_nobody)
    assert not group.refused("127.0.0.1", port)
    policy.replace(f"exe {ways} dport {port} deny")
    assert group.refused("127.0.0.1", port)
    # A hard link, and a name of the process's own choice, are the same file.
    disguised = group.run("bash", "-c", f"exec -a harmless {renamed} connect 127.0.0.1 {port}")
    assert disguised.stdout.strip() == str(EPERM)
    # A copy is another file.
    assert group.run(suid, "connect", "127.0.0.1", port).stdout.strip() == "0"
    # A script's executable is its interpreter.
    script = directory / "script"
    script.write_text(
        f"#!{PYTHON}\nimport socket\nprint(socket.socket().connect_ex(('127.0.0.1', {port})))\n"
    )
    script.chmod(0o755)
    policy.replace(f"exe {script} deny")
    assert group.run(script).stdout.strip() == "0"
    policy.replace(f"exe {os.path.realpath(PYTHON)} deny")
    assert group.run(script).stdout.strip() == str(EPERM)


# Joins one cgroup after the other, and prints what a UDP connect() in each says.
VISITOR = """
import os, socket, sys
port = int(sys.argv[1])
for path in sys.stdin.read().split():
    os.makedirs(path, exist_ok=True)
    with open(path + "/cgroup.procs", "w") as procs:
        procs.write("0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        print(s.connect_ex(("127.0.0.1", port)))
"""


def test_more_cgroups_than_are_remembered(policy):
    """Which rules a cgroup leaves possible is found once; so many are told apart all the same."""
    policy.enable()
    home = policy.group("home")
    kinds = [policy.group("denied"), policy.group("free")]
    paths = [str(kinds[i % 2].path / str(i)) for i in range(1200)]
    for denied in (0, 1):
        policy.replace(f"cgroup {kinds[denied].name} deny")
        order = (paths * 2)[:: 1 - 2 * denied]
        out = home.run(PYTHON, "-c", VISITOR, 9, input="\n".join(order)).stdout.split()
        assert out == [str(EPERM * (path in paths[denied::2])) for path in order]
    until(lambda: not any("populated 1" in (kind.path / "cgroup.events").read_text() for kind in kinds))
    for path in paths:
        os.rmdir(path)


def test_this_host_has_many_names(policy, listener):
    """0.0.0.0 and :: are the address that the socket is bound to, or loopback: that is where the
    kernel sends it."""
    policy.enable()
    group = policy.group("inner")
    port = listener.port
    policy.replace("dst {127.0.0.1, ::1} deny")

    def refused(family, bound, to):
        code = (
            f"import socket; s = socket.socket(socket.{family}, socket.SOCK_DGRAM)\n"
            f"bound = {bound!r}\nif bound: s.bind((bound, 0))\n"
            f"print(s.connect_ex(({to!r}, {port})))\n"
        )
        return group.run(PYTHON, "-c", code).stdout.strip() == str(EPERM)

    assert refused("AF_INET", "", "0.0.0.0") and refused("AF_INET", "127.0.0.1", "0.0.0.0")
    assert not refused("AF_INET", "127.0.0.5", "0.0.0.0")
    assert refused("AF_INET6", "", "::") and refused("AF_INET6", "", "::ffff:0.0.0.0")
    # Bound to an IPv4 address, a socket's :: is IPv4: ::1 is not where it goes.
    policy.replace("dst ::1 allow", "dst 127.0.0.0/8 deny")
    assert refused("AF_INET6", "::ffff:127.0.0.5", "::")
    assert not refused("AF_INET6", "", "::")


# What a connect() or sendmsg() ends with where the destination is 0.0.0.0, in one of the ways in which the
# kernel takes it from elsewhere.
ELSEWHERE = """
import socket, struct, sys
way, port = sys.argv[1], int(sys.argv[2])
STREAM, DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
lo = socket.if_nametoindex("lo")
kind, family, to, bound, options = {
    "plain": (STREAM, socket.AF_INET, "0.0.0.0", None, ()),
    "device": (STREAM, socket.AF_INET, "0.0.0.0", None, ((socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo"),)),
    "device-udp": (DGRAM, socket.AF_INET, "0.0.0.0", None, ((socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo"),)),
    "device-mapped": (STREAM, socket.AF_INET6, "::ffff:0.0.0.0", None,
                      ((socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo"),)),
    "unicast-interface": (DGRAM, socket.AF_INET, "0.0.0.0", None,
                          ((socket.SOL_IP, 50, struct.pack("!I", lo)),)),
    "bound": (STREAM, socket.AF_INET, "0.0.0.0", "127.0.0.5", ()),
    "bound-mapped": (STREAM, socket.AF_INET6, "::ffff:0.0.0.0", "::ffff:127.0.0.5", ()),
    "bound-mapped-udp": (DGRAM, socket.AF_INET6, "::ffff:0.0.0.0", "::ffff:127.0.0.5", ()),
}[way]
with socket.socket(family, kind) as sock:
    for option in options:
        sock.setsockopt(*option)
    if bound:
        sock.bind((bound, 0))
    print(sock.connect_ex((to, port)))
"""


@pytest.mark.kernel
def test_this_host_by_other_ways(policy, layer, listener):
    """Where an interface is given, 0.0.0.0 is one of its addresses: what cannot be known is refused."""
    policy.enable("--default", "deny", layer=layer)
    policy.replace(f"dst 127.0.0.1 dport {listener.port} allow")
    group = policy.group("inner")

    def refused(way):
        return group.run(PYTHON, "-c", ELSEWHERE, way, listener.port).stdout.strip() == str(EPERM)

    ways = ("device", "device-udp", "device-mapped", "unicast-interface")
    assert not refused("plain")
    assert [refused(way) for way in ways] == [True] * 4
    layers = policy.status()["layers"]
    assert sum(layers[name]["astray"] for name in layers) == 4
    assert [e["reason"] for e in policy.events()] == ["unknown destination"] * 4
    # What it is bound to can be known.
    bound = ("bound", "bound-mapped", "bound-mapped-udp")
    assert [refused(way) for way in bound] == [True] * 3
    policy.replace(f"dst 127.0.0.5 dport {listener.port} allow")
    assert [refused(way) for way in bound] == [False] * 3 and refused("plain")


# Connects, then sends with each kind of control data as often as a line comes, and prints the errnos.
CONTROL = """
import socket, struct, sys
port = int(sys.argv[1])
kinds = [
    ("127.0.0.1", []),
    ("127.0.0.1", [(socket.SOL_IP, socket.IP_TOS, struct.pack("i", 2))]),
    ("127.0.0.1", [(socket.SOL_IP, 8, struct.pack("I4s4s", 0, socket.inet_aton("127.0.0.1"), bytes(4)))]),
    ("::1", [(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, struct.pack("i", 2))]),
    ("::ffff:127.0.0.1", [(socket.SOL_IP, socket.IP_TOS, struct.pack("i", 2))]),
]
socks = []
for address, control in kinds:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((address, port))
    socks.append((sock, control))
for _ in sys.stdin:
    errnos = []
    for sock, control in socks:
        try:
            sock.sendmsg([b"x"], control)
            errnos.append(0)
        except OSError as error:
            errnos.append(error.errno)
    print(*errnos, flush=True)
"""


@pytest.mark.kernel
def test_datagrams_of_connected_sockets_with_control_data(policy, listener, lab):
    """They come without an address, and go to the peer (QUIC sends so, for ECN)."""
    policy.enable("--default", "deny")
    port = listener.port
    policy.replace(f"proto udp dst {{127.0.0.1, ::1}} dport {port} allow")
    argv = policy.group("inner").wrap([PYTHON, "-c", CONTROL, port])
    sender = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:

        def errnos():
            sender.stdin.write("\n")
            sender.stdin.flush()
            return [int(word) for word in sender.stdout.readline().split()]

        assert errnos() == [0] * 5 and listener.arrived() == 5
        # What needs no new look for a route is not asked about; the others are judged by their peer.
        policy.replace(f"proto udp dst 127.0.0.1 dport {port} deny", "proto udp allow")
        assert errnos() == [0, EPERM, EPERM, 0, EPERM]
        denied = [(e["dst"], e["dport"]) for e in policy.events() if e["verdict"] == "deny"]
        assert denied == [("127.0.0.1", port)] * 3
    finally:
        sender.kill()
        sender.wait()


@pytest.mark.kernel
def test_what_a_rule_refuses_is_not_learnt(policy, listener):
    """A rule that allows it would undo the one that refuses it."""
    policy.enable("--default", "deny", "--mode", "audit")
    group = policy.group("inner")
    policy.replace("dst 127.0.0.2 deny", "dst 127.0.0.3 allow limit 1/hour burst 1")
    for address in ("127.0.0.2", "127.0.0.3", "127.0.0.3", "127.0.0.4"):
        assert not group.refused(address, listener.port)
    assert policy.status()["layers"]["cgroup"]["would_deny"] == 3
    assert [rule["count"] for rule in policy.json("learn")] == [1]


def test_a_policy_whose_own_cgroup_went_away(policy, listener):
    """As by a service's restart. It says so, and `enable` puts it on the new one, with its rules."""
    policy.enable()
    policy.add(f"dport {listener.port} deny")
    inner = policy.group("inner")
    assert inner.refused("127.0.0.1", listener.port)

    def remove():
        for path in (inner.path, policy.cgroup.path):
            until(lambda: "populated 0" in (path / "cgroup.events").read_text())
            path.rmdir()

    def said():
        done = policy.netctl("--json", "policy", "status", check=False)
        report = json.loads(done.stdout)
        assert done.returncode == 1 and not report["layers"]["cgroup"]["live"]
        return report["layers"]["cgroup"]["why"]

    assert policy("status").returncode == 0
    remove()
    assert "is gone" in said()
    assert "is gone" in policy.fails("enable")
    policy.cgroup.path.mkdir()
    assert not policy.group("inner").refused("127.0.0.1", listener.port)
    assert "made anew" in said()
    assert "made anew" in policy("rule", "add", "dport 1 deny").stderr
    assert "enabled already" in policy.fails("enable", "--cgroup", "/")
    policy("enable", "--cgroup", policy.cgroup.path)
    assert policy("status").returncode == 0
    inner = policy.group("inner")
    assert inner.refused("127.0.0.1", listener.port)
    assert [rule["rule_id"] for rule in policy.status()["rules"]] == [1, 2]
    remove()
    policy.cgroup.path.mkdir()
    policy("enable")
    assert policy.group("inner").refused("127.0.0.1", listener.port)
    policy("disable")


def test_an_enable_on_a_new_cgroup_that_fails_leaves_no_hook_there(policy, listener):
    """Its rules cannot be put in force, since somebody took a set of theirs away by hand."""
    policy.netctl("set", "create", "s", "--type", "host")
    policy.netctl("set", "add", "s", "127.0.0.1")
    policy.enable()
    policy.add(f"dst @s dport {listener.port} deny")
    policy.cgroup.path.rmdir()
    policy.cgroup.path.mkdir()
    pin = Path(policy.netctl.root) / "sets/s/info"
    aside = pin.with_name("aside")
    pin.rename(aside)
    assert "no set 's'" in policy.fails("enable")
    assert not bpftool("cgroup", "show", policy.cgroup.path)
    assert not policy.group("inner").refused("127.0.0.1", listener.port)
    aside.rename(pin)
    policy("enable")
    assert policy.group("inner").refused("127.0.0.1", listener.port)
    policy("disable")


def test_an_enable_on_a_new_cgroup_that_is_killed_is_told(policy, listener, tmp_path):
    """Between the first hook and the commit: what is there judges by the old rules, and `status` says so."""
    policy.enable()
    policy.add(f"dport {listener.port} deny")
    enable = policy.netctl.argv("policy", "enable")

    def made_anew():
        for path in (policy.cgroup.path / "inner", policy.cgroup.path):
            if path.exists():
                until(lambda path=path: "populated 0" in (path / "cgroup.events").read_text(), 60)
                path.rmdir()
        policy.cgroup.path.mkdir()

    def hooks():
        return len(bpftool("cgroup", "show", policy.cgroup.path) or [])

    made_anew()
    run("strace", "-f", "-o", tmp_path / "calls", "-e", "trace=bpf", *enable, timeout=300)
    calls = [line for line in (tmp_path / "calls").read_text().splitlines() if "bpf(" in line]
    second = [number for number, line in enumerate(calls, 1) if "BPF_LINK_CREATE" in line][1]
    all_of_them = hooks()
    for number in (second, second - 1, second + 1, second - 2, second + 2):  # not always the same calls before
        made_anew()
        run("strace", "-f", "-o", "/dev/null", "-e", "trace=bpf", "-e", f"inject=bpf:signal=KILL:when={number}",
            *enable, check=False, timeout=300)  # fmt: skip
        if 0 < hooks() < all_of_them:
            break
    assert 0 < hooks() < all_of_them
    done = policy.netctl("--json", "policy", "status", check=False)
    layer = json.loads(done.stdout)["layers"]["cgroup"]
    assert done.returncode == 1 and not layer["live"]
    assert f"has put {hooks()} of {all_of_them} hooks on it, which judge by these rules" in layer["why"]
    assert policy.group("inner").refused("127.0.0.1", listener.port)  # connect4 comes first
    policy("enable")
    assert policy("status").returncode == 0 and hooks() == all_of_them
    assert policy.group("inner").refused("127.0.0.1", listener.port)
    policy("disable")


def test_who_uses_a_set_is_what_is_in_force(policy, netctl):
    """Not what the pin of the rules leads to, which a writer that was killed behind its commit has left as it was."""
    for name in ("former", "present"):
        netctl("set", "create", name, "--type", "host")
    policy.enable()
    policy.replace("dst @former deny")
    pin = Path(netctl.root) / "policy/rules"
    pin.rename(pin.with_name("aside"))
    policy.replace("dst @present deny")
    pin.unlink()
    pin.with_name("aside").rename(pin)
    assert {one["name"]: len(one["users"]) for one in netctl.json("set", "list")} == {"former": 0, "present": 1}
    assert "in use by policy rule" in netctl.fails("set", "destroy", "present")
    netctl("set", "destroy", "former")
    policy("disable")
    netctl("set", "destroy", "present")


def test_a_rule_with_the_directory_of_a_cgroup(policy, listener):
    """`enable --cgroup` takes the directory's own path; so do rules."""
    policy.enable()
    group = policy.group("web")
    policy.add(f"cgroup {group.path} dport {listener.port} deny")
    policy("rule", "add", "--allow-missing", f"cgroup {Cgroup.mount()}/to-come deny")
    texts = [rule["rule_text"] for rule in policy.json("rule", "list")]
    assert texts == [f"dport {listener.port} cgroup {group.name} deny", "cgroup /to-come deny"]
    assert group.refused("127.0.0.1", listener.port)
    assert not policy.group("other").refused("127.0.0.1", listener.port)


def test_a_rule_on_the_source_port(policy, listener):
    policy.enable()
    group = policy.group("inner")
    policy.replace("sport 1-1023 deny")

    def refused(bound):
        code = (
            f"import socket; s = socket.socket()\nbound = {bound}\nif bound: s.bind(('', bound))\n"
            f"print(s.connect_ex(('127.0.0.1', {listener.port})))\n"
        )
        return group.run(PYTHON, "-c", code).stdout.strip() == str(EPERM)

    assert refused(1000) and not refused(0) and not refused(20000)


def test_curl_may_not_but_python_may(policy, lab):
    """What a user would write: one program of a service, by the service's cgroup and the file."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (lab.directory / "index.html").write_text("hello\n")
    lab.start(PYTHON, "-m", "http.server", "--directory", lab.directory, port)
    policy.enable()
    group = policy.group("web")
    url = f"http://localhost:{port}/index.html"
    until(lambda: group.run("curl", "-sf", url, check=False).stdout == "hello\n")
    rule = policy.add(f"cgroup {group.name} exe {shutil.which('curl')} deny")
    done = group.run("curl", "-sS", url, check=False)
    assert done.returncode == 7 and done.stdout == ""  # "Failed to connect to host"
    code = f"import urllib.request as r; print(r.urlopen({url!r}).read().decode(), end='')"
    assert group.run(PYTHON, "-c", code).stdout == "hello\n"
    assert run("curl", "-sf", url).stdout == "hello\n"  # outside of the cgroup
    assert policy.counts()[rule] == 2  # ::1, then 127.0.0.1
    (first, second) = policy.events()
    assert {first["comm"], second["comm"]} == {"curl"} and {first["dst"], second["dst"]} == {"::1", "127.0.0.1"}


def test_an_executable_on_overlays(policy, listener, ways, tmp_path):
    """It is meant as it is seen there: not the file of the layer below, nor what another overlay
    shows of it."""
    tmp_path.chmod(0o755)
    (tmp_path / "lower").mkdir()
    shutil.copy(ways, tmp_path / "lower/ways")
    merged = []
    try:
        for name in ("one", "two"):
            upper, work, view = (tmp_path / f"{name}-{what}" for what in ("upper", "work", "view"))
            for path in (upper, work, view):
                path.mkdir()
            run("mount", "-t", "overlay", "overlay", "-o",
                f"lowerdir={tmp_path}/lower,upperdir={upper},workdir={work}", view)  # fmt: skip
            merged.append(view / "ways")
        files = [tmp_path / "lower/ways", *merged]
        policy.enable()
        group = policy.group("inner")
        for meant in files:
            policy.replace(f"exe {meant} deny")
            refused = [group.run(file, "connect", "127.0.0.1", listener.port).stdout.strip() == "1"
                       for file in files]  # fmt: skip
            assert refused == [file is meant for file in files]
    finally:
        for file in merged:
            run("umount", file.parent)


def test_a_cgroup_that_is_made_anew_is_still_meant(policy, listener):
    """Services come and go; rules are about the cgroup's name."""
    policy.enable()
    for_service = f"cgroup {policy.name}/service dport {listener.port} deny"
    assert "there is no cgroup" in policy.fails("rule", "add", for_service)
    policy("rule", "add", "--allow-missing", for_service)
    for _ in range(2):
        group = policy.group("service")
        inner = Group(group.path / "deeper", policy.ways)
        assert group.refused("127.0.0.1", listener.port)
        assert inner.refused("127.0.0.1", listener.port)
        for path in (inner.path, group.path):
            until(lambda: "populated 0" in (path / "cgroup.events").read_text())
            path.rmdir()
    assert not policy.group("service2").refused("127.0.0.1", listener.port)


# ---- rules ----


def test_first_match_decides_and_is_counted(policy, listener):
    policy.enable("--default", "deny")
    group = policy.group("inner")
    port = listener.port
    first = policy.add(f"dst 127.0.0.0/30 proto tcp dport {port} allow")
    second = policy.add(f"dst 127.0.0.0/8 proto tcp dport {port} deny")
    udp = policy.add("proto udp allow")
    assert not group.refused("127.0.0.2", port)
    assert group.refused("127.0.0.4", port)
    assert group.refused("::1", port)  # no rule is about it
    assert not group.refused("127.0.0.4", port, "udp-sendto")
    assert policy.counts() == {first: 1, second: 1, udp: 1}
    status = policy.status()
    assert status["layers"]["cgroup"]["judged"] == 4
    assert status["layers"]["cgroup"]["denied"] == 2
    assert status["layers"]["cgroup"]["by_default"] == 1
    # Counters stay with their rules (I4).
    policy("rule", "insert", "--before", second, "dst 127.0.0.4 allow")
    policy("rule", "delete", udp)
    assert not group.refused("127.0.0.4", port)
    counts = policy.counts()
    assert (counts[first], counts[second], len(counts)) == (1, 1, 3)


def test_sets_take_effect_at_once(policy, listener, netctl):
    policy.enable()
    netctl("set", "create", "bad", "--type", "cidr")
    netctl("set", "create", "ports", "--type", "port")
    group = policy.group("inner")
    policy.replace("dst @bad deny", "dport @ports deny")
    assert not group.refused("127.0.0.5", listener.port)
    netctl("set", "add", "bad", "127.0.0.0/29", "::1")
    assert group.refused("127.0.0.5", listener.port) and group.refused("::1", listener.port)
    assert not group.refused("127.0.0.9", listener.port)
    netctl("set", "delete", "bad", "127.0.0.0/29")
    assert not group.refused("127.0.0.5", listener.port)
    # So many that they are compiled; what is taken out of those is in the live map.
    many = [f"127.1.{i // 256}.{i % 256}/32" for i in range(1024)]
    netctl("set", "import", "bad", input="\n".join([*many, "127.0.0.4/31"]))
    assert group.refused("127.0.0.5", listener.port) and group.refused("::1", listener.port)
    netctl("set", "delete", "bad", "127.0.0.4/31")
    assert not group.refused("127.0.0.5", listener.port) and group.refused("127.1.3.255", 9)
    netctl("set", "add", "ports", listener.port)
    assert group.refused("127.0.0.5", listener.port)
    assert "policy rule" in netctl.fails("set", "destroy", "ports")
    policy.replace("dst not @bad deny")
    assert group.refused("127.0.0.5", 9) and not group.refused("::1", 9)
    netctl("set", "destroy", "ports")


def test_a_set_element_lives_as_long_as_it_was_given(policy, listener, netctl):
    """Also where another one, wider or narrower, is there without an end."""
    netctl("set", "create", "bad", "--type", "cidr")
    netctl("set", "create", "ports", "--type", "port")
    policy.enable()
    group = policy.group("inner")
    policy.replace("dst @bad deny", "dport @ports deny")
    port = listener.port
    netctl("set", "add", "bad", "127.0.0.5", "--ttl", 4)
    netctl("set", "add", "ports", port, "--ttl", 4)
    assert group.refused("127.0.0.5", port)
    assert policy.json("test", "127.0.0.9", port, "tcp", check=False)["rule_id"] == 2
    until(lambda: not group.refused("127.0.0.5", port))
    until(lambda: policy.json("test", "127.0.0.9", port, "tcp", check=False)["verdict"] == "allow")
    netctl("set", "add", "bad", "127.0.0.4/30")
    netctl("set", "add", "bad", "127.0.0.5", "--ttl", 3600)
    assert group.refused("127.0.0.5", port) and group.refused("127.0.0.6", port)


def test_as_many_sets_as_anybody_wants(policy, listener, netctl):
    """64 questions about sets; only those of rules that are otherwise fulfilled are asked, and in
    any order."""
    names = [f"s{i}" for i in range(64)]
    for name in names:
        netctl("set", "create", name, "--type", "cidr")
    policy.enable()
    group = policy.group("inner")
    rules = [f"dst {'not ' * (i == 62)}@{name} dport {listener.port} {'allow' if i % 2 else 'deny'}"
             for i, name in enumerate(names)]  # fmt: skip
    policy.replace(*rules)
    for name in ("s62", "s63"):
        netctl("set", "add", name, "127.0.0.0/8")
    assert not group.refused("127.0.0.1", listener.port)  # by the last rule
    netctl("set", "add", "s30", "127.0.0.1")
    assert group.refused("127.0.0.1", listener.port)
    netctl("set", "add", "s7", "127.0.0.0/24")
    assert not group.refused("127.0.0.1", listener.port)
    netctl("set", "delete", "s62", "127.0.0.0/8")
    assert group.refused("127.1.0.1", listener.port)
    assert [rule["cgroup"] for rule in policy.status()["rules"] if rule["cgroup"]] == [1, 1, 1, 1]
    # Again, while the former ones are still in force.
    policy.replace(*reversed(rules))
    assert not group.refused("127.0.0.1", listener.port)
    netctl("set", "create", "more", "--type", "port")
    told = policy.fails("rule", "add", "dport @more deny", status=2)
    assert "one use of a set too many" in told and "64 different questions" in told
    assert len(policy.status()["rules"]) == 64


def test_limit_denies_what_is_above_it(policy, listener):
    policy.enable()
    group = policy.group("inner")
    rule = policy.add(f"dport {listener.port} allow limit 1/hour burst 3")
    outcomes = [group.refused("127.0.0.1", listener.port) for _ in range(5)]
    assert outcomes == [False, False, False, True, True]
    (status,) = policy.status()["rules"]
    assert (status["rule_id"], status["cgroup"], status["over_cgroup"]) == (rule, 3, 2)


def test_test_tells_what_happens(policy, listener, ways):
    policy.enable("--default", "deny")
    group = policy.group("inner")
    policy.replace(f"cgroup {group.name} dst 127.0.0.1 allow", "uid 65534 proto udp allow",
                   f"exe {ways} dport 99 allow")  # fmt: skip

    def verdict(*argv):
        done = run(*policy.netctl.argv("policy", "test", *argv, options=("--json",)), check=False)
        answer = json.loads(done.stdout)
        assert done.returncode == (answer["verdict"] == "deny"), done
        return answer["verdict"], answer["rule_id"]

    assert verdict("127.0.0.1", "80", "tcp", "--cgroup", f"{group.name}/below") == ("allow", 1)
    assert verdict("0.0.0.0", "80", "tcp", "--cgroup", group.name) == ("allow", 1)
    assert verdict("::ffff:127.0.0.1", "http", "tcp", "--cgroup", "/elsewhere") == ("deny", None)
    assert verdict("192.0.2.1", "53", "udp", "--uid", "nobody") == ("allow", 2)
    assert verdict("192.0.2.1", "99", "tcp", "--exe", ways) == ("allow", 3)
    assert policy.status()["layers"]["cgroup"]["judged"] == 0
    assert verdict("127.0.0.1", "80", "tcp", "--cgroup", group.path) == ("allow", 1)  # by its directory
    for wrong, what in (("192.0.2 99 tcp", "'192.0.2' is not"), ("192.0.2.1 99 nonsense", "no protocol"),
                        ("192.0.2.1 nonsense tcp", "no port"), ("192.0.2.1 99 tcp --uid nonsense", "no user"),
                        ("192.0.2.1 99 tcp --gid nonsense", "no group"),
                        ("192.0.2.1 99 tcp --exe nonsense", "no executable"),
                        ("192.0.2.1 99 tcp --cgroup nonsense", "no path of a cgroup")):  # fmt: skip
        told = policy.fails("test", *wrong.split(), status=2)
        assert what in told and "hint: " in told


def test_explain_tells_of_a_process_which_rules_do_not_match_and_who_judges(policy, listener, ways, lab):
    policy.enable("--default", "allow")
    group = policy.group("inner")
    below = policy.group("inner/below")
    policy.replace("uid not 65534 deny", "proto udp sport 53 deny", f"cgroup {below.name} deny",
                   f"dst 127.0.0.1 dport {listener.port} exe {ways} uid 65534 cgroup {group.name} deny",
                   "dport 99 deny")  # fmt: skip
    script = "import time; print('ready', flush=True); time.sleep(600)"
    process = lab.start(*group.wrap(["setpriv", "--reuid", "65534", "--clear-groups", "/usr/bin/python3", "-c", script]))
    process.expect("^ready$")

    def explain(pid, *argv):
        done = run(*policy.netctl.argv("policy", "explain", pid, *argv, options=("--json",)), check=False)
        answer = json.loads(done.stdout)
        refused = answer["verdict"] == "deny" and bool(answer["layers"])
        assert done.returncode == refused, done
        return answer

    answer = explain(process.pid, "127.0.0.1", listener.port, "tcp")
    assert (answer["verdict"], answer["rule_id"], answer["reason"]) == ("allow", None, "default")
    assert answer["process"]["uid"] == 65534 and answer["process"]["cgroup"] == group.name
    assert answer["process"]["exe"] == os.path.realpath("/usr/bin/python3")
    why = {rule["rule_id"]: rule["why_not"] for rule in answer["rules"]}
    python = answer["process"]["exe"]
    assert why == {
        1: [{"match": "uid not 65534", "connection": 65534}],
        2: [{"match": "sport 53", "connection": None}, {"match": "proto udp", "connection": "tcp"}],
        3: [{"match": f"cgroup {below.name}", "connection": group.name}],
        4: [{"match": f"exe {ways}", "connection": python}],
        5: [{"match": "dport 99", "connection": listener.port}],
    }
    # The rule that decides is the last that is told, and so it goes: with another, and by the program itself.
    answer = explain(process.pid, "192.0.2.1", 99, "tcp")
    assert (answer["rule_id"], [rule["matches"] for rule in answer["rules"]]) == (5, [False] * 4 + [True])
    assert "cgroup" in answer["layers"]
    text = run(*policy.netctl.argv("policy", "explain", process.pid, "192.0.2.1", 99, "tcp"), check=False).stdout
    assert "rule 2 does not match: sport 53, and it has none; proto udp, and it has tcp\n" in text
    assert "rule 5 matches: dport 99 deny\n" in text and text.splitlines()[-1].startswith("judged by cgroup")
    # One from elsewhere is judged by nobody, whatever the rules say.
    answer = explain(os.getpid(), "192.0.2.1", 99, "tcp")
    assert answer["layers"] == [] and answer["verdict"] == "deny"
    assert "no process 2147483647" in policy.fails("explain", 2147483647, "192.0.2.1", 99, "tcp", status=4)
    assert "no process id" in policy.fails("explain", "init", "192.0.2.1", 99, "tcp", status=2)
    told = policy.json("test", "127.0.0.1", listener.port, "tcp", "--uid", "65534", "--explain", check=False)
    assert [rule["rule_id"] for rule in told["rules"]] == [1, 2, 3, 4, 5]


# ---- log, audit, learn ----


def test_events_tell_who_tried(policy, listener, lab, ways):
    policy.enable()
    group = policy.group("inner")
    rule = policy.add(f"dst 127.0.0.1 dport {listener.port} uid 65534 deny")
    allowed = policy.add("dst 127.0.0.2 allow log")
    follower = policy.netctl.start(lab, "policy", "log", "--follow")
    try:
        group.attempt("connect", "127.0.0.1", listener.port,
                      "setpriv", "--reuid", "65534", "--clear-groups")  # fmt: skip
        group.attempt("udp-sendto", "127.0.0.2", listener.port)
        until(lambda: len(follower.json_lines()) == 2)
        first, second = follower.json_lines()
    finally:
        follower.stop()
    assert (first["verdict"], first["rule_id"], first["layer"]) == ("deny", rule, "cgroup")
    assert first["pid"] == first["tgid"]
    assert (first["uid"], first["dst"], first["dport"]) == (65534, "127.0.0.1", listener.port)
    assert (first["proto"], first["comm"], first["cgroup"]) == ("tcp", "ways", group.name)
    assert Path(first["exe"]).name == "ways" and first["tgid"] > 0 and first["enforced"]
    assert (second["verdict"], second["rule_id"], second["proto"]) == ("allow", allowed, "udp")
    assert first["generation"] == policy.status()["generation"]
    assert abs(datetime.fromisoformat(first["time"]).timestamp() - time.time()) < 60


def test_log_counts_what_it_leaves_out(policy, listener):
    policy.enable("--log-rate", "1")
    group = policy.group("inner")
    policy.add(f"dport {listener.port} deny")
    for _ in range(4):
        group.attempt("connect", "127.0.0.1", listener.port)
    log = policy.status()["log"]
    assert log["written"] >= 1 and log["written"] + log["suppressed"] == 4
    assert len(policy.events()) == log["written"]


def test_events_that_nobody_reads_are_lost_and_counted(policy):
    policy.enable("--log-rate", "1000000")
    group = policy.group("inner")
    rule = policy.add("dport 9 deny")
    code = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "print(sum(s.connect_ex(('127.0.0.1', 9)) == 1 for _ in range(9000)))"
    )
    assert group.run(PYTHON, "-c", code).stdout.strip() == "9000"
    log = policy.status()["log"]
    assert log["lost"] > 0 and log["suppressed"] == 0
    assert log["written"] + log["lost"] == 9000 == policy.counts()[rule]
    assert len(policy.events()) == log["written"]


def test_audit_learns_rules_that_allow(policy, listener):
    policy.enable("--default", "deny", "--mode", "audit")
    group = policy.group("inner")
    assert not group.refused("127.0.0.1", listener.port)
    assert not group.refused("::1", listener.port, "udp-sendto")
    status = policy.status()["layers"]["cgroup"]
    assert (status["would_deny"], status["denied"]) == (2, 0)
    learnt = policy.json("learn")
    assert sum(rule["count"] for rule in learnt) == 2
    policy.replace(*(rule["rule_text"] for rule in learnt))
    policy("enable", "--mode", "enforce")
    assert not group.refused("127.0.0.1", listener.port)
    assert not group.refused("::1", listener.port, "udp-sendto")
    assert group.refused("127.0.0.1", listener.port, "udp-sendto")
    policy("learn", "--forget")
    assert policy.json("learn") == []


def test_an_audit_rule_reports_and_lets_pass(policy, listener):
    policy.enable()
    group = policy.group("inner")
    policy.add(f"dport {listener.port} audit")
    assert not group.refused("127.0.0.1", listener.port)
    (event,) = policy.events()
    assert event["verdict"] == "audit"


# ---- commits ----


# As many connections as were asked for, each at its time by the clock, whether earlier ones were late or
# not. Prints one line when it has begun.
HAMMER = """
import socket, sys, time
port, rate, count = map(int, sys.argv[1:])
wrong = late = 0
start = time.monotonic()
for i in range(count):
    ahead = start + i / rate - time.monotonic()
    if ahead > 0:
        time.sleep(ahead)
    elif ahead < -1:
        late += 1
    host, allowed = (("127.0.0.1", True), ("127.0.0.2", False))[i % 2]
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        s.connect((host, port))
        wrong += not allowed
    except PermissionError:
        wrong += allowed
    s.close()
    if i == 0:
        print("begun", flush=True)
print(wrong, late)
"""


def test_no_connection_meets_half_of_a_change(policy, listener):
    """Two lists whose rules stand in another order and at other places give the same verdicts; a
    mixture of them would not (I2)."""
    policy.enable()
    group = policy.group("inner")
    filler = [f"dst 10.0.{i}.0/24 uid {i} dport {i + 1} deny" for i in range(200)]
    lists = [
        ["dst 127.0.0.1 allow", *filler, "dst 127.0.0.0/8 deny"],
        ["dst 127.0.0.2 deny", *filler[::-1], "dst 127.0.0.0/30 allow", "exe /bin/true deny"],
    ]
    policy.replace(*lists[0])
    rate, count = 1000, 4000
    before = policy.status()["layers"]["cgroup"]["judged"]
    hammer = subprocess.Popen(group.wrap([PYTHON, "-c", HAMMER, str(listener.port), str(rate), str(count)]),
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert hammer.stdout.readline() == "begun\n"
    changes = 0
    while hammer.poll() is None:
        changes += 1
        policy.replace(*lists[changes % 2])
    wrong, _late = map(int, hammer.stdout.read().split())
    assert wrong == 0
    assert changes > 3
    status = policy.status()
    assert status["layers"]["cgroup"]["judged"] == before + count
    assert status["layers"]["cgroup"]["by_default"] == 0


def test_a_killed_command_changes_nothing(policy, listener):
    """kill -9 at any moment: the old rules are in force, or the new ones (I1, I2)."""
    policy.enable()
    group = policy.group("inner")
    lists = [[f"dst 127.0.0.{n} deny", *(f"dst 10.{n}.{i}.0/24 deny" for i in range(250))]
             for n in (1, 2)]  # fmt: skip
    policy.replace(*lists[0])
    rng = random.Random(6)
    for turn in range(12):
        process = subprocess.Popen(policy.netctl.argv("policy", "rule", "replace"),
                                   stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)  # fmt: skip
        process.stdin.write("\n".join(lists[turn % 2]).encode())
        process.stdin.close()
        time.sleep(rng.random() * 0.1)
        process.kill()
        process.wait()
        rules = {rule["rule_text"] for rule in policy.status()["rules"]}
        assert rules in (set(lists[0]), set(lists[1]))
        denied = [n for n in (1, 2) if group.refused(f"127.0.0.{n}", listener.port)]
        assert denied == [1 if rules == set(lists[0]) else 2]


def test_enable_killed_half_way_is_taken_for_nothing(policy, listener):
    group = policy.group("inner")
    rng = random.Random(7)
    for _ in range(6):
        process = subprocess.Popen(policy.netctl.argv("policy", "enable", "--layer", "cgroup",
                                   "--default", "deny", "--cgroup", str(policy.cgroup.path)),
                                   stdout=subprocess.DEVNULL)  # fmt: skip
        time.sleep(rng.random() * 0.6)
        process.kill()
        process.wait()
        enabled = policy.status()["enabled"]
        assert group.refused("127.0.0.1", listener.port) == enabled
        policy("disable", check=False)
    policy.enable("--default", "deny")
    assert group.refused("127.0.0.1", listener.port)


def test_disable_leaves_no_trace(policy, listener, netctl):
    def programs():
        names = ("connect4", "connect6", "sendmsg4", "sendmsg6")
        return {program["id"] for program in bpftool("prog", "show") if program.get("name") in names}

    before = programs()
    policy.enable("--default", "deny")
    group = policy.group("inner")
    assert len(programs() - before) == 4
    assert group.refused("127.0.0.1", listener.port)
    policy("disable")
    assert not group.refused("127.0.0.1", listener.port)
    assert not netctl.root.exists()
    until(lambda: programs() <= before)
    assert not list(policy.cgroup.path.glob("netctl-*"))
    assert "not enabled" in policy.fails("disable")


def test_ten_thousand_rules(policy, listener):
    policy.enable()
    group = policy.group("inner")
    rules = [f"dst 10.{i >> 8}.{i & 255}.0/24 proto tcp dport {1 + i} uid {i % 7} deny"
             for i in range(9999)]  # fmt: skip
    policy.replace(*rules, f"dst 127.0.0.1 dport {listener.port} deny")
    assert group.refused("127.0.0.1", listener.port)
    assert not group.refused("127.0.0.2", listener.port)
    assert policy.json("test", "10.39.14.9", "9999", "tcp", "--uid", "2", check=False)["rule_id"] == 9999
    status = policy.status()
    assert len(status["rules"]) == 10000 and status["rules"][-1]["cgroup"] == 1


# ---- layers ----


def test_a_layer_that_cannot_be_had_is_told(policy):
    if lsm_works():
        pytest.skip("this kernel takes LSM programs")
    for layer in ("lsm", "both"):
        told = policy.fails("enable", "--layer", layer, "--cgroup", policy.cgroup.path, status=3)
        assert "Operation not permitted" in told and "lsm" in told
        assert not policy.netctl.root.exists()
    done = policy("enable", "--cgroup", policy.cgroup.path)
    assert "the lsm layer cannot be had" in done.stderr
    status = policy.status()["layers"]
    assert status["cgroup"]["live"] and not status["lsm"]["live"]
    assert "Operation not permitted" in status["lsm"]["why"]


# ---- what is asked for wrongly ----


def test_bad_input_changes_nothing(policy):
    assert policy.status() == {"enabled": False}
    assert "not enabled" in policy.fails("rule", "add", "deny")
    missing = policy.cgroup.path / "nothing"
    assert "no cgroup" in policy.fails("enable", "--cgroup", missing)
    assert not policy.netctl.root.exists()
    policy.enable()
    assert "no executable" in policy.fails("rule", "add", "exe /no/such/file deny")
    assert "drop" in policy.fails("rule", "add", "dst 192.0.2.1 drop", status=2)
    assert "no set" in policy.fails("rule", "add", "dst @nothing deny")
    assert "no user" in policy.fails("rule", "add", "uid no-such-user deny", status=2)
    told = policy.fails("rule", "replace", input="exe /no/such/file deny\n")
    assert "`exe /no/such/file deny`" in told and "--allow-missing" in told
    assert "Is a directory" in policy.fails("rule", "replace", "/")
    assert "Is a directory" in policy.fails("enable", "--rules", "/")
    assert "enabled already" in policy.fails("enable", "--layer", "cgroup")
    for verb in (("enable",), ("status",), ("rule", "add", "deny"), ("disable",)):
        done = run(*policy.netctl.argv("policy", *verb, options=("--netns", "/proc/self/ns/net")), check=False)
        assert done.returncode == 2 and "--netns does not go with `policy`" in done.stderr
    assert policy.status()["rules"] == []
    assert policy.status()["generation"] == 1
    policy("rule", "add", "--allow-missing", "exe /no/such/file deny")
    assert any("no executable" in note for note in policy.status()["notes"])


def test_a_missing_executable_is_found_when_it_is_there(policy, listener, ways, tmp_path):
    tmp_path.chmod(0o755)
    policy.enable()
    group = policy.group("inner")
    later = tmp_path / "later"
    policy("rule", "add", "--allow-missing", f"exe {later} deny")

    def refused():
        return group.run(later, "connect", "127.0.0.1", listener.port).stdout.strip() == str(EPERM)

    shutil.copy(ways, later)
    assert not refused()
    (note,) = policy.status()["notes"]
    assert "another file" in note and "netctl policy enable" in note
    policy("enable")
    assert refused() and policy.status()["notes"] == []


def test_a_rule_that_can_never_match_is_named(policy):
    policy.enable()
    policy.add("dst 10.0.0.0/8 deny")
    told = policy("rule", "add", "dst 10.1.0.0/16 dport 80 allow").stderr
    assert "rule 2 can never match: rule 1 covers it" in told
    assert policy("rule", "add", "dst 192.0.2.1 allow").stderr == ""


def over_ssh(policy, group):
    """Runs `netctl policy` as somebody in a cgroup does who came by ssh; expects an exit status."""

    def command(*argv, status=0, clean=(), **options):
        argv = (*clean, *policy.netctl.argv("policy", *argv))
        env = {**os.environ, "SSH_CONNECTION": "192.0.2.7 40000 192.0.2.1 22"}
        # One more process: sudo(8) stands between a shell and what it runs, and keeps no such variable.
        done = group.run("sh", "-c", '"$@"; exit $?', "-", *argv, check=False, env=env, **options)
        assert done.returncode == status, done.stdout + done.stderr
        if status:
            assert "refuse connections to 192.0.2.7" in done.stderr and "--yes" in done.stderr
            assert "dst 192.0.2.7 allow" in done.stderr

    return command


def test_a_default_deny_over_ssh_wants_a_yes(policy, tmp_path):
    here = over_ssh(policy, policy.group("session"))
    enable = ("enable", "--cgroup", policy.cgroup.path, "--layer", "cgroup")
    here(*enable, "--default", "deny", status=2)
    here(*enable, "--default", "deny", status=2, clean=("env", "--unset=SSH_CONNECTION"))
    rules = tmp_path / "rules"
    rules.write_text("dst 192.0.2.0/24 allow\n")
    here(*enable, "--default", "deny", "--rules", rules)
    policy("disable")
    here(*enable, "--default", "deny", "--yes")
    policy("disable")
    # A policy for a cgroup that the session is not in cannot cut it off.
    other = policy.group("other")
    here("enable", "--cgroup", other.path, "--layer", "cgroup", "--default", "deny")


def test_no_change_cuts_off_an_ssh_session_without_a_yes(policy):
    here = over_ssh(policy, policy.group("session"))
    policy.enable()
    here("rule", "add", "deny", status=2)
    here("rule", "add", "dst 192.0.2.0/24 deny", status=2)
    here("rule", "add", "--yes", "dst 192.0.2.0/24 deny")
    here("rule", "add", "deny")  # it is cut off already
    here("rule", "flush")
    here("rule", "add", "dst 192.0.2.7 allow")
    (rule,) = (rule["rule_id"] for rule in policy.status()["rules"])
    here("enable", "--default", "deny")
    generation = policy.status()["generation"]
    here("rule", "delete", rule, status=2)
    here("rule", "flush", status=2)
    here("rule", "replace", status=2, input="dst 192.0.2.8 allow\n")
    here("rule", "insert", "dst 192.0.2.0/24 deny", status=2)
    assert policy.status()["generation"] == generation
    assert [rule["rule_text"] for rule in policy.status()["rules"]] == ["dst 192.0.2.7 allow"]
    here("rule", "replace", input="dst 192.0.2.0/24 allow\n")
    here("enable", "--mode", "audit")
    here("rule", "flush")  # nothing is denied in this mode
    here("enable", "--mode", "enforce", status=2)
    here("rule", "add", "dst 192.0.2.7 allow")
    here("enable", "--mode", "enforce")
    for verb, *words in (("flush",), ("replace", "--allow-empty", "/dev/null"), ("insert", "deny")):
        here("rule", verb, "--yes", *words)
        policy.replace("dst 192.0.2.7 allow")
    (rule,) = (rule["rule_id"] for rule in policy.status()["rules"])
    here("rule", "delete", "--yes", rule)


# ---- maps ----


def test_writable_maps_can_be_zeroed_by_others(policy, listener):
    """docs/pinned-maps.md says who may write what."""
    policy.enable("--default", "deny", "--mode", "audit")
    group = policy.group("inner")
    group.attempt("connect", "127.0.0.1", listener.port)
    root = policy.netctl.root / "policy"
    (seen,) = bpftool("map", "dump", "pinned", root / "seen")
    assert seen["formatted"]["key"]["dport"] == listener.port  # BTF names the fields
    size = bpftool("map", "show", "pinned", root / "stats")["bytes_value"]
    run("bpftool", "map", "update", "pinned", root / "stats", "key", *["0"] * 4, "value", *["0"] * size)
    assert policy.status()["layers"]["cgroup"]["judged"] == 0
    key = [str(byte) for byte in bytes(int(b, 16) for b in seen["key"])]
    run("bpftool", "map", "delete", "pinned", root / "seen", "key", *key)
    assert policy.json("learn") == []
