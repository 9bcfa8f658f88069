# SPDX-License-Identifier: GPL-2.0-only
"""netctl redirect to … health: targets that stop and return, are silent, or answer that they cannot."""

import json
import signal
import socket
import struct
import subprocess
import sys
import threading

import pytest

from lab import bpftool, until
from redirect_targets_test import CONNECT, Greeter, connect, counted, several  # noqa: F401 (a fixture)

UNKNOWN, UP, DOWN = range(3)  # enum nc_rd_to_state

# Sends a datagram for each line that it is told, and prints who answered, or the error's number.
ASK = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(60)
    for _ in sys.stdin:
        try:
            sock.sendto(b"x", (sys.argv[1], 53))
            print(sock.recvfrom(100)[0].decode().split()[0], flush=True)
        except OSError as error:
            print(error.errno, flush=True)
"""
REFUSED = "111"
ERROR = """
import socket, sys
with socket.socket(socket.AF_INET, getattr(socket, sys.argv[3])) as sock:
    print(sock.connect_ex((sys.argv[1], int(sys.argv[2]))))
"""


class Service:
    """A server that stops and returns. Its port stays its own: a socket that does not listen holds it."""

    def __init__(self, name, address="127.0.0.1"):
        self.name, self.address = name, address
        self._holder = self._bound(0)
        self.port = self._holder.getsockname()[1]
        self.target = f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"
        self._greeter = None
        self.start()

    def _bound(self, port):
        sock = socket.socket(socket.AF_INET6 if ":" in self.address else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self.address, port))
        return sock

    def start(self):
        listener = self._bound(self.port)
        listener.listen(128)
        self._greeter = Greeter(self.name, listener)

    def stop(self):
        self._greeter.close()
        self._greeter = None

    def close(self):
        if self._greeter:
            self.stop()
        self._holder.close()


class Web:
    """Answers each connection with the same text: `answer`; or not at all if that is None."""

    def __init__(self):
        self.answer = "HTTP/1.1 200 OK\r\n\r\n"
        self.asked = set()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.target = "127.0.0.1:%d" % self.socket.getsockname()[1]
        self._open = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self._open.append(connection)
            if self.answer is not None:
                self.asked.add(connection.recv(4096).split(b"\r\n")[0].decode())
                connection.sendall(self.answer.encode())
                connection.close()

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self._open:
            connection.close()


class Health:
    def __init__(self, several, lab):  # noqa: F811
        self.several, self.lab, self.netctl = several, lab, several.netctl
        self.process = None

    def services(self, *names):
        made = [Service(name) for name in names]
        self.several.servers += made
        return made

    def to(self, address, *targets, words=("health", "tcp", "every", "1s")):
        self.several.to("dst", address, "target", ",".join(one.target for one in targets), *words)

    def run(self, cgroup=None):
        words = self.netctl.argv("redirect", "run")
        self.process = self.lab.start(*(cgroup.wrap(words) if cgroup else words))
        until(lambda: self.several.status()["joiner"], what="a process that asks")

    def kill(self):
        self.process.stop(signal.SIGKILL)
        until(lambda: not self.several.status()["joiner"], what="nobody asks")

    def listed(self, number=0):
        return self.netctl.json("redirect", "to", "list")[number]

    def states(self, number=0):
        return [one["health"]["state"] for one in self.listed(number)["targets"]]

    def become(self, *states, number=0):
        until(lambda: self.states(number) == list(states), what=" ".join(states))

    def write(self, rule, number, state):
        """As `redirect run` would; what is not told apart by programs stays zero."""
        key, value = struct.pack("=II", rule, number), struct.pack("=IIIIQQQQ", state, 0, 0, 0, 0, 0, 0, 0)
        pin = self.netctl.root / "redirect" / "to_health"
        bpftool("map", "update", "pinned", pin, "key", *map(str, key), "value", *map(str, value))


@pytest.fixture
def health(several, lab):  # noqa: F811
    made = Health(several, lab)
    yield made
    if made.process:
        made.process.stop()


@pytest.mark.kernel
def test_a_target_that_stops_and_returns(health):
    """New connections go to those that are up; the state outlives who found it."""
    a, b = health.services("a", "b")
    health.to("192.0.2.1", a, b)
    assert health.states() == ["unknown", "unknown"]
    assert sorted(connect(health.several, 4)) == ["a", "a", "b", "b"]  # taken to be up
    health.run()
    health.become("up", "up")
    a.stop()
    health.become("down", "up")
    first = health.listed()["targets"][0]
    assert first["health"]["why"] == "Connection refused" and first["health"]["unanswered"] > 0
    assert connect(health.several, 5) == ["b"] * 5
    assert counted(health.several) == [(2, 0), (7, 0)]
    health.process.expect(rf"target {a.target} of rule 1 is down: Connection refused")
    status = health.several.status()
    assert (status["to_asked"], status["to_down"]) == (2, 1)
    assert "1 of 2 targets that are asked is down" in health.netctl("redirect", "status").stdout

    health.kill()
    a.start()
    assert "nobody asks targets" in health.netctl("status", check=False).stdout
    assert health.states() == ["down", "up"]
    assert connect(health.several, 3) == ["b"] * 3
    health.run()
    health.become("up", "up")
    assert sorted(connect(health.several, 4)) == ["a", "a", "b", "b"]
    health.process.stop()


@pytest.mark.kernel
def test_all_are_down(health):
    """Refused, as a target that is down would; or on to where it was to go. TCP and UDP, connected and not."""
    a, original = health.services("a", "original")
    health.to("192.0.2.1", a)
    health.several.to("dst", "127.0.0.2", "target", a.target, "health", "tcp", "fail", "open")
    netctl, group = health.netctl, health.several.group

    def error(address, port, kind):
        return group.run(sys.executable, "-c", ERROR, address, port, kind).stdout.strip()

    def ask(address):
        return group.run(sys.executable, "-c", ASK, address, input="\n").stdout.strip()

    for rule in (1, 2):
        health.write(rule, 0, UP)
    assert error("192.0.2.1", 80, "SOCK_STREAM") == "0"
    for rule in (1, 2):
        health.write(rule, 0, DOWN)
    assert error("192.0.2.1", 80, "SOCK_STREAM") == REFUSED
    assert error("192.0.2.1", 80, "SOCK_DGRAM") == REFUSED
    assert ask("192.0.2.1") == REFUSED
    with (
        socket.create_server(("127.0.0.2", original.port)) as there,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver,
    ):
        there.settimeout(60)
        assert error("127.0.0.2", original.port, "SOCK_STREAM") == "0"
        there.accept()[0].close()
        resolver.bind(("127.0.0.2", 53))
        threading.Thread(target=lambda: resolver.sendto(b"itself", resolver.recvfrom(100)[1]), daemon=True).start()
        assert ask("127.0.0.2") == "itself"
    rules = netctl.json("redirect", "to", "list")
    assert [(one["refused"], one["opened"]) for one in rules] == [(3, 0), (0, 2)]
    assert counted(health.several) == [(1, 0)]
    assert "  all down: 3 refused, 0 went where they asked for\n" in netctl("redirect", "to", "list").stdout

    # Whoever refused it before keeps the word.
    netctl("policy", "enable", "--cgroup", group.path, "--layer", "cgroup", "--default", "deny")
    try:
        assert error("192.0.2.1", 80, "SOCK_STREAM") == "1"
    finally:
        netctl("policy", "disable")


@pytest.mark.kernel
def test_datagrams_leave_a_target_that_is_down(health):
    """Though a socket else stays with the target that it had."""
    a, b = health.several.server("a"), health.several.server("b")
    health.to("192.0.2.1", a, b)
    words = health.several.group.wrap([sys.executable, "-c", ASK, "192.0.2.1"])
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:

        def ask():
            client.stdin.write("\n")
            client.stdin.flush()
            return client.stdout.readline().strip()

        assert [ask(), ask(), ask()] == ["a"] * 3
        health.write(1, 0, DOWN)
        assert [ask(), ask()] == ["b"] * 2
        health.write(1, 1, DOWN)
        assert ask() == REFUSED
        health.write(1, 0, UP)
        assert [ask(), ask()] == ["a"] * 2
        client.stdin.close()


def test_sources_stay_where_they_are(health):
    """Only those whose target is down go to another."""
    names = "abc"
    services = health.services(*names)
    health.to("192.0.2.1", *services, words=("by", "source", "health", "tcp"))
    groups = []
    for i in range(12):
        group = type(health.several.group).__new__(type(health.several.group))
        group.path = health.several.group.path / f"service{i}"
        group.path.mkdir()
        groups.append(group)

    def came_to():
        return [connect(health.several, 1, group=group)[0] for group in groups]

    before = came_to()
    gone = names.index(before[0])
    health.write(1, gone, DOWN)
    after = came_to()
    for old, new in zip(before, after):
        assert new == old if old != names[gone] else new != old
    health.write(1, gone, UP)
    assert came_to() == before


def test_what_http_answers(health):
    web, other = Web(), Service("other", "127.0.0.1")
    health.several.servers += [web, other]
    health.to("192.0.2.1", web, other, words=("health", "http", "/ready?now", "every", "1s"))
    health.run()
    health.become("up", "down")  # what greets is no HTTP
    assert web.asked == {"GET /ready?now HTTP/1.1"}
    assert health.listed()["targets"][1]["health"]["why"] == "Protocol error"
    web.answer = "HTTP/1.1 503 Busy\r\n\r\n"
    health.become("down", "down")
    assert health.listed()["targets"][0]["health"]["why"] == "HTTP status 503"
    web.answer = "HTTP/1.0 302 Found\r\n\r\n"
    health.become("up", "down")
    web.answer = None
    health.become("down", "down")
    assert health.listed()["targets"][0]["health"]["why"] == "Connection timed out"


def test_who_asks_is_not_sent_elsewhere(health):
    """By another rule that stands for the target's own address; and an address that is IPv6."""
    a, b = health.services("a", "b")
    six = Service("six", "::1")
    health.several.servers.append(six)
    health.to("192.0.2.1", a)
    health.several.to("dst", "127.0.0.1", "dport", a.port, "target", b.target)
    health.to("2001:db8::1", six)
    a.stop()
    health.run(health.several.group)
    health.become("down")
    health.become("up", number=2)
    assert connect(health.several, 1, "127.0.0.1", a.port) == ["b"]


