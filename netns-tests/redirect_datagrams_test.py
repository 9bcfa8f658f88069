# SPDX-License-Identifier: GPL-2.0-only
"""netctl redirect to: UDP, of sockets that are connected and of those that are not; what a program is told by
getpeername() and recvfrom(); the hooks that are there only meanwhile; resolvers and syslog."""

import json
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

import dns_messages as dns
from lab import IN_VM, PATIENCE, bpftool, run, until

HERE = Path(__file__).parent
# How many datagrams go through two targets; 1000000 takes half a minute.
MANY = int(os.environ.get("NETCTL_DATAGRAMS", "2000" if IN_VM else "20000"))


class Server:
    """Answers each datagram with its own name and what came."""

    def __init__(self, name, address="127.0.0.1"):
        self.name = name
        self.socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.address, self.port = self.socket.getsockname()[:2]
        self.target = f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"
        self.seen = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            data, sender = self.socket.recvfrom(4096)
            if data == b"stop" and sender[1] == self.port:
                return
            self.seen += 1
            self.socket.sendto(self.name.encode() + b" " + data, sender)

    def close(self):
        self.socket.sendto(b"stop", (self.address, self.port))
        self._thread.join()
        self.socket.close()


@pytest.fixture
def elsewhere(netctl, lab):
    with Elsewhere(netctl, lab) as made:
        yield made


class Elsewhere:
    """A client in a cgroup with `redirect to`; servers are outside of it."""

    def __init__(self, netctl, lab):
        self.netctl, self.group = netctl, lab.cgroup()
        self.servers = []

    def __enter__(self):
        run("ip", "link", "set", "lo", "up")
        self.netctl("redirect", "enable", "--cgroup", self.group.path, "--force", "all")
        return self

    def __exit__(self, *_):
        self.netctl("redirect", "disable")
        for server in self.servers:
            server.close()

    def server(self, name, address="127.0.0.1"):
        self.servers.append(Server(name, address))
        return self.servers[-1]

    def to(self, *words):
        self.netctl("redirect", "to", "add", *words)

    def talk(self, *steps):
        out = self.group.run(sys.executable, HERE / "redirect_datagrams.py", json.dumps(steps), timeout=200 * PATIENCE).stdout
        return [json.loads(line) for line in out.splitlines()]

    def status(self):
        return self.netctl.json("redirect", "status")

    def hooks(self):
        """The hooks for datagrams that are attached."""
        attached = bpftool("cgroup", "show", str(self.group.path)) or []
        return sorted(one["name"] for one in attached if "sendmsg" in one["name"])


BOTH = ["rd_sendmsg4", "rd_sendmsg6"]


@pytest.mark.kernel
def test_datagrams_go_elsewhere(elsewhere):
    """IPv4, mapped, IPv6; connected or not; and what is told of who answers."""
    a, b, six = elsewhere.server("a"), elsewhere.server("b"), elsewhere.server("six", "::1")
    elsewhere.to("dst", "192.0.2.1", "dport", "53", "proto", "udp", "target", a.target)
    elsewhere.to("dst", "192.0.2.2", "target", b.target)
    elsewhere.to("dst", "2001:db8::1", "dport", "514", "target", six.target)
    elsewhere.to("dst", "192.0.2.3", "proto", "tcp", "target", b.target)
    answers = elsewhere.talk(
        ("socket", 4),
        ("ask", "192.0.2.1", 53),
        ("ask", "192.0.2.2", 99),
        ("ask with tos", "192.0.2.1", 53),
        ("ask", a.address, a.port),  # not rewritten: what answers is itself again
        ("ask", "192.0.2.1", 53),
        ("connect", "192.0.2.2", 514),
        ("ask", None, 0),
        ("ask with tos", None, 0),
        ("socket", 6),
        ("ask", "2001:db8::1", 514),
        ("ask", "::ffff:192.0.2.1", 53),
        ("ask with tos", "::ffff:192.0.2.2", 1),
        ("connect", "::ffff:192.0.2.1", 53),
        ("ask", None, 0),
        ("socket", 6),
        ("connect", "2001:db8::1", 514),
        ("ask with tos", None, 0),
    )
    assert answers == [
        ["a question", "192.0.2.1", 53],
        ["b question", "192.0.2.2", 99],
        ["a question", "192.0.2.1", 53],
        ["a question", a.address, a.port],
        ["a question", "192.0.2.1", 53],
        ["192.0.2.2", 514],
        ["b question", "192.0.2.2", 514],
        ["b question", "192.0.2.2", 514],
        ["six question", "2001:db8::1", 514],
        ["a question", "::ffff:192.0.2.1", 53],
        ["b question", "::ffff:192.0.2.2", 1],
        ["::ffff:192.0.2.1", 53],
        ["a question", "::ffff:192.0.2.1", 53],
        ["2001:db8::1", 514],
        ["six question", "2001:db8::1", 514],
    ]
    status = elsewhere.status()
    assert (status["rewritten"], status["rewritten_datagrams"], status["forgotten_targets"]) == (3, 7, 0)
    assert status["helper_failed"] == status["loops"] == 0


