# SPDX-License-Identifier: GPL-2.0-only
"""netctl trace tcp: what it shows against what was done, figure by figure.

All tracing here is limited to the namespaces of the test. What is injected comes from a peer made of bare
frames: it answers when and how the test wants, which no kernel's TCP does.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import textwrap
import threading
import time
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import Ether

from lab import until

PYTHON = "/usr/bin/python3"
PORT = 7000


def trace(lab, netctl, netns, what, *argv):
    """Starts an instrument that looks at `netns` only, and waits until it traces."""
    tracer = netctl.start(lab, "trace", "tcp", what, *argv, netns=netns)
    tracer.expect("^netctl: tracing", timeout=30)
    return tracer


def events(tracer):
    return [one for one in tracer.json_lines() if one["event"] != "end"]


def finish(tracer):
    """Ends it as a user does; returns its events and the last object, which counts."""
    assert tracer.stop(signal.SIGINT, timeout=30) == 0, str(tracer)
    lines = tracer.json_lines()
    assert lines[-1]["event"] == "end", str(tracer)
    assert lines[-1]["shown"] == len(lines) - 1
    return lines[:-1], lines[-1]


def wait_for(tracer, count, timeout=20, **members):
    """Waits until so many events with these members are shown, and returns them."""

    def shown():
        found = [one for one in events(tracer) if all(one[name] == value for name, value in members.items())]
        return found if len(found) >= count else None

    return until(shown, timeout, f"{count} events with {members} from {tracer}")


def ports(event):
    return event["local"]["port"], event["remote"]["port"]


SERVER = textwrap.dedent(
    """
    # Does with each connection what its first line says. Says who it is.
    import contextlib, os, socket, struct, sys, threading

    def serve(c):
        f = c.makefile("rb")
        with contextlib.suppress(ConnectionResetError):
            what, takes, gives = f.readline().split() or (b"close", 0, 0)
            f.read(int(takes))
            c.sendall(b"y" * int(gives))
            if what == b"wait":  # for the other side to close
                f.read(1)
            if what == b"reset":
                c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        f.close()
        c.close()

    listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
    print(os.getpid(), flush=True)
    while True:
        threading.Thread(target=serve, args=listener.accept()[:1]).start()
    """
)

CLIENT = textwrap.dedent(
    """
    # host port what takes gives [reset|hold]: asks that server, and closes as told. Says its port, and what TCP
    # counted before it closed.
    import socket, struct, sys
    host, port, what, takes, gives, how = (sys.argv[1:] + [""])[:6]
    c = socket.create_connection((host, int(port)))
    c.sendall(b"%s %s %s\\n" % (what.encode(), takes.encode(), gives.encode()) + b"x" * int(takes))
    got = 0
    while got < int(gives):
        got += len(c.recv(65536))
    if what == "close":
        assert c.recv(1) == b""
    info = c.getsockopt(socket.IPPROTO_TCP, 11, 256)
    print(c.getsockname()[1], struct.unpack_from("I", info, 100)[0], flush=True)
    if how == "hold":
        sys.stdin.read()
    if how == "reset":
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()
    """
)


class Talk:
    """A server in one namespace, and clients in the other, all of them processes of their own."""

    def __init__(self, lab, pair, cgroup=None):
        self.client, self.server = pair
        self.script = lab.directory / "client.py"
        self.script.write_text(CLIENT)
        script = lab.directory / "server.py"
        script.write_text(SERVER)
        process = lab.serve(self.server.netns, PYTHON, script, PORT, port=PORT, cgroup=cgroup)
        self.server_pid = int(process.expect(r"^(\d+)$")[1])

    def start(self, what, takes, gives, *how, family=4, **options):
        return self.client.netns.start(
            PYTHON, self.script, self.server.ip(family), PORT, what, takes, gives, *how, **options
        )

    def ask(self, *words, **options):
        """One connection, to its end; returns the client's pid, port, and how often TCP sent again."""
        process = self.start(*words, **options)
        assert process.wait(60) == 0, str(process)
        port, again = map(int, process.stdout.split())
        return process.pid, port, again


@pytest.fixture
def talk(lab, pair):
    return Talk(lab, pair)


