# SPDX-License-Identifier: GPL-2.0-only
"""A laboratory of network namespaces for the tests.

    def test_answer(lab, netctl):
        client, server = lab.pair()
        lab.nginx(server.netns)
        assert client.netns.run("curl", "-s", f"http://{server.ip4}/").stdout == "hello\n"

Addresses come from the documentation ranges, neighbours are static, and IPv6 sends nothing of its
own, so that on a link there is only what a test puts there. Nothing here sleeps to be on the safe
side: `until` waits for a condition.
"""

import contextlib
import ctypes
import fcntl
import functools
import ipaddress
import json
import os
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

NETNS_DIRECTORY = Path("/run/netns")
BPFFS = Path("/sys/fs/bpf")

# How much longer than on a fast machine things may take; set for software emulation.
PATIENCE = float(os.environ.get("NETCTL_PATIENCE", "1"))
# Seconds that anything may take that ends by itself: a bound is there to end what hangs, not to measure.
LONG = 20.0
IN_VM = bool(os.environ.get("NETCTL_VM"))
# A guest runs a share of the tests, unless it is told to run all.
GUEST_SHARE = os.environ.get("NETCTL_VM", "all") != "all"

_libc = ctypes.CDLL(None, use_errno=True)


def until(condition, timeout=LONG, what=None):
    """Waits until `condition()` is true and returns its value. An AssertionError in it means not
    yet, and is what the test sees if it never comes true."""
    timeout = max(timeout, LONG)
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        problem = None
        try:
            value = condition()
            if value:
                return value
        except AssertionError as error:
            value, problem = None, error
        if time.monotonic() >= deadline:
            if problem:
                raise problem
            name = what or getattr(condition, "__name__", "condition")
            raise AssertionError(f"not within {timeout * PATIENCE:g} s: {name} (last value: {value!r})")
        time.sleep(0.01)


def run(*argv, check=True, timeout=2 * LONG, **options):
    """Runs a command to its end; its output is text, in `.stdout` and `.stderr`."""
    argv = [str(word) for word in argv]
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout * PATIENCE, **options)
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}".rstrip()
        )
    return done


def bpftool(*argv):
    """bpftool's answer to `argv`, from JSON."""
    out = run("bpftool", "--json", *argv).stdout
    return json.loads(out) if out.strip() else None


class Process:
    """A command in the background. Its output goes to files, so that it never blocks."""

    def __init__(self, argv, directory, **options):
        self.argv = [str(word) for word in argv]
        name = f"{len(list(directory.iterdir()))}-{Path(self.argv[0]).name}"
        self._stdout = directory / f"{name}.stdout"
        self._stderr = directory / f"{name}.stderr"
        options.setdefault("stdin", subprocess.DEVNULL)
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self.popen = subprocess.Popen(self.argv, stdout=out, stderr=err, **options)

    @property
    def pid(self):
        return self.popen.pid

    @property
    def stdout(self):
        return self._stdout.read_text(errors="replace")

    @property
    def stderr(self):
        return self._stderr.read_text(errors="replace")

    def alive(self):
        return self.popen.poll() is None

    def json_lines(self):
        """What has come so far of a stream with one JSON document a line."""
        complete = self.stdout.rpartition("\n")[0]
        return [json.loads(line) for line in complete.splitlines() if line.strip()]

    def expect(self, pattern, timeout=LONG):
        """Waits until the output, standard or error, matches the pattern; returns the match."""

        def matched():
            found = re.search(pattern, self.stdout + self.stderr, re.MULTILINE)
            assert found or self.alive(), f"{self} ended without {pattern!r}"
            return found

        return until(matched, timeout, f"{pattern!r} from {self}")

    def wait(self, timeout=2 * LONG):
        """Waits for its end; returns the exit status."""
        return self.popen.wait(timeout * PATIENCE)

    def send(self, number):
        self.popen.send_signal(number)

    def stop(self, number=signal.SIGTERM, timeout=LONG):
        """Ends it if it still runs; by force if it does not listen. Returns the exit status."""
        if self.alive():
            self.popen.send_signal(number)
            try:
                self.popen.wait(timeout * PATIENCE)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        return self.popen.wait()

    def __str__(self):
        return f"`{' '.join(self.argv)}`\n{self.stdout}{self.stderr}".rstrip()


