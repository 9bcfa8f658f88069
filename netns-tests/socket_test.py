# SPDX-License-Identifier: GPL-2.0-only
"""The key `socket`: what this host has for a packet, and a host firewall that is made of it."""

import contextlib
import re
import socket
import struct
from pathlib import Path

import pytest
from lab import PATIENCE, until
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPerror6,
    TCPerror,
    UDPerror,
)
from scapy.layers.inet import IPerror
from scapy.layers.sctp import SCTP
from scapy.utils import wrpcap
from traffic import ICMP, IP, TCP, UDP, Classifier, Ether, Filter, IPv6, IPv6ExtHdrFragment, Wire

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
STATES = ("established", "listening", "related", "none")
# What the tests send carries this, and what the kernel sends on its own does not.
DSCP = 10


def header(source, target, family, **fields):
    ether = Ether(src=source.mac, dst=target.mac)
    if family == 4:
        return ether / IP(src=source.ip4, dst=target.ip4, tos=DSCP << 2, **fields)
    return ether / IPv6(src=source.ip6, dst=target.ip6, tc=DSCP << 2, **fields)


class Asker:
    """A filter that counts the packets of each state, and lets all of them through."""

    def __init__(self, filter):
        self.filter = filter
        filter.replace(*(f"dscp {DSCP} socket {state} pass" for state in STATES))

    def state_of(self, wire, packet):
        before = self.filter.packets()
        wire.send(packet)

        def counted():
            now = self.filter.packets()
            return [rule for rule in now if rule is not None and now[rule] != before[rule]]

        (rule,) = until(counted, what="the packet's state")
        return STATES[list(before).index(rule)]


def tcp_states(netns, port):
    """States of the TCP sockets on a local port, as /proc/net/tcp has them."""
    with netns:
        tables = [Path(f"/proc/thread-self/net/{name}").read_text() for name in ("tcp", "tcp6")]
    lines = [line for table in tables for line in table.splitlines()[1:]]
    fields = [line.split() for line in lines]
    return {state for _, local, _, state, *_ in fields if int(local.rpartition(":")[2], 16) == port}


@pytest.fixture(params=("xdp", "tc"))
def asked(request, link, netctl):
    client, server = link
    made = Filter(netctl, server) if request.param == "xdp" else Classifier(netctl, server, "ingress")
    return client, server, Asker(made)