class Peer:
    """A host without a TCP of its own: `answer(segment)` returns what to send, or None, and when it likes to."""

    def __init__(self, end, answer):
        self.end, self.answer = end, answer
        self.seen = []
        end.netns.run("nft", "add table ip quiet; add chain ip quiet in { type filter hook input priority 0; }; "
                      "add rule ip quiet in meta l4proto tcp drop")  # fmt: skip
        with end.netns:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        self.socket.bind((end.name, 0x0800))
        self.socket.settimeout(0.1)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                frame, source = self.socket.recvfrom(65536)
                if source[2] == 4 or not (packet := Ether(frame)).haslayer(TCP):  # 4: what was sent from here
                    continue
                self.seen.append(packet)
                for reply in self.answer(packet) or ():
                    head = Ether(src=packet[Ether].dst, dst=packet[Ether].src)
                    self.socket.send(bytes(head / IP(src=packet[IP].dst, dst=packet[IP].src) / reply))

    def send(self, other, reply):
        """Sends a segment to `other`, at the far end of the link, of its own accord."""
        head = Ether(src=self.end.mac, dst=other.mac) / IP(src=self.end.ip4, dst=other.ip4)
        self.socket.send(bytes(head / reply))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.socket.close()


def segment(packet, flags, **fields):
    own = {"seq": 1000, "ack": packet[TCP].seq + 1, "window": 65000, **fields}
    return TCP(sport=packet[TCP].dport, dport=packet[TCP].sport, flags=flags, **own)


def connect(end, address, port=PORT):
    """Connects from `end`'s namespace; returns the socket, or None, and how long that took in microseconds."""
    one = end.netns.socket()
    one.settimeout(60)
    begin = time.monotonic_ns()
    try:
        one.connect((address, port))
    except OSError:
        one.close()
        one = None
    return one, (time.monotonic_ns() - begin) / 1000


def is_syn(packet):
    return packet[TCP].flags == "S"


# ---- connlat ----


@pytest.mark.kernel
def test_connect_latency_is_what_the_peer_waits(lab, netctl, pair):
    client, server = pair
    waits = [0.0, 0.03, 0.12]

    def answer(packet):
        if is_syn(packet):
            time.sleep(waits[packet[TCP].dport - PORT])
            return [segment(packet, "SA")]
        return None

    tracer = trace(lab, netctl, client.netns, "connlat")
    slow = trace(lab, netctl, client.netns, "connlat", "--min", "100ms")
    with Peer(server, answer):
        for number, wait in enumerate(waits):
            one, took = connect(client, server.ip4, PORT + number)
            own = one.getsockname()[1]
            one.close()
            (event,) = wait_for(tracer, 1, remote={"address": server.ip4, "port": PORT + number})
            assert event["result"] == "established" and event["error"] is None
            assert event["local"] == {"address": client.ip4, "port": own}
            assert wait * 1e6 <= event["latency_us"] <= took
            assert event["process"] == {"pid": os.getpid(), "comm": Path("/proc/self/comm").read_text().strip()}
            assert event["syn_retransmits"] == 0 or event["latency_us"] >= 1e6  # a machine that slept
        wait_for(slow, 1)
    everything, end = finish(tracer)
    assert len(everything) == 3 and end["lost"] == 0
    # The same attempts, less those that were quicker.
    shown, _ = finish(slow)
    assert PORT + 2 in [one["remote"]["port"] for one in shown]
    assert all(one["latency_us"] >= 100_000 for one in shown)


@pytest.mark.kernel
def test_a_syn_that_is_lost_is_told(lab, netctl, pair):
    client, server = pair
    tracer = trace(lab, netctl, client.netns, "connlat")
    syns = []

    def answer(packet):
        if is_syn(packet):
            syns.append(packet)
            return [segment(packet, "SA")] if len(syns) > 1 else None
        return None

    with Peer(server, answer):
        one, took = connect(client, server.ip4)
        one.close()
        (event,) = wait_for(tracer, 1)
    assert 1e6 <= event["latency_us"] <= took
    assert event["syn_retransmits"] >= 1


