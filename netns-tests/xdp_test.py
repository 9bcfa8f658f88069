# SPDX-License-Identifier: GPL-2.0-only
"""`netctl xdp` with real packets. The letters I1 to I10 are the invariants of docs/architecture.md."""

import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from lab import BPFFS, IN_VM, bpftool, run, until
from scapy.utils import rdpcap, wrpcap
from traffic import (
    ARP,
    ICMP,
    IP,
    TCP,
    UDP,
    Arrivals,
    Blaster,
    Capture,
    Dot1AD,
    Dot1Q,
    Ether,
    Filter,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    IPOption_NOP,
    IPOption_RR,
    Raw,
    Wire,
    compile_bpf,
    raw,
)

MODES = ("native", "generic")
FAMILIES = (4, 6)


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture(scope="session")
def foreign_object(tmp_path_factory):
    """Another tool's XDP program, which passes everything."""
    return compile_bpf(tmp_path_factory.mktemp("foreign"), "xdp", verdict=2)


@pytest.fixture
def foreign(foreign_object):
    """That program, loaded; the path of its pin, which is somebody else's."""
    path = BPFFS / f"foreign-{os.getpid()}"
    run("bpftool", "prog", "load", foreign_object, path, "type", "xdp")
    yield path
    path.unlink(missing_ok=True)


def ether(source, target):
    return Ether(src=source.mac, dst=target.mac)


def ip(source, target, family, **fields):
    """Link and IP header from one end of a link to the other."""
    layer = {4: IP, 6: IPv6}[family]
    return ether(source, target) / layer(src=source.ip(family), dst=target.ip(family), **fields)


def udp(source, target, family, dport, sport=4000):
    return ip(source, target, family) / UDP(sport=sport, dport=dport)


def url(interface, family):
    return {4: f"http://{interface.ip4}/", 6: f"http://[{interface.ip6}]/"}[family]


def curl(source, target, family, seconds=2):
    """Whether the server's greeting comes."""
    done = source.netns.run("curl", "-gsS", "-m", seconds, url(target, family), check=False)
    return done.stdout == "hello\n"


def xdp_of(interface):
    """What `ip link` says about XDP on the interface: nothing, or mode and program."""
    (shown,) = interface.netns.ip_json("-d", "link", "show", "dev", interface.name)
    return shown.get("xdp")


# ---- actions ----


@pytest.mark.kernel(mode="native")
def test_drop_and_pass_are_counted_exactly(netctl, link, mode):
    client, server = link
    filter = Filter(netctl, server, "--mode", mode, "--default", "drop")
    assert filter.attached["mode"] == mode
    go = filter.add("proto udp dport 7-9 src not 192.0.2.77 pass")
    halt = filter.add("proto udp drop")
    six = filter.add("proto udp dport 9 pass")
    v6 = filter("rule insert", "src 2001:db8:1::/64 dport {7, 9} pass")["rule_id"]
    dropped_first = filter("rule insert", "--before", v6, "dport 9 drop")["rule_id"]
    packets, deciders = [], []
    for family in FAMILIES:
        for dport in (7, 8, 9, 10):
            packets.append(udp(client, server, family, dport))
            deciders.append(dropped_first if dport == 9 else v6 if (family, dport) == (6, 7)
                            else go if family == 4 and dport < 9 else halt)  # fmt: skip
        packets.append(ip(client, server, family) / TCP(dport=7, flags="S"))
        deciders.append(v6 if family == 6 else None)
    expected = [decider in (go, v6) for decider in deciders]
    with Wire(client, server) as wire:
        arrived, frames = wire.deliver(packets, expected)
        status = filter.await_packets(len(packets))
    assert arrived == expected
    assert [rule["rule_id"] for rule in status["rules"]] == [dropped_first, v6, go, halt, six]
    for rule in status["rules"]:
        own = [len(frame) for frame, decider in zip(frames, deciders) if decider == rule["rule_id"]]
        assert (rule["packets"], rule["bytes"]) == (len(own), sum(own)), rule["rule_text"]
    assert status["default_packets"] == deciders.count(None)
    assert status["bytes"] == sum(map(len, frames))
    assert status["verdicts"] == {"pass": expected.count(True), "drop": expected.count(False),
                                  "tx": 0, "redirect": 0, "reject": 0, "syncookie": 0}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_real_clients(lab, netctl, pair, mode, family):
    client, server = pair
    lab.nginx(server.netns)
    filter = Filter(netctl, server, "--mode", mode)
    assert curl(client, server, family)
    assert client.netns.ping(server.ip(family), count=2)

    web = filter.add("proto tcp dport 80 drop")
    assert not curl(client, server, family, seconds=0.3)
    assert client.netns.ping(server.ip(family), count=2)
    assert filter.packets()[web] > 0
    filter("rule delete", str(web))
    assert curl(client, server, family)

    echo = filter.add({4: "proto icmp icmp-type echo-request drop",
                       6: "proto icmp6 icmp-type echo-request drop"}[family])  # fmt: skip
    assert not client.netns.ping(server.ip(family), count=3, timeout=0.1)
    assert filter.packets()[echo] == 3
    assert curl(client, server, family)
    filter("rule flush")
    assert client.netns.ping(server.ip(family))


def test_tx_sends_the_frame_back(netctl, link, mode):
    client, server = link
    # A veth whose peer's driver sends to it looks into its queue only if it has a program itself.
    Filter(netctl, client, "--mode", "native")
    filter = Filter(netctl, server, "--mode", mode)
    back = filter.add("proto udp dport 7 tx")
    packets = [udp(client, server, family, dport) for family in FAMILIES for dport in (7, 9, 7)]
    with Wire(client, client, server) as wire:
        returned, _ = wire.deliver(packets, [True, False, True] * 2, where=client)
        passed, _ = wire.deliver(packets, [False, True, False] * 2, where=server)
    assert returned == [True, False, True] * 2
    assert passed == [False, True, False] * 2
    assert filter.packets() == {back: 8, None: 4}
    assert filter.status()["verdicts"]["tx"] == 8


