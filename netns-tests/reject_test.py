# SPDX-License-Identifier: GPL-2.0-only
"""The action `reject`: what real clients are told, what the answers look like, and what has none."""

import errno
import socket
import struct

import pytest
from lab import until
from scapy.layers.inet import IPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, IPerror6
from traffic import (
    ICMP,
    INGRESS_MODES,
    IP,
    TCP,
    UDP,
    Classifier,
    Dot1AD,
    Dot1Q,
    Ether,
    Filter,
    IPv6,
    IPv6ExtHdrFragment,
    Wire,
    filter_on,
    raw,
)

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@pytest.fixture(params=INGRESS_MODES)
def hook(request):
    return request.param


def connect(netns, family, kind, address, port, size=1):
    """Connects, or sends a datagram; the errno that it comes to, or 0 for none within the time."""
    with netns.socket(FAMILIES[family], kind) as client:
        client.settimeout(20)
        try:
            client.connect((address, port))
            if kind == socket.SOCK_DGRAM:
                client.send(bytes(size))
                client.recv(1)
        except TimeoutError:
            return 0
        except OSError as error:
            return error.errno
        return 0


@pytest.mark.kernel(hook="clsact")
def test_clients_are_refused_at_once(netctl, pair, hook):
    """TCP and UDP, both families, short and long datagrams, with checksums left to hardware that is not there."""
    client, server = pair
    filter = filter_on(netctl, server, hook)
    told = filter.netctl(*filter._words("rule add"), "dport 7777 reject", netns=filter.netns).stderr
    assert ("--mode generic" in told) == (hook == "native")
    (rule,) = (rule for rule in filter.packets() if rule)
    if hook == "native":  # which is what the note says
        Filter(netctl, client, "--mode", "native")
    for family in FAMILIES:
        for kind, size in ((socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, 1), (socket.SOCK_DGRAM, 1400)):
            assert connect(client.netns, family, kind, server.ip(family), 7777, size) == errno.ECONNREFUSED
    status = filter.status()
    assert status["verdicts"]["reject"] == filter.packets()[rule] >= 6
    assert status["reject"] == {"silent": 0, "suppressed": 0, "failed": 0}
    assert "6 rejected" in filter.netctl(*filter._words("status"), netns=filter.netns).stdout


def header(client, server, family, **fields):
    layer = {4: IP, 6: IPv6}[family]
    return layer(src=client.ip(family), dst=server.ip(family), **fields)


def answers(wire, client, wanted):
    """The frames that come back to the client, once there are so many."""
    come = []

    def there():
        come.extend(Ether(frame) for frame in wire._captures[client].frames())
        return len(come) >= wanted

    until(there, what=f"{wanted} answers")
    return come


def has_true_checksums(frame):
    """Whether building the frame anew, with checksums left out, comes to the same bytes."""
    again = Ether(raw(frame))
    layer = again
    while layer:
        if layer.name in ("IP", "TCP"):
            del layer.chksum
        elif layer.name in ("ICMP", "ICMPv6 Destination Unreachable"):
            if layer.name == "ICMP":
                del layer.chksum
            else:
                del layer.cksum
            break  # what is quoted stays as it is
        layer = layer.payload
    return raw(Ether(raw(again))) == raw(frame)