@pytest.mark.kernel
def test_how_connecting_fails(lab, netctl, pair):
    client, server = pair
    tracer = trace(lab, netctl, client.netns, "connlat")

    def answer(packet):
        if packet[TCP].dport == PORT:
            return [segment(packet, "RA", seq=0)]
        if packet[TCP].dport == PORT + 1:
            return [ICMP(type=3, code=1) / bytes(packet[IP])[:28]]
        return None

    with Peer(server, answer):
        assert connect(client, server.ip4, PORT)[0] is None
        assert connect(client, server.ip4, PORT + 1)[0] is None
        with client.netns.socket() as silent:
            silent.setblocking(False)
            assert silent.connect_ex((server.ip4, PORT + 2)) == 115  # EINPROGRESS
        with client.netns.socket() as timeout:
            timeout.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
            timeout.settimeout(60)
            with pytest.raises(TimeoutError):
                timeout.connect((server.ip4, PORT + 3))
        wait_for(tracer, 4)
    shown, _ = finish(tracer)
    assert {one["remote"]["port"]: (one["result"], one["error"]) for one in shown} == {
        PORT: ("failed", "ECONNREFUSED"), PORT + 1: ("failed", "EHOSTUNREACH"),
        PORT + 2: ("given-up", None), PORT + 3: ("failed", "ETIMEDOUT"),
    }  # fmt: skip


def test_no_port_left_is_a_failure_with_its_name(lab, netctl, talk):
    talk.client.netns.sysctl("net.ipv4.ip_local_port_range", "50000 50000")
    tracer = trace(lab, netctl, talk.client.netns, "connlat")
    first, _ = connect(talk.client, talk.server.ip4)
    second, _ = connect(talk.client, talk.server.ip4)
    assert first and not second
    first.close()
    wait_for(tracer, 2)
    shown, _ = finish(tracer)
    assert [(one["result"], one["error"], one["local"]["port"]) for one in shown] == [
        ("established", None, 50000), ("failed", "EADDRNOTAVAIL", None),
    ]  # fmt: skip


# ---- states ----