@pytest.mark.kernel(mode="native")
def test_redirect_makes_a_bridge(lab, netctl, link, mode):
    client, middle = link
    middle1, far = lab.veth(middle.netns, lab.namespace("far"), name_a="eth1", checksums=False)
    for end in (client, far):
        end.offload(gro=True)  # a veth takes redirected frames only with NAPI, which comes with it
    lab.nginx(far.netns)
    for end, other in ((client, far), (far, client)):
        for family in FAMILIES:
            end.netns.ip("route", "add", other.ip(family), "dev", end.name)
            end.netns.ip("neighbour", "add", other.ip(family), "lladdr", other.mac,
                         "nud", "permanent", "dev", end.name)  # fmt: skip
    assert not client.netns.ping(far.ip4, timeout=0.1)
    there, back = Filter(netctl, middle, "--mode", mode), Filter(netctl, middle1, "--mode", mode)
    there.add(f"ether-dst {far.mac} redirect eth1")
    back.add(f"ether-dst {client.mac} redirect eth0")
    for family in FAMILIES:
        assert client.netns.ping(far.ip(family), count=3)
        assert curl(client, far, family)
    for filter in (there, back):
        status = filter.status()
        assert status["verdicts"]["redirect"] == status["packets"] > 6

    # A target that vanishes: dropped and counted, never passed on.
    middle.netns.ip("link", "delete", "eth1")
    before = there.status()
    with Wire(client, middle) as wire:
        lost = ether(client, far) / IP(src=client.ip4, dst=far.ip4) / UDP(dport=9)
        assert wire.deliver([lost], [False])[0] == [False]
        after = there.await_packets(before["packets"] + 1)
        assert after["redirect_failed"] == 1
        assert after["verdicts"]["drop"] == 1
        # It holds up no other change; what is new must name something that is there.
        told = netctl("xdp", "rule", "add", middle.name, "dport 99 pass", netns=middle.netns)
        assert "eth1 is gone" in told.stderr
        assert wire.deliver([lost], [False])[0] == [False]
        assert there.await_packets(before["packets"] + 2)["redirect_failed"] == 2
        assert "eth1" in there.fails("rule add", "dport 98 redirect eth1")


def test_redirect_needs_an_interface(netctl, link):
    _, server = link
    filter = Filter(netctl, server)
    message = filter.fails("rule add", "dport 9 redirect eth00")
    assert "there is no interface 'eth00'" in message
    assert "did you mean 'eth0'" in message
    assert filter.rules() == []


def test_limit_passes_the_burst_and_no_more(netctl, link, mode):
    client, server = link
    filter = Filter(netctl, server, "--mode", mode)
    together = filter.add("proto udp dport 7 pass limit 1/hour burst 5")
    apart = filter.add("proto udp dport 8 pass limit 1/hour burst 5 per src")
    with Wire(client, server) as wire:
        for family in FAMILIES:  # one burst for both
            expected = [family == 4 and i < 5 for i in range(10)]
            packets = [udp(client, server, family, 7)] * 10
            assert wire.deliver(packets, expected)[0] == expected
        packets, expected = [], []
        for i in range(10):
            for source in ("192.0.2.51", "192.0.2.52"):
                packets.append(ether(client, server) / IP(src=source, dst=server.ip4) / UDP(dport=8))
            for source in ("2001:db8:1::51", "2001:db8:1::52"):
                packets.append(ether(client, server) / IPv6(src=source, dst=server.ip6) / UDP(dport=8))
            expected += [i < 5] * 4
        assert wire.deliver(packets, expected)[0] == expected
        rules = {rule["rule_id"]: rule for rule in filter.await_packets(60)["rules"]}
        assert (rules[together]["packets"], rules[together]["over_packets"]) == (5, 15)
        assert (rules[apart]["packets"], rules[apart]["over_packets"]) == (20, 20)
        assert filter.status()["over_limit"] == 35

        # A commit of other rules gives nobody a new burst (I4).
        filter.add("proto udp dport 9 drop")
        packets = [udp(client, server, 4, 7), packets[0]]
        assert wire.deliver(packets, [False, False])[0] == [False, False]
    rules = {rule["rule_id"]: rule for rule in filter.await_packets(62)["rules"]}
    assert rules[together]["over_packets"] == 16
    assert rules[apart]["over_packets"] == 21


def test_rules_whose_tables_would_explode(netctl, link, tmp_path):
    """They stand apart, work as they should, and status tells of them (I3)."""
    client, server = link
    filter = Filter(netctl, server, "--mode", "generic", "--default", "pass")
    name = server.name

    def numbers(i):
        return f"sport {i + 1} dport {i + 2} len {i + 60} dscp {i % 64}"

    rules = [f"src {client.ip4} proto udp {numbers(i)} drop" for i in range(300)]
    path = tmp_path / "rules"
    path.write_text("\n".join(rules + [f"src {client.ip4} proto udp dport 302 drop"]))
    report = netctl.json("xdp", "rule", "replace", name, path, netns=server.netns)
    assert report["engine"] == "crossing"
    assert 0 < report["rules_apart"] <= 301
    assert "too many packets apart" in report["reason"]
    status = filter.status()
    assert status["engine"] == {
        "name": "crossing",
        "rules_apart": report["rules_apart"],
        "changes": 0,
        "table_bytes": report["table_bytes"],
    }
    shown = netctl("xdp", "status", name, netns=server.netns).stdout
    assert f"KiB of tables, {report['rules_apart']} of 301 rules apart" in shown

    def packet(i, dport):
        dscp = IP(src=client.ip4, dst=server.ip4, tos=(i % 64) << 2)
        frame = ether(client, server) / dscp / UDP(sport=i + 1, dport=dport)
        return frame / Raw(b"x" * (i + 60 - len(frame) - len("<00000000>")))  # Wire's mark

    chosen = (0, 1, 63, 64, 127, 128, 200, 299)
    with Wire(client, server) as wire:
        for dport, passes in ((2, False), (1, True)):
            packets = [packet(i, i + dport) for i in chosen]
            expected = [passes] * len(chosen)
            assert wire.deliver(packets, expected)[0] == expected
        assert wire.deliver([packet(300, 302)], [False])[0] == [False]
    counts = [rule["packets"] for rule in filter.await_packets(2 * len(chosen) + 1)["rules"]]
    assert [i for i, count in enumerate(counts) if count] == [*chosen, 300]

    netctl("xdp", "rule", "flush", name, netns=server.netns)
    assert filter.status()["engine"]["rules_apart"] == 0


