# SPDX-License-Identifier: GPL-2.0-only
"""`xdp|tc capture`: copies of what a rule would match, while nothing that is in force changes."""

import json
import re
import signal
import struct
import subprocess
from pathlib import Path

import pcapng
import pytest
from lab import bpftool, until
from traffic import IP, UDP, Classifier, Dot1Q, Ether, Filter, IPv6, Raw, Wire, raw

IF_NAME, IF_DESCRIPTION = 2, 3
FLAGS = 2
ACCEPTED, LOST = 6, 7
# What the filter's state is that a capture must leave alone.
IN_FORCE = ("program_id", "generation", "packets", "bytes", "verdicts", "default_packets", "unparsed", "log", "rules")


def kernel_can(netctl, interface, why, *place):
    """Else captures are refused for that reason, with 3, and nothing is left."""
    done = netctl(*place, "--duration", "1ms", netns=interface.netns, check=False)
    if done.returncode == 3:
        assert why in done.stderr
        pytest.skip(f"captures take {why}")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def chain(netctl, link):
    """The kernel has tcx."""
    kernel_can(netctl, link[1], "tcx", "tc", "capture", link[1].name, "ingress")


@pytest.fixture
def watched(netctl, link):
    """An XDP filter, and a kernel that lets programs look on at it."""
    filter = Filter(netctl, link[1], "--mode", "generic")
    kernel_can(netctl, link[1], "fexit", "xdp", "capture", link[1].name)
    return filter


def udp(client, server, dport):
    return Ether(src=client.mac, dst=server.mac) / IP(src=client.ip4, dst=server.ip4) / UDP(sport=4000, dport=dport)


class Capturing:
    """A capture into a pcapng file, from the moment at which it sees packets. Without a direction, of XDP."""

    def __init__(self, netctl, interface, direction, *words, path, lab):
        self.path = path
        place = ("tc", "capture", interface.name, direction) if direction else ("xdp", "capture", interface.name)
        self.process = netctl.start(lab, *place, "--write", path, *words, netns=interface.netns, json=False)
        until(lambda: path.exists() and len(self.blocks()) == 2, what=f"the head of {path}")

    def blocks(self):
        return pcapng.blocks(self.path.read_bytes())

    def frames(self):
        return [packet.packet for packet in pcapng.packets(self.path.read_bytes())]

    def await_frames(self, number):
        until(lambda: len(self.frames()) >= number, what=f"{number} packets in {self.path}")

    def end(self):
        self.process.send(signal.SIGINT)
        assert self.process.wait() == 0, self.process
        return self.blocks()


@pytest.mark.usefixtures("chain")
@pytest.mark.kernel
@pytest.mark.parametrize("direction", ("ingress", "egress"))
def test_a_capture_is_of_what_the_rule_matches(netctl, link, lab, tmp_path, direction):
    client, server = link
    end = server if direction == "ingress" else client
    filter = Classifier(netctl, end, direction)
    filter.replace("proto udp dport 1 drop log", "proto udp dport 2 pass")
    before = filter.status()
    capturing = Capturing(netctl, end, direction, "proto", "udp", "dport", "{1,3}", path=tmp_path / "some.pcapng", lab=lab)
    everything = Capturing(netctl, end, direction, "proto udp", path=tmp_path / "all.pcapng", lab=lab)
    after = filter.status()
    assert {key: after[key] for key in IN_FORCE} == {key: before[key] for key in IN_FORCE}

    frames = [raw(udp(client, server, port) / Raw(bytes(size))) for port, size in ((1, 5), (2, 5), (3, 900), (1, 0))]
    with Wire(client) as wire:
        for frame in frames:
            try:
                wire.send(frame)
            except OSError:
                assert direction == "egress"  # the sender is told of what its own egress drops
    everything.await_frames(4)
    capturing.await_frames(3)
    assert everything.frames() == frames
    section, interface, *packets, statistics = capturing.end()
    assert [packet.packet for packet in packets] == [frames[0], frames[2], frames[3]]
    assert section.comment == f"captured at tc {direction} {end.name}: proto udp dport {{1, 3}}"
    assert (interface.options[IF_NAME].decode(), interface.options[IF_DESCRIPTION].decode()) == (end.name, f"tc {direction}")
    assert {packet.number(FLAGS) for packet in packets} == {1 if direction == "ingress" else 2}
    assert (statistics.number(ACCEPTED), statistics.number(LOST)) == (3, 0)
    everything.end()
    # The filter has done what it would have, and nothing else.
    status = filter.await_packets(4)
    assert [rule["packets"] for rule in status["rules"]] == [2, 1]
    assert (status["generation"], status["program_id"]) == (before["generation"], before["program_id"])
    assert [program["own"] for program in status["tcx"]] == [True]
    # What was captured is what the rules judge.
    again = netctl("--json", *filter._words("simulate"), tmp_path / "all.pcapng", netns=filter.netns).stdout.splitlines()
    assert [json.loads(line)["verdict"] for line in again] == ["drop", "pass", "next", "drop"]


