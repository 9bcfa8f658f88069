# SPDX-License-Identifier: GPL-2.0-only
"""The action `syncookie`: connections that are made through it, answers beside the kernel's own, and what it lets pass."""

import contextlib
import hashlib
import os
import socket
import struct
import threading

import pytest
from lab import PATIENCE, until
from traffic import IP, TCP, Classifier, Dot1AD, Dot1Q, Ether, Filter, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, Wire, raw

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
PORT = 7000
# linux/tcp.h
TCP_INFO, TCP_MAXSEG, TCP_MD5SIG = 11, 2, 14
TIMESTAMPS, SACK, SCALING = 1, 2, 4


@pytest.fixture(params=("native", "generic"))
def mode(request):
    return request.param


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def filter_on(netctl, client, server, mode):
    """A filter on the server's end that answers SYNs; sent back by the driver, they arrive only at a program."""
    if mode == "native":
        Filter(netctl, client, "--mode", "native")
    return Filter(netctl, server, "--mode", mode)


def listener(end, family, port=PORT, backlog=100, **options):
    one = end.netns.socket(FAMILIES[family], socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for (level, name), value in options.get("set", {}).items():
        one.setsockopt(level, name, value)
    one.settimeout(30 * PATIENCE)
    one.bind((end.ip(family), port))
    one.listen(backlog)
    return one


def cookies_received(netns):
    """Connections that this namespace's kernel has made from a cookie."""
    with netns, open("/proc/thread-self/net/netstat") as table:
        names, values = (line.split() for line in table if line.startswith("TcpExt:"))
    return int(values[names.index("SyncookiesRecv")])


def agreed(connection):
    """What the two ends have agreed on, as one of them sees it: options, scaling of its own and the other's windows,
    and the bytes of a segment that it sends."""
    info = connection.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 104)
    options, scales = info[5] & (TIMESTAMPS | SACK | SCALING), info[6]
    return {"options": options, "theirs": scales & 15, "own": scales >> 4, "sends": struct.unpack_from("=I", info, 16)[0]}


def talk(client, server, family, listening, size=300_000):
    """One connection that carries bytes there and back; what each end has agreed to."""
    sent = os.urandom(size)

    def echo():
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(30 * PATIENCE)
            told.append(agreed(connection))
            while data := connection.recv(65536):
                connection.sendall(data)

    told = []
    thread = threading.Thread(target=echo)
    thread.start()
    try:
        with client.netns.socket(FAMILIES[family], socket.SOCK_STREAM) as caller:
            caller.settimeout(30 * PATIENCE)
            caller.connect((server.ip(family), listening.getsockname()[1]))
            told.insert(0, agreed(caller))
            writer = threading.Thread(target=lambda: (caller.sendall(sent), caller.shutdown(socket.SHUT_WR)))
            writer.start()
            come = b"".join(iter(lambda: caller.recv(65536), b""))
            writer.join()
    finally:
        thread.join()
    assert hashlib.sha256(come).digest() == hashlib.sha256(sent).digest()
    return told


@pytest.mark.kernel(mode="native")
@pytest.mark.parametrize("timestamps", (1, 2))
def test_connections_carry_data_and_are_as_without(netctl, pair, mode, family, timestamps):
    """With tcp_timestamps=2 both ends come to the same as without the action; else they do without what a cookie cannot hold."""
    client, server = pair
    server.netns.sysctl("net.ipv4.tcp_timestamps", timestamps)
    filter = filter_on(netctl, client, server, mode)
    with listener(server, family) as listening:
        plain = talk(client, server, family, listening)
        assert all(end["options"] == TIMESTAMPS | SACK | SCALING for end in plain), plain
        server.netns.sysctl("net.ipv4.tcp_syncookies", 2)
        told = filter.netctl(*filter._words("rule add"), f"proto tcp dport {PORT} syncookie", netns=filter.netns).stderr
        assert ("tcp_timestamps" in told) == (timestamps == 1)
        assert ("--mode generic" in told) == (mode == "native")
        through = [talk(client, server, family, listening) for _ in range(3)]
    status = filter.status()
    answered = status["syncookie"].pop("answered")
    assert status["syncookie"] == {"refused": 0, "failed": 0, "dropped": 0}
    assert answered >= cookies_received(server.netns) == 3
    assert status["verdicts"]["syncookie"] > answered  # all of the rule's packets, most of which passed
    assert f"{answered} SYNs answered with a cookie" in filter.netctl(*filter._words("status"), netns=filter.netns).stdout
    for ends in through:
        if timestamps == 2:
            assert ends == plain
        else:
            assert all(end["options"] == end["own"] == end["theirs"] == 0 for end in ends), ends
            # Timestamps are off: 12 bytes more for data.
            assert [end["sends"] for end in ends] == [end["sends"] + 12 for end in plain]