@pytest.mark.kernel
def test_few_changes_to_many_rules(netctl, link):
    """They take no new program; rules keep their order, ids and counters (I2, I4)."""
    client, server = link
    filter = Filter(netctl, server, "--mode", "generic", "--default", "pass")
    rules = [f"src 10.0.{i >> 8}.{i & 255} proto udp dport {i} drop" for i in range(1000)]
    rules[500] = f"src {client.ip4} proto udp dport 7 drop"
    rules[600] = "proto udp dport 7-8 drop comment wider"
    rules[601] = "proto udp dport 7 pass"
    filter.replace(*rules)
    program = filter.status()["program_id"]

    def unchanged(changes):
        status = filter.status()
        assert (status["program_id"], status["engine"]["changes"]) == (program, changes)
        assert status["generation"] == generation
        return [rule["rule_id"] for rule in status["rules"]]

    generation = filter.status()["generation"]
    with Wire(client, server) as wire:

        def ports(**passes):
            packets = [udp(client, server, 4, int(port[1:])) for port in passes]
            assert wire.deliver(packets, list(passes.values()))[0] == list(passes.values())

        ports(p7=False, p8=False, p9=True)
        last = filter.add(f"src {client.ip4} proto udp dport 9 drop")
        generation += 1
        assert unchanged(1) == [*range(1, 1001), last]
        ports(p7=False, p9=False)

        # What was behind a rule that goes comes to the fore, and nothing else.
        filter("rule delete", "501")
        generation += 1
        assert unchanged(2) == [*range(1, 501), *range(502, 1001), last]
        ports(p7=False, p8=False, p9=False)
        filter("rule delete", "601")
        generation += 1
        ports(p7=True, p8=True)

        first = filter("rule insert", "proto udp dport 8 drop")["rule_id"]
        before = filter("rule insert", "--before", "602", "proto udp dport 7 drop log")["rule_id"]
        assert filter.status()["program_id"] != program  # the old one has no code for the log
        program = filter.status()["program_id"]
        generation += 2
        ids = [first, *range(1, 501), *range(502, 601), before, *range(602, 1001), last]
        assert unchanged(0) == ids
        ports(p7=False, p8=False, p9=False)
        filter("rule delete", str(first), "3")
        generation += 1
        assert unchanged(1) == [i for i in ids if i not in (first, 3)]
        ports(p8=True)
        assert filter.fails("rule delete", "3").startswith("netctl: there is no rule with id 3")

    counts = {i: count for i, count in filter.packets().items() if count and i in ids}
    assert counts == {602: 1, last: 3, before: 1}
    shown = netctl("xdp", "status", filter.name, netns=filter.netns).stdout
    assert "KiB of tables, 1 change since" in shown


def test_default_drop_with_established_traffic(lab, netctl, pair, mode):
    client, server = pair
    for end in pair:
        lab.nginx(end.netns)
    filter = Filter(netctl, client, "--mode", mode, "--default", "drop")
    for family in FAMILIES:
        assert not curl(client, server, family, seconds=0.3)
    filter.add("proto tcp flags ack/ack pass", "proto udp sport 53 dport 1024-65535 pass")
    with server.netns.socket(socket.AF_INET6, socket.SOCK_DGRAM) as name_server:
        name_server.bind(("::", 53))
        name_server.settimeout(5)
        for family in FAMILIES:
            assert curl(client, server, family)
            assert not curl(server, client, family, seconds=0.3)
            kind = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
            with client.netns.socket(kind, socket.SOCK_DGRAM) as asking:
                asking.settimeout(5)
                asking.sendto(b"question", (server.ip(family), 53))
                question, address = name_server.recvfrom(100)
                name_server.sendto(b"answer", address)
                assert (question, asking.recv(100)) == (b"question", b"answer")
    assert filter.status()["default_packets"] > 0


# ---- what is looked at ----


def test_vlan_tags_in_frames(netctl, link, mode):
    client, server = link
    filter = Filter(netctl, server, "--mode", mode)
    hundred = filter.add("vlan 100 dport 9 drop")
    none = filter.add("vlan none dport 9 drop")
    others = filter.add("vlan not 100 proto udp drop")
    v6 = filter.add("vlan any src 2001:db8::/32 drop")

    def tagged(*tags, family=4, dport=9):
        packet = ether(client, server)
        for tag in tags:
            packet /= tag
        layer = {4: IP, 6: IPv6}[family](src=client.ip(family), dst=server.ip(family))
        return packet / layer / UDP(dport=dport)

    cases = [
        (tagged(Dot1Q(vlan=100)), hundred),
        (tagged(Dot1Q(vlan=100), dport=8), None),
        (tagged(Dot1AD(vlan=100), Dot1Q(vlan=7)), hundred),
        (tagged(Dot1Q(vlan=7), Dot1Q(vlan=100)), others),
        (tagged(Dot1AD(vlan=4095), Dot1Q(vlan=4094), family=6, dport=8), others),
        (tagged(Dot1Q(vlan=100), family=6), hundred),
        (tagged(Dot1Q(vlan=100), Dot1Q(vlan=3), family=6, dport=8), v6),
        (tagged(), none),
        (tagged(family=6), none),
        (tagged(dport=8), None),
    ]
    expected = [decider is None for _, decider in cases]
    with Wire(client, server) as wire:
        assert wire.deliver([packet for packet, _ in cases], expected)[0] == expected
        # A third tag is past the bound: a verdict of its own, counted (I3).
        three = tagged(Dot1AD(vlan=1), Dot1Q(vlan=2), Dot1Q(vlan=3), dport=8)
        assert wire.deliver([three], [False])[0] == [False]
    status = filter.await_packets(len(cases) + 1)
    deciders = [decider for _, decider in cases]
    assert {rule["rule_id"]: rule["packets"] for rule in status["rules"]} == {
        number: deciders.count(number) for number in (hundred, none, others, v6)
    }
    assert status["unparsed"]["bound"] == 1


@pytest.mark.kernel(mode="native")
def test_vlan_interfaces(netctl, link, mode):
    """Two tags from real VLAN devices. With the offload on, they would never be in the frame."""
    client, server = link
    if client.netns.run("ip", "link", "add", "probe", "link", "eth0", "type", "vlan", "id", 9,
                        check=False).returncode:  # fmt: skip
        pytest.skip("this kernel has no VLAN devices")
    for end, last in ((client, 1), (server, 2)):
        end.offload(txvlan=False, **{"tx-vlan-stag-hw-insert": False})
        end.netns.ip_batch(
            f"link add link {end.name} name outer type vlan proto 802.1ad id 100",
            "link add link outer name inner type vlan id 200",
            "link set dev outer up addrgenmode none",
            "link set dev inner up addrgenmode none",
            f"address add 203.0.113.{last}/24 dev inner",
            f"address add 2001:db8:99::{last}/64 dev inner nodad",
            f"neighbour add 203.0.113.{3 - last} lladdr {(server, client)[last - 1].mac} dev inner",
            f"neighbour add 2001:db8:99::{3 - last} lladdr {(server, client)[last - 1].mac} dev inner",
        )
    filter = Filter(netctl, server, "--mode", mode)
    seen = filter.add("vlan 100 proto {icmp, icmp6} dst {203.0.113.2, 2001:db8:99::2} pass")
    for address in ("203.0.113.2", "2001:db8:99::2"):
        assert client.netns.ping(address, count=3)
    assert filter.packets()[seen] == 6
    filter("rule insert", "vlan 200 drop")
    assert client.netns.ping("203.0.113.2")
    filter("rule insert", "vlan 100 src 203.0.113.1 drop")
    assert not client.netns.ping("203.0.113.2", timeout=0.1)
    assert client.netns.ping("2001:db8:99::2")