@pytest.mark.usefixtures("chain")
@pytest.mark.kernel
def test_a_capture_asks_the_classifier(netctl, link, lab, tmp_path):
    """Many rules at once, by sets, tags and families; each gets what it describes, where no classifier is attached."""
    client, server = link
    netctl("set", "create", "watched", "--type", "cidr")
    head = Ether(src=client.mac, dst=server.mac)
    packets = [
        head / IP(src="192.0.2.1", dst=server.ip4) / UDP(sport=4000, dport=1),
        head / IP(src="198.51.100.7", dst=server.ip4) / UDP(sport=4000, dport=9),
        head / Dot1Q(vlan=7) / IP(src="192.0.2.1", dst=server.ip4) / UDP(sport=4000, dport=9),
        head / IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=4000, dport=9),
        head / IP(src="192.0.2.1", dst=server.ip4, flags="MF") / UDP(sport=4000, dport=9),
        head / IP(src="192.0.2.1", dst=server.ip4, len=9999) / UDP(sport=4000, dport=9),  # contradicts itself
    ]
    rules = {
        "src 192.0.2.0/24": (0, 2, 4),
        "src @watched": (1, 3),
        "vlan 7": (2,),
        "src not 192.0.2.1 dport 9": (1,),
        "ether-type ipv6": (3,),
        "frag any": (4,),
        "dport 1-8 pass log": (0,),
        "": (0, 1, 2, 3, 4),
    }
    captures = {rule: Capturing(netctl, server, "ingress", "proto", "udp", *([rule] if rule else ()),
                                path=tmp_path / f"{number}.pcapng", lab=lab)
                for number, rule in enumerate(rules)}  # fmt: skip
    netctl("set", "add", "watched", "198.51.100.0/24", "2001:db8::/64")  # it is the set itself that is asked
    frames = [raw(packet / Raw(b"%d" % number)) for number, packet in enumerate(packets)]
    with Wire(client) as wire:
        wire.send(*frames)
    for rule, capturing in captures.items():
        capturing.await_frames(len(rules[rule]))
    for rule, capturing in captures.items():
        *_, statistics = capturing.end()
        assert capturing.frames() == [frames[number] for number in rules[rule]], rule
        assert statistics.number(LOST) == 0
        assert "1 of these cannot be parsed" in capturing.process.stderr, rule


@pytest.mark.usefixtures("chain")
@pytest.mark.kernel
def test_nothing_of_a_killed_capture_stays(netctl, link, lab, tmp_path):
    _, server = link
    filter = Classifier(netctl, server, "ingress")
    netctl("set", "create", "kept", "--type", "host")
    before = sorted(Path(netctl.root).rglob("*"))
    capturing = Capturing(netctl, server, "ingress", "src", "@kept", path=tmp_path / "killed.pcapng", lab=lab)
    names = [program["name"] for program in filter.status()["tcx"]]
    assert names == ["tc_capture", "tc_filter"], "it is in front"
    assert sorted(Path(netctl.root).rglob("*")) == before
    capturing.process.send(signal.SIGKILL)
    capturing.process.wait()
    until(lambda: [program["name"] for program in filter.status()["tcx"]] == ["tc_filter"], what="the end of the capture")
    assert len(capturing.blocks()) == 2  # and the file is whole as far as it goes