def listening(pid, port, protocol="tcp"):
    """Whether the network namespace of process `pid` has a socket that listens on `port`."""
    wanted = {"tcp": "0A", "udp": "07"}[protocol]
    for family in ("", "6"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{pid}/net/{protocol}{family}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == wanted and int(fields[1].rpartition(":")[2], 16) == port:
                    return True
    return False


class Cgroup:
    """A control group, below that of the tests."""

    def __init__(self, name):
        self.path = self._own() / name
        self.path.mkdir()

    @staticmethod
    @functools.lru_cache(None)
    def mount():
        """Where cgroup v2 is mounted; on hybrid systems that is not /sys/fs/cgroup."""
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields, _, source = line.partition(" - ")
            if source.split()[0] == "cgroup2":
                return Path(fields.split()[4])
        raise AssertionError("cgroup v2 is not mounted")

    @classmethod
    def _own(cls):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return cls.mount() / line[3:].lstrip("/")
        raise AssertionError("this process has no cgroup v2")

    def wrap(self, argv):
        """The command line that runs `argv` in this group."""
        return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', self.path, *argv]

    def run(self, *argv, **options):
        return run(*self.wrap(argv), **options)

    def close(self):
        (self.path / "cgroup.kill").write_text("1")
        until(lambda: "populated 0" in (self.path / "cgroup.events").read_text(), what="empty cgroup")
        for directory, _, _ in os.walk(self.path, topdown=False):
            os.rmdir(directory)


class Namespace:
    """A network namespace. `with namespace:` moves the calling thread into it."""

    def __init__(self, lab, name):
        self.lab = lab
        self.name = name
        self.path = NETNS_DIRECTORY / name
        self._outside = []
        run("ip", "netns", "add", name)
        # No duplicate detection: addresses are usable at once. No autoconfiguration: silence.
        with self:
            for where in ("all", "default"):
                for key in ("accept_dad", "dad_transmits", "router_solicitations", "accept_ra"):
                    self._write_sysctl(f"net.ipv6.conf.{where}.{key}", 0)
        self.ip_batch("link set lo up")
        # Nor reports of multicast groups, which the kernel sends for every IPv6 address.
        self.run("nft", "add table ip6 lab; add chain ip6 lab silence { type filter hook output "
                 "priority 0; }; add rule ip6 lab silence icmpv6 type mld2-listener-report drop")  # fmt: skip

    def __enter__(self):
        self._outside.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        inside = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._setns(inside)
        finally:
            os.close(inside)
        return self

    def __exit__(self, *_):
        outside = self._outside.pop()
        try:
            self._setns(outside)
        finally:
            os.close(outside)

    @staticmethod
    def _setns(descriptor):
        if _libc.setns(descriptor, 0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "setns")

    def wrap(self, argv, cgroup=None):
        """The command line that runs `argv` in here. (`ip netns exec` would hide bpffs.)"""
        argv = ["nsenter", f"--net={self.path}", "--", *argv]
        return cgroup.wrap(argv) if cgroup else argv

    def run(self, *argv, cgroup=None, **options):
        return run(*self.wrap(argv, cgroup), **options)

    def start(self, *argv, cgroup=None, **options):
        """Runs a command in the background, at most until the test's end."""
        return self.lab.start(*self.wrap(argv, cgroup), **options)

    def ip(self, *argv):
        return run("ip", "-n", self.name, *argv)

    def ip_json(self, *argv):
        return json.loads(run("ip", "-n", self.name, "-json", *argv).stdout or "[]")

    def ip_batch(self, *lines):
        """Several `ip` commands in one process, which under emulation is what costs."""
        run("ip", "-n", self.name, "-batch", "-", input="\n".join(lines))

    @staticmethod
    def _write_sysctl(name, value):
        # A dot in an interface's name is a slash in the key's, as sysctl(8) has it.
        path = name.translate(str.maketrans("./", "/."))
        Path("/proc/sys", path).write_text(f"{value}\n")

    def sysctl(self, name, value):
        with self:
            self._write_sysctl(name, value)

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, protocol=0):
        """A socket that belongs here, whoever uses it."""
        with self:
            return socket.socket(family, kind, protocol)

    def ping(self, address, count=1, timeout=LONG / 2):
        """Whether all of `count` echo requests are answered."""
        seconds = max(1, round(timeout * PATIENCE))
        done = self.run("ping", "-nqc", count, "-i", 0.01, "-W", seconds, address, check=False)
        return f" {count} received" in done.stdout

    def close(self):
        run("ip", "netns", "delete", self.name)

    def __str__(self):
        return self.name