def test_fragments(netctl, pair, mode):
    """A later fragment never matches ports, flags or ICMP types, and a first one does."""
    client, server = pair
    filter = Filter(netctl, server, "--mode", mode)
    first = filter.add("frag first proto {icmp, icmp6} pass")
    types4 = filter.add("proto icmp icmp-type echo-request drop")
    types6 = filter.add("proto icmp6 icmp-type echo-request drop")
    later = filter.add("frag later proto {icmp, icmp6} pass")
    for count, family in enumerate(FAMILIES, start=1):
        done = client.netns.run("ping", "-nqc1", "-s", "4000", "-W5", server.ip(family))
        assert " 1 received" in done.stdout
        assert filter.packets() == {first: count, types4: 0, types6: 0, later: 2 * count, None: 0}
    filter("rule insert", "frag later drop")
    for family in FAMILIES:
        done = client.netns.run("ping", "-nqc1", "-s", "4000", "-W1", server.ip(family), check=False)
        assert " 0 received" in done.stdout
    assert filter.packets()[first] == 4


def test_headers_of_every_kind(netctl, link, mode):
    """IPv4 options, IPv6 extension headers, crafted fragments, and what cannot be parsed."""
    client, server = link
    filter = Filter(netctl, server, "--mode", mode, "--on-unparsed", "drop")
    port = filter.add("proto udp dport 9 drop")
    ack = filter.add("proto tcp flags ack/syn,ack drop")
    arp = filter.add("ether-type arp drop")

    def v4(**fields):
        return ip(client, server, 4, **fields)

    def v6(*extensions):
        packet = ip(client, server, 6)
        for extension in extensions:
            packet /= extension
        return packet

    options = [IPOption_RR(routers=["192.0.2.9"] * 9), IPOption_NOP()]  # as long as can be
    hop, destination = IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt
    routing = IPv6ExtHdrRouting(addresses=["2001:db8::7"], segleft=0)
    cases = [
        (v4(options=options) / UDP(dport=9), port),
        (v6(hop()) / UDP(dport=9), port),
        (v6(hop(), destination(), routing, IPv6ExtHdrFragment(m=1, id=1)) / UDP(dport=9, len=99), port),
        (v6(hop(), destination(), routing) / UDP(dport=8), None),
        (v6(*[destination() for _ in range(8)]) / UDP(dport=9), port),
        (v6(*[destination() for _ in range(9)]) / UDP(dport=8), "bound"),
        (v6(IPv6ExtHdrFragment(offset=0, m=0)) / UDP(dport=9), port),
        (v6(IPv6ExtHdrFragment(offset=3, nh=17)) / Raw(raw(UDP(dport=9))), None),
        (v4(frag=0, flags="MF") / UDP(dport=9), port),
        (v4(frag=5, proto=17) / Raw(raw(UDP(dport=9))), None),
        (v4() / TCP(dport=9, flags="A"), ack),
        (v4() / TCP(dport=9, flags="SA"), None),
        (v6(hop()) / TCP(dport=9, flags="PA"), ack),
        (v6() / ICMPv6EchoRequest(), None),
        (v4() / ICMP(), None),
        (ether(client, server) / ARP(hwsrc=client.mac, psrc=client.ip4, pdst=client.ip4), arp),
        (v4(len=9) / UDP(dport=8), "ipv4"),
        (v4(ihl=4) / UDP(dport=8), "ipv4"),
        (v4(len=1000) / UDP(dport=8), "ipv4"),
        (ether(client, server) / IPv6(src=client.ip6, dst=server.ip6, plen=1000) / UDP(dport=8), "ipv6"),
        (v6(destination(len=200)) / UDP(dport=8), "chain"),
    ]  # fmt: skip
    expected = [decider is None for _, decider in cases]
    with Wire(client, server) as wire:
        assert wire.deliver([packet for packet, _ in cases], expected)[0] == expected
    deciders = [decider for _, decider in cases]
    status = filter.await_packets(len(cases))
    assert {rule["rule_id"]: rule["packets"] for rule in status["rules"]} == {
        number: deciders.count(number) for number in (port, ack, arp)
    }
    assert status["unparsed"] == {
        reason: deciders.count(reason)
        for reason in ("cut", "ipv4", "ipv6", "chain", "bound", "engine")
    }
    assert status["default_packets"] == deciders.count(None)


def test_unparsed_can_pass(netctl, link, mode):
    client, server = link
    filter = Filter(netctl, server, "--mode", mode, "--default", "drop", "--on-unparsed", "pass")
    broken = ether(client, server) / IP(src=client.ip4, dst=server.ip4, len=9) / UDP()
    with Wire(client, server) as wire:
        packets, expected = [broken, udp(client, server, 4, 9)], [True, False]
        assert wire.deliver(packets, expected)[0] == expected
        wire.send(raw(ether(client, server) / IP(src=client.ip4))[:20])  # cut: uncounted by marks
    status = filter.await_packets(3)
    assert status["on_unparsed"] == "pass"
    assert (status["unparsed"]["ipv4"], status["unparsed"]["cut"]) == (1, 1)
    assert status["verdicts"]["pass"] == 2


# ---- log ----


def test_log(netctl, link, mode, tmp_path):
    client, server = link
    filter = Filter(netctl, server, "--mode", mode)
    dropped = filter.add("proto udp dport 1 drop log")
    passed = filter.add("proto udp dport 2 pass log")
    quiet = filter.add("proto udp dport 3 pass")
    limited = filter.add("proto udp dport 4 pass limit 1/hour burst 1 log")
    long = udp(client, server, 6, 2) / Raw(bytes(1000))
    packets = [udp(client, server, family, dport) for dport in (1, 2, 3, 4) for family in FAMILIES]
    expected = [False, False, True, True, True, True, True, False]
    with Wire(client, server) as wire:
        arrived, frames = wire.deliver([*packets, long], [*expected, True])
    assert arrived == [*expected, True]
    status = filter.await_packets(9)
    assert status["log"]["written"] == 7

    pcap = tmp_path / "log.pcap"
    done = netctl("--json", "xdp", "log", server.name, "--count", "7", "--write", pcap,
                  netns=server.netns)  # fmt: skip
    events = [json.loads(line) for line in done.stdout.splitlines()]
    del frames[4:6]  # dport 3
    assert [(event["rule_id"], event["verdict"], event["reason"]) for event in events] == [
        (dropped, "drop", "rule"),
        (dropped, "drop", "rule"),
        (passed, "pass", "rule"),
        (passed, "pass", "rule"),
        (limited, "pass", "rule"),
        (limited, "drop", "over limit"),
        (passed, "pass", "rule"),
    ]
    assert {event["interface"] for event in events} == {server.name}
    times = [datetime.fromisoformat(event["time"]).timestamp() for event in events]
    assert times == sorted(times) and abs(times[-1] - time.time()) < 600
    for event, frame in zip(events, frames, strict=True):
        packet = Ether(frame)
        assert event["packet"]["len"] == len(frame)
        assert event["packet"]["src"] == packet[1].src
        assert event["packet"]["dport"] == packet[UDP].dport
    captured = rdpcap(str(pcap))
    assert [raw(packet) for packet in captured] == [frame[:128] for frame in frames]
    assert [packet.wirelen for packet in captured] == [len(frame) for frame in frames]
    assert filter.packets()[quiet] == 2

    # As text, and while it comes: one reader at a time; a signal ends it well.
    reader = netctl.start(link[0].netns.lab, "xdp", "log", server.name, netns=server.netns, json=False)
    with Wire(client, server) as wire:
        wire.send(udp(client, server, 6, 1))
        reader.expect(rf"rule {dropped} drop: \[{client.ip6}\]:4000 > \[{server.ip6}\]:1 udp len \d+$")
        assert "being read already" in filter.fails("log")
        reader.send(signal.SIGINT)
        assert reader.wait() == 0