def test_killed_at_any_moment(health):
    """What stands in the map is an answer, whole."""
    a, b = health.services("a", "b")
    b.stop()
    health.to("192.0.2.1", a, b)
    for _ in range(6):
        asked = health.listed()["targets"][0]["health"]["asked"]
        health.run()
        until(lambda: health.listed()["targets"][0]["health"]["asked"] > asked, what="an answer")
        health.kill()
        assert health.states()[0] == "up"
    health.run()
    health.become("up", "down")


def test_metrics_have_targets(health):
    a, b = health.services("a", "b")
    health.to("192.0.2.1", a, b)
    health.several.to("dst", "192.0.2.2", "target", a.target)
    connect(health.several, 3)
    health.write(1, 1, DOWN)
    path = health.lab.directory / "page.prom"
    health.netctl("metrics", "--textfile", path, "--once", check=False)
    page = path.read_text().splitlines()
    for number, (target, connections, up) in enumerate(((a, 2, 1), (b, 1, 0))):
        labels = f'{{rule="1",target="{target.target}"}}'
        assert f"netctl_redirect_target_connections_total{labels} {connections}" in page, number
        assert f"netctl_redirect_target_up{labels} {up}" in page
    assert f'netctl_redirect_target_datagrams_total{{rule="2",target="{a.target}"}} 0' in page
    assert 'netctl_redirect_all_down_total{rule="1",outcome="refused"} 0' in page
    assert not [line for line in page if line.startswith(f'netctl_redirect_target_up{{rule="2"')]