OFFERS = {
    "nothing": [],
    "mss": [("MSS", 1460)],
    "small mss": [("MSS", 600)],
    "linux": [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (77, 0)), ("NOP", None), ("WScale", 7)],
    "no timestamps": [("MSS", 1460), ("NOP", None), ("WScale", 7), ("SAckOK", b"")],
    "no sack": [("MSS", 1400), ("NOP", None), ("NOP", None), ("Timestamp", (0xFFFFFFFF, 0)), ("WScale", 14)],
    "no scaling": [("SAckOK", b""), ("Timestamp", (1, 0))],
    "scaling beyond what there is": [("Timestamp", (1, 0)), ("WScale", 15), ("MSS", 1460)],
    "scaling by nothing": [("Timestamp", (1, 0)), ("WScale", 0)],
    "others in between": [(254, b"\xf9\x89abcd"), ("NOP", None), ("SAckOK", b""), ("Timestamp", (9, 9)), (200, b"")],
    "the end": [("EOL", None), ("Timestamp", (5, 0)), ("SAckOK", b"")],
    "a size of one": [("NOP", None), (3, b""), ("Timestamp", (5, 0))],
}


def unlike(frame):
    """The frame of an answer, without what two of them cannot have in common: the cookie, which is of a minute, the
    time in it but for the options, checksums, and IPv6's flow label."""
    frame = Ether(raw(frame))
    if IPv6 in frame:
        frame[IPv6].fl = 0
    else:
        del frame[IP].chksum
    segment = frame[TCP]
    segment.seq = 0
    del segment.chksum
    segment.options = [
        (name, (value[0] & 0x3F, value[1])) if name == "Timestamp" else (name, value) for name, value in segment.options
    ]
    return raw(Ether(raw(frame)))


def has_true_checksums(frame):
    again = Ether(raw(frame))
    if IP in again:
        del again[IP].chksum
    del again[TCP].chksum
    return raw(again) == raw(frame)


def sends_no_resets(netns):
    """Its kernel knows nothing of the connections that are begun by hand in it."""
    netns.run("nft", "add table inet quiet; add chain inet quiet out { type filter hook output priority 0; }; "
              "add rule inet quiet out tcp flags rst drop")  # fmt: skip


@contextlib.contextmanager
def answers_to(client, server, family):
    """For sending SYNs by hand: gives a function that sends one and returns the answer."""
    ip = (IP if family == 4 else IPv6)(src=client.ip(family), dst=server.ip(family))
    with Wire(client, client) as wire:

        def answer(sport, **fields):
            fields = {"flags": "S", "seq": 0xFFFFFFFF, **fields}
            wire.send(Ether(src=client.mac, dst=server.mac) / ip / TCP(sport=sport, dport=PORT, **fields))
            come = []

            def there():
                come.extend(Ether(frame) for frame in wire._captures[client].frames())
                return [frame for frame in come if TCP in frame and frame[TCP].dport == sport]

            return until(there, what="an answer")[0]

        yield answer


@pytest.mark.kernel(mode="native")
@pytest.mark.parametrize("timestamps", (0, 1, 2))
def test_answers_are_the_kernels(netctl, link, mode, family, timestamps):
    """The same SYNs are answered by the kernel with a cookie, and then by the action."""
    client, server = link
    sends_no_resets(client.netns)
    server.netns.sysctl("net.ipv4.tcp_syncookies", 2)
    filter = filter_on(netctl, client, server, mode)
    cases = [(name, 20000 + place, options) for place, (name, options) in enumerate(OFFERS.items())]
    with listener(server, family), answers_to(client, server, family) as answer:
        # Without a random offset of its timestamps, which XDP cannot know, the kernel shows the options that are in them.
        server.netns.sysctl("net.ipv4.tcp_timestamps", 2 if timestamps == 2 else 0)
        kernels = {name: answer(sport, options=options) for name, sport, options in cases}
        server.netns.sysctl("net.ipv4.tcp_timestamps", timestamps)
        filter.add(f"proto tcp dport {PORT} syncookie")
        ours = {name: answer(sport, options=options) for name, sport, options in cases}
    assert filter.status()["syncookie"] == {"answered": len(cases), "refused": 0, "failed": 0, "dropped": 0}
    for name, frame in ours.items():
        assert has_true_checksums(frame), name
        assert frame[TCP].ack == 0  # one more than the last number
        kernel = kernels[name]
        # What was padded on the wire stays so.
        size = len(raw(kernel))
        assert unlike(frame)[:size] == unlike(kernel), f"{name}: {frame.show(dump=True)} {kernel.show(dump=True)}"
        assert not any(raw(frame)[size:])