@pytest.mark.kernel
@pytest.mark.parametrize("family", FAMILIES)
def test_each_socket_is_found_by_its_packets(asked, family):
    client, server, asker = asked
    kind = FAMILIES[family]

    def made(netns, type, address, peer=None, listens=False):
        one = stack.enter_context(netns.socket(kind, type))
        one.settimeout(10 * PATIENCE)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(address)
        if peer:
            one.connect(peer)
        if listens:
            one.listen()
        return one

    here, there = server.ip(family), client.ip(family)
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(Wire(client))
        listener = made(server.netns, socket.SOCK_STREAM, (here, 80), listens=True)
        # Of both families, on all addresses.
        dual = stack.enter_context(server.netns.socket(socket.AF_INET6, socket.SOCK_STREAM))
        dual.bind(("::", 81))
        dual.listen()
        caller = made(client.netns, socket.SOCK_STREAM, (there, 5000), (here, 80))
        connection, _ = listener.accept()
        stack.enter_context(connection)
        made(server.netns, socket.SOCK_DGRAM, (here, 53))
        made(server.netns, socket.SOCK_DGRAM, (here, 54), (there, 6000))

        def tcp(sport, dport, flags="A", **fields):
            return header(client, server, family, **fields) / TCP(sport=sport, dport=dport, flags=flags)

        def udp(sport, dport):
            return header(client, server, family) / UDP(sport=sport, dport=dport)

        def quoting(error, transport, **fields):
            """An ICMP error about a packet that the server sent to the client."""
            quoted = (IPerror if family == 4 else IPerror6)(src=here, dst=there, **fields)
            return header(client, server, family) / error / quoted / transport

        later = (
            header(client, server, 4, frag=10, proto=6) / (b"\0" * 40)
            if family == 4
            else header(client, server, 6) / IPv6ExtHdrFragment(offset=10, nh=6) / (b"\0" * 40)
        )
        unreachable = ICMP(type=3, code=3) if family == 4 else ICMPv6DestUnreach(code=4)
        too_big = ICMP(type=3, code=4) if family == 4 else ICMPv6PacketTooBig(mtu=1400)
        exceeded = ICMP(type=11, code=0) if family == 4 else ICMPv6TimeExceeded()
        sent = TCPerror(sport=80, dport=5000)
        cases = [
            ("established", tcp(5000, 80)),
            ("established", tcp(5000, 80, "S")),
            ("listening", tcp(5001, 80, "S")),
            ("listening", tcp(5001, 80)),
            ("listening", tcp(5001, 81, "A")),
            ("none", tcp(5000, 82)),
            ("established", udp(6000, 54)),
            ("none", udp(6001, 54)),
            ("listening", udp(6001, 53)),
            ("none", udp(6000, 55)),
            ("none", header(client, server, family) / SCTP(sport=5000, dport=80)),
            ("none", later),
            ("related", quoting(too_big, sent)),
            ("related", quoting(exceeded, sent)),
            ("related", quoting(unreachable, UDPerror(sport=54, dport=6000))),
            ("related", quoting(unreachable, UDPerror(sport=53, dport=7000))),
            ("none", quoting(unreachable, UDPerror(sport=54, dport=6001))),
            ("none", quoting(too_big, TCPerror(sport=80, dport=5001))),
            ("none", quoting(too_big, TCPerror(sport=82, dport=5000))),
        ]
        if family == 4:
            cases.append(("none", quoting(ICMP(type=5, code=1, gw=there), sent)))  # a redirect
            cases.append(("none", quoting(too_big, sent, frag=10)))
        else:
            fragment = IPv6ExtHdrFragment(offset=0, m=1) / sent
            cases.append(("related", quoting(too_big, fragment, nh=44)))
        told = [(expected, asker.state_of(wire, packet), packet.summary()) for expected, packet in cases]
        assert [case for case in told if case[0] != case[1]] == []

        # A connection that has ended here first is one still.
        connection.close()
        assert caller.recv(1) == b""
        caller.close()
        until(lambda: "06" in tcp_states(server.netns, 80), what="TIME_WAIT")
        assert asker.state_of(wire, tcp(5000, 80)) == "established"


@pytest.mark.kernel
def test_a_half_open_connection_is_one(asked):
    client, server, asker = asked
    # The client's kernel would answer with a reset: the address is nobody's, and leads nowhere else.
    nobody = "192.0.2.77"
    server.netns.ip("neighbour", "replace", nobody, "lladdr", client.mac, "nud", "permanent", "dev", server.name)
    listener = server.netns.socket()
    with listener, Wire(client) as wire:
        listener.bind((server.ip4, 80))
        listener.listen()
        packet = Ether(src=client.mac, dst=server.mac) / IP(src=nobody, dst=server.ip4, tos=DSCP << 2)
        assert asker.state_of(wire, packet / TCP(sport=5000, dport=80, flags="S")) == "listening"
        until(lambda: "03" in tcp_states(server.netns, 80), what="a request socket")
        assert asker.state_of(wire, packet / TCP(sport=5000, dport=80, flags="A")) == "established"
        assert asker.state_of(wire, packet / TCP(sport=5001, dport=80, flags="A")) == "listening"


def test_where_there_is_no_socket_to_ask_for_it_is_refused(pair, netctl):
    _, server = pair
    out = Classifier(netctl, server, "egress")
    message = out.fails("rule add", "socket established pass")
    assert "'socket' is about packets that arrive" in message and "ingress" in message
    assert out.rules() == []
    with pytest.raises(AssertionError, match="packets that arrive"):
        netctl("tc", "rule", "replace", server.name, "egress", netns=server.netns, input="socket any pass\n")
    assert "socket" in netctl.fails("policy", "rule", "add", "socket any allow", status=2)


