# SPDX-License-Identifier: GPL-2.0-only
"""`xdp|tc log --write`: logged packets in files, with what became of them."""

import contextlib
import json
import re
import signal
import struct
import subprocess

import pcapng
import pytest
from lab import IN_VM, until
from scapy.utils import rdpcap
from traffic import IP, UDP, Classifier, Ether, Filter, Raw, Wire, raw

IF_NAME, IF_DESCRIPTION = 2, 3
FLAGS, VERDICT = 2, 7
ACCEPTED, LOST = 6, 7
SERIAL = re.compile(rb"<(\d{8})>")
# By place: the filter, which end of the link has it, the direction's flag, and the answers of pass and drop.
PLACES = {
    "xdp ingress": (Filter, (), 1, 1, (2, 2), (2, 1)),
    "tc ingress": (Classifier, ("ingress",), 1, 1, (1, 0), (1, 2)),
    "tc egress": (Classifier, ("egress",), 0, 2, (1, 0), (1, 2)),
}


def udp(client, server, dport):
    return Ether(src=client.mac, dst=server.mac) / IP(src=client.ip4, dst=server.ip4) / UDP(sport=4000, dport=dport)


@pytest.mark.parametrize("place", PLACES)
def test_a_capture_has_rule_and_verdict(netctl, link, tmp_path, place):
    kind, direction, end, flag, passing, dropping = PLACES[place]
    client, server = link
    filter = kind(netctl, link[end], *direction)
    filter.replace('proto udp dport 1 drop log comment "of Zoë"', "proto udp dport 2 pass log")
    path = tmp_path / "log.pcapng"
    reader = netctl.start(link[0].netns.lab, *filter._words("log"), "--write", path, netns=filter.netns, json=False)
    until(lambda: path.exists() and len(pcapng.blocks(path.read_bytes())) == 2, what="the head of the capture")
    assert "being read already" in filter.fails("log", "--write", tmp_path / "other.pcapng")
    assert not (tmp_path / "other.pcapng").exists()

    def has(packets):
        return lambda: len(pcapng.packets(path.read_bytes())) == packets

    frames = [raw(udp(client, server, port) / Raw(bytes(size))) for port, size in ((1, 5), (2, 5), (1, 1000), (3, 5))]
    with Wire(client, server) as wire:

        def send(frame):
            with contextlib.suppress(OSError):  # the sender is told of what its own egress drops
                wire.send(frame)

        for frame in frames[:3]:
            send(frame)
        until(has(3), what="three packets in the capture")
        added = filter.add("proto udp dport 3 drop log")  # a rule that was not there when the capture began
        send(frames[3])
        until(has(4), what="the fourth")
    reader.send(signal.SIGINT)
    assert reader.wait() == 0

    section, interface, *packets, statistics = pcapng.blocks(path.read_bytes())
    assert section.comment.startswith(f"rules of {place} {filter.name}:\n1: ")
    assert interface.options[IF_NAME].decode() == filter.name and interface.options[IF_DESCRIPTION].decode() == place
    assert struct.unpack("<HHI", interface.fixed) == (1, 0, 128)
    assert [packet.packet for packet in packets] == [frame[:128] for frame in frames]
    assert [packet.wire_length for packet in packets] == [len(frame) for frame in frames]
    drop = 'drop by rule 1: proto udp dport 1 drop log comment "of Zoë"'
    assert [packet.comment for packet in packets] == [
        drop, "pass by rule 2: proto udp dport 2 pass log", drop,
        f"drop by rule {added}: proto udp dport 3 drop log"]  # fmt: skip
    assert {packet.number(FLAGS) for packet in packets} == {flag}
    answers = [struct.unpack("<bq", packet.options[VERDICT]) for packet in packets]
    assert answers == [dropping, passing, dropping, dropping]
    assert (statistics.kind, statistics.number(ACCEPTED), statistics.number(LOST)) == (pcapng.STATISTICS, 4, 0)
    # Others read it, and the rules judge it as they did the traffic.
    assert len(rdpcap(str(path))) == 4
    again = netctl("--json", *filter._words("simulate"), path, netns=filter.netns).stdout.splitlines()
    assert [json.loads(line)["verdict"] for line in again] == ["drop", "pass", "drop", "drop"]


def test_a_capture_to_standard_output(netctl, link, tmp_path):
    client, server = link
    filter = Filter(netctl, server)
    filter.add("proto udp pass log")
    with Wire(client, server) as wire:
        wire.deliver([udp(client, server, 1)] * 3, [True] * 3)
    filter.await_packets(3)
    argv = netctl.argv(*filter._words("log"), "--write", "-", "--count", "3", "--snaplen", "20", netns=filter.netns)
    out = tmp_path / "out"
    with out.open("wb") as file:
        subprocess.run(argv, stdout=file, check=True, timeout=60)
    packets = pcapng.packets(out.read_bytes())
    assert [len(packet.packet) for packet in packets] == [20] * 3


