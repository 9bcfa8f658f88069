# SPDX-License-Identifier: GPL-2.0-only
"""The keys `ct` and `ct-mark` on a gateway, packet by packet beside nftables' own `ct state`."""

import contextlib
import json
import re
import socket

import pytest
from lab import PATIENCE, until
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPerror6,
    TCPerror,
    UDPerror,
)
from scapy.layers.inet import IPerror
from scapy.layers.sctp import SCTP
from scapy.packet import Raw
from traffic import ICMP, IP, TCP, UDP, Classifier, Ether, Filter, ICMPv6EchoRequest, IPv6, Wire

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
STATES = ("new", "established", "related", "invalid", "untracked")
# What the tests send carries this, and what the kernel sends on its own does not.
DSCP = 10

NFT = """
table inet gateway {{
    chain track {{
        type filter hook prerouting priority mangle; policy accept;
        tcp dport 80 ct mark set 0x17
        {arriving}
    }}
    chain leave {{
        type filter hook postrouting priority 300; policy accept;
        {leaving}
    }}
    chain hide {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "out" masquerade
    }}
}}
"""


def counters(place):
    """Rules of nftables that count the tests' packets at an interface by family and state."""
    return "\n".join(
        f"{place} {ip} dscp {DSCP} ct state {state} counter" for ip in ("ip", "ip6") for state in STATES
    )


class Gateway:
    """A client, a server, and a gateway between them that tracks connections and hides the client."""

    def __init__(self, lab, hook, netctl):
        self.lab = lab
        client, self.netns, server = (lab.namespace(name) for name in ("client", "gateway", "server"))
        self.client, self.inner = lab.veth(client, self.netns, name_b="in", checksums=False)
        self.outer, self.server = lab.veth(self.netns, server, name_a="out", checksums=False)
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            self.netns.sysctl(key, 1)
        for end, via in ((self.client, self.inner), (self.server, self.outer)):
            end.netns.ip("route", "add", "default", "via", via.ip4)
            end.netns.ip("-6", "route", "add", "default", "via", via.ip6)
        self.netns.run("nft", "-f", "-", input=NFT.format(
            # What kernels answer with has the packet's DSCP, and comes by the other interface.
            arriving="\n".join((counters("iifname in"), counters("iifname out"))),
            leaving="\n".join((counters("oifname in"), counters("oifname out")))))  # fmt: skip
        # What is made up has no true sequence numbers.
        self.netns.sysctl("net.netfilter.nf_conntrack_tcp_be_liberal", 1)
        self.filters = {}
        self.hook, self.netctl = hook, netctl

    def ask(self, interface, direction="ingress"):
        """Puts a filter there that counts the packets of each state."""
        if self.hook == "xdp":
            made = Filter(self.netctl, interface)
        else:
            made = Classifier(self.netctl, interface, direction)
        made.replace(*(f"dscp {DSCP} ct {state} pass" for state in STATES), f"dscp {DSCP} pass")
        self.filters[interface] = made

    def counted_by_nft(self, chain, interface):
        listed = json.loads(self.netns.run("nft", "-j", "list", "chain", "inet", "gateway", chain).stdout)
        counters = [
            item["counter"]["packets"]
            for entry in listed["nftables"]
            for item in entry.get("rule", {}).get("expr", ())
            if "counter" in item
        ]
        half = len(STATES)
        ours = counters[: 2 * half] if interface.name == "in" else counters[2 * half :]
        return [a + b for a, b in zip(ours[:half], ours[half:], strict=True)]

    def states_of(self, wire, interface, packet, chain="track"):
        """What netctl and what nftables say of a packet: (state or None, state or None)."""
        filter = self.filters[interface]
        before, nft_before = filter.packets(), self.counted_by_nft(chain, interface)
        wire.send(packet)

        def counted():
            now = filter.packets()
            return [rule for rule in now if rule is not None and now[rule] != before[rule]]

        def counted_too():
            now = self.counted_by_nft(chain, interface)
            return [state for state, a, b in zip(STATES, nft_before, now, strict=True) if a != b]

        (rule,) = until(counted, what=f"the state of {packet.summary()}")
        (theirs,) = until(counted_too, what=f"nftables' state of {packet.summary()}")
        place = list(before).index(rule)
        return STATES[place] if place < len(STATES) else None, theirs


@pytest.fixture(params=("xdp", "tc"))
def gateway(request, lab, netctl):
    return Gateway(lab, request.param, netctl)


def header(source, gateway_mac, target, family, **fields):
    ether = Ether(src=source.mac, dst=gateway_mac)
    if family == 4:
        return ether / IP(src=source.ip4, dst=target, tos=DSCP << 2, **fields)
    return ether / IPv6(src=source.ip6, dst=target, tc=DSCP << 2, **fields)


def about(error, transport, source, target, family, **fields):
    """What an ICMP error says of a packet that `source` sent to `target`."""
    return error / (IPerror if family == 4 else IPerror6)(src=source, dst=target, **fields) / transport