@pytest.mark.kernel(family=4)
@pytest.mark.parametrize("family", (4, 6))
def test_states_and_owners(lab, netctl, talk, family):
    """Most of these changes happen in interrupts, in which anybody may run."""
    tracers = [trace(lab, netctl, end.netns, "states") for end in (talk.client, talk.server)]
    pid, port, _ = talk.ask("wait", 10, 10, family=family)
    for tracer in tracers:
        wait_for(tracer, 1, after="CLOSE")
    shown = [finish(tracer)[0] for tracer in tracers]
    paths = [[one["before"] for one in side] + [side[-1]["after"]] for side in shown]
    assert paths == [
        ["CLOSE", "SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "CLOSE"],
        ["SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSE"],
    ]
    assert all(a["after"] == b["before"] for side in shown for a, b in zip(side, side[1:]))
    assert [{one["process"]["pid"] for one in side} for side in shown] == [{pid}, {talk.server_pid}]
    # The kernel chooses the local port behind the first change.
    assert [ports(one) for one in shown[0]] == [(None, PORT)] + 4 * [(port, PORT)]
    assert [ports(one) for one in shown[1]] == 4 * [(PORT, port)]
    for side, own, other in ((shown[0], talk.client, talk.server), (shown[1], talk.server, talk.client)):
        assert {one["local"]["address"] for one in side} == {own.ip(family)}
        assert {one["remote"]["address"] for one in side} == {other.ip(family)}
        assert len({one["cookie"] for one in side}) == 1
        # The time in each state is that between two changes.
        assert all(one["before_us"] > 0 for one in side[1:])
    assert shown[0][0]["before_us"] is None


# ---- life ----


@pytest.mark.kernel
def test_life_counts_every_byte_and_who_ended_it(lab, netctl, talk):
    tracers = [trace(lab, netctl, end.netns, "life") for end in (talk.client, talk.server)]
    cases = [
        # what, takes, gives, how, the client's end, the server's
        ("wait", 1234, 300_000, (), "local-fin", "remote-fin"),
        ("close", 100_000, 77, (), "remote-fin", "local-fin"),
        ("wait", 5, 5, ("reset",), "local-reset", "remote-reset"),
        ("reset", 7, 9, ("hold",), "remote-reset", "local-reset"),
    ]
    expected = [{}, {}]
    for what, takes, gives, how, client_end, server_end in cases:
        process = talk.start(what, takes, gives, *how, stdin=subprocess.PIPE)
        port, _ = map(int, process.expect(r"^(\d+) (\d+)$", 30).groups())
        # Who holds the connection sees the reset, and closes behind it.
        wait_for(tracers[1], 1, remote={"address": talk.client.ip4, "port": port})
        process.popen.stdin.close()
        assert process.wait(30) == 0, str(process)
        asked = takes + len(f"{what} {takes} {gives}\n")
        expected[0][port] = (process.pid, "client", asked, gives, client_end)
        expected[1][port] = (talk.server_pid, "server", gives, asked, server_end)
    for tracer in tracers:
        wait_for(tracer, len(cases))
    for tracer, wanted, place in zip(tracers, expected, (0, 1)):
        shown, end = finish(tracer)
        told = {
            ports(one)[place]: (one["process"]["pid"], one["role"], one["sent_bytes"], one["received_bytes"], one["ended"])
            for one in shown
        }
        assert told == wanted
        assert end["lost"] == 0 and end["shown"] == len(cases)
        for one in shown:
            assert one["rtt_us"] > 0 and one["duration_us"] > 0
            assert one["min_rtt_us"] is None or one["min_rtt_us"] <= one["duration_us"]


@pytest.mark.kernel
def test_life_counts_what_is_sent_again(lab, netctl, talk):
    # Of the large segments, the first is dropped.
    talk.server.netns.run("nft", "add table ip loss; add chain ip loss in { type filter hook input priority 0; }; "
                          f"add rule ip loss in tcp dport {PORT} meta length > 500 limit rate 1/day burst 1 packets drop")  # fmt: skip
    tracer = trace(lab, netctl, talk.client.netns, "life")
    _, _, again = talk.ask("wait", 20_000, 5)
    (event,) = wait_for(tracer, 1)
    assert again >= 1
    # Behind what the client read, it sent a FIN alone, which may have been sent again.
    assert event["retransmitted_segments"] >= again
    assert event["retransmitted_bytes"] > 0
    assert event["sent_bytes"] == 20_000 + len("wait 20000 5\n")


def test_life_ends_when_nothing_comes_any_more(lab, netctl, talk):
    tracer = trace(lab, netctl, talk.client.netns, "life")
    one, _ = connect(talk.client, talk.server.ip4)
    talk.server.netns.run("nft", "add table ip loss; add chain ip loss in { type filter hook input priority 0; }; "
                          "add rule ip loss in meta l4proto tcp drop")  # fmt: skip
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
    one.send(b"x")
    (event,) = wait_for(tracer, 1, timeout=60)
    one.close()
    assert (event["ended"], event["error"], event["role"]) == ("timeout", "ETIMEDOUT", "client")


@pytest.mark.kernel
def test_connections_that_are_older_than_the_tracer(lab, netctl, talk):
    process = talk.start("wait", 1000, 2000, "hold", stdin=subprocess.PIPE)
    port = int(process.expect(r"^(\d+) ", 30)[1])
    tracers = [trace(lab, netctl, end.netns, "life") for end in (talk.client, talk.server)]
    process.popen.stdin.close()
    for tracer in tracers:
        wait_for(tracer, 1)
    (client,), (server,) = (finish(tracer)[0] for tracer in tracers)
    asked = 1000 + len("wait 1000 2000\n")
    assert ports(client) == (port, PORT) and ports(server) == (PORT, port)
    assert (client["process"]["pid"], server["process"]["pid"]) == (process.pid, talk.server_pid)
    assert (client["sent_bytes"], client["received_bytes"]) == (asked, 2000)
    assert (server["sent_bytes"], server["received_bytes"]) == (2000, asked)
    assert client["duration_us"] is None and client["role"] is None
    assert (client["ended"], server["ended"]) == ("local-fin", "remote-fin")


# ---- retrans, reset, drops ----


def test_what_is_sent_again_and_why(lab, netctl, link):
    """A peer without SACK, so there are no probes. It answers late where TCP is to wait long before it takes all for lost."""
    client, server = link
    tracer = trace(lab, netctl, client.netns, "retrans")
    sent = []

    def answer(packet):
        tcp = packet[TCP]
        if is_syn(packet):
            sent.append(("syn", tcp.seq))
            if tcp.dport == PORT:
                time.sleep(0.5)
            elif len(sent) == 1:
                return None
            return [segment(packet, "SA", options=[("MSS", 1000)])]
        length = len(tcp.payload)
        if not length or tcp.flags.F:
            return [segment(packet, "A", seq=1001, ack=tcp.seq + length + 1)] if tcp.flags.F else None
        first = len([one for one in sent if one[0] == "data"]) == 0
        sent.append(("data", tcp.seq))
        begin = sent_from(sent)
        if tcp.dport == PORT:
            # The first of six is lost for this peer, whose acknowledgments are the same then; the first has a window, too.
            again = tcp.seq == begin and not first
            return [segment(packet, "A", seq=1001, ack=begin + 6000 if again else begin)] if again or tcp.seq != begin else None
        # Nothing is acknowledged before it has come twice.
        return None if first else [segment(packet, "A", seq=1001, ack=tcp.seq + length)]

    def sent_from(sent):
        return next(seq for what, seq in sent if what == "data")

    def copies():
        return [(what, seq) for number, (what, seq) in enumerate(sent) if (what, seq) in sent[:number]]

    def send(port, data):
        """Until something of it was sent again; what is told of it is what this peer saw twice, no more and no less."""
        sent.clear()
        one, _ = connect(client, server.ip4, port)
        own = one.getsockname()[1]
        one.sendall(data)
        until(lambda: [what for what, _ in copies() if what == "data"], 60, "data that comes again")
        one.close()
        told = lambda: [event for event in events(tracer) if event["local"]["port"] == own]  # noqa: E731
        until(lambda: [event["sequence"] for event in told()] == [seq for _, seq in copies()], 60, "each copy, once")
        return told()

    shown = []
    with Peer(server, answer):
        # On a machine that sleeps for a second, all is taken for lost before it is acknowledged: that is tried again.
        for _ in range(5):
            shown += send(PORT, b"x" * 6000)
            if shown[-1]["why"] == "fast":
                break
        timeout = send(PORT + 1, b"y" * 10)
    assert "fast" in [event["why"] for event in shown if event["bytes"] == 1000]
    assert [event["why"] for event in timeout][:2] == ["syn", "timeout"]
    assert {event["bytes"] for event in timeout} == {0, 10}
    shown += timeout
    assert {event["process"]["pid"] for event in shown} == {os.getpid()}
    assert {event["state"] for event in shown if event["why"] == "syn"} == {"SYN_SENT"}
    assert {event["state"] for event in shown if event["why"] != "syn"} == {"ESTABLISHED"}


@pytest.mark.kernel
def test_a_syn_and_ack_without_answer_is_its_listeners(lab, netctl, talk):
    tracer = trace(lab, netctl, talk.server.netns, "retrans", "--port", PORT)
    with Peer(talk.client, lambda packet: None) as peer:
        peer.send(talk.server, TCP(sport=5555, dport=PORT, flags="S", seq=7))
        (event, *_) = wait_for(tracer, 1)
    assert (event["why"], event["process"]["pid"]) == ("syn-ack", talk.server_pid)
    assert event["remote"] == {"address": talk.client.ip4, "port": 5555}
    assert event["local"] == {"address": talk.server.ip4, "port": PORT}


@pytest.mark.kernel
def test_resets_of_both_sides(lab, netctl, talk):
    client, server = (trace(lab, netctl, end.netns, "reset") for end in (talk.client, talk.server))
    pid, port, _ = talk.ask("wait", 5, 5, "reset")
    (sent,) = wait_for(client, 1)
    (received,) = wait_for(server, 1)
    assert ports(sent) == (port, PORT) and ports(received) == (PORT, port)
    assert (sent["direction"], sent["process"]["pid"]) == ("sent", pid)
    assert (received["direction"], received["process"]["pid"]) == ("received", talk.server_pid)
    assert (received["state"], received["reason"]) == ("ESTABLISHED", None)
    # Where nobody listens there is no socket, and kernels before 6.10 tell nothing of it, nor why.
    assert connect(talk.client, talk.server.ip4, PORT + 1)[0] is None
    (_, refused) = wait_for(client, 2)
    assert (refused["direction"], refused["state"]) == ("received", "SYN_SENT")
    assert refused["process"]["pid"] == os.getpid()
    if sent["reason"]:
        (_, refusing) = wait_for(server, 2)
        assert refusing["process"] is None and refusing["state"] is None and refusing["cookie"] is None
        assert (refusing["direction"], refusing["reason"]) == ("sent", "no_socket")
        assert ports(refusing) == (PORT + 1, refused["local"]["port"])


@pytest.mark.kernel
def test_drops_are_those_that_were_provoked(lab, netctl, talk):
    talk.server.netns.run("nft", "add table ip wall; add chain ip wall in { type filter hook input priority 0; }; "
                          "add rule ip wall in tcp dport 9 drop")  # fmt: skip
    tracer = trace(lab, netctl, talk.server.netns, "drops")
    with Peer(talk.client, lambda packet: None) as peer:
        for number in range(3):
            peer.send(talk.server, TCP(sport=4000 + number, dport=9, flags="S", seq=5))
        for number in range(4):
            peer.send(talk.server, TCP(sport=5000 + number, dport=PORT + 1, flags="A", seq=6))
        for number in range(5):
            peer.send(talk.server, TCP(sport=6000 + number, dport=PORT, flags="A", seq=7, chksum=1) / b"data")
        wait_for(tracer, 5, reason="tcp_csum")
    shown, _ = finish(tracer)
    told = sorted((one["reason"], one["remote"]["port"], one["local"]["port"], one["sequence"], one["bytes"]) for one in shown)
    assert told == sorted(
        [("netfilter_drop", 4000 + number, 9, 5, 0) for number in range(3)]
        + [("no_socket", 5000 + number, PORT + 1, 6, 0) for number in range(4)]
        + [("tcp_csum", 6000 + number, PORT, 7, 4) for number in range(5)]
    )
    assert all(re.fullmatch(r"\w+\+0x[0-9a-f]+", one["place"]) for one in shown)
    assert {one["local"]["address"] for one in shown} == {talk.server.ip4}


# ---- what all of them have ----


def test_selection(lab, netctl, talk):
    """Two connections, and each selector lets one of them through, or none."""
    group, other = lab.cgroup("traced"), lab.cgroup("other")
    holders = [talk.start("wait", 1, 1, "hold", stdin=subprocess.PIPE, cgroup=one) for one in (group, other)]
    for holder in holders:
        holder.expect(r"^\d+ \d+$", 30)
    client, server = talk.client.ip4, talk.server.ip4
    selections = {
        ("--pid", holders[0].pid): {holders[0].pid},
        ("--comm", "python3"): {holder.pid for holder in holders},
        ("--comm", "python"): set(),
        ("--cgroup", group.path): {holders[0].pid},
        ("--cgroup", group.path.parent): {holder.pid for holder in holders},
        ("--port", f"1-9,{PORT}"): {holder.pid for holder in holders},
        ("--port", PORT + 1): set(),
        ("--src", client): {holder.pid for holder in holders},
        ("--src", server): set(),
        ("--dst", f"2001:db8::/32,{server}/31"): {holder.pid for holder in holders},
        ("--dst", client): set(),
        ("--dst", server, "--pid", holders[1].pid): {holders[1].pid},
        ("--container", "any"): set(),
        (): {holder.pid for holder in holders},
    }
    comm = Path(f"/proc/{holders[0].pid}/comm").read_text().strip()
    assert comm.startswith("python3")
    selections[("--comm", comm)] = selections.pop(("--comm", "python3"))
    tracers = {words: trace(lab, netctl, talk.client.netns, "life", *words) for words in selections}
    for holder in holders:
        holder.popen.stdin.close()
        assert holder.wait(30) == 0
    for words, wanted in selections.items():
        if wanted:
            wait_for(tracers[words], len(wanted))
    told = {words: {one["process"]["pid"] for one in finish(tracer)[0]} for words, tracer in tracers.items()}
    assert told == selections


def test_container_is_shown(lab, netctl, talk):
    name = "0123456789abcdef" * 4
    group = lab.cgroup("with")
    inside = group.path / f"docker-{name}.scope"
    inside.mkdir()
    group.path = inside
    tracer = trace(lab, netctl, talk.client.netns, "connlat", "--container", name[:12])
    talk.ask("wait", 1, 1)
    pid, _, _ = talk.ask("wait", 1, 1, cgroup=group)
    wait_for(tracer, 1)
    (event,), _ = finish(tracer)
    assert event["process"]["pid"] == pid
    assert event["container"] == {"runtime": "docker", "id": name, "name": None, "image": None}
    assert event["cgroup"].endswith(f"/docker-{name}.scope")
    group.path = inside.parent


def test_what_is_lost_is_counted(lab, netctl, talk):
    """A reader that sleeps has a ring of a mebibyte run full; what is not in it is told."""
    sleeper = trace(lab, netctl, talk.client.netns, "states", "--buffer", 1)
    watcher = trace(lab, netctl, talk.client.netns, "states")
    sleeper.send(signal.SIGSTOP)
    count = 1800
    with talk.client.netns:
        for _ in range(count):
            with socket.create_connection((talk.server.ip4, PORT)) as one:
                one.sendall(b"close 0 0\n")
                assert one.recv(1) == b""
    wait_for(watcher, count, after="CLOSE", timeout=60)
    sleeper.send(signal.SIGCONT)
    _, told = finish(sleeper)
    shown, all_of_it = finish(watcher)
    assert all_of_it["lost"] == 0 and all_of_it["records"] == len(shown) == 5 * count
    assert told["lost"] > 0
    assert told["records"] + told["lost"] == 5 * count
    assert told["records"] == told["shown"]


def programs_of(pid):
    """Ids of the BPF programs that a process has open."""
    found = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found |= set(re.findall(r"^prog_id:\s*(\d+)$", entry.read_text(), re.MULTILINE))
    return found


@pytest.mark.kernel
def test_nothing_is_left_when_it_is_killed(lab, netctl, talk):
    tracer = trace(lab, netctl, talk.client.netns, "life")
    programs = programs_of(tracer.pid)
    assert len(programs) >= 3
    tracer.stop(signal.SIGKILL)
    assert not netctl.root.exists()

    def gone():
        listed = json.loads(subprocess.run(["bpftool", "--json", "prog", "list"], capture_output=True, check=True).stdout)
        return not programs & {str(one["id"]) for one in listed}

    until(gone, 30, "programs of a killed tracer to go")


def test_count_duration_and_a_process_that_goes(lab, netctl, talk):
    tracer = trace(lab, netctl, talk.client.netns, "life", "--count", 2)
    for _ in range(3):
        talk.ask("wait", 1, 1)
    assert tracer.wait(30) == 0
    assert [one["event"] for one in tracer.json_lines()] == ["life", "life", "end"]
    done = netctl("trace", "tcp", "life", "--duration", 1, netns=talk.client.netns)
    assert done.stdout.startswith("TIME ") and done.stderr.endswith("0 shown; 0 records, 0 lost\n")
    holder = talk.start("wait", 1, 1, "hold", stdin=subprocess.PIPE)
    holder.expect(r"^\d+ \d+$", 30)
    tracer = trace(lab, netctl, talk.client.netns, "connlat", "--pid", holder.pid)
    holder.popen.stdin.close()
    assert holder.wait(30) == 0
    assert tracer.wait(30) == 0
    assert f"process {holder.pid} is gone" in tracer.stderr


@pytest.mark.parametrize("words, status, told", [
    (("--pid", 4194303), 1, "there is no process 4194303"),
    (("--pid", 0), 2, "--pid"),
    (("--comm", "a" * 16), 2, "no process can have the name"),
    (("--cgroup", "/no/such/group"), 1, "there is no cgroup"),
    (("--port", "0"), 2, "'0' is no port"),
    (("--port", "80,"), 2, "no port"),
    (("--src", "192.0.2.1/24"), 2, "--src: "),
    (("--dst", "shop.example"), 2, "--dst: "),
    (("--dst", ""), 2, "--dst: "),
    (("--min", "1"), 2, "--min '1' is no time"),
    (("--min", "25h"), 2, "--min '25h' is no time"),
    (("--min", "99999999999999999999s"), 2, "is no time"),
    (("--count", 0), 2, "--count"),
    (("--buffer", 3), 2, "a power of two"),
])  # fmt: skip
def test_bad_input(netctl, words, status, told):
    assert told in netctl.fails("trace", "tcp", "connlat", *words, status=status)
    assert not netctl.root.exists()