@pytest.mark.parametrize("bounds", ("none", "segment", "buffer"))
def test_what_a_listener_was_told_is_kept(netctl, pair, family, bounds):
    """TCP_MAXSEG is in the answer; where SO_RCVBUF is set, there is no scaling, as the kernel decides on it later."""
    client, server = pair
    for name, value in {"tcp_timestamps": 2, "tcp_syncookies": 2}.items():
        server.netns.sysctl(f"net.ipv4.{name}", value)
    filter = filter_on(netctl, client, server, "generic")
    filter.add(f"proto tcp dport {PORT} syncookie")
    told = {"segment": {(socket.IPPROTO_TCP, TCP_MAXSEG): 1000}, "buffer": {(socket.SOL_SOCKET, socket.SO_RCVBUF): 30000}}
    with listener(server, family, set=told.get(bounds, {})) as listening:
        caller, accepted = talk(client, server, family, listening, 100_000)
    assert cookies_received(server.netns) == 1
    assert bool(caller["options"] & SCALING) == (bounds != "buffer")
    assert (caller["theirs"], caller["own"]) == (accepted["own"], accepted["theirs"])
    whole = 1500 - (40 if family == 4 else 60) - 12
    assert caller["sends"] == (1000 - 12 if bounds == "segment" else whole)


@pytest.mark.kernel(mode="generic")
def test_vlan_tags_stay(netctl, link, mode):
    """One and two tags are on the answer as they were on the SYN; what looks is XDP, before the stack takes them off."""
    client, server = link
    for end in link:
        end.offload(**dict.fromkeys(("txvlan", "tx-vlan-stag-hw-insert"), False))
    server.netns.sysctl("net.ipv4.tcp_syncookies", 2)
    filter = filter_on(netctl, client, server, mode)
    filter.add(f"vlan any dport {PORT} syncookie")
    watch = Filter(netctl, client, "--mode", "native") if mode == "generic" else Filter(netctl, client, attach=False)
    tags = {100: Dot1Q(vlan=100, prio=3), 7: Dot1AD(vlan=7) / Dot1Q(vlan=9)}
    watch.replace(*(f"vlan {tag} sport {PORT} flags syn,ack/syn,ack pass" for tag in tags))
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(Wire(client))
        for family in FAMILIES:
            stack.enter_context(listener(server, family))
            ip = (IP if family == 4 else IPv6)(src=client.ip(family), dst=server.ip(family))
            wire.send(*(Ether(src=client.mac, dst=server.mac) / tag / ip / TCP(dport=PORT, flags="S") for tag in tags.values()))

        def back():
            assert list(watch.packets().values())[:2] == [2, 2]
            return True

        until(back)
    assert filter.status()["syncookie"] == {"answered": 4, "refused": 0, "failed": 0, "dropped": 0}


