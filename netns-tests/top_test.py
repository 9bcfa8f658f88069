# SPDX-License-Identifier: GPL-2.0-only
"""netctl top: what hooks count a second, as tables, as JSON, and on a terminal."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios

import pytest
from lab import IN_VM, until
from traffic import IP, UDP, Classifier, Ether, Filter, Raw, Wire, raw

pytestmark = pytest.mark.skipif(IN_VM, reason="nothing of this is the kernel's")


@pytest.fixture
def host(netctl, link):
    """Filters with rules of both hooks, a set; and what sends three packets for each of two rules."""
    client, server = link
    filter = Filter(netctl, server, "--default", "drop")
    netctl("set", "create", "office", "--type", "host")
    netctl("set", "add", "office", "192.0.2.1", "192.0.2.2")
    filter.replace("proto udp dport 1 drop", "proto udp dport 2 pass", "src @office pass")
    Classifier(netctl, server, "ingress").replace("proto udp dport 2 pass")
    with Wire(client, server) as wire:

        def send():
            for port in (1, 2):
                frame = Ether(src=client.mac, dst=server.mac) / IP(src=client.ip4, dst=server.ip4) / UDP(dport=port)
                wire.send(*[raw(frame / Raw(bytes(60)))] * 3)

        yield filter, send


def documents(netctl, filter, send, *words):
    """Tables as JSON, read while packets are sent, until all have been counted within one."""
    top = netctl.start(filter.netns.lab, "top", "--interval", "1", *words, netns=filter.netns)
    until(lambda: top.json_lines(), what="the first table")
    send()

    def counted():
        rows = [row for table in top.json_lines() for row in table["rows"]]
        return any(row["place"] == filter.name and row["count"] == 3 and row["rule_id"] == 1 for row in rows)

    until(counted, what="the packets in a table")
    assert top.stop() == 0
    return top.json_lines()


def test_what_came_a_second_is_told(netctl, host):
    filter, send = host
    tables = documents(netctl, filter, send)
    place = f"{filter.name} ingress"
    first, last = tables[0], tables[-1]
    assert {(row["feature"], row["place"]) for row in first["rows"]} == {
        ("xdp", filter.name), ("tc", place), ("set", "office")}  # fmt: skip
    assert first["unread"] == [] and all(row["count"] == 0 for row in first["rows"] if row["feature"] != "set")

    def row(table, feature, what):
        (one,) = [one for one in table["rows"] if one["feature"] == feature and what in (one["what"], one["rule_text"])]
        return one

    assert row(first, "set", "elements")["count"] == 2
    dropped = row(last, "xdp", "proto udp dport 1 drop")
    assert (dropped["count"], dropped["bytes"], dropped["rule_id"]) == (3, 3 * (14 + 20 + 8 + 60), 1)
    assert row(last, "xdp", "all")["count"] == 6 and row(last, "xdp", "all")["refused"] == 3
    assert row(last, "tc", "proto udp dport 2 pass")["count"] == 3
    # Rates add up to what was counted: nothing is told twice, and nothing is left out.
    told = sum(one["per_second"] * table["seconds"] for table in tables for one in table["rows"]
               if one["rule_text"] == "proto udp dport 1 drop")  # fmt: skip
    assert abs(told - 3) < 0.01


def test_tables_are_sorted_and_filtered(netctl, host):
    filter, send = host
    send()
    filter.await_packets(6)

    def top(*words):
        done = netctl("--json", "top", "--count", "1", "--interval", "1", *words, netns=filter.netns)
        return json.loads(done.stdout)["rows"]

    totals = [row["count"] for row in top("--sort", "total")]
    assert totals == sorted(totals, reverse=True) and totals[0] == 6
    assert {row["rule_text"] for row in top("--filter", "DPORT 1")} == {"proto udp dport 1 drop"}
    text = netctl("top", "--count", "2", "--interval", "1", "--filter", "office", netns=filter.netns).stdout
    assert len(re.findall(r"^ +\*/s +byte/s +total +drop/s +where +what$", text, re.MULTILINE)) == 2
    assert re.search(r"^ +0 +2 +set office +elements$", text, re.MULTILINE), text
    assert "rate or bytes or total" in netctl.fails("top", "--sort", "colour", status=2)


def test_a_terminal_is_drawn_and_given_back(netctl, host):
    filter, send = host
    outside, inside = pty.openpty()
    fcntl.ioctl(outside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 140, 0, 0))
    modes = termios.tcgetattr(outside)
    argv = netctl.argv("top", "--interval", "1", netns=filter.netns, options=())
    top = subprocess.Popen(["setsid", "--ctty", *map(str, argv)], stdin=inside, stdout=inside,
                           stderr=subprocess.DEVNULL)  # fmt: skip
    os.close(inside)
    os.set_blocking(outside, False)
    drawn = ""

    def last():
        """The lines of the last whole screen."""
        nonlocal drawn
        with contextlib.suppress(OSError):
            drawn += os.read(outside, 1 << 16).decode()
        screens = re.findall(r"\x1b\[H(.*?)\x1b\[J", drawn, re.DOTALL)
        return [re.sub(r"\x1b\[[?\d]*\w|\r", "", screens[-1])] if screens else []

    def shows(pattern, columns=140, rows=24):
        def there():
            for screen in last():
                lines = screen.split("\n")
                return len(lines) <= rows and max(map(len, lines)) <= columns and re.search(pattern, screen, re.MULTILINE)

        return until(there, what=f"{pattern!r} on the screen")

    def press(keys):
        os.write(outside, keys)

    try:
        shows(r"^> .* all$")
        shows(r"^q quit")
        assert termios.tcgetattr(outside) != modes  # a key is a command, no line is awaited
        send()
        shows(rf"^ .* 3 .* xdp {filter.name} .* 1: proto udp dport 1 drop$")
        press(b"/dport 2\n")
        shows(r"filter: dport 2$")
        shows(r"^> .* 2: proto udp dport 2 pass$")
        press(b"\x1b[B")  # down: the line below tells the marked row
        shows(rf"^tc {filter.name} ingress .* 1: proto udp dport 2 pass: 3, \d+ bytes, 0 refused$")
        press(b"/\x1b")
        shows(r"rows$")
        press(b"s")
        shows(r"^ +/s +\*byte/s")
        press(b" ")
        shows(r"paused$")
        press(b" ")
        shows(r"rows$")
        fcntl.ioctl(outside, termios.TIOCSWINSZ, struct.pack("HHHH", 8, 40, 0, 0))
        shows(r"^q quit", 40, 8)
        fcntl.ioctl(outside, termios.TIOCSWINSZ, struct.pack("HHHH", 3, 30, 0, 0))
        shows("too small", 30, 3)
        press(b"q")
        assert top.wait(timeout=60) == 0
        last()
        assert drawn.rstrip().endswith("\x1b[?25h\x1b[?1049l")  # cursor and screen are as before
        assert termios.tcgetattr(outside) == modes
    finally:
        top.kill()
        top.wait()
        os.close(outside)
