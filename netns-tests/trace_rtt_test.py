# SPDX-License-Identifier: GPL-2.0-only
"""netctl trace tcp rtt against a peer that answers after a time of its own."""

import fcntl
import os
import re
import signal
import struct
import time

import pytest
from scapy.layers.inet import TCP

from lab import until
from trace_tcp_test import PORT, Peer, connect, is_syn, segment

WAITS = {PORT: 0.01, PORT + 1: 0.08}
MESSAGES = 6


def count(lab, netctl, netns, *argv, json=True):
    tracer = netctl.start(lab, "trace", "tcp", "rtt", *argv, netns=netns, json=json)
    tracer.expect("^netctl: counting", timeout=30)
    return tracer


def finish(tracer):
    """Ends it; returns its rows and the last object."""
    assert tracer.stop(signal.SIGINT, timeout=30) == 0, str(tracer)
    *rows, end = tracer.json_lines()
    assert end["event"] == "end" and end["lost"] == end["not_counted"] == 0, str(tracer)
    return rows, end


def answer(packet):
    """Each segment is acknowledged when its port's time is over."""
    tcp = packet[TCP]
    if is_syn(packet):
        time.sleep(WAITS[tcp.dport])
        return [segment(packet, "SA")]
    if length := len(tcp.payload):
        time.sleep(WAITS[tcp.dport])
        return [segment(packet, "A", seq=1001, ack=tcp.seq + length)]
    return None


def talk_to(client, server, port):
    """Messages, each when the one before is acknowledged. Returns the longest time that one took, in microseconds."""
    one, longest = connect(client, server.ip4, port)
    for _ in range(MESSAGES):
        begin = time.monotonic_ns()
        one.sendall(b"x")
        until(lambda: struct.unpack("i", fcntl.ioctl(one, 0x5411, bytes(4)))[0] == 0, 30, "an acknowledgment")  # TIOCOUTQ
        longest = max(longest, (time.monotonic_ns() - begin) / 1000)
    one.close()
    return longest


@pytest.mark.kernel
def test_round_trips_take_what_the_peer_takes(lab, netctl, link):
    client, server = link
    by_port, slowest, all_fields, of_another = (
        count(lab, netctl, client.netns, *words)
        for words in (
            ("--by", "port"), ("--by", "port", "--top", 1), ("--by", "remote,port,cgroup,process", "--pid", os.getpid()),
            ("--pid", 1),
        )  # fmt: skip
    )
    with Peer(server, answer):
        longest = {port: talk_to(client, server, port) for port in WAITS}
    rows, end = finish(by_port)
    assert {row["port"] for row in rows} == set(WAITS)
    assert sum(row["samples"] for row in rows) == end["samples"]
    for row in rows:
        least, most = WAITS[row["port"]] * 1e6, longest[row["port"]]
        assert row["samples"] >= MESSAGES
        # Each value is in a slot, whose ends are known, and an eighth wide at most.
        assert sum(slot["samples"] for slot in row["histogram"]) == row["samples"]
        assert all(slot["below_us"] > least and slot["from_us"] <= most for slot in row["histogram"])
        assert least <= row["p50_us"] <= row["p90_us"] <= row["p99_us"] <= row["max_us"] <= most * 9 / 8
        assert least <= row["mean_us"] <= most
        assert least <= row["least_us"] <= most
        assert row["remote"] is row["cgroup"] is row["process"] is None
    (top,), _ = finish(slowest)
    assert top["port"] == rows[0]["port"] and top["samples"] == rows[0]["samples"]
    told, _ = finish(all_fields)
    assert {(row["remote"], row["port"], row["process"]["pid"], row["samples"]) for row in told} == {
        (server.ip4, row["port"], os.getpid(), row["samples"]) for row in rows
    }
    assert len({row["cgroup"] for row in told}) == 1 and told[0]["cgroup"].startswith("/")
    assert finish(of_another)[0] == []


def test_reports_add_up(lab, netctl, link):
    client, server = link
    each = count(lab, netctl, client.netns, "--interval", 1)
    whole = count(lab, netctl, client.netns)
    with Peer(server, answer):
        talk_to(client, server, PORT)
        until(lambda: each.json_lines(), 30, "a report")
        talk_to(client, server, PORT)
    reports, end = finish(each)
    (row,), told = finish(whole)
    assert len(reports) >= 2
    assert sum(one["samples"] for one in reports) == end["samples"] == told["samples"] == row["samples"]
    added = {}
    for one in reports:
        for slot in one["histogram"]:
            added[slot["from_us"]] = added.get(slot["from_us"], 0) + slot["samples"]
    assert added == {slot["from_us"]: slot["samples"] for slot in row["histogram"]}


def test_a_histogram_for_people(lab, netctl, link):
    client, server = link
    tracer = count(lab, netctl, client.netns, json=False)
    with Peer(server, answer):
        talk_to(client, server, PORT)
    assert tracer.stop(signal.SIGINT, timeout=30) == 0
    head, figures, *bars = tracer.stdout.splitlines()
    assert head.split()[:2] == ["SAMPLES", "P50"]
    samples = int(figures.split()[0])
    assert samples == sum(int(re.search(r" ms +(\d+)  #*$", bar)[1]) for bar in bars)
    assert max(bar.count("#") for bar in bars) == 40
    assert f"{samples} samples, 0 lost" in tracer.stderr


@pytest.mark.parametrize("words, status, told", [
    (("--by", "colour"), 2, "--by: 'colour' is nothing to tell connections by"),
    (("--by", "port,"), 2, "--by: ''"),
    (("--top", 0), 2, "--top"),
    (("--interval", 0), 2, "--interval"),
    (("--count", 3), 2, "--count goes with --interval"),
    (("--pid", 4194303), 1, "there is no process"),
])  # fmt: skip
def test_bad_input(netctl, words, status, told):
    assert told in netctl.fails("trace", "tcp", "rtt", *words, status=status)
    assert not netctl.root.exists()