@dataclass(frozen=True)
class Interface:
    """One end of a link, with its addresses."""

    netns: Namespace
    name: str
    index: int
    mac: str
    ip4: str
    ip6: str

    def ip(self, family):
        """The address of family 4 or 6."""
        return {4: self.ip4, 6: self.ip6}[family]

    def running(self):
        """Whether packets get through; a link is up some time before."""
        with self.netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("16sh", self.name.encode(), 0)
            answer = fcntl.ioctl(any_socket, 0x8913, request.ljust(40, b"\0"))  # SIOCGIFFLAGS
        return bool(struct.unpack_from("h", answer, 16)[0] & 0x40)  # IFF_RUNNING

    def set(self, *argv):
        self.netns.ip("link", "set", "dev", self.name, *argv)

    def offload(self, **features):
        """ethtool -K, e.g. offload(gro=True, tso=False)."""
        words = [word for key, on in features.items() for word in (key, "on" if on else "off")]
        self.netns.run("ethtool", "-K", self.name, *words)

    def counters(self):
        """The kernel's 64-bit statistics: {"rx": {"packets": …}, "tx": {…}}."""
        (link,) = self.netns.ip_json("-s", "link", "show", "dev", self.name)
        return link["stats64"]

    def __str__(self):
        return self.name


class Lab:
    """Makes things, and takes them away in reverse order."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self._logs = self.directory / "processes"
        self._logs.mkdir()
        self._tag = secrets.token_hex(3)
        self._count = 0
        self._links = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _name(self, hint):
        self._count += 1
        return f"{hint}{self._count}-{self._tag}"

    def namespace(self, hint="ns"):
        made = Namespace(self, self._name(hint))
        self._stack.callback(made.close)
        return made

    def veth(self, a, b, name_a="eth0", name_b="eth0", mtu=1500, queues=1, checksums=True):
        """Joins two namespaces. Each link gets the next /24 and /64 of the documentation ranges,
        and static neighbours. Returns both ends.

        checksums=False: packets carry true checksums, and are never larger than the MTU, as on a
        wire; else the kernel leaves both to hardware that is not there.
        """
        nets4 = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
        net4 = ipaddress.ip_network(nets4[self._links])
        net6 = ipaddress.ip_network(f"2001:db8:{self._links + 1:x}::/64")
        self._links += 1
        mac = [f"02:00:00:00:{self._links:02x}:{side:02x}" for side in (1, 2)]
        queue_options = ("numrxqueues", queues, "numtxqueues", queues)
        run(
            *("ip", "-n", a, "link", "add", name_a, "address", mac[0], "mtu", mtu, *queue_options),
            *("type", "veth"),
            *("peer", name_b, "netns", b, "address", mac[1], "mtu", mtu, *queue_options),
        )
        ends = []
        for side, (netns, name) in enumerate(((a, name_a), (b, name_b))):
            with netns:
                index = socket.if_nametoindex(name)
            own4, own6 = str(net4[side + 1]), str(net6[side + 1])
            end = Interface(netns, name, index, mac[side], own4, own6)
            if not checksums:
                end.offload(rx=False, tx=False, tso=False, gso=False, gro=False)
            netns.ip_batch(
                # No link-local address: nothing to announce, nobody to ask.
                f"link set dev {name} addrgenmode none",
                f"link set dev {name} up",
                f"address add {own4}/24 dev {name}",
                f"address add {own6}/64 dev {name} nodad",
                *(
                    f"neighbour replace {other} lladdr {mac[1 - side]} nud permanent dev {name}"
                    for other in (net4[2 - side], net6[2 - side])
                ),
            )
            ends.append(end)
        until(lambda: all(end.running() for end in ends), what="a running link")
        return tuple(ends)

    def pair(self, **options):
        """A client's and a server's end of a link, in namespaces of their own."""
        return self.veth(self.namespace("client"), self.namespace("server"), **options)

    def repeat_addresses(self):
        """The next link has the first one's addresses, in namespaces of its own."""
        self._links = 0

    def start(self, *argv, **options):
        process = Process(argv, self._logs, **options)
        self._stack.callback(process.stop)
        return process

    def serve(self, netns, *argv, port, protocol="tcp", **options):
        """Starts a server, and waits until it listens."""
        process = netns.start(*argv, **options)

        def ready():
            assert process.alive(), f"server ended: {process}"
            return listening(process.pid, port, protocol)

        # nsenter's own namespace is asked until it has entered the other: both are this process.
        until(ready, 10, f"a listener on port {port}: {process}")
        return process

    def http_server(self, netns, port=80, **options):
        """Python's HTTP server, IPv4 and IPv6, over the lab's directory `www`, which is returned."""
        root = self.directory / "www"
        root.mkdir(exist_ok=True)
        (root / "index.html").write_text("hello\n")
        self.serve(netns, "/usr/bin/python3", "-m", "http.server", "--bind", "::",
                   "--directory", root, port, port=port, **options)  # fmt: skip
        return root

    def nginx(self, netns, port=80, location='return 200 "hello\\n";', **options):
        """nginx, IPv4 and IPv6, answering with `location`, a piece of its configuration."""
        root = self.directory / self._name("nginx")
        root.mkdir()
        (root / "nginx.conf").write_text(
            f"""
            daemon off;
            user root;
            pid {root}/pid;
            worker_processes 1;
            error_log stderr warn;
            events {{ }}
            http {{
                access_log off;
                default_type text/plain;
                keepalive_requests 1000000000;
                client_body_temp_path {root}/body;
                proxy_temp_path {root}/proxy;
                fastcgi_temp_path {root}/fastcgi;
                uwsgi_temp_path {root}/uwsgi;
                scgi_temp_path {root}/scgi;
                server {{
                    listen {port};
                    listen [::]:{port};
                    location / {{ {location} }}
                }}
            }}
            """
        )
        return self.serve(netns, "nginx", "-p", root, "-e", "stderr", "-c", root / "nginx.conf",
                          port=port, **options)  # fmt: skip

    def cgroup(self, hint="group"):
        made = Cgroup(self._name(hint))
        self._stack.callback(made.close)
        return made


