# SPDX-License-Identifier: GPL-2.0-only
"""netctl redirect to: rules with several targets, TCP and UDP."""

import json
import socket
import sys
import threading

import pytest

from lab import PATIENCE
from redirect_datagrams_test import Elsewhere

CONNECT = """
import socket, sys
for _ in range(int(sys.argv[3])):
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 60) as sock:
        print(sock.recv(100).decode())
"""


class Greeter:
    """Accepts connections, and says its name to each."""

    def __init__(self, name, listener=None):
        self.name = name
        self.socket = listener or socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address, self.port = self.socket.getsockname()[:2]
        self.target = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            connection, _ = self.socket.accept()
            with connection:
                if connection.getpeername() == self._last:
                    return
                connection.send(self.name.encode())

    _last = None

    def close(self):
        with socket.socket(self.socket.family) as last:
            last.bind((self.address, 0))
            self._last = last.getsockname()
            last.connect((self.address, self.port))
            self._thread.join()
        self.socket.close()


@pytest.fixture
def several(netctl, lab):
    with Elsewhere(netctl, lab) as made:
        yield made


def greeters(several, *names):
    made = [Greeter(name) for name in names]
    several.servers += made
    return made


def connect(several, count, address="192.0.2.1", port=80, group=None):
    group = group or several.group
    return group.run(sys.executable, "-c", CONNECT, address, port, count, timeout=100 * PATIENCE).stdout.split()


def counted(several, number=0):
    """What `to list` counts of each target of a rule."""
    return [(one["connections"], one["datagrams"]) for one in several.netctl.json("redirect", "to", "list")[number]["targets"]]


@pytest.mark.kernel
def test_in_turn_by_weight(several):
    a, b, c = greeters(several, "a", "b", "c")
    several.to("dst", "192.0.2.1", "dport", "80", "target", f"{a.target},{b.target},{c.target}", "weight", "3,1,2")
    assert sorted(connect(several, 12)) == ["a"] * 6 + ["b"] * 2 + ["c"] * 4
    assert counted(several) == [(6, 0), (2, 0), (4, 0)]
    # What else changes leaves the counters alone; and so do lists, of which all entries have the same targets.
    several.to("dst", "{192.0.2.2, 192.0.2.4}", "target", f"{a.target},{b.target}")
    for address in ("192.0.2.2", "192.0.2.4"):
        assert sorted(connect(several, 2, address)) == ["a", "b"]
    assert counted(several) == [(6, 0), (2, 0), (4, 0)]
    assert counted(several, 1) == [(2, 0), (2, 0)]
    shown = several.netctl("redirect", "to", "list").stdout
    assert f"  {a.target}: 6 connections, 0 datagrams\n" in shown
    several.netctl("redirect", "to", "delete", "1")
    assert counted(several) == [(2, 0), (2, 0)]


@pytest.mark.kernel
def test_by_source(several):
    """The processes of a cgroup come to one and the same; cgroups are spread."""
    names = "abcdefgh"
    servers = greeters(several, *names)
    several.to("dst", "192.0.2.1", "target", ",".join(one.target for one in servers), "by", "source")
    found = set()
    for i in range(16):
        group = type(several.group).__new__(type(several.group))
        group.path = several.group.path / f"service{i}"
        group.path.mkdir()
        answers = connect(several, 3, group=group) + connect(several, 3, group=group)
        assert len(set(answers)) == 1, answers
        found |= set(answers)
    assert len(found) > 1 and found <= set(names)  # that 16 agree has a chance of 8 ** -15


@pytest.mark.kernel
def test_datagrams_of_a_socket_stay_with_a_target(several):
    """As if it were connected; sockets come in turn."""
    a, b = several.server("a"), several.server("b")
    several.to("dst", "192.0.2.0/24", "dport", "53", "proto", "udp", "target", f"{a.target},{b.target}")
    asked = [("ask", "192.0.2.1", 53), ("ask", "192.0.2.2", 53)]
    told = several.talk(*[("socket", 4), *asked, *asked] * 2)
    names = [answer[0].split()[0] for answer in told]
    # Of two addresses the second comes to the other target; the answers are told as from what was asked.
    assert names == ["a", "b"] * 4
    assert [answer[1:] for answer in told] == [["192.0.2.1", 53], ["192.0.2.2", 53]] * 4
    assert counted(several) == [(0, 4), (0, 4)]


def test_who_has_one_of_the_targets_is_left_alone(several):
    """It would come back to it by way of the other."""
    (a,) = greeters(several, "a")
    with socket.create_server(("127.0.0.1", 0)) as own:
        several.to("dst", "127.0.0.2", "dport", a.port, "target", f"{a.target},127.0.0.1:{own.getsockname()[1]}")
        words = (sys.executable, "-c", CONNECT, "127.0.0.2", a.port, 1)
        refused = several.group.run(*words, pass_fds=[own.fileno()], check=False)
        assert "Connection refused" in refused.stderr
        assert several.status()["loops"] == 1
        assert several.group.run(*words).stdout == "a\n"


def test_rules_keep_their_counters_in_a_replacement(several):
    """Those whose text stays; as `apply` does."""
    netctl = several.netctl
    a, b = greeters(several, "a", "b")
    rule = f"dst 192.0.2.1 dport 80 target {a.target},{b.target}"
    several.to(*rule.split())
    connect(several, 3)
    before = counted(several)
    assert sum(connections for connections, _ in before) == 3
    exported = netctl("export").stdout
    assert rule in exported
    netctl("apply", "-", input=exported.replace(rule, f"{rule}\n    dst 192.0.2.9 target {b.target}"))
    assert counted(several) == before
    assert len(netctl.json("redirect", "to", "list")) == 2
    assert json.loads(netctl("--json", "plan", "-", input=exported, check=False).stdout)


def test_an_older_netctl_has_one_target(several):
    netctl = several.netctl
    (netctl.root / "redirect" / "to_targets").unlink()
    (a,) = greeters(several, "a")
    assert "older netctl" in netctl.fails("redirect", "to", "add", "dst", "192.0.2.1", "target", f"{a.target},127.0.0.1:9")
    netctl("redirect", "to", "add", "dst", "192.0.2.1", "target", a.target)
    assert connect(several, 1) == ["a"]
    assert netctl.json("redirect", "to", "list")[0]["targets"] == []