def test_log_rate(netctl, link):
    client, server = link
    filter = Filter(netctl, server, "--log-rate", "5")
    filter.add("proto udp drop log")
    with Wire(client, server) as wire:
        wire.send(*[udp(client, server, 4, 9)] * 50)
    log = filter.await_packets(50)["log"]
    assert log["written"] >= 5
    assert log["written"] + log["suppressed"] == 50
    assert log["lost"] == 0


# ---- commits ----


@pytest.mark.parametrize(("mode", "family"), zip(MODES, FAMILIES, strict=True))
def test_replace_under_traffic_misjudges_nothing(netctl, link, blaster, mode, family):
    """A flood of two flows; two rule lists that mean the same for them, and hold little in common.
    The sizes of the flows tell how many of each the program saw: all of one, and none of the other,
    must come through (I2)."""
    client, server = link
    good, bad = 4001, 4002
    sizes = {good: 50, bad: 150}
    filter = Filter(netctl, server, "--mode", mode, "--default", "drop")
    fill = [f"src 198.51.100.{i} proto udp dport {3990 + i} pass" for i in range(100)]
    lists = [
        "\n".join([*fill, f"proto udp dport {good} pass", "dport 0-65535 drop"]),
        "\n".join([f"dport {bad} drop", *reversed(fill), f"sport 0-65535 dport {good} pass"]),
    ]
    filter("rule replace", input=lists[0])
    arrivals = Arrivals(server, sizes)
    header = {4: 14 + 20 + 8, 6: 14 + 40 + 8}[family]
    commits = 8 if IN_VM else 50  # in each of the two variants
    with Blaster(blaster, client, server.ip(family), sizes) as flood:
        until(lambda: filter.status()["packets"] > 1000)
        for i in range(commits):
            filter("rule replace", input=lists[1 - i % 2])
        sent = flood.stop()
    status = filter.status()
    assert status["generation"] >= commits
    # packets = a + b and bytes = a * size_a + b * size_b
    size_good, size_bad = (header + sizes[port] for port in (good, bad))
    saw_bad, rest = divmod(status["bytes"] - status["packets"] * size_good, size_bad - size_good)
    saw_good = status["packets"] - saw_bad
    assert rest == 0
    assert 1000 < saw_good <= sent[good] and 1000 < saw_bad <= sent[bad]
    assert status["verdicts"] == {"pass": saw_good, "drop": saw_bad, "tx": 0, "redirect": 0, "reject": 0, "syncookie": 0}
    until(lambda: arrivals.counts() == {good: saw_good, bad: 0})
    assert sum(status["unparsed"].values()) == 0