@pytest.mark.usefixtures("chain")
def test_lines_and_how_many_of_them(netctl, link, lab):
    client, server = link
    words = ("tc", "capture", server.name, "ingress", "--count", "2", "proto", "udp", "dport", "9")
    process = netctl.start(lab, *words, netns=server.netns)
    process.expect("^netctl: capturing at tc ingress")
    with Wire(client) as wire:
        wire.send(*[udp(client, server, port) for port in (9, 8, 9, 9)])
    assert process.wait() == 0
    first, second = process.json_lines()
    assert first["interface"] == server.name and set(first) == {"time", "interface", "verdict", "packet"}
    assert first["packet"] == second["packet"] and first["verdict"] is None
    assert (first["packet"]["dport"], first["packet"]["src"]) == (9, client.ip4)
    assert "2 packets captured, 0 lost" in process.stderr
    netctl("tc", "capture", server.name, "ingress", "--duration", "5ms", netns=server.netns)


@pytest.mark.usefixtures("chain")
def test_a_capture_for_wireshark(netctl, link, tmp_path):
    client, server = link
    argv = netctl.argv("tc", "capture", server.name, "ingress", "--write", "-", "--snaplen", "20", "--count", "3",
                       "proto", "udp", netns=server.netns)  # fmt: skip
    out = tmp_path / "out"
    with out.open("wb") as file, subprocess.Popen(argv, stdout=file) as process:
        until(lambda: len(pcapng.blocks(out.read_bytes())) == 2, what="the head")
        with Wire(client) as wire:
            wire.send(*[udp(client, server, 9)] * 3)
        assert process.wait(60) == 0
    _, interface, *packets, _ = pcapng.blocks(out.read_bytes())
    assert struct.unpack("<HHI", interface.fixed) == (1, 0, 20)
    assert [(len(packet.packet), packet.wire_length) for packet in packets] == [(20, len(udp(client, server, 9)))] * 3


@pytest.mark.usefixtures("chain")
def test_what_is_lost_is_counted(netctl, link, lab, tmp_path):
    """A reader that stands still gets what the buffer holds, and knows how many it does not get."""
    client, server = link
    capturing = Capturing(netctl, server, "ingress", "proto", "udp", "dport", "9", path=tmp_path / "lost.pcapng", lab=lab)
    capturing.process.send(signal.SIGSTOP)
    stat = Path(f"/proc/{capturing.process.pid}/stat")
    until(lambda: stat.read_text().rpartition(") ")[2].startswith("T"), what="the reader's standing still")
    sent = 12_000  # records of 2 KiB, in 16 MiB
    frame = raw(udp(client, server, 9) / Raw(bytes(1000)))
    filter = Classifier(netctl, server, "ingress")
    with Wire(client) as wire:
        for _ in range(sent):
            wire.send(frame)
    filter.await_packets(sent)
    capturing.process.send(signal.SIGCONT)
    *_, statistics = capturing.end()
    there = len(capturing.frames())
    assert 7_000 < there < sent
    assert (statistics.number(ACCEPTED), statistics.number(LOST)) == (sent, sent - there)
    assert f"{there} packets captured, {sent - there} lost, of {sent}" in capturing.process.stderr


@pytest.mark.usefixtures("chain")
def test_what_cannot_be_captured(netctl, link, tmp_path):
    _, server = link
    place = ("tc", "capture", server.name)
    for words, told in (
        (("ingress", "dprt", "9"), "dport"),
        (("ingress", "--snaplen", "9"), "--write"),
        (("ingress", "--count", "0"), "count"),
        (("ingress", "--duration", "9"), "duration"),
        (("sideways",), "ingress"),
    ):
        assert told in netctl.fails(*place, *words, netns=server.netns, status=2), words
    assert "'socket' is about packets that arrive" in netctl.fails(*place, "egress", "socket", "none", netns=server.netns)
    assert "no set" in netctl.fails(*place, "ingress", "src", "@nobody", netns=server.netns)
    assert "no/such" in netctl.fails(*place, "ingress", "--write", tmp_path / "no/such", netns=server.netns)
    assert "eth9" in netctl.fails("tc", "capture", "eth9", "ingress", netns=server.netns)
    assert not Filter(netctl, server).status()["packets"]


# ---- xdp ----

VERDICT = 7
XDP_DROP, XDP_PASS, XDP_TX = 1, 2, 3
SEEN = re.compile(r"(\d+) packets captured, (\d+) lost, of (\d+) that came by(?:.*\n.* (\d+) more went by unseen)?")


def answers(packets):
    return [struct.unpack("<bq", packet.options[VERDICT]) for packet in packets]