class Netctl:
    """The command under test, with a root of its own in the tests' private bpffs."""

    def __init__(self):
        self.binary = os.environ["NETCTL"]
        self.root = BPFFS / f"netctl-{secrets.token_hex(4)}"
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()
        # Unpinning the links detaches what is still attached.
        shutil.rmtree(self.root, ignore_errors=True)

    def argv(self, *argv, netns=None, options=()):
        where = ("--netns", netns.name) if netns else ()
        return [self.binary, "--root", str(self.root), *where, *options, *argv]

    def __call__(self, *argv, netns=None, **options):
        """Runs it; a status other than 0 fails the test, unless check=False."""
        return run(*self.argv(*argv, netns=netns), **options)

    def json(self, *argv, netns=None, **options):
        """Runs it with --json, and returns the document."""
        out = run(*self.argv(*argv, netns=netns, options=("--json",)), **options).stdout
        return json.loads(out)

    def fails(self, *argv, status=1, netns=None, **options):
        """Expects this exit status, and a message for it, which is returned."""
        done = run(*self.argv(*argv, netns=netns), check=False, **options)
        assert done.returncode == status, f"exit status {done.returncode}: {done.stdout}{done.stderr}"
        assert done.stderr.strip(), "it failed without a word"
        return done.stderr

    def start(self, lab, *argv, netns=None, json=True, **options):
        """Starts a verb that streams; see Process.json_lines and Process.expect."""
        words = self.argv(*argv, netns=netns, options=("--json",) if json else ())
        return lab.start(*words, **options)
