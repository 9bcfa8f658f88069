# SPDX-License-Identifier: GPL-2.0-only
"""`netctl tc` with real packets. The letters I1 to I10 are the invariants of docs/architecture.md."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest
from lab import GUEST_SHARE, Netctl, bpftool, run, until
from scapy.utils import wrpcap
from traffic import (
    ARP,
    IP,
    TCP,
    UDP,
    Arrivals,
    Blaster,
    Capture,
    Classifier,
    Dot1Q,
    Ether,
    IPv6,
    IPv6ExtHdrFragment,
    Raw,
    compile_bpf,
    raw,
)

MODES = ("tcx", "clsact")
DIRECTIONS = ("ingress", "egress")
FAMILIES = (4, 6)


@pytest.fixture(scope="session")
def tcx():
    """Whether this kernel has it, by trying."""
    with Netctl() as netctl:
        done = netctl("tc", "attach", "lo", "ingress", "--mode", "tcx", check=False)
        assert done.returncode in (0, 3), done.stderr
        return done.returncode == 0


# A guest of each kind: the older has clsact, the newer tcx.
@pytest.fixture(params=("newest",) if GUEST_SHARE else MODES)
def mode(request, tcx):
    if request.param == "newest":
        return "tcx" if tcx else "clsact"
    if request.param == "tcx" and not tcx:
        pytest.skip("this kernel has no tcx")
    return request.param


@pytest.fixture(params=DIRECTIONS)
def direction(request):
    return request.param


@pytest.fixture(scope="session")
def foreign_object(tmp_path_factory):
    """Another tool's classifier, which leaves everything to the next."""
    return compile_bpf(tmp_path_factory.mktemp("foreign"), "tc", verdict=-1)


class Receivers:
    """UDP sockets of a namespace, by family and port: what reaches them has passed everything."""

    def __init__(self, interface, ports):
        self.sockets = {}
        for family in FAMILIES:
            for port in ports:
                made = interface.netns.socket({4: socket.AF_INET, 6: socket.AF_INET6}[family], socket.SOCK_DGRAM)
                if family == 6:
                    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                made.bind(("", port))
                made.setblocking(False)
                self.sockets[family, port] = made

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in self.sockets.values():
            each.close()

    def take(self):
        """What has come since the last call: {(family, port): [payload]}, without what has nothing."""
        come = {}
        for place, each in self.sockets.items():
            while True:
                try:
                    payload = each.recv(65536)
                except BlockingIOError:
                    break
                come.setdefault(place, []).append(payload)
        return come