@pytest.mark.kernel
def test_hooks_are_there_while_a_rule_needs_them(elsewhere, lab):
    """Datagrams cost nothing where nobody redirects any; also behind a cgroup that went away."""
    netctl, server = elsewhere.netctl, elsewhere.server("a")
    rule = ("dst", "192.0.2.1", "target", server.target)
    elsewhere.to(*rule, "proto", "tcp")
    assert elsewhere.hooks() == []
    elsewhere.to(*rule, "proto", "udp")
    assert elsewhere.hooks() == BOTH
    elsewhere.to(*rule, "dport", "7")
    netctl("redirect", "to", "delete", "2")
    assert elsewhere.hooks() == BOTH  # the last is about both
    netctl("redirect", "to", "delete", "3")
    until(lambda: elsewhere.hooks() == [], what="the kernel has taken the hooks off")
    assert not list((netctl.root / "redirect").glob("link_sendmsg*"))

    # Of a cgroup that is gone they come back with `enable`, those that nobody had attached to it, too.
    elsewhere.to(*rule, "dport", "53")
    until(lambda: "populated 0" in (elsewhere.group.path / "cgroup.events").read_text())
    elsewhere.group.path.rmdir()
    elsewhere.to(*rule, "dport", "54")
    elsewhere.group.path.mkdir()
    assert elsewhere.hooks() == []
    netctl("redirect", "enable", "--cgroup", elsewhere.group.path)
    assert elsewhere.hooks() == BOTH
    ask = (("socket", 4), ("ask", "192.0.2.1", 53), ("ask", "192.0.2.1", 54))
    assert elsewhere.talk(*ask) == [["a question", "192.0.2.1", 53], ["a question", "192.0.2.1", 54]]


def test_what_an_older_netctl_enabled(elsewhere):
    """It had no programs for datagrams: that is said, not passed over; what it has goes on."""
    netctl, server = elsewhere.netctl, elsewhere.server("a")
    for name in ("prog_sendmsg4", "prog_sendmsg6", "to_stats"):
        (netctl.root / "redirect" / name).unlink()
    rule = ("redirect", "to", "add", "dst", "192.0.2.1", "target", server.target)
    assert "older netctl" in netctl.fails(*rule)
    assert "older netctl" in netctl.fails(*rule, "proto", "udp")
    assert netctl.json("redirect", "to", "list") == []
    netctl(*rule, "proto", "tcp")
    assert elsewhere.status()["rewritten_datagrams"] == 0


def test_who_has_the_target_is_left_alone(elsewhere):
    """A resolver that forwards to the address that it stands for."""
    forward = "import socket, sys; socket.socket(2, 2).sendto(b'forwarded', ('127.0.0.2', int(sys.argv[1])))"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        own.bind(("127.0.0.1", 0))
        there.bind(("127.0.0.2", 0))
        for sock in (own, there):
            sock.settimeout(60)
        port = there.getsockname()[1]
        elsewhere.to("dst", "127.0.0.2", "dport", port, "target", f"127.0.0.1:{own.getsockname()[1]}")
        elsewhere.group.run(sys.executable, "-c", forward, port, pass_fds=[own.fileno()])
        assert there.recv(100) == b"forwarded"
        status = elsewhere.status()
        assert (status["loops"], status["rewritten_datagrams"]) == (1, 0)
        elsewhere.group.run(sys.executable, "-c", forward, port)  # who does not have it goes there
        assert own.recv(100) == b"forwarded"