@contextlib.contextmanager
def conversations(gateway, family):
    """A TCP connection (5000 to 80), an answered question of UDP (6000 to 53), and one without an answer (6001 to
    54); yields both ends of the connection."""
    kind = FAMILIES[family]
    here, there = gateway.client.ip(family), gateway.server.ip(family)
    with contextlib.ExitStack() as stack:

        def bound(interface, type, port):
            one = stack.enter_context(interface.netns.socket(kind, type))
            one.settimeout(10 * PATIENCE)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((interface.ip(family), port))
            return one

        listener = bound(gateway.server, socket.SOCK_STREAM, 80)
        listener.listen()
        caller = bound(gateway.client, socket.SOCK_STREAM, 5000)
        caller.connect((there, 80))
        accepted, peer = listener.accept()
        stack.enter_context(accepted)
        assert peer[:2] == (gateway.outer.ip(family), 5000) != (here, 5000)
        asker, answerer = bound(gateway.client, socket.SOCK_DGRAM, 6000), bound(gateway.server, socket.SOCK_DGRAM, 53)
        asker.sendto(b"question", (there, 53))
        answerer.sendto(b"answer", answerer.recvfrom(100)[1])
        assert asker.recv(100) == b"answer"
        alone, silent = bound(gateway.client, socket.SOCK_DGRAM, 6001), bound(gateway.server, socket.SOCK_DGRAM, 54)
        alone.sendto(b"question", (there, 54))
        assert silent.recvfrom(100)[1][1] == 6001
        yield caller, accepted


def crafted(gateway, family):
    """Packets of the client, and the states that are to be seen of them at `in`: None where it cannot be known."""
    client, server = gateway.client.ip(family), gateway.server.ip(family)

    def sent(transport, **fields):
        return header(gateway.client, gateway.inner.mac, server, family, **fields) / transport

    def tcp(sport, flags, **fields):
        return sent(TCP(sport=sport, dport=80, flags=flags, **fields))

    unreachable = ICMP(type=3, code=3) if family == 4 else ICMPv6DestUnreach(code=4)
    too_big = ICMP(type=3, code=4) if family == 4 else ICMPv6PacketTooBig(mtu=1400)
    exceeded = ICMP(type=11, code=0) if family == 4 else ICMPv6TimeExceeded()
    answer = TCPerror(sport=80, dport=5000)
    yield "established", tcp(5000, "A")
    yield "new", tcp(5001, "S")
    yield "new", tcp(5001, "S")
    yield "new", tcp(5002, "A")
    for sport, flags in enumerate(("SA", "FA", "F", "R", "RA", "SF", "SR", "FPU", ""), 5100):
        yield "invalid", tcp(sport, flags)
    yield "invalid", tcp(5000, "SFA")
    yield "invalid", tcp(5003, "S", dataofs=4)
    yield "invalid", tcp(5003, "S", dataofs=15)
    yield "established", sent(UDP(sport=6000, dport=53))
    yield "new", sent(UDP(sport=6001, dport=54))
    yield "new", sent(UDP(sport=6002, dport=55))
    yield "invalid", sent(UDP(sport=6003, dport=55, len=7))
    yield "invalid", sent(UDP(sport=6003, dport=55, len=100))
    yield "related", sent(about(too_big, answer, server, client, family))
    yield "related", sent(about(exceeded, answer, server, client, family))
    yield "related", sent(about(unreachable, UDPerror(sport=53, dport=6000), server, client, family))
    yield "invalid", sent(about(unreachable, UDPerror(sport=53, dport=6999), server, client, family))
    yield "invalid", sent(about(too_big, TCPerror(sport=80, dport=5999), server, client, family))
    # To another than him who has sent it.
    other = "203.0.113.9" if family == 4 else "2001:db8:99::9"
    packet = header(gateway.client, gateway.inner.mac, other, family)
    yield "invalid", packet / about(too_big, answer, server, client, family)
    if family == 4:
        yield "related", sent(about(ICMP(type=5, code=1, gw=client), answer, server, client, family))
        yield "invalid", sent(ICMP(type=9))
        yield "invalid", sent(ICMP(type=40))
        yield "invalid", sent(Raw(b"\x08\x00"), proto=1)
        yield None, sent(ICMP(type=8))
        yield None, sent(SCTP(sport=5000, dport=80))
    else:
        yield "untracked", sent(ICMPv6ND_NS(tgt=server), hlim=255)
        yield None, sent(ICMPv6EchoRequest())
    yield None, sent(Raw(b"x" * 40), **{"proto" if family == 4 else "nh": 47})


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_nftables(gateway, family):
    gateway.ask(gateway.inner)
    gateway.ask(gateway.outer)
    with conversations(gateway, family) as (caller, accepted), Wire(gateway.client) as inside, Wire(gateway.server) as outside:
        told = []
        for expected, packet in crafted(gateway, family):
            ours, theirs = gateway.states_of(inside, gateway.inner, packet)
            told.append((expected, expected or theirs, ours, theirs, packet.summary()))
        assert [case for case in told if case[:2] != case[2:4]] == []

        # Answers come to the gateway's own address, and are found nevertheless.
        server, hidden = gateway.server, gateway.outer.ip(family)

        def back(transport, **fields):
            return header(server, gateway.outer.mac, hidden, family, **fields) / transport

        too_big = ICMP(type=3, code=4) if family == 4 else ICMPv6PacketTooBig(mtu=1400)
        told = []
        for expected, packet in (
            ("established", back(TCP(sport=80, dport=5000, flags="A"))),
            ("invalid", back(TCP(sport=80, dport=5999, flags="SA"))),
            ("established", back(UDP(sport=53, dport=6000))),
            ("established", back(UDP(sport=54, dport=6001))),
            ("new", back(UDP(sport=54, dport=6999))),
            ("related", back(about(too_big, TCPerror(sport=5000, dport=80), hidden, server.ip(family), family))),
            ("invalid", back(about(too_big, TCPerror(sport=5998, dport=80), hidden, server.ip(family), family))),
        ):
            told.append((expected, expected, *gateway.states_of(outside, gateway.outer, packet), packet.summary()))
        assert [case for case in told if case[:2] != case[2:4]] == []

        # A connection that is over begins anew by a SYN.
        caller.close()
        assert accepted.recv(1) == b""
        accepted.close()

        def waits():
            listed = gateway.netns.run("cat", "/proc/net/nf_conntrack", check=False)
            return listed.returncode != 0 or "TIME_WAIT" in listed.stdout

        until(waits, what="TIME_WAIT")
        packet = header(gateway.client, gateway.inner.mac, gateway.server.ip(family), family)
        syn = packet / TCP(sport=5000, dport=80, flags="S")
        assert gateway.states_of(inside, gateway.inner, syn) == ("new", "new")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_leaves_has_the_state_that_it_carries(lab, netctl, family):
    gateway = Gateway(lab, "tc", netctl)
    gateway.ask(gateway.outer, "egress")
    with conversations(gateway, family), Wire(gateway.client) as inside:
        told = []
        for _, packet in crafted(gateway, family):
            redirect = ICMP in packet and packet[ICMP].type == 5  # of translated connections
            if packet[1].dst != gateway.server.ip(family) or ICMPv6ND_NS in packet or redirect:
                continue  # which is not sent on
            ours, theirs = gateway.states_of(inside, gateway.outer, packet, "leave")
            told.append((ours, theirs, packet.summary()))
        assert [case for case in told if case[0] != case[1]] == []
        assert {case[0] for case in told} >= {"new", "established", "related"}