@pytest.mark.kernel
def test_a_capture_in_xdp_has_the_verdict(netctl, link, lab, tmp_path, watched):
    """Packets are as they came, also such as the filter has made its answer of."""
    client, server = link
    watched.replace("proto udp dport 1 drop log", "proto udp dport 2 reject", "proto udp dport 3 pass")
    before = watched.status()
    root = sorted(Path(netctl.root).rglob("*"))
    capturing = Capturing(netctl, server, None, "proto", "udp", "dport", "1-4", path=tmp_path / "xdp.pcapng", lab=lab)
    after = watched.status()
    assert {key: after[key] for key in ("program_id", "generation", "rules")} == {
        key: before[key] for key in ("program_id", "generation", "rules")}  # fmt: skip
    assert sorted(Path(netctl.root).rglob("*")) == root
    sizes = {1: 5, 2: 40, 3: 900, 4: 0, 9: 0}
    frames = [raw(udp(client, server, port) / Raw(bytes(size))) for port, size in sizes.items()]
    with Wire(client) as wire:
        wire.send(*frames)
    capturing.await_frames(4)
    section, interface, *packets, statistics = capturing.end()
    assert section.comment == f"captured at xdp ingress {server.name}: proto udp dport 1-4"
    assert interface.options[IF_DESCRIPTION] == b"xdp ingress"
    assert [packet.packet for packet in packets] == frames[:4]
    assert answers(packets) == [(2, XDP_DROP), (2, XDP_TX), (2, XDP_PASS), (2, XDP_PASS)]
    assert [packet.comment for packet in packets] == ["drop", "tx", "pass", "pass"]
    assert (statistics.number(ACCEPTED), statistics.number(LOST)) == (4, 0)
    assert [rule["packets"] for rule in watched.status()["rules"]] == [1, 1, 1]


@pytest.mark.kernel
def test_a_capture_in_xdp_follows_commits(netctl, link, lab, tmp_path, watched):
    """Behind a commit another program is in force, at which it looks on from then on; what went by meanwhile is counted."""
    client, server = link
    begun = watched.status()["packets"]
    capturing = Capturing(netctl, server, None, path=tmp_path / "xdp.pcapng", lab=lab)
    packet = raw(udp(client, server, 5))
    with Wire(client) as wire:
        wire.send(packet)
        until(lambda: packet in capturing.frames(), what="a packet before the commit")
        before = capturing.frames().count(packet)
        watched.add("proto udp dport 5 drop")

        def seen_again():
            wire.send(packet)
            return capturing.frames().count(packet) > before

        until(seen_again, what="a packet behind the commit")
        watched.add("proto udp dport 6 drop")
        wire.send(packet)
    capturing.end()
    there = pcapng.packets(capturing.path.read_bytes())
    assert answers(there)[-1] == (2, XDP_DROP)
    captured, lost, looked_at, unseen = (int(number or 0) for number in SEEN.search(capturing.process.stderr).groups())
    assert (captured, lost) == (len(there), 0) and looked_at >= captured
    counted = watched.status()["packets"]
    assert begun <= counted - looked_at - unseen, "more than came"
    assert counted - looked_at - unseen <= begun + 20, "packets that nobody accounts for"


@pytest.mark.kernel
def test_nothing_of_a_killed_capture_in_xdp_stays(netctl, link, lab, tmp_path, watched):
    _, server = link

    def looking_on():
        names = [program.get("name", "") for program in bpftool("prog", "list")]
        return [name for name in names if name.startswith("xdp_capture_")]

    capturing = Capturing(netctl, server, None, "proto", "udp", path=tmp_path / "killed.pcapng", lab=lab)
    assert len(looking_on()) == 2
    capturing.process.send(signal.SIGKILL)
    capturing.process.wait()
    until(lambda: not looking_on(), what="the end of the capture")
    # A filter that is taken away is gone, though somebody looks on at it.
    capturing = Capturing(netctl, server, None, "proto", "udp", path=tmp_path / "detached.pcapng", lab=lab)
    watched("detach")
    assert capturing.process.wait() == 1
    assert "no XDP filter is attached" in capturing.process.stderr
    assert "prog/xdp" not in server.netns.run("ip", "-d", "link", "show", server.name).stdout


def test_what_xdp_cannot_capture(netctl, link):
    _, server = link
    assert "no XDP filter is attached" in netctl.fails("xdp", "capture", server.name, netns=server.netns)
    for key in ("socket", "ct"):
        told = netctl.fails("xdp", "capture", server.name, key, "established", netns=server.netns, status=3)
        assert f"cannot ask for '{key}'" in told