def send_udp(source, target, family, port, *payloads, sport=4000):
    """By one socket, which is one flow to the qdisc fq."""
    with source.netns.socket({4: socket.AF_INET, 6: socket.AF_INET6}[family], socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sender.bind(("", sport))
        for payload in payloads or (b"x",):
            sender.sendto(payload, (target.ip(family), port))


@contextlib.contextmanager
def on_one_cpu():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def send_frames(source, *frames):
    with source.netns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((source.name, 0))
        for frame in frames:
            with contextlib.suppress(OSError):  # ENOBUFS is how egress tells a drop
                sender.send(raw(frame))


def url(interface, family):
    return {4: f"http://{interface.ip4}/", 6: f"http://[{interface.ip6}]/"}[family]


def curl(source, target, family, seconds=2):
    """Whether the server's greeting comes."""
    done = source.netns.run("curl", "-gsS", "-m", seconds, url(target, family), check=False)
    return done.stdout == "hello\n"


def ether(source, target):
    return Ether(src=source.mac, dst=target.mac)


def ip(source, target, family, **fields):
    layer = {4: IP, 6: IPv6}[family]
    return ether(source, target) / layer(src=source.ip(family), dst=target.ip(family), **fields)


def qdiscs(interface):
    """The kinds of an interface's queueing disciplines, in the order of `tc`."""
    out = run("tc", "-n", interface.netns.name, "-json", "qdisc", "show", "dev", interface.name).stdout
    return [qdisc["kind"] for qdisc in json.loads(out)]


# ---- verdicts ----


@pytest.mark.kernel(direction="ingress")
def test_verdicts_are_counted_exactly(netctl, link, mode, direction):
    client, server = link
    where = {"ingress": server, "egress": client}[direction]
    classifier = Classifier(netctl, where, direction, "--mode", mode, "--default", "pass")
    assert classifier.attached["mode"] == mode
    go = classifier.add("proto udp dport 7 pass")
    halt = classifier.add("proto udp dport {8, 9} drop")
    on = classifier.add("proto udp dport 10 next")
    ports = (7, 8, 9, 10, 11)
    with Receivers(server, ports) as receivers:
        for family in FAMILIES:
            for port in ports:
                send_udp(client, server, family, port, b"12345678")
        come = {}

        def all_here():
            come.update(receivers.take())
            return len(come) == 6

        until(all_here)
    assert sorted(come) == [(family, port) for family in FAMILIES for port in (7, 10, 11)]
    status = classifier.status()
    assert classifier.packets() == {go: 2, halt: 4, on: 2, None: 2}
    assert status["verdicts"] == {"pass": 4, "drop": 4, "redirect": 0, "next": 2, "reject": 0}
    # With link and IP headers, as tc sees them in both directions.
    assert status["rules"][1]["bytes"] == 2 * (14 + 20 + 16) + 2 * (14 + 40 + 16)
    assert status["bytes"] == 5 * (14 + 20 + 16) + 5 * (14 + 40 + 16)


@pytest.mark.parametrize("family", FAMILIES)
def test_real_clients(lab, netctl, pair, mode, direction, family):
    client, server = pair
    lab.nginx(server.netns)
    classifier = Classifier(netctl, server, direction, "--mode", mode)
    assert curl(client, server, family)
    rule = {"ingress": "proto tcp dport 80 drop", "egress": "proto tcp sport 80 drop"}[direction]
    web = classifier.add(rule)
    assert not curl(client, server, family, seconds=0.3)
    assert client.netns.ping(server.ip(family), count=2)
    assert classifier.packets()[web] > 0
    classifier("rule delete", str(web))
    assert curl(client, server, family)
    classifier.add("drop")
    assert not client.netns.ping(server.ip(family), timeout=0.1)
    classifier("rule flush")
    assert client.netns.ping(server.ip(family))
    classifier("detach")
    assert curl(client, server, family)


def test_default_and_unparsed_verdicts(netctl, link):
    client, server = link
    classifier = Classifier(netctl, server, "ingress", "--default", "drop", "--on-unparsed", "drop")
    classifier.add("ether-type arp pass", "proto udp dport 7 pass")
    cut = ip(client, server, 4) / UDP(dport=7) / Raw(b"x" * 20)
    cut[IP].len = 2000
    send_frames(client, cut, ip(client, server, 4) / UDP(dport=9))
    with Receivers(server, (7,)) as receivers:
        send_udp(client, server, 6, 7)
        until(receivers.take)
    status = classifier.await_packets(3)
    assert status["unparsed"]["ipv4"] == 1
    assert status["verdicts"] == {"pass": 1, "drop": 2, "redirect": 0, "next": 0, "reject": 0}


# ---- what only tc can do ----


def test_mark_is_seen_behind(netctl, link, mode):
    client, server = link
    server.netns.run(
        "nft",
        "add table inet marks; add chain inet marks c { type filter hook prerouting priority -300; };"
        "add rule inet marks c meta mark 0x7 counter; add rule inet marks c meta mark 0x20 counter;",
    )
    classifier = Classifier(netctl, server, "ingress", "--mode", mode)
    classifier.add("proto udp dport 7 then mark 7 pass", "proto udp dport 8 mark 0x20/0xf0")
    with Receivers(server, (7, 8, 9)) as receivers:
        for port in (7, 8, 8, 9):
            send_udp(client, server, 4, port)
        come = []

        def here():
            come.extend(payload for payloads in receivers.take().values() for payload in payloads)
            return len(come) == 4

        until(here)
    listing = json.loads(server.netns.run("nft", "-j", "list", "table", "inet", "marks").stdout)
    counters = [entry["rule"]["expr"][1]["counter"]["packets"]
                for entry in listing["nftables"] if "rule" in entry]  # fmt: skip
    assert counters == [1, 2]


@pytest.mark.kernel(direction="egress")
def test_dscp_on_the_wire(lab, netctl, link, mode, direction):
    """As tcpdump sees it, with right checksums; ECN bits are left alone."""
    client, server = link
    far_client, far_server = client, server
    if direction == "ingress":  # seen where the packet leaves again
        middle, far = lab.veth(server.netns, lab.namespace("far"), name_a="eth1", checksums=False)
        server.netns.sysctl("net.ipv4.ip_forward", 1)
        server.netns.sysctl("net.ipv6.conf.all.forwarding", 1)
        for family, option in ((4, "-4"), (6, "-6")):
            client.netns.ip(option, "route", "add", "default", "via", server.ip(family))
        far_server = far
    where = {"ingress": server, "egress": client}[direction]
    classifier = Classifier(netctl, where, direction, "--mode", mode)
    classifier.add("proto udp dport 7 then dscp ef pass", "proto tcp dscp af11")
    dump = far_server.netns.start("tcpdump", "-i", far_server.name, "-nvv", "--immediate-mode", "-l",
                                  "-Q", "in", "-c", 4, "udp", "port", "7")  # fmt: skip
    dump.expect("listening on")
    for family in FAMILIES:
        for tos in (0, 0x4B):  # with ECN bits
            with far_client.netns.socket({4: socket.AF_INET, 6: socket.AF_INET6}[family],
                                         socket.SOCK_DGRAM) as sender:  # fmt: skip
                level = {4: (socket.IPPROTO_IP, socket.IP_TOS),
                         6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)}[family]  # fmt: skip
                sender.setsockopt(*level, tos)
                sender.sendto(b"dscp", (far_server.ip(family), 7))
    assert dump.wait() == 0
    text = dump.stdout
    assert text.count("tos 0xb8") == 1 and text.count("tos 0xbb") == 1, text
    assert text.count("class 0xb8") == 1 and text.count("class 0xbb") == 1, text
    assert "bad" not in text, text
    assert text.count("udp sum ok") == 4, text
    assert classifier.status()["rewrite_failed"] == 0