@pytest.mark.kernel
def test_marks_of_connections(gateway):
    gateway.ask(gateway.inner)
    filter = gateway.filters[gateway.inner]
    filter.replace(f"dscp {DSCP} ct-mark 0x10/0xf0 ct established pass", f"dscp {DSCP} ct-mark not 0x17 pass", f"dscp {DSCP} pass")
    with conversations(gateway, 4), Wire(gateway.client) as wire:
        packet = header(gateway.client, gateway.inner.mac, gateway.server.ip4, 4)
        for transport in (TCP(sport=5000, dport=80, flags="A"), UDP(sport=6000, dport=53), TCP(sport=5999, dport=80, flags="S")):
            wire.send(packet / transport)

        # Marked; not marked; without an entry, and so without a mark.
        def counted():
            return list(filter.packets().values())[:3] == [1, 1, 1]

        until(counted, what="one packet by each rule")


def test_where_nothing_is_tracked_it_is_said(pair, netctl):
    _, server = pair
    server.netns.ip("link", "set", "lo", "up")

    def notes_of(interface):
        Filter(netctl, interface)
        return netctl("xdp", "rule", "add", interface.name, "ct established pass", netns=server.netns).stderr

    said = notes_of(server)
    assert "connection tracking is off here" in said
    (command,) = re.findall(r"nft '(.*)'", said)
    server.netns.run("nft", command)
    netctl("xdp", "detach", server.name, netns=server.netns)
    assert notes_of(server) == ""


def test_packets_are_told_what_is_tracked(pair, netctl):
    client, server = pair
    Filter(netctl, server, "--default", "drop").replace("ct established pass", "ct not new ct-mark 7 pass")

    def tests(*packet):
        return netctl.json("xdp", "rule", "test", server.name, *packet, netns=server.netns)

    said = tests("dport", "80", "ct", "established")
    assert (said["verdict"], said["made_up"], said["packet"]["ct"]) == ("pass", [], "established")
    unsaid = tests("dport", "80")
    assert (unsaid["verdict"], unsaid["made_up"], unsaid["packet"]["ct"]) == ("drop", ["ct", "ct-mark"], None)
    assert tests("dport", "80", "ct", "related", "ct-mark", "7")["rule_id"] == 2
    hexed = bytes(header(client, server.mac, server.ip4, 4) / TCP(sport=5000, dport=80)).hex()
    assert tests("--hex", hexed, "--ct", "established")["verdict"] == "pass"
    assert tests("--hex", hexed)["verdict"] == "drop"