@pytest.mark.kernel(hook="clsact")
def test_answers_are_as_the_standards_say(netctl, link, hook):
    client, server = link
    # For the wire: XDP on both ends, so that frames that the driver sends back arrive.
    Filter(netctl, client, "--mode", "native")
    filter = filter_on(netctl, server, hook)
    filter.add("dport {7, 9} reject")
    ether = Ether(src=client.mac, dst=server.mac)
    with Wire(client, client) as wire:
        for family in FAMILIES:
            ip = header(client, server, family)
            echo = IPerror if family == 4 else IPerror6
            wire.send(ether / ip / TCP(sport=1234, dport=7, flags="S", seq=77) / bytes(10))
            (frame,) = answers(wire, client, 1)
            segment = frame[TCP]
            assert (segment.sport, segment.dport, str(segment.flags)) == (7, 1234, "RA")
            assert (segment.seq, segment.ack) == (0, 77 + 10 + 1)
            assert has_true_checksums(frame)
            wire.send(ether / ip / TCP(sport=1234, dport=7, flags="A", seq=77, ack=99) / bytes(10))
            (frame,) = answers(wire, client, 1)
            assert (str(frame[TCP].flags), frame[TCP].seq, frame[TCP].ack) == ("R", 99, 0)
            assert has_true_checksums(frame)
            # As much as fits is quoted, and comes from where the packet was to go.
            sent = ip / UDP(sport=1234, dport=9) / (bytes(range(256)) * 4)
            wire.send(ether / sent)
            (frame,) = answers(wire, client, 1)
            assert (frame.src, frame.dst) == (server.mac, client.mac)
            error = frame[ICMP if family == 4 else ICMPv6DestUnreach]
            assert (error.type, error.code) == ((3, 3) if family == 4 else (1, 4))
            assert frame.payload.src == server.ip(family)
            assert raw(error[echo]) == raw(Ether(raw(ether / sent)).payload)[:512]
            assert has_true_checksums(frame)


def test_vlan_tags_stay(netctl, link, hook):
    """One and two tags are on the answer as they were on the packet; what looks is XDP, before the stack takes them off."""
    client, server = link
    for end in link:
        end.offload(**dict.fromkeys(("txvlan", "tx-vlan-stag-hw-insert"), False))
    watch = Filter(netctl, client, "--mode", "native")
    filter = filter_on(netctl, server, hook)
    filter.add("dport 7 reject")
    ether = Ether(src=client.mac, dst=server.mac)
    tags = (Dot1Q(vlan=100, prio=3), Dot1AD(vlan=7) / Dot1Q(vlan=9))
    watch.replace(*(f"vlan {tag} {kind} pass" for tag in (100, 7) for kind in ("flags rst/rst", "icmp-type 3", "icmp-type 1")))
    with Wire(client) as wire:
        for tag in tags:
            for family in FAMILIES:
                ip = header(client, server, family)
                wire.send(ether / tag / ip / TCP(dport=7, flags="S"))
                wire.send(ether / tag / ip / UDP(dport=7) / b"x")

        def back():
            assert list(watch.packets().values())[:6] == [2, 1, 1] * 2
            return True

        until(back)
    assert filter.status()["verdicts"]["reject"] == 8
    assert filter.status()["reject"] == {"silent": 0, "suppressed": 0, "failed": 0}


@pytest.mark.kernel(hook="native")
def test_what_must_not_be_answered_is_not(netctl, link, hook):
    client, server = link
    Filter(netctl, client, "--mode", "native")
    filter = filter_on(netctl, server, hook)
    filter.add("dscp 10 reject")
    ether = Ether(src=client.mac, dst=server.mac)

    def v4(**fields):
        return IP(**{"src": client.ip4, "dst": server.ip4, "tos": 10 << 2, **fields})

    def v6(**fields):
        return IPv6(**{"src": client.ip6, "dst": server.ip6, "tc": 10 << 2, **fields})

    syn, datagram = TCP(dport=7, flags="S"), UDP(dport=7) / b"x"
    silent = [
        *(ether / ip() / TCP(dport=7, flags=flags) for ip in (v4, v6) for flags in ("R", "RA")),
        *(ether / v4() / ICMP(type=kind) / bytes(28) for kind in (3, 4, 5, 11, 12)),
        *(ether / v6(nh=58) / struct.pack("!BBHI", kind, 0, 0, 0) / bytes(48) for kind in (1, 2, 3, 4, 127, 137)),
        *(Ether(src=client.mac, dst=mac) / v4() / datagram for mac in ("ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01")),
        *(ether / v4(dst=dst) / datagram for dst in ("224.0.0.1", "255.255.255.255")),
        *(ether / v4(src=src) / syn for src in ("0.0.0.0", "127.0.0.1", "224.0.0.9", "255.255.255.255")),
        *(ether / v6(dst=dst) / datagram for dst in ("ff02::1", "ff0e::7")),
        *(ether / v6(src=src) / syn for src in ("::", "::1", "ff02::1")),
        ether / v4(frag=3, proto=6) / bytes(40),
        ether / v6() / IPv6ExtHdrFragment(nh=17, offset=3) / bytes(40),
        ether / v4(proto=6) / bytes(12),  # of TCP's header, too little to answer
    ]
    with Wire(client, client) as wire:
        wire.send(*silent)
        # Frames arrive in order: what comes back before these answers would be seen.
        wire.send(ether / v4() / syn, ether / v6() / syn)
        come = [frame for frame in answers(wire, client, 2) if frame.src == server.mac]
    status = filter.status()
    assert [str(frame[TCP].flags) for frame in come if TCP in frame] == ["RA", "RA"] and len(come) == 2, come
    assert status["reject"] == {"silent": len(silent), "suppressed": 0, "failed": 0}
    assert status["verdicts"]["reject"] == len(silent) + 2
    assert "must not" in filter.netctl(*filter._words("status"), netns=filter.netns).stdout