def test_killed_at_any_moment(netctl, link):
    """The old rules or the new ones, whole, and nothing stray (I1, I2)."""
    client, server = link
    filter = Filter(netctl, server)
    fill = [f"src 198.51.100.{i} drop" for i in range(40)]
    lists = [[*fill, "dport 1 drop"], ["dport 2 drop", *reversed(fill)]]
    files = []
    for i, rules in enumerate(lists):
        files.append(link[0].netns.lab.directory / f"rules{i}")
        files[i].write_text("\n".join(rules) + "\n")
    probes = [udp(client, server, 4, 1), udp(client, server, 4, 2)]
    argv = [netctl.argv("xdp", "rule", "replace", server.name, path, netns=server.netns)
            for path in files]  # fmt: skip
    started = time.monotonic()
    run(*argv[0])
    duration = time.monotonic() - started
    stats = bpftool("map", "show", "pinned", point(netctl, server) / "stats")["id"]
    dice = random.Random(1)
    outcomes = [0, 0]
    with Wire(client, server) as wire:
        for _ in range(8 if IN_VM else 60):
            target = 1 - lists.index(filter.rules())
            victim = subprocess.Popen(argv[target], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(dice.uniform(0, 1.1 * duration))
            victim.kill()
            victim.wait()
            force = lists.index(filter.rules())  # which fails if it is neither
            outcomes[force == target] += 1
            duration *= 0.97 if force == target else 1.05  # as loaded as the machine is now
            expected = [force == 1, force == 0]
            assert wire.deliver(probes, expected)[0] == expected
    assert IN_VM or min(outcomes) > 0, "the kills all came too early or too late"
    filter.replace("dport 7 drop")  # the next command is not in the way of what was left
    netctl("xdp", "detach", server.name, netns=server.netns)
    assert not netctl.root.exists()
    assert xdp_of(server) is None
    until(lambda: [program["id"] for program in bpftool("prog", "list")
                   if stats in program.get("map_ids", ())] == [])  # fmt: skip


def point(netctl, interface):
    """The directory of the interface's pins."""
    (directory,) = (netctl.root / "xdp").iterdir()
    return directory


def test_attach_killed_at_any_moment(netctl, link):
    client, server = link
    filter = Filter(netctl, server, attach=False)
    argv = netctl.argv("xdp", "attach", server.name, "--default", "drop", netns=server.netns)
    started = time.monotonic()
    run(*argv)
    duration = time.monotonic() - started
    filter("detach")
    dice = random.Random(2)
    outcomes = [0, 0]
    with Wire(client, server) as wire:
        for _ in range(4 if IN_VM else 20):
            victim = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(dice.uniform(0, 1.1 * duration))
            victim.kill()
            victim.wait()
            attached = xdp_of(server) is not None
            outcomes[attached] += 1
            duration *= 0.95 if attached else 1.1  # the machine's load is not what it was at the start
            assert [status["default"] for status in netctl.json("xdp", "status")] == ["drop"] * attached
            expected = [not attached]
            assert wire.deliver([udp(client, server, 4, 9)], expected)[0] == expected
            netctl("xdp", "detach", server.name, netns=server.netns, check=attached)
            assert xdp_of(server) is None
            assert not netctl.root.exists()
    assert IN_VM or min(outcomes) > 0, "the kills all came too early or too late"


def test_many_at_once(netctl, link):
    _, server = link
    filter = Filter(netctl, server)
    count = 6 if IN_VM else 20
    with ThreadPoolExecutor(count) as pool:
        ids = list(pool.map(lambda port: filter.add(f"dport {port} drop"), range(1, count + 1)))
    assert sorted(ids) == list(range(1, count + 1))
    assert sorted(filter.rules()) == sorted(f"dport {port} drop" for port in range(1, count + 1))
    assert filter.status()["generation"] == count + 1


# ---- interfaces ----


def test_interface_that_vanishes_and_returns(lab, netctl, link):
    client, server = link
    filter = Filter(netctl, server, "--default", "drop")
    seven = filter.add("proto udp dport 7 pass")
    with Wire(client, server) as wire:
        packets, expected = [udp(client, server, 4, 7), udp(client, server, 4, 9)], [True, False]
        assert wire.deliver(packets, expected)[0] == expected
        filter.await_packets(2)
    server.netns.ip("link", "delete", server.name)
    status = filter.status()
    assert (status["state"], status["packets"], filter.packets()[seven]) == ("vanished", 2, 1)
    assert "gone" in netctl("xdp", "status", server.name, netns=server.netns).stdout
    assert f"there is no interface '{server.name}'" in filter.fails("attach")
    # Rules in a link that has no interface cannot be changed: said so, and nothing is.
    assert "eth0 is gone" in filter.fails("rule add", "dport 1 drop")
    assert filter.rules() == ["proto udp dport 7 pass"]

    client, server = lab.veth(client.netns, server.netns, checksums=False)
    filter.interface = server
    assert filter.status()["state"] == "returned"
    assert "is back, unfiltered" in netctl("xdp", "status", server.name, netns=server.netns).stdout
    assert "attach" in filter.fails("rule add", "dport 1 drop")
    assert filter("attach")["rule_count"] == 1
    status = filter.status()
    assert (status["state"], status["default"], status["packets"]) == ("attached", "drop", 2)
    with Wire(client, server) as wire:
        packets, expected = [udp(client, server, 6, 7), udp(client, server, 6, 9)], [True, False]
        assert wire.deliver(packets, expected)[0] == expected
    assert filter.await_packets(4)["default_packets"] == 2
    assert filter.packets()[seven] == 2
    filter("detach")
    assert not netctl.root.exists()


def test_namespace_by_name_and_by_path(netctl, link):
    _, server = link
    filter = Filter(netctl, server)
    filter.add("dport 7 drop")
    assert filter.status()["netns"] == server.netns.name
    for path in (server.netns.path, f"/var/run/netns/{server.netns.name}"):
        where = ("--netns", str(path))
        (status,) = netctl.json(*where, "xdp", "status")
        assert status["program_id"] == filter.status()["program_id"]
        assert json.loads(netctl("--json", *where, "xdp", "status", server.name).stdout) == status
        netctl(*where, "xdp", "rule", "add", server.name, "dport 8 drop")
    assert filter.rules() == ["dport 7 drop", "dport 8 drop", "dport 8 drop"]
    assert "no XDP filter is attached to eth0" in netctl.fails("xdp", "status", "eth0")
    done = netctl("--netns", f"/proc/{os.getpid()}/ns/net", "xdp", "attach", "eth0", check=False)
    assert "there is no interface 'eth0'" in done.stderr
    assert "namespace 'nowhere'" in netctl.fails("--netns", "nowhere", "xdp", "attach", "eth0")
    netctl("--netns", str(server.netns.path), "xdp", "detach", server.name)
    assert not netctl.root.exists()


def test_several_interfaces(lab, netctl, link):
    """Each has rules and counters of its own; names with dots too; the same name twice."""
    client, server = link
    server1, other = lab.veth(server.netns, lab.namespace("other"), name_a="eth0.100", checksums=False)
    one, two, three = (Filter(netctl, end, "--mode", mode)
                       for end, mode in ((server, "native"), (server1, "generic"), (other, "native")))  # fmt: skip
    one.add("dport 7 drop")
    two.add("dport 8 drop")
    with Wire(client, server) as wire:
        packets, expected = [udp(client, server, 4, 7), udp(client, server, 4, 8)], [False, True]
        assert wire.deliver(packets, expected)[0] == expected
    with Wire(other, server1) as wire:
        packets, expected = [udp(other, server1, 6, 7), udp(other, server1, 6, 8)], [True, False]
        assert wire.deliver(packets, expected)[0] == expected
    for filter, name in ((one, "eth0"), (two, "eth0.100")):
        status = filter.await_packets(2)
        assert status["interface"] == name
        assert [rule["packets"] for rule in status["rules"]] == [1]
    assert three.rules() == []
    everything = netctl.json("xdp", "status")
    assert sorted((status["netns"], status["interface"]) for status in everything) == sorted(
        (filter.netns.name, filter.name) for filter in (one, two, three)
    )
    assert sorted(path.name.rpartition(":")[2] for path in (netctl.root / "xdp").iterdir()) == [
        "eth0", "eth0", "eth0%2e100"]  # fmt: skip
    two("detach")
    assert xdp_of(server1) is None
    assert one.status()["state"] == three.status()["state"] == "attached"


@pytest.mark.kernel
def test_jumbo_frames(netctl, lab):
    """Native mode with any MTU, and rules on headers in front of several buffers."""
    client, server = lab.pair(mtu=9000)
    filter = Filter(netctl, server, "--mode", "native")
    big = filter.add("proto {icmp, icmp6} len 8000-9014 pass")
    for family in FAMILIES:
        done = client.netns.run("ping", "-nqc2", "-i0.01", "-Mdo", "-s8900", "-W5", server.ip(family))
        assert " 2 received" in done.stdout
    status = filter.await_packets(4)
    assert filter.packets() == {big: 4, None: 0}
    assert status["bytes"] == 2 * (8900 + 8 + 20 + 14) + 2 * (8900 + 8 + 40 + 14)
    filter("rule insert", "len 4000-65535 drop")
    assert client.netns.ping(server.ip4)
    done = client.netns.run("ping", "-nqc1", "-Mdo", "-s8900", "-W1", server.ip4, check=False)
    assert " 0 received" in done.stdout


# ---- the root ----


def test_bpffs_is_mounted_where_it_is_missing(netctl, link, tmp_path):
    _, server = link
    netns = ("--netns", server.netns.name)
    # In a mount namespace of its own, for it takes away all that is mounted there.
    script = """
        while mountpoint -q /sys/fs/bpf; do umount /sys/fs/bpf; done
        set -e
        "$@" xdp attach eth0
        findmnt -n -o FSTYPE /sys/fs/bpf
        "$@" xdp rule add eth0 dport 7 drop
        "$@" xdp detach eth0
    """
    done = run("unshare", "--mount", "sh", "-c", script, "sh", netctl.binary, *netns)
    assert done.stderr == "netctl: mounted bpffs at /sys/fs/bpf\n"
    assert done.stdout.splitlines()[1] == "bpf"
    assert "dport 7 drop" in done.stdout

    root = tmp_path / "elsewhere"
    script = '"$@" xdp attach eth0 && test -e "$3"/xdp/*/link && "$@" xdp detach eth0'
    done = run("unshare", "--mount", "sh", "-c", script, "sh", netctl.binary, "--root", root, *netns)
    assert done.stderr == f"netctl: mounted bpffs at {root}\n"


def test_root_of_another_version(netctl, link):
    client, server = link
    filter = Filter(netctl, server)
    filter.add("proto udp dport 7 drop")
    meta = bpftool("map", "dump", "pinned", netctl.root / "meta")[0]
    value = [int(byte, 16) for byte in meta["value"]]
    run("bpftool", "map", "update", "pinned", netctl.root / "meta", "key", *[0] * 4,
        "value", 99, *value[1:])  # fmt: skip
    for words in (("attach",), ("status",), ("rule add", "dport 8 drop"), ("detach",)):
        message = filter.fails(*words, status=4)
        assert "has ABI version 99, this netctl speaks version " in message
    assert "ABI version 99" in netctl.fails("set", "create", "s", "--type", "port", status=4)
    run("bpftool", "map", "update", "pinned", netctl.root / "meta", "key", *[0] * 4,
        "value", 4, *value[1:])  # fmt: skip
    for words in (("attach",), ("status",), ("rule add", "dport 8 drop"), ("detach",)):
        assert "has ABI version 4, this netctl speaks version " in filter.fails(*words)
    with Wire(client, server) as wire:  # and it keeps working
        packets, expected = [udp(client, server, 4, 7), udp(client, server, 4, 8)], [False, True]
        assert wire.deliver(packets, expected)[0] == expected
    run("bpftool", "map", "update", "pinned", netctl.root / "meta", "key", *[0] * 4, "value", *value)
    assert filter.await_packets(2)["rules"][0]["packets"] == 1


def test_detach_leaves_nothing_and_touches_nothing(netctl, link, foreign):
    client, server = link
    own = bpftool("prog", "show", "pinned", foreign)["id"]
    other = netctl.root.parent / f"{netctl.root.name}-other"
    run("bpftool", "map", "create", other, "type", "hash", "key", 4, "value", 4, "entries", 1,
        "name", "other")  # fmt: skip
    try:
        before = sorted(BPFFS.iterdir())
        filter = Filter(netctl, server)
        filter.add("src 192.0.2.0/24 pass log")
        mine = filter.status()["program_id"]
        filter("rule replace", input="dport 7 drop\ndport 8 pass limit 1/s")
        assert xdp_of(server)
        (netctl.root / "xdp" / "alien").mkdir()  # somebody's directory among ours
        filter("detach")
        assert (netctl.root / "xdp" / "alien").exists()
        (netctl.root / "xdp" / "alien").rmdir()
        assert "no XDP filter is attached" in filter.fails("detach")
        assert xdp_of(server) is None
        assert sorted(BPFFS.iterdir()) == before
        assert bpftool("prog", "show", "pinned", foreign)["id"] == own
        until(lambda: mine not in [program["id"] for program in bpftool("prog", "list")])
    finally:
        other.unlink()


# ---- bad surroundings ----


def as_nobody(netctl, *words, **options):
    argv = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups",
            *netctl.argv(*words, **options)]  # fmt: skip
    done = run(*argv, check=False)
    assert done.returncode == 1, done
    return done.stderr