@pytest.mark.kernel(mode="native")
def test_all_else_passes(netctl, link, mode):
    """Nothing is answered that is not a whole, unsigned SYN to a listener of this host, and everything arrives."""
    client, server = link
    sends_no_resets(client.netns)
    server.netns.sysctl("net.ipv4.tcp_syncookies", 2)
    filter = filter_on(netctl, client, server, mode)
    filter.add("syncookie")
    ether = Ether(src=client.mac, dst=server.mac)
    v4, v6 = ether / IP(src=client.ip4, dst=server.ip4), ether / IPv6(src=client.ip6, dst=server.ip6)
    syn = TCP(dport=PORT, flags="S")
    passing = [
        *(ip / TCP(dport=PORT, flags=flags) for ip in (v4, v6) for flags in ("SA", "SF", "SR", "A", "F", "")),
        *(ip / TCP(dport=PORT + 1, flags="S") for ip in (v4, v6)),
        *(ip / TCP(dport=PORT, flags="S", options=[(19, bytes(16))]) for ip in (v4, v6)),
        *(ip / TCP(dport=PORT, flags="S", options=[(29, bytes(14))]) for ip in (v4, v6)),
        *(ip / TCP(dport=PORT, flags="S", dataofs=offset) for ip in (v4, v6) for offset in (4, 15)),
        Ether(src=client.mac, dst="ff:ff:ff:ff:ff:ff") / v4.payload / syn,
        ether / IP(src=client.ip4, dst="224.0.0.1") / syn,
        ether / IP(src="0.0.0.0", dst=server.ip4) / syn,
        ether / IP(src=client.ip4, dst=server.ip4, flags="MF") / syn,
        ether / IP(src=client.ip4, dst=server.ip4, frag=3, proto=6) / raw(syn),
        ether / IPv6(src=client.ip6, dst=server.ip6) / IPv6ExtHdrFragment(nh=6, m=1) / syn,
        ether / IPv6(src="ff02::1", dst=server.ip6) / syn,
        ether / IP(src=client.ip4, dst=server.ip4, proto=6) / raw(syn)[:14],
    ]
    with contextlib.ExitStack() as stack:
        for family in FAMILIES:
            stack.enter_context(listener(server, family))
        wire = stack.enter_context(Wire(client, client))
        wire.send(*passing)
        filter.await_packets(len(passing))
        assert filter.status()["syncookie"] == {"answered": 0, "refused": 0, "failed": 0, "dropped": 0}
        # Behind extension headers and options a SYN is one.
        wire.send(v6 / IPv6ExtHdrDestOpt() / syn, ether / IP(src=client.ip4, dst=server.ip4, options=b"\1\1\1\1") / syn)
        status = filter.await_packets(len(passing) + 2)
    assert status["syncookie"] == {"answered": 2, "refused": 0, "failed": 0, "dropped": 0}
    assert status["verdicts"]["syncookie"] == status["packets"]
    assert not status["unparsed"]["cut"]


def test_the_kernel_decides_whether_there_are_cookies(netctl, link, family):
    """As it is set by default, it gives them while the queue of a listener is full; and where they are off, never."""
    client, server = link
    filter = filter_on(netctl, client, server, "generic")
    server.netns.sysctl("net.ipv4.tcp_syncookies", 0)
    told = filter.netctl(*filter._words("rule add"), f"proto tcp dport {PORT} syncookie", netns=filter.netns).stderr
    assert "tcp_syncookies is 0" in told
    with listener(server, family, backlog=8) as listening:
        for cookies in (0, 1):
            server.netns.sysctl("net.ipv4.tcp_syncookies", cookies)
            assert talk(client, server, family, listening)
            status = filter.status()["syncookie"]
            assert (status["answered"], status["failed"]) == (0, 0) and status["refused"] > cookies
        assert cookies_received(server.netns) == 0
        # Half-open connections from where nobody answers.
        ip = (IP if family == 4 else IPv6)(src="198.18.0.1" if family == 4 else "fd00::1", dst=server.ip(family))
        server.netns.ip("route", "add", ip.src, "via", client.ip(family))
        with Wire(client) as wire:
            wire.send(*(Ether(src=client.mac, dst=server.mac) / ip / TCP(sport=port, dport=PORT, flags="S") for port in range(2000, 2100)))
            until(lambda: filter.status()["syncookie"]["answered"], what="a full queue")
        assert talk(client, server, family, listening)
    assert cookies_received(server.netns) == 1


SYNS = f"proto tcp dport {PORT} flags syn/syn,ack pass limit 1/day burst 1"


@pytest.mark.kernel(mode="native")
def test_over_a_limit_connections_are_made_by_cookies(netctl, pair, mode):
    """The first SYN of each is within the limit and passes; those of later connections are answered."""
    client, server = pair
    server.netns.sysctl("net.ipv4.tcp_timestamps", 2)
    server.netns.sysctl("net.ipv4.tcp_syncookies", 2)
    filter = filter_on(netctl, client, server, mode)
    told = filter.netctl(*filter._words("rule add"), f"{SYNS} per src over syncookie", netns=filter.netns).stderr
    assert "tcp_syncookies" not in told and ("--mode generic" in told) == (mode == "native")
    for number, family in enumerate(FAMILIES, 1):
        with listener(server, family) as listening:
            within = talk(client, server, family, listening)
            answered = filter.status()["syncookie"]["answered"]
            over = [talk(client, server, family, listening) for _ in range(2)]
        assert over == [within, within]
        status = filter.status()
        assert status["syncookie"]["answered"] >= answered + 2
        assert (status["rules"][0]["packets"], status["verdicts"]["pass"] > number) == (number, True)
    counted = status["syncookie"]
    assert (counted["refused"], counted["failed"], counted["dropped"]) == (0, 0, 0)
    assert counted["answered"] == status["verdicts"]["syncookie"] == status["over_limit"] == status["rules"][0]["over_packets"]
    assert cookies_received(server.netns) == 6
    text = filter.netctl(*filter._words("status"), netns=filter.netns).stdout
    assert f"{counted['answered']} over a rule's limit (dropped, or answered with a cookie)" in text