def test_rule_test_and_simulate_are_told(pair, netctl, tmp_path):
    client, server = pair
    Filter(netctl, server, "--default", "drop").replace("socket established pass", "socket related pass")
    frame = header(client, server, 4) / TCP(sport=5000, dport=80, flags="A")

    def tests(*packet):
        return netctl.json("xdp", "rule", "test", server.name, *packet, netns=server.netns)

    said = tests("dport", "80", "socket", "established")
    assert (said["verdict"], said["made_up"], said["packet"]["socket"]) == ("pass", [], "established")
    assert (tests("dport", "80")["verdict"], tests("dport", "80")["made_up"]) == ("drop", ["socket"])
    hexed = ("--hex", bytes(frame).hex())
    assert tests(*hexed, "--socket", "established")["verdict"] == "pass"
    assert (tests(*hexed)["verdict"], tests(*hexed)["made_up"]) == ("drop", ["socket"])
    assert "in words" in netctl.fails("xdp", "rule", "test", server.name, "dport", "80", "--socket", "none",
                                      netns=server.netns, status=2)  # fmt: skip

    capture = tmp_path / "one.pcap"
    wrpcap(str(capture), [frame])
    words = ("xdp", "simulate", server.name, capture)
    plain = netctl(*words, netns=server.netns)
    assert " drop " in plain.stdout and "--socket" in plain.stderr
    told = netctl(*words, "--socket", "established", netns=server.netns)
    assert " pass (rule 1)" in told.stdout and "--socket" not in told.stderr


FIREWALL = (
    "ether-type arp pass",
    "proto icmp6 icmp-type {neighbor-solicitation, neighbor-advertisement, echo-request, echo-reply} pass",
    "proto icmp icmp-type {echo-request, echo-reply} pass",
    "socket {established, related} pass",
    "proto tcp dport 80 socket listening pass",
)
RETURNS = 4  # the rule that lets answers in


@pytest.fixture(params=("xdp", "tc"))
def fortress(request, lab, netctl):
    """A server behind a firewall, a router with a narrow link beyond it, and a client: (client, server, filter)."""
    client, router, server = (lab.namespace(name) for name in ("client", "router", "server"))
    near, inner = lab.veth(server, router, name_b="in")
    outer, far = lab.veth(router, client, name_a="out")
    for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        router.sysctl(key, 1)
    router.ip("link", "set", "dev", "out", "mtu", 1300)
    near.netns.ip("route", "add", "default", "via", inner.ip4)
    near.netns.ip("-6", "route", "add", "default", "via", inner.ip6)
    # The client keeps to the narrow link, which takes nothing larger from it, and does not tell the server to.
    client.ip("route", "add", "default", "via", outer.ip4, "mtu", 1300, "advmss", 1460)
    client.ip("-6", "route", "add", "default", "via", outer.ip6, "mtu", 1300, "advmss", 1440)
    if request.param == "xdp":
        made = Filter(netctl, near, "--default", "drop")
    else:
        made = Classifier(netctl, near, "ingress", "--default", "drop")
    made.replace(*FIREWALL)
    return far, near, made


def reaches(netns, address, port, timeout):
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.socket(kind) as one:
        one.settimeout(timeout)
        try:
            one.connect((address, port))
        except TimeoutError:
            return False
        return True