def test_without_privileges(netctl, link):
    _, server = link
    filter = Filter(netctl, server)
    filter.add("dport 7 drop")
    for words in (
        ("xdp", "attach", "eth0"),
        ("xdp", "detach", "eth0"),
        ("xdp", "status"),
        ("xdp", "rule", "add", "eth0", "dport 8 drop"),
        ("xdp", "rule", "list", "eth0"),
        ("xdp", "log", "eth0"),
        ("set", "create", "s", "--type", "host"),
        ("set", "list"),
    ):
        for netns in (None, server.netns):
            message = as_nobody(netctl, *words, netns=netns)
            assert "CAP_" in message, (words, message)
            assert "run as root" in message
    assert filter.rules() == ["dport 7 drop"]


def test_interface_that_is_not_there(netctl, link):
    _, server = link
    message = netctl.fails("xdp", "attach", "eth1", netns=server.netns)
    assert "there is no interface 'eth1' here; did you mean 'eth0'?" in message
    assert not netctl.root.exists()


@pytest.mark.parametrize("foreign_mode", ("xdpdrv", "xdpgeneric"))
def test_interface_taken_by_another_program(netctl, link, foreign, foreign_mode):
    client, server = link
    number = bpftool("prog", "show", "pinned", foreign)["id"]
    server.netns.run("bpftool", "net", "attach", foreign_mode, "pinned", foreign, "dev", server.name)
    filter = Filter(netctl, server, attach=False)
    for options in ((), ("--mode", "native"), ("--mode", "generic")):
        message = filter.fails("attach", *options)
        assert f"eth0 already has the XDP program 'foreign' (id {number}" in message
        assert "--replace" in message
    assert xdp_of(server)["prog"]["id"] == number
    assert not netctl.root.exists()
    done = netctl("xdp", "attach", server.name, "--replace", netns=server.netns)
    assert f"took eth0 from the XDP program 'foreign' (id {number})" in done.stderr
    assert xdp_of(server)["prog"]["id"] == filter.status()["program_id"]
    assert foreign.exists()  # its owner's pin


def test_interface_held_by_a_foreign_link(netctl, link, foreign):
    _, server = link
    number = bpftool("prog", "show", "pinned", foreign)["id"]
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    program = libbpf.bpf_obj_get(os.fsencode(foreign))
    with server.netns:
        held = libbpf.bpf_link_create(program, socket.if_nametoindex(server.name), 37, None)  # BPF_XDP
    assert program > 0 and held > 0, os.strerror(ctypes.get_errno())
    try:
        filter = Filter(netctl, server, attach=False)
        assert f"already has the XDP program 'foreign' (id {number}" in filter.fails("attach")
        message = filter.fails("attach", "--replace")
        assert f"cannot take eth0 from the XDP program 'foreign' (id {number})" in message
        assert "held by a link" in message
        assert xdp_of(server)["prog"]["id"] == number
        assert not netctl.root.exists()
    finally:
        os.close(held)
        os.close(program)
    filter("attach")