def test_over_a_limit_without_a_cookie_is_dropped(netctl, link):
    """No listener, or cookies that are off: then the limit holds, as any."""
    client, server = link
    sends_no_resets(client.netns)
    filter = Filter(netctl, server, "--mode", "generic")
    told = {}
    for cookies in (0, 1, 2):
        server.netns.sysctl("net.ipv4.tcp_syncookies", cookies)
        told[cookies] = filter.netctl(*filter._words("rule replace"), "-", input=f"{SYNS} over syncookie", netns=filter.netns).stderr
        filter.replace("pass")
    assert "is 0: the kernel gives no cookies, and 'over syncookie' drops" in told[0]
    assert "'over syncookie' drops SYNs while the queue of their listener has room" in told[1]
    assert "tcp_syncookies" not in told[2]
    filter.replace(SYNS + " over syncookie")

    def syn(sport, flags="S"):
        return Ether(src=client.mac, dst=server.mac) / IP(src=client.ip4, dst=server.ip4) / TCP(sport=sport, dport=PORT, flags=flags)

    with Wire(client) as wire:
        # Within the limit, over it without a listener, and what is no SYN by the rule and passes.
        wire.send(syn(2001), syn(2002), syn(2003, "A"))
        status = filter.await_packets(3)
        assert status["syncookie"] == {"answered": 0, "refused": 0, "failed": 0, "dropped": 1}
        server.netns.sysctl("net.ipv4.tcp_syncookies", 0)
        with listener(server, 4):
            wire.send(syn(2004))
            status = filter.await_packets(4)
            assert status["syncookie"] == {"answered": 0, "refused": 1, "failed": 0, "dropped": 2}
            server.netns.sysctl("net.ipv4.tcp_syncookies", 2)
            # A SYN with FIN is none that is answered.
            wire.send(syn(2005), syn(2006, "SF"))
            status = filter.await_packets(6)
    assert status["syncookie"] == {"answered": 1, "refused": 1, "failed": 0, "dropped": 3}
    assert status["over_limit"] == status["verdicts"]["syncookie"] == 4
    assert "3 over a rule's limit that no cookie answers (dropped)" in filter.netctl(*filter._words("status"), netns=filter.netns).stdout


def test_a_limit_of_networks_bans_and_answers(netctl, link):
    """Both `over` of one limit, among so many rules that the program stays in force for others."""
    client, server = link
    sends_no_resets(client.netns)
    server.netns.sysctl("net.ipv4.tcp_syncookies", 2)
    netctl("set", "create", "banned", "--type", "cidr")
    filter = Filter(netctl, server, "--mode", "generic")
    filter.replace(*(f"src 10.{i // 256}.{i % 256}.1 dport {i} drop" for i in range(1, 1200)))
    rule = f"{SYNS} per src/24/64 over add @banned ttl 1h over syncookie"
    sources = ("192.0.2.1", "192.0.2.77", "198.51.100.7")
    with listener(server, 4), Wire(client) as wire:
        for number, added in enumerate((f"{SYNS} per src/24/64 over syncookie", rule), 1):
            filter("rule insert", added)
            wire.send(*(Ether(src=client.mac, dst=server.mac) / IP(src=source, dst=server.ip4) / TCP(dport=PORT, flags="S") for source in sources))
            status = filter.await_packets(len(sources) * number)
            assert status["syncookie"] == {"answered": number, "refused": 0, "failed": 0, "dropped": 0}
    assert [entry["element"] for entry in netctl.json("set", "list", "banned")] == ["192.0.2.0/24"]
    assert filter.rules()[0].endswith("per src/24/64 over add @banned ttl 1h over syncookie")
    assert "over syncookie" in netctl("export").stdout


def test_syncookie_is_of_xdp(netctl, pair):
    client, server = pair
    filter = Classifier(netctl, server, "ingress")
    assert "tc has no action 'syncookie'; only xdp has it" in filter.fails("rule add", "dport 7 syncookie", status=2)
    filter = Filter(netctl, client)
    filter.add("proto tcp dport 7 syncookie")
    answer = filter("rule test", "proto tcp dport 7 flags syn src 192.0.2.9")
    assert (answer["verdict"], answer["rule_id"]) == ("syncookie", 1)
    filter("rule test", "proto tcp dport 7 src 192.0.2.9", "--expect", "syncookie")
    assert filter.status()["verdicts"]["syncookie"] == 0