def test_a_host_firewall_of_five_rules(fortress, lab):
    client, server, filter = fortress
    lab.nginx(server.netns, location='return 200 "hello\\n";')
    # More than one packet of the narrow link.
    (lab.http_server(client.netns, port=8000) / "big").write_bytes(b"x" * 200000)
    closed = server.netns.socket(socket.AF_INET6)
    unasked = server.netns.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with closed, unasked:
        closed.bind(("::", 81))
        closed.listen()
        unasked.bind(("::", 82))
        for family, kind in FAMILIES.items():
            near, far = server.ip(family), client.ip(family)
            url = f"[{near}]" if family == 6 else near
            away = f"[{far}]" if family == 6 else far
            # TCP in and out.
            assert client.netns.run("curl", "-gs", "-m", 20, f"http://{url}/").stdout == "hello\n"
            got = server.netns.run("curl", "-gs", "-m", 20, f"http://{away}:8000/big").stdout
            assert len(got) == 200000
            # What listens, but is not meant to be reached.
            assert not reaches(client.netns, near, 81, 0.3)
            # UDP: answers to a connected socket, and nothing else.
            with client.netns.socket(kind, socket.SOCK_DGRAM) as there, server.netns.socket(kind, socket.SOCK_DGRAM) as here:
                there.bind((far, 53))
                there.settimeout(10 * PATIENCE)
                here.settimeout(10 * PATIENCE)
                here.connect((far, 53))
                here.send(b"question")
                question, asker = there.recvfrom(100)
                dropped = filter.packets()[None]
                there.sendto(b"unasked", (near, 82))
                until(lambda: filter.packets()[None] > dropped, what="the drop of what nobody asked for")
                there.sendto(b"answer", asker)
                assert (question, here.recv(100)) == (b"question", b"answer")
                # Traceroute: the router tells that the hop limit is over.
                level, name, ttl, get = (
                    (socket.IPPROTO_IP, 11, socket.IP_TTL, 0)
                    if family == 4
                    else (socket.IPPROTO_IPV6, 25, socket.IPV6_UNICAST_HOPS, 0)
                )
                here.setsockopt(level, name, 1)  # IP_RECVERR, IPV6_RECVERR
                here.setsockopt(level, ttl, 1)
                here.send(b"how far")

                def hop():
                    with contextlib.suppress(BlockingIOError, OSError):
                        return here.recvmsg(100, 512, socket.MSG_ERRQUEUE)[1]

                (error,) = [data for where, what, data in until(hop, what="time exceeded") if what == name]
                assert struct.unpack_from("IBB", error)[2] == (11 if family == 4 else 3)
            assert client.netns.ping(near, timeout=5) and server.netns.ping(far, timeout=5)
        # Path MTU discovery: the server's end of the path is wide, and its big answer goes through.
        body = "y" * 100000
        with server.netns.socket() as sends, client.netns.socket() as takes:
            takes.bind((client.ip4, 9000))
            takes.listen()
            takes.settimeout(20 * PATIENCE)
            sends.settimeout(20 * PATIENCE)
            sends.connect((client.ip4, 9000))
            accepted, _ = takes.accept()
            with accepted:
                accepted.settimeout(20 * PATIENCE)
                sends.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
                sends.sendall(body.encode())
                got = 0
                while got < len(body):
                    got += len(accepted.recv(65536))
                assert sends.getsockopt(socket.IPPROTO_IP, 14) == 1300  # IP_MTU: the router has told
        # Neighbour discovery.
        server.netns.ip("-6", "neighbour", "flush", "dev", server.name)
        server.netns.run("ip", "-6", "neighbour", "del", "2001:db8:1::2", "dev", server.name, check=False)
        assert server.netns.ping("2001:db8:1::2", timeout=5)
    assert filter.packets()[RETURNS] > 0


def test_scans_see_what_is_meant_to_be_open(fortress, lab):
    client, server, filter = fortress
    lab.nginx(server.netns)
    for port in (79, 81):
        lab.serve(server.netns, "socat", f"TCP-LISTEN:{port},fork", "/dev/null", port=port)

    def scan(kind, seen):
        out = client.netns.run("nmap", "-n", "-Pn", kind, "-p", "79-82", "--max-retries", 2,
                               "-oG", "-", server.ip4, timeout=60).stdout  # fmt: skip
        return sorted(re.findall(rf"(\d+)/{re.escape(seen)}/", out))

    assert scan("-sS", "open") == ["80"]
    assert scan("-sT", "open") == ["80"]
    # ACKs that nobody asked for reach only what is open anyway.
    assert scan("-sA", "unfiltered") == ["80"]
    before = filter.packets()
    with Wire(client) as wire:
        # By way of the router: the link's other end is not the server's.
        gateway = client.netns.ip_json("neighbour", "show")
        via = next(entry["lladdr"] for entry in gateway if ":" not in entry["dst"])
        for flags in ("A", "SA", "FA", "R", "FPU"):
            wire.send(Ether(src=client.mac, dst=via) / IP(src=client.ip4, dst=server.ip4) / TCP(sport=4000, dport=81, flags=flags))
    until(lambda: filter.packets()[None] >= before[None] + 5, what="the drops of five spoofed packets")
    assert filter.packets()[RETURNS] == before[RETURNS]
