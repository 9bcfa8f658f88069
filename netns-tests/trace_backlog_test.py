# SPDX-License-Identifier: GPL-2.0-only
"""netctl trace tcp backlog against queues that are filled, one connection at a time."""

import contextlib
import json
import os
import signal
import socket

import pytest
from scapy.layers.inet import TCP

from lab import until
from trace_tcp_test import PORT, Peer, connect


def listeners(netctl, netns, *argv):
    out = netctl("--json", "trace", "tcp", "backlog", *argv, netns=netns).stdout
    *found, end = map(json.loads, out.splitlines())
    assert end["event"] == "end" and end["lost"] == 0 and end["shown"] == len(found)
    return found


@pytest.fixture
def deaf(pair):
    """A socket of this process that listens at the server's end, and never accepts."""
    _, server = pair
    with server.netns.socket() as one:
        one.bind((server.ip4, PORT))
        one.listen(4)
        yield one


@pytest.mark.kernel
def test_connections_that_wait_are_counted(netctl, pair, deaf):
    client, server = pair
    with contextlib.ExitStack() as held:

        def wait(count):
            (one,) = listeners(netctl, server.netns)
            assert one["ready"] == count
            return one

        for number in range(5):
            one = wait(number)
            assert one["limit"] == 4 and one["full_percent"] == number * 20
            connection, _ = connect(client, server.ip4)
            held.enter_context(connection)
            # The last acknowledgment is still on its way when the client has its connection.
            until(lambda number=number: wait(number + 1), 20)
        assert one["local"] == {"address": server.ip4, "port": PORT}
        assert one["process"]["pid"] == os.getpid()
        assert one["half_open"] == 0 and one["drops"] == 0
        # There is no room for a sixth.
        sixth = held.enter_context(client.netns.socket())
        sixth.setblocking(False)
        sixth.connect_ex((server.ip4, PORT))
        until(lambda: wait(5)["drops"] > 0, 20, "a drop")
        assert wait(5)["full_percent"] == 100
    deaf.accept()[0].close()
    (one,) = listeners(netctl, server.netns)
    assert one["ready"] == 4


@pytest.mark.kernel
def test_connections_that_are_half_open_are_counted(netctl, pair, deaf):
    client, server = pair
    with Peer(client, lambda packet: None) as peer:
        for number in range(3):
            peer.send(server, TCP(sport=4000 + number, dport=PORT, flags="S", seq=1))
        until(lambda: listeners(netctl, server.netns)[0]["half_open"] == 3, 20, "three that are half open")
        (one,) = listeners(netctl, server.netns)
    assert (one["ready"], one["full_percent"]) == (0, 60)


@pytest.mark.kernel
def test_selection_order_and_reports(lab, netctl, pair, deaf):
    client, server = pair
    with server.netns.socket(socket.AF_INET6) as other:
        other.bind((server.ip6, PORT + 1))
        other.listen(9)
        connection, _ = connect(client, server.ip4)
        with connection:
            until(lambda: listeners(netctl, server.netns, "--port", PORT)[0]["ready"] == 1, 20)
            # The fuller one comes first.
            assert [one["local"]["port"] for one in listeners(netctl, server.netns)] == [PORT, PORT + 1]
            assert [one["local"]["address"] for one in listeners(netctl, server.netns, "--src", server.ip6)] == [server.ip6]
            assert listeners(netctl, server.netns, "--pid", 1) == []
            assert len(listeners(netctl, server.netns, "--pid", os.getpid())) == 2
            assert listeners(netctl, server.netns, "--container", "any") == []
            text = netctl("trace", "tcp", "backlog", netns=server.netns).stdout.splitlines()
            assert text[0].split() == ["LOCAL", "PROCESS", "READY", "HALF-OPEN", "LIMIT", "FULL", "DROPS"]
            assert text[1].split()[0] == f"{server.ip4}:{PORT}" and text[1].split()[2:] == ["1", "0", "4", "20%", "0"]
    assert len(listeners(netctl, server.netns, "--interval", 1, "--count", 2)) == 2
    endless = netctl.start(lab, "trace", "tcp", "backlog", "--interval", 1, netns=server.netns)
    until(lambda: len(endless.json_lines()) >= 2, 30, "two reports")
    assert endless.stop(signal.SIGINT, timeout=30) == 0


@pytest.mark.parametrize("words, told", [
    (("--count", 2), "--count goes with --interval"),
    (("--duration", 2), "--duration goes with --interval"),
    (("--interval", 0), "--interval"),
])  # fmt: skip
def test_bad_input(netctl, words, told):
    assert told in netctl.fails("trace", "tcp", "backlog", *words, status=2)