def test_more_targets_than_a_socket_remembers(elsewhere):
    """The oldest is forgotten, and counted: its answers are told to be from where they are."""
    servers = [elsewhere.server(f"s{i}") for i in range(17)]
    for i, server in enumerate(servers):
        elsewhere.to("dst", f"192.0.2.{i + 1}", "proto", "udp", "target", server.target)
    asked = [("ask", f"192.0.2.{i + 1}", 7) for i in range(17)]
    told = [[f"s{i} question", f"192.0.2.{i + 1}", 7] for i in range(17)]
    assert elsewhere.talk(("socket", 4), *asked[:16], *asked[:16]) == told[:16] * 2
    assert elsewhere.status()["forgotten_targets"] == 0
    assert elsewhere.talk(("socket", 4), *asked, asked[0]) == [*told, told[0]]
    assert elsewhere.status()["forgotten_targets"] == 2
    assert "forgotten by sockets" in elsewhere.netctl("redirect", "status").stdout


@pytest.mark.kernel
@pytest.mark.timeout(300 * PATIENCE)
def test_many_datagrams(elsewhere):
    """Through two targets, from one socket: none is lost by us."""
    a, b = elsewhere.server("a"), elsewhere.server("b")
    elsewhere.to("dst", "192.0.2.1", "dport", "53", "proto", "udp", "target", a.target)
    elsewhere.to("dst", "192.0.2.2", "dport", "53", "proto", "udp", "target", b.target)
    (seen,) = elsewhere.talk(("socket", 4), ("many", MANY, [("192.0.2.1", 53), ("192.0.2.2", 53)]))
    assert seen == {"a 192.0.2.1 53": MANY // 2, "b 192.0.2.2 53": MANY // 2}
    assert a.seen == b.seen == MANY // 2
    assert elsewhere.status()["rewritten_datagrams"] == MANY


@pytest.mark.kernel
def test_the_policy_judges_what_was_asked_for(elsewhere, lab):
    """Datagrams as connections, in whichever order the two were enabled."""
    netctl, server = elsewhere.netctl, elsewhere.server("a")
    for address in ("192.0.2.1", "192.0.2.2"):
        elsewhere.to("dst", address, "dport", "53", "proto", "udp", "target", server.target)
    ask = (("socket", 4), ("ask", "192.0.2.1", 53), ("ask", "192.0.2.2", 53), ("ask", server.address, server.port))

    def judged():
        denied, allowed, target = elsewhere.talk(*ask)
        assert allowed == ["a question", "192.0.2.2", 53]
        assert denied == target == 1  # EPERM: the target itself is not what was asked for

    rules = "dst 192.0.2.1 deny\ndst 192.0.2.2 allow\n"
    enable = ("policy", "enable", "--cgroup", elsewhere.group.path, "--layer", "cgroup", "--default", "deny", "--rules", "-")
    netctl(*enable, input=rules)
    try:
        judged()
        listed = [rule["rule_text"] for rule in netctl.json("redirect", "to", "list")]
        for number in (1, 2):
            netctl("redirect", "to", "delete", number)
        for text in listed:  # the hooks come anew, behind the policy's
            elsewhere.to(*text.split())
        judged()
    finally:
        netctl("policy", "disable")


def test_resolvers_and_syslog(elsewhere, lab):
    """getent and logger ask ports of an address that nobody has."""
    here, group = lab.pair()[0].netns, elsewhere.group  # getaddrinfo() asks where there is an interface besides lo
    dns.dnsmasq(lab, here, "127.0.0.1", "--host-record=moved.example,198.51.100.7", port=5300)
    with here.socket(socket.AF_INET, socket.SOCK_DGRAM) as syslog:
        syslog.bind(("127.0.0.1", 0))
        syslog.settimeout(60)
        elsewhere.to("dst", "192.0.2.53", "dport", "53", "proto", "udp", "target", "127.0.0.1:5300")
        elsewhere.to("dst", "192.0.2.14", "dport", "514", "target", f"127.0.0.1:{syslog.getsockname()[1]}")
        getent = dns.resolving(lab.directory, "192.0.2.53", ["getent", "ahostsv4", "moved.example"])
        assert "198.51.100.7" in here.run(*getent, cgroup=group).stdout
        here.run("logger", "--udp", "--server", "192.0.2.14", "--port", "514", "moved", cgroup=group)
        assert b"moved" in syslog.recv(1000)