def test_rules_keep_their_health(health):
    """Those whose text stays, and in what is exported."""
    netctl = health.netctl
    a, b = health.services("a", "b")
    health.to("192.0.2.1", a, b, words=("health", "tcp", "every", "90s", "fail", "open"))
    health.write(1, 0, DOWN)
    text = health.listed()["rule_text"]
    assert text.endswith("health tcp every 90s fail open")
    exported = netctl("export").stdout
    netctl("apply", "-", input=exported.replace(text, f"dst 192.0.2.9 target {b.target} health http /\n    {text}"))
    assert health.states(1) == ["down", "unknown"]
    netctl("redirect", "to", "delete", "1")
    assert health.states() == ["unknown"]
    dump = bpftool("map", "dump", "pinned", str(netctl.root / "redirect" / "to_health"))
    assert [one["formatted"]["key"]["rule"] for one in dump] == [2]


def test_an_older_netctl_asks_nobody(health):
    (a,) = health.services("a")
    for name in ("to_health", "to_failed", "to_mine"):
        (health.netctl.root / "redirect" / name).unlink()
    rule = ("redirect", "to", "add", "dst", "192.0.2.1", "target", a.target)
    assert "older netctl" in health.netctl.fails(*rule, "health", "tcp")
    health.netctl(*rule)
    health.run()
    assert connect(health.several, 1) == ["a"]