def test_what_a_capture_lacks_is_counted(netctl, link, tmp_path):
    """The log's rate leaves packets out; files that are full go on in others. Together all are accounted for."""
    client, server = link
    filter = Filter(netctl, server, "--log-rate", "5")
    filter.add("proto udp drop log")
    path = tmp_path / "log.pcapng"
    reader = netctl.start(link[0].netns.lab, *filter._words("log"), "--write", path, netns=filter.netns, json=False)
    until(lambda: path.exists() and path.stat().st_size > 0, what="the head of the capture")
    with Wire(client, server) as wire:
        wire.send(*[udp(client, server, 9)] * 50)
    status = filter.await_packets(50)
    until(lambda: len(pcapng.packets(path.read_bytes())) == filter.status()["log"]["written"], what="all that was logged")
    reader.send(signal.SIGINT)
    assert reader.wait() == 0
    *_, statistics = pcapng.blocks(path.read_bytes())
    there = len(pcapng.packets(path.read_bytes()))
    assert 5 <= there == status["log"]["written"]
    assert (statistics.number(ACCEPTED), statistics.number(LOST)) == (50, 50 - there)
    assert f"{50 - there} left out" in statistics.comment


@pytest.mark.parametrize("ending", ("pcapng", "pcap"))
def test_full_files_go_on_in_others(netctl, link, tmp_path, ending):
    if IN_VM:
        pytest.skip("nothing of this is the kernel's")
    client, server = link
    filter = Filter(netctl, server, "--log-rate", "1000000")
    filter.add("proto udp drop log")
    path = tmp_path / f"log.{ending}"
    reader = netctl.start(link[0].netns.lab, *filter._words("log"), "--write", path, "--size", "1", "--files", "3",
                          netns=filter.netns, json=False)  # fmt: skip
    until(path.exists, what="the capture")
    third = tmp_path / f"log.{ending}.2"
    sent = 0
    with Wire(client, server) as wire:

        def go_on():
            nonlocal sent
            wire.send(*[udp(client, server, 9) / Raw(b"<%08d>".ljust(300, b" ") % (sent + i)) for i in range(1000)])
            sent += 1000
            return third.exists()

        until(go_on, what="the third file")
    status = filter.await_packets(sent)
    reader.send(signal.SIGINT)
    assert reader.wait() == 0
    assert sorted(tmp_path.glob("log.*")) == [path, tmp_path / f"log.{ending}.1", third]
    serials, accounted = [], 0
    for file in (third, tmp_path / f"log.{ending}.1", path):
        if ending == "pcap":
            serials += [int(SERIAL.search(raw(packet))[1]) for packet in rdpcap(str(file))]
            continue
        data = file.read_bytes()
        serials += [int(SERIAL.search(packet.packet)[1]) for packet in pcapng.packets(data)]
        *_, statistics = pcapng.blocks(data)
        accounted += statistics.number(ACCEPTED)
    assert serials == sorted(set(serials))
    # The signal may have come before the last packets were read.
    assert len(serials) <= status["log"]["written"]
    assert accounted in (0, len(serials) + status["log"]["lost"])


def test_a_capture_has_the_interface_as_it_is_shown(netctl, link, tmp_path):
    """pcapng's text is UTF-8, which a name of an interface need not be, and terminals show it."""
    server = link[1]
    server.netns.ip("link", "set", "dev", server.name, "name", "e\x1b[7m")
    filter = Filter(netctl, server, name="e\x1b[7m")
    path = tmp_path / "log.pcapng"
    reader = netctl.start(link[0].netns.lab, *filter._words("log"), "--write", path, netns=filter.netns, json=False)
    until(lambda: path.exists() and len(pcapng.blocks(path.read_bytes())) == 2, what="the head of the capture")
    section, interface = pcapng.blocks(path.read_bytes())
    assert interface.options[IF_NAME] == rb"e\x1b[7m"
    assert section.comment == r"rules of xdp ingress e\x1b[7m:"
    reader.send(signal.SIGINT)
    assert reader.wait() == 0


def test_bad_options_of_captures(netctl, link, tmp_path):
    filter = Filter(netctl, link[1])
    for words, told in (
        (("--snaplen", "9"), "--write"),
        (("--write", "-", "--size", "1"), "standard output"),
        (("--write", "x", "--files", "3"), "--size"),
        (("--write", "x", "--snaplen", "129"), "128"),
    ):
        assert told in filter.fails("log", *words, status=2), words
    assert "no/such" in filter.fails("log", "--write", tmp_path / "no/such/file.pcapng")