@pytest.mark.kernel
def test_redirect_and_mirror(lab, netctl, link, mode):
    client, middle = link
    middle1, far = lab.veth(middle.netns, lab.namespace("far"), name_a="eth1", checksums=False)
    classifier = Classifier(netctl, middle, "ingress", "--mode", mode)
    classifier.add("proto udp dport 7 redirect eth1", "proto udp dport 8 then mirror eth1 dscp ef pass",
                   "proto udp dport 9 mirror eth1 drop")  # fmt: skip
    with Capture(far) as copies, Receivers(middle, (7, 8, 9)) as receivers:
        for port in (7, 8, 9, 8):
            send_udp(client, middle, 4, port, b"port%d" % port)
        seen = []

        def there():
            seen.extend(copies.frames())
            return len(seen) == 4

        until(there)
        come = {}

        def here():
            for place, payloads in receivers.take().items():
                come.setdefault(place, []).extend(payloads)
            return sum(map(len, come.values())) == 2

        until(here)
        assert come == {(4, 8): [b"port8"] * 2}
    assert [Ether(frame)[UDP].dport for frame in seen] == [7, 8, 9, 8]
    assert all(Ether(frame)[IP].tos == 0 for frame in seen), "copies are as the packet came"
    # A target that is gone.
    middle.netns.ip("link", "delete", "eth1")
    send_udp(client, middle, 4, 7)
    send_udp(client, middle, 4, 8)
    status = classifier.await_packets(6)
    assert status["redirect_failed"] == 1
    assert status["mirror_failed"] == 1
    assert status["verdicts"]["redirect"] == 1
    # It holds up no other change, and is found again by one once it is back.
    classifier.add("dport 99 pass")
    send_udp(client, middle, 4, 7)
    assert classifier.await_packets(7)["redirect_failed"] == 2
    assert "eth1" in classifier.fails("rule add", "dport 98 redirect eth1")
    lab.veth(middle.netns, lab.namespace("anew"), name_a="eth1")
    classifier.add("dport 97 pass")
    send_udp(client, middle, 4, 7)
    status = classifier.await_packets(8)
    assert (status["redirect_failed"], status["verdicts"]["redirect"]) == (2, 2)


def test_redirect_into_ingress(lab, netctl, link):
    """What leaves by one interface arrives on another of the same host."""
    client, server = link
    inner, outer = lab.veth(client.netns, client.netns, name_a="in0", name_b="in1", checksums=False)
    classifier = Classifier(netctl, client, "egress")
    classifier.add("proto udp dport 7 redirect in0 ingress")
    with Capture(inner) as arrived:
        send_udp(client, server, 4, 7, b"round")
        until(lambda: any(b"round" in frame for frame in arrived.frames()))
    assert classifier.status()["verdicts"]["redirect"] == 1