@pytest.mark.kernel
@pytest.mark.parametrize("kind", ("dummy", "bridge"))
def test_driver_without_native_mode(netctl, lab, kind):
    netns = lab.namespace()
    if netns.run("ip", "link", "add", "dev0", "type", kind, check=False).returncode:
        pytest.skip(f"this kernel has no {kind} devices")
    netns.ip("link", "set", "dev0", "up")
    message = netctl.fails("xdp", "attach", "dev0", "--mode", "native", status=3, netns=netns)
    assert "dev0 has no native mode for this program" in message
    assert "--mode generic works on any interface" in message
    assert not netctl.root.exists()
    done = netctl("xdp", "attach", "dev0", netns=netns)
    assert "dev0 is attached in generic mode, since native mode is not to be had: " in done.stderr
    assert "dev0: attached in generic mode, 0 rules" in done.stdout
    assert netctl.json("xdp", "status", "dev0", netns=netns)["mode"] == "generic"


def test_wrong_words(netctl, link):
    """Wrong usage is exit status 2, shows where, and changes nothing."""
    _, server = link
    filter = Filter(netctl, server)
    rule = filter.add("dport 7 drop")
    netctl("set", "create", "ports", "--type", "port")
    netctl("set", "create", "hosts", "--type", "host")
    for status, words, answer in (
        (2, ("attch", "eth0"), "did you mean 'attach'"),
        (2, ("attach", "eth0", "--mode", "fast"), "auto or native or generic"),
        (2, ("attach", "eth0", "--default", "reject"), "drop"),
        (2, ("attach", "eth0", "--mod", "native"), "--mod"),
        (2, ("attach",), "IFACE"),
        (2, ("rule", "ad", "eth0", "drop"), "did you mean 'add'"),
        (2, ("rule", "add", "eth0"), "the rule is missing"),
        (2, ("rule", "add", "eth0", "dprot 7 drop"), "did you mean 'dport'"),
        (2, ("rule", "add", "eth0", "dport 7 deny"), "'deny'"),
        (2, ("rule", "add", "eth0", "dport 7"), "action"),
        (2, ("rule", "add", "eth0", "uid root drop"), "policy"),
        (2, ("rule", "add", "eth0", "src @ports drop"), "set 'ports' holds ports"),
        (2, ("rule", "add", "eth0", "sport @hosts drop"), "set 'hosts' holds addresses"),
        (1, ("rule", "add", "eth0", "src @nobody drop"), "there is no set 'nobody'"),
        (2, ("rule", "delete", "eth0", "first"), "'first' is no rule id"),
        (1, ("rule", "delete", "eth0", str(rule), "99"), "there is no rule with id 99"),
        (1, ("rule", "insert", "eth0", "--before", "99", "drop"), f"the ids are {rule}"),
        (1, ("rule", "add", "eth1", "drop"), "no XDP filter is attached to eth1"),
        (1, ("status", "eth1"), "no XDP filter is attached to eth1"),
        (1, ("rule", "replace", "eth0", "/nowhere"), "/nowhere"),
        (1, ("simulate", "eth0", "/nowhere"), "/nowhere"),
    ):
        assert answer in netctl.fails("xdp", *words, status=status, netns=server.netns), words
    message = filter.fails("rule replace", status=2, input="dport 8 drop\n\ndport 9 dorp # no\n")
    assert message.startswith("netctl: standard input:3: ") and "^~~~" in message
    assert filter.rules() == ["dport 7 drop"]
    assert filter.status()["generation"] == 2


# ---- simulation ----


def test_simulation_says_what_the_filter_does(netctl, link, mode, tmp_path):
    client, server = link
    filter = Filter(netctl, server, "--mode", mode, "--default", "drop")
    netctl("set", "create", "friends", "--type", "cidr")
    netctl("set", "add", "friends", "192.0.2.0/25", "2001:db8:1::/64")
    filter.add("src @friends proto udp dport 7 pass limit 100/s", "proto udp dport 8-9 drop log",
               "vlan 5 pass", "proto tcp flags syn/syn,ack dport 80 pass", "frag later pass")  # fmt: skip
    dice = random.Random(3)
    packets = []
    for _ in range(100):
        family = dice.choice(FAMILIES)
        packet = ip(client, server, family)
        if dice.random() < 0.2:
            packet = ether(client, server) / Dot1Q(vlan=dice.choice((5, 6))) / packet.payload
        if dice.random() < 0.5:
            packet /= UDP(dport=dice.choice((7, 8, 9, 10)))
        elif family == 4 and dice.random() < 0.2:
            packet[IP].frag = 100
            packet[IP].proto = 17
        else:
            packet /= TCP(dport=dice.choice((80, 81)), flags=dice.choice(("S", "SA", "A")))
        packets.append(packet)
    packets.append(ether(client, server) / IP(src=client.ip4, dst=server.ip4, len=9) / UDP())
    pcap = tmp_path / "in.pcap"
    wrpcap(str(pcap), packets)
    before = filter.status()
    done = netctl("--json", "xdp", "simulate", server.name, pcap, netns=server.netns)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    summary = filter("simulate", str(pcap), "--summary")
    assert filter.status() == before
    assert [one["number"] for one in told] == list(range(1, len(packets) + 1))

    expected = [one["verdict"] == "pass" for one in told]
    with Wire(client, server) as wire:
        assert wire.deliver(packets, expected)[0] == expected
    status = filter.await_packets(len(packets))
    by_rule = {rule["rule_id"]: rule["packets"] for rule in status["rules"]}
    assert min(by_rule.values()) > 0 and status["default_packets"] > 0  # a test of all of them
    for rule, number in by_rule.items():
        assert number == sum(one["rule_id"] == rule for one in told)
    assert status["default_packets"] == sum(one["reason"] == "default" for one in told)
    assert status["unparsed"]["ipv4"] == sum(one["reason"] == "unparsed" for one in told) == 1
    assert {row["rule_id"]: row["packets"] for row in summary if row["rule_id"]} == by_rule
    assert {row["reason"]: row["packets"] for row in summary if not row["rule_id"]} == {
        "default": status["default_packets"], "unparsed: ipv4": 1}  # fmt: skip
    assert sum(row["bytes"] for row in summary) == sum(map(len, packets))


def test_log_ends_with_its_point(lab, netctl, link):
    client, server = link
    filter = Filter(netctl, server)
    filter.add("proto udp drop log")
    reader = netctl.start(lab, "xdp", "log", server.name, netns=server.netns)
    with Wire(client, server) as wire:
        wire.send(udp(client, server, 4, 9))
    until(reader.json_lines)
    # It goes on over a commit, which hands the buffer on.
    filter.replace("proto udp dport 7 drop log")
    with Wire(client, server) as wire:
        wire.send(udp(client, server, 4, 9), udp(client, server, 4, 7))
    second = until(lambda: reader.json_lines()[1:])
    assert [event["packet"]["dport"] for event in second] == [7]
    filter("detach")
    assert reader.wait() == 0