def test_checksums_that_the_sender_left_open(netctl, lab):
    """A client leaves its checksums to hardware, and what goes back leaves by an interface that makes them: so the
    kernel finishes the answers, which are in place of what it was to finish."""
    client, server = lab.pair()
    server.offload(tx=False)
    filter = Classifier(netctl, server, "ingress")
    filter.add("dport 7777 reject")
    with Wire(client, client) as wire:
        for family in FAMILIES:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                assert connect(client.netns, family, kind, server.ip(family), 7777) == errno.ECONNREFUSED
        frames = [frame for frame in answers(wire, client, 4) if frame.src == server.mac]
    assert len(frames) == 4
    for frame in frames:
        assert has_true_checksums(frame), frame.show(dump=True)


def test_reject_bounds_its_icmp_errors(netctl, link):
    """RFC 4443 wants ICMP errors to be bounded: a burst of many datagrams is not answered in full."""
    client, server = link
    filter = filter_on(netctl, server, "clsact")
    filter.add("dport 7 reject")
    frame = Ether(src=client.mac, dst=server.mac) / header(client, server, 6) / UDP(dport=7) / b"x"
    with Wire(client) as wire:
        sent = 0
        # As many as it takes on a slow machine: 50 at once, and one more each millisecond, are answered.
        while not filter.status()["reject"]["suppressed"]:
            wire.send(*[frame] * 500)
            sent += 500
            assert sent < 100_000
    assert filter.status()["reject"]["failed"] == 0


def test_a_limit_on_reject_is_silent_above_it(netctl, link):
    client, server = link
    filter = filter_on(netctl, server, "clsact")
    filter.add("proto tcp dport 7 reject limit 3/hour burst 3")
    syn = Ether(src=client.mac, dst=server.mac) / header(client, server, 4) / TCP(dport=7, flags="S")
    with Wire(client, client) as wire:
        wire.send(*[syn] * 8)
        status = filter.await_packets(8)
        assert len([frame for frame in answers(wire, client, 3) if TCP in frame]) == 3
    assert (status["verdicts"]["reject"], status["verdicts"]["drop"], status["over_limit"]) == (3, 5, 5)


def test_reject_is_for_packets_that_arrive(netctl, pair):
    client, server = pair
    filter = Classifier(netctl, server, "egress")
    assert "answers packets that arrive" in filter.fails("rule add", "dport 7 reject")
    assert filter.rules() == []
    told = netctl.fails("policy", "rule", "add", "dport 7 reject", status=2)
    assert "policy calls it 'deny'" in told


def test_simulation_and_rule_test_know_reject(netctl, pair):
    client, server = pair
    filter = Filter(netctl, server)
    filter.add("proto tcp dport 7 reject")
    answer = filter("rule test", "proto tcp dport 7 src 192.0.2.9")
    assert (answer["verdict"], answer["rule_id"]) == ("reject", 1)
    filter("rule test", "proto tcp dport 7 src 192.0.2.9", "--expect", "reject")
    assert filter.status()["verdicts"]["reject"] == 0