# ---- packets of all sorts ----


@pytest.mark.kernel(direction="ingress")
def test_vlan_tags_in_the_packet_and_beside_it(netctl, link, direction):
    """On the way in the kernel has taken the outer tag off; on the way out a raw socket's is in place."""
    client, server = link
    where = {"ingress": server, "egress": client}[direction]
    classifier = Classifier(netctl, where, direction)
    five = classifier.add("vlan 5 proto udp dport 7 drop")
    none = classifier.add("vlan none proto udp dport 7 drop")
    many = classifier.add("vlan any proto udp dport 7 dscp 0 then dscp ef drop")
    tagged = [
        ether(client, server) / Dot1Q(vlan=5) / IP(dst=server.ip4) / UDP(dport=7),
        ether(client, server) / Dot1Q(vlan=5) / Dot1Q(vlan=6) / IPv6(dst=server.ip6) / UDP(dport=7),
        ether(client, server) / Dot1Q(vlan=6) / IP(dst=server.ip4) / UDP(dport=7),
        ip(client, server, 6) / UDP(dport=7),
    ]
    send_frames(client, *tagged)
    classifier.await_packets(4)
    assert classifier.packets() == {five: 2, none: 1, many: 1, None: 0}


def test_fragments(netctl, link):
    client, server = link
    classifier = Classifier(netctl, server, "ingress")
    port = classifier.add("proto udp dport 7 drop")
    later = classifier.add("frag later drop")
    first = IP(src=client.ip4, dst=server.ip4, id=9, flags="MF") / UDP(dport=7) / Raw(b"x" * 16)
    rest = IP(src=client.ip4, dst=server.ip4, id=9, frag=3, proto=17) / Raw(b"\0\7\0\7" * 4)
    six = IPv6(src=client.ip6, dst=server.ip6) / IPv6ExtHdrFragment(offset=3, id=9, nh=17) / Raw(b"\0\7\0\7" * 4)
    send_frames(client, *(ether(client, server) / packet for packet in (first, rest, six)))
    classifier.await_packets(3)
    assert classifier.packets() == {port: 1, later: 2, None: 0}


@pytest.mark.kernel(direction="egress")
def test_large_packets_are_one(lab, netctl, pair, direction):
    """With offloads a packet is up to 64 KiB, mostly outside of the linear part; DSCP still gets in."""
    client, server = pair
    lab.http_server(server.netns)
    (Path(lab.directory) / "www" / "big").write_bytes(b"0123456789abcdef" * (1 << 16))
    where = {"ingress": client, "egress": server}[direction]
    classifier = Classifier(netctl, where, direction)
    rule = classifier.add("proto tcp sport 80 then mark 3 dscp ef pass")
    done = client.netns.run("sh", "-c", f"curl -s http://{server.ip4}/big | md5sum")
    expected = run("md5sum", Path(lab.directory) / "www" / "big").stdout.split()[0]
    assert done.stdout.split()[0] == expected
    (shown,) = classifier.status()["rules"]
    assert shown["rule_id"] == rule and shown["bytes"] > 1 << 20
    assert shown["bytes"] / shown["packets"] > 3000


@pytest.mark.kernel
def test_a_device_without_ethernet_header(netctl, lab):
    netns = lab.namespace("tun")
    netns.run("ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
    netns.ip_batch("link set tun0 addrgenmode none", "link set tun0 up", "address add 192.0.2.1/24 dev tun0",
                   "address add 2001:db8:1::1/64 dev tun0 nodad")  # fmt: skip
    with netns:
        tun = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH", b"tun0", 0x1001))  # TUNSETIFF, no header
    device = type("Device", (), {"netns": netns, "name": "tun0"})
    try:
        incoming = Classifier(netctl, device, "ingress")
        four = incoming.add("src 192.0.2.2 proto udp dport 7 drop")
        six = incoming.add("src 2001:db8:1::2 proto udp dport 7 drop log")
        incoming.add("ether-src 02:00:00:00:00:01 drop")
        log = netctl.start(lab, "tc", "log", "tun0", "ingress", "--count", 1, netns=netns)
        os.write(tun, raw(IP(src="192.0.2.2", dst="192.0.2.1") / UDP(dport=7) / b"four"))
        os.write(tun, raw(IPv6(src="2001:db8:1::2", dst="2001:db8:1::1") / UDP(dport=7) / b"six"))
        os.write(tun, raw(IP(src="192.0.2.2", dst="192.0.2.1") / UDP(dport=9)))
        incoming.await_packets(3)
        assert incoming.packets()[four] == 1
        assert incoming.packets()[six] == 1
        assert log.wait() == 0
        (event,) = log.json_lines()
        assert event["packet"]["src"] == "2001:db8:1::2"
        outgoing = Classifier(netctl, device, "egress")
        outgoing.add("proto udp dport 7 then dscp ef pass")
        for family, peer in ((socket.AF_INET, "192.0.2.2"), (socket.AF_INET6, "2001:db8:1::2")):
            with netns.socket(family, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"out", (peer, 7))
        seen = []
        while len(seen) < 2:
            packet = os.read(tun, 2048)
            if b"out" in packet:
                seen.append(packet)
        assert IP(seen[0]).tos == 0xB8
        assert IPv6(seen[1]).tc == 0xB8
        # From here no packet can go to a device that needs an Ethernet header.
        error = incoming.fails("rule add", "redirect lo")
        assert "Ethernet" in error
    finally:
        os.close(tun)


# ---- rates ----


def test_a_rate_without_fq_drops_and_says_so(netctl, link, direction):
    client, server = link
    where = {"ingress": server, "egress": client}[direction]
    classifier = Classifier(netctl, where, direction)
    done = netctl("tc", "rule", "add", where.name, direction, "proto udp rate 8kbit burst 4k pass",
                  netns=where.netns)  # fmt: skip
    assert "rates drop" in done.stderr
    with Receivers(server, (7,)) as receivers:
        for number in range(40):
            send_udp(client, server, 4, 7, b"%03d" % number + bytes(997))
        status = classifier.await_packets(40)
        (rule,) = status["rules"]
        # 4 KiB at once, the packet that crosses it, and what a slow machine's time gives.
        assert rule["packets"] >= 4
        assert rule["packets"] + rule["over_packets"] == 40
        assert status["over_rate"] == rule["over_packets"] > 20
        come = []

        def here():
            come.extend(receivers.take().get((4, 7), []))
            return len(come) == rule["packets"]

        until(here)
    assert status["rates"] == "drop"


@pytest.mark.kernel
def test_a_rate_through_fq_delays(netctl, link, mode):
    """No packet is lost, and they do not come faster than the rate; slower would be a machine's fault."""
    client, server = link
    offered = run("tc", "-n", client.netns.name, "qdisc", "replace", "dev", "eth0", "root", "fq", check=False)
    if offered.returncode:
        pytest.skip("this kernel has no qdisc fq")
    run("tc", "-n", client.netns.name, "qdisc", "delete", "dev", "eth0", "root")
    before = qdiscs(client)
    classifier = Classifier(netctl, client, "egress", "--mode", mode, "--setup-fq")
    assert "fq" in qdiscs(client)
    # 50 packets of 1,042 bytes take 417 ms at 1 Mbit/s.
    classifier.add("proto udp dport 7 rate 1mbit pass")
    assert classifier.status()["rates"] == "departure"
    with Receivers(server, (7,)) as receivers:
        start = time.monotonic()
        # Where fq sends from two CPUs, by its timer and for the sender, the peer takes in what either sent on that
        # CPU, in any order.
        with on_one_cpu():
            send_udp(client, server, 4, 7, *(b"%03d" % number + bytes(997) for number in range(50)))
        come = []

        def here():
            come.extend(receivers.take().get((4, 7), []))
            return len(come) == 50

        until(here, 10)
        took = time.monotonic() - start
    status = classifier.status()
    assert status["over_rate"] == 0 and status["rules"][0]["packets"] == 50
    assert took >= 0.95 * 49 * 1042 * 8 / 1e6
    assert [payload[:3] for payload in come] == [b"%03d" % number for number in range(50)]
    classifier("detach")
    assert qdiscs(client) == before


def test_setup_fq_respects_what_somebody_chose(netctl, link):
    client, _ = link
    run("tc", "-n", client.netns.name, "qdisc", "replace", "dev", "eth0", "root", "handle", "5:", "tbf",
        "rate", "1gbit", "burst", "64k", "latency", "10ms")  # fmt: skip
    classifier = Classifier(netctl, client, "egress", attach=False)
    error = classifier.fails("attach", "--setup-fq")
    assert "tbf 5:" in error and "tc qdisc replace" in error
    assert qdiscs(client) == ["tbf"]
    assert not netctl.root.exists()
    incoming = Classifier(netctl, client, "ingress", attach=False)
    assert "egress" in incoming.fails("attach", "--setup-fq", status=2)


# ---- beside others ----


def test_places_in_a_tcx_chain(netctl, link, tcx):
    if not tcx:
        pytest.skip("this kernel has no tcx")
    _, server = link
    middle = Classifier(netctl, server, "ingress")
    with Netctl() as another, Netctl() as third:
        last = Classifier(another, server, "ingress", "--last")
        first = Classifier(third, server, "ingress", "--before", str(middle.attached["program_id"]))
        order = [each.attached["program_id"] for each in (first, middle, last)]
        chain = middle.status()["tcx"]
        assert [program["id"] for program in chain] == order
        assert [program["own"] for program in chain] == [False, True, False]
        assert all(program["name"] == "tc_filter" and program["link_id"] for program in chain)
        # A commit keeps the place.
        middle.add("drop")
        chain = middle.status()["tcx"]
        assert [program["own"] for program in chain] == [False, True, False]
        last("detach")
        last("attach", "--first")
        assert [program["own"] for program in last.status()["tcx"]] == [True, False, False]
        # A name that is not there, or that is not one.
        middle("detach")
        error = middle.fails("attach", "--after", "nobody")
        assert "'nobody'" in error and "tc_filter" in error
        assert "2 programs 'tc_filter'" in middle.fails("attach", "--after", "tc_filter")
        assert len(last.status()["tcx"]) == 2


def test_next_and_pass_among_programs(netctl, link, tcx):
    """`pass` is final for the whole chain, `next` is not."""
    if not tcx:
        pytest.skip("this kernel has no tcx")
    client, server = link
    before = Classifier(netctl, server, "ingress")
    before.add("proto udp dport 7 pass", "proto udp dport 8 next", "proto udp drop")
    with Netctl() as another:
        behind = Classifier(another, server, "ingress")
        behind.add("proto udp drop")
        with Receivers(server, (7, 8, 9)) as receivers:
            for port in (8, 9, 7):
                send_udp(client, server, 4, port)
            assert list(until(receivers.take)) == [(4, 7)]
        assert behind.status()["packets"] == 1


def test_a_clsact_of_somebody_else_stays(netctl, link, foreign_object):
    _, server = link
    tc = ("tc", "-n", server.netns.name)
    run(*tc, "qdisc", "add", "dev", "eth0", "clsact")
    run(*tc, "filter", "add", "dev", "eth0", "ingress", "pref", 10, "bpf", "da", "obj", foreign_object, "sec", "tc")
    classifier = Classifier(netctl, server, "ingress", "--mode", "clsact", "--first")
    assert [(each["priority"], each["own"]) for each in classifier.status()["clsact"]] == [(9, True), (10, False)]
    classifier("detach")
    classifier("attach", "--mode", "clsact")
    assert [each["own"] for each in classifier.status()["clsact"]] == [False, True]
    classifier("detach")
    error = classifier.fails("attach", "--mode", "clsact", "--priority", "10")
    assert "priority 10 of eth0 ingress is taken by a filter of kind bpf" in error
    assert "clsact" in qdiscs(server)
    assert "foreign" in run(*tc, "filter", "show", "dev", "eth0", "ingress").stdout


def test_our_clsact_goes_with_its_last_user(netctl, link, foreign_object):
    _, server = link
    tc = ("tc", "-n", server.netns.name)
    before = qdiscs(server)
    incoming = Classifier(netctl, server, "ingress", "--mode", "clsact")
    outgoing = Classifier(netctl, server, "egress", "--mode", "clsact")
    incoming("detach")
    assert "clsact" in qdiscs(server)
    outgoing("detach")
    assert qdiscs(server) == before
    assert not netctl.root.exists()
    # Others may have moved in.
    incoming("attach", "--mode", "clsact")
    run(*tc, "filter", "add", "dev", "eth0", "egress", "pref", 10, "bpf", "da", "obj", foreign_object, "sec", "tc")
    done = netctl("tc", "detach", "eth0", "ingress", netns=server.netns)
    assert "left in place" in done.stderr
    assert "clsact" in qdiscs(server)
    assert not netctl.root.exists()


# ---- commits ----


def test_commits_are_atomic_under_traffic(netctl, link, mode, blaster):
    """I2: two lists of rules that agree on a flood, and changes between them."""
    client, server = link
    classifier = Classifier(netctl, server, "ingress", "--mode", mode, "--default", "drop")
    one = ["dport 7 drop", "proto udp dport 9 pass", "ether-type arp pass"]
    two = ["src 203.0.113.0/24 drop", "dport 9 pass", "ether-type arp pass"]
    classifier.replace(*one)
    arrivals = Arrivals(server, (7, 9))
    with Blaster(blaster, client, server.ip4, {7: 100, 9: 100}) as flood:
        for _ in range(5):
            classifier.replace(*two)
            classifier.replace(*one)
        sent = flood.stop()
    until(lambda: arrivals.counts()[9] == sent[9])
    assert arrivals.counts()[7] == 0
    assert classifier.status()["packets"] == sent[7] + sent[9]


def test_killed_at_any_time_it_leaves_whole_rules(netctl, link, mode):
    client, server = link
    classifier = Classifier(netctl, server, "ingress", "--mode", mode)
    lists = (["proto udp dport 7 drop", "proto udp dport 8 drop"], ["proto udp dport 9 drop"])
    classifier.replace(*lists[0])
    file = netctl.argv("tc", "rule", "replace", "eth0", "ingress", netns=server.netns)
    for turn in range(12):
        process = subprocess.Popen(file, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        process.stdin.write("\n".join(lists[turn % 2]))
        process.stdin.close()
        time.sleep(0.004 * turn)  # what is shown must hold after any time
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert classifier.rules() in lists
    classifier.replace(*lists[1])
    with Receivers(server, (7, 9)) as receivers:
        send_udp(client, server, 4, 9)
        send_udp(client, server, 4, 7)
        assert list(until(receivers.take)) == [(4, 7)]
    classifier("detach")
    assert not netctl.root.exists()


def test_counters_survive_changes(netctl, link, mode):
    client, server = link
    classifier = Classifier(netctl, server, "ingress", "--mode", mode)
    seven = classifier.add("proto udp dport 7 drop")
    for _ in range(3):
        send_udp(client, server, 4, 7)
    classifier.await_packets(3)
    eight = classifier("rule insert", "proto udp dport 8 drop")["rule_id"]
    send_udp(client, server, 4, 8)
    send_udp(client, server, 4, 7)
    classifier.await_packets(5)
    assert classifier.packets() == {eight: 1, seven: 4, None: 0}
    assert [rule["rule_id"] for rule in classifier.status()["rules"]] == [eight, seven]


def test_an_interface_that_vanishes_and_returns(lab, netctl, mode):
    client, server = lab.pair()
    classifier = Classifier(netctl, server, "ingress", "--mode", mode, "--default", "drop")
    classifier.add("proto icmp pass")
    server.netns.ip("link", "delete", "eth0")
    assert classifier.status()["state"] == "vanished"
    assert "attached no more" in classifier.fails("rule add", "drop")
    client, server = lab.veth(client.netns, server.netns)
    assert classifier.status()["state"] == "returned"
    assert classifier("attach", "--mode", mode)["rule_count"] == 1
    assert client.netns.ping(server.ip4)
    assert classifier.status()["default"] == "drop"
    classifier("detach")
    assert "clsact" not in qdiscs(server)


def test_a_filter_that_somebody_removes(netctl, link):
    _, server = link
    classifier = Classifier(netctl, server, "ingress", "--mode", "clsact")
    classifier.add("proto udp drop")
    run("tc", "-n", server.netns.name, "filter", "delete", "dev", "eth0", "ingress")
    assert classifier.status()["state"] == "removed"
    assert classifier.rules() == ["proto udp drop"]
    classifier("attach", "--mode", "clsact")
    assert classifier.status()["state"] == "attached"
    assert classifier.rules() == ["proto udp drop"]


# ---- errors ----


def test_bad_input_changes_nothing(netctl, link):
    _, server = link
    classifier = Classifier(netctl, server, "ingress", attach=False)
    assert "no tc classifier is attached" in classifier.fails("rule add", "drop")
    assert "no interface 'eth7'" in netctl.fails("tc", "attach", "eth7", "ingress", netns=server.netns)
    assert not netctl.root.exists()
    classifier("attach")
    assert "attached to eth0 ingress already" in classifier.fails("attach")
    keep = classifier.add("proto udp drop")
    assert "no interface 'eth7'" in classifier.fails("rule add", "redirect eth7")
    assert "without end" in classifier.fails("rule add", "redirect eth0 ingress")
    assert "'tx'" in classifier.fails("rule add", "tx", status=2)
    other = Classifier(netctl, server, "egress", attach=False)
    assert "one place" in other.fails("attach", "--first", "--last", status=2)
    assert "by priority" in other.fails("attach", "--mode", "clsact", "--before", "7", status=2)
    assert [rule["rule_id"] for rule in classifier.status()["rules"]] == [keep]


# ---- log, simulation, maps ----


def test_log_and_simulation(lab, netctl, link, tmp_path):
    client, server = link
    classifier = Classifier(netctl, server, "ingress")
    rule = classifier.add("proto udp dport 7 drop log")
    log = netctl.start(lab, "tc", "log", "eth0", "ingress", "--count", 2, netns=server.netns)
    for family in FAMILIES:
        send_udp(client, server, family, 7)
    assert log.wait() == 0
    events = log.json_lines()
    assert [event["packet"]["src"] for event in events] == [client.ip4, client.ip6]
    assert {(event["rule_id"], event["verdict"]) for event in events} == {(rule, "drop")}

    classifier.add("proto udp dport 8 then mark 7 dscp ef rate 1mbit pass", "proto tcp redirect lo")
    capture = tmp_path / "frames.pcap"
    frames = [ip(client, server, 4) / UDP(dport=7), ip(client, server, 6) / UDP(dport=8) / Raw(b"x" * 5000),
              ip(client, server, 4) / TCP(dport=1), ether(client, server) / ARP(), ether(client, server) / Raw(b"x")]  # fmt: skip
    cut = raw(ip(client, server, 4) / UDP())[:20]
    wrpcap(str(capture), [*frames, Ether(cut)])
    out = netctl("--json", "tc", "simulate", "eth0", "ingress", capture, netns=server.netns).stdout
    told = [json.loads(line) for line in out.splitlines()]
    assert [(each["verdict"], each["reason"]) for each in told] == [
        ("drop", "rule"), ("pass", "rule"), ("redirect", "rule"), ("next", "default"), ("next", "default"),
        ("drop", "unparsed")]  # fmt: skip
    assert classifier.status()["packets"] == 2, "simulation touches no counter"


def test_maps_that_others_write(netctl, link):
    """docs/pinned-maps.md: zeroes into `stats` and `counters`, elements into sets."""
    client, server = link
    netctl("set", "create", "bad", "--type", "host")
    classifier = Classifier(netctl, server, "ingress")
    rule = classifier.add("proto udp src @bad drop")
    pins = netctl.root / "tc" / f"{server.netns.name}:eth0" / "ingress"
    names = "link point rules actions changes stats counters events"
    assert {pin.name for pin in pins.iterdir()} == set(names.split())
    address = [str(byte) for byte in socket.inet_aton(client.ip4)]
    run("bpftool", "map", "update", "pinned", netctl.root / "sets/bad/v4", "key", *address,
        "value", *["0"] * 8)  # fmt: skip
    send_udp(client, server, 4, 7)
    classifier.await_packets(1)
    assert classifier.packets() == {rule: 1, None: 0}
    stats = bpftool("map", "dump", "pinned", str(pins / "stats"))
    values = stats[0]["formatted"]["values"] if "formatted" in stats[0] else stats[0]["values"]
    size = bpftool("map", "show", "pinned", str(pins / "stats"))["bytes_value"]
    assert len(values) >= 1
    run("bpftool", "map", "update", "pinned", pins / "stats", "key", *["0"] * 4, "value", *["0"] * size)
    assert classifier.status()["packets"] == 0
    assert f"{server.netns.name}:eth0/ingress rule {rule}" in netctl.fails("set", "destroy", "bad")
