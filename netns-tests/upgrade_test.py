# SPDX-License-Identifier: GPL-2.0-only
"""Two netctls at the same pins: this one, and netctl-next, whose ABI version is one higher."""

import copy
import json
from pathlib import Path

import pytest
from lab import Netctl, bpftool, run, until
from traffic import Blaster, Classifier, Filter, pins


def newer_than(netctl):
    """The next version's command, with the same root."""
    other = copy.copy(netctl)
    other.binary = str(Path(netctl.binary).with_name("netctl-next"))
    return other


def version_in(map_path):
    """The first 32 bits of the only value of a pinned map."""
    (entry,) = bpftool("map", "dump", "pinned", map_path)
    return int.from_bytes(bytes(int(byte, 16) for byte in entry["value"][:4]), "little")


def spoken(netctl):
    return int(netctl("--version").stdout.rstrip(")\n").rpartition(" ")[2])


def link_id(filter):
    # bpftool prints it, and ends in 255, as it does not know the interface in its namespace.
    done = run("bpftool", "--json", "link", "show", "pinned", pins(filter) / "link", check=False)
    return json.loads(done.stdout)["id"]


@pytest.fixture
def behind():
    """A netctl with a root of its own, for what counts behind a filter."""
    with Netctl() as command:
        yield command


def reached(cgroup, netns, address, port):
    """Whether a connection from the cgroup is tried at all: nobody listens there."""
    done = netns.run("python3", "-c", f"""
import socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("{address}", {port}))
except PermissionError:
    print("denied")
""", cgroup=cgroup)  # fmt: skip
    return done.stdout != "denied\n"


def test_an_upgrade_under_traffic(lab, netctl, behind, link, blaster):
    client, server = link
    newer = newer_than(netctl)
    assert spoken(newer) == spoken(netctl) + 1
    cgroup = lab.cgroup("upgrade")
    netctl("set", "create", "blocked", "--type", "cidr")
    netctl("set", "add", "blocked", "198.51.100.0/24", f"{client.ip4}/32")
    filter = Filter(netctl, server)
    halt = filter.add("proto udp dport 7 src @blocked drop")
    classifier = Classifier(netctl, server, "ingress")
    classifier.add("proto udp dport 7 drop")
    netctl("policy", "enable", "--cgroup", cgroup.path, "--layer", "cgroup")
    netctl("policy", "rule", "add", "dst", "198.51.100.7", "deny")
    assert not reached(cgroup, client.netns, "198.51.100.7", 9)
    netctl("redirect", "enable", "--cgroup", cgroup.path, "--force", "all")
    netctl("redirect", "rule", "add", "dport", "9999")
    # Behind all of these: what comes to port 7 there was judged by none of them.
    unjudged = Classifier(behind, server, "ingress", "--last")
    stray = unjudged.add("proto udp dport 7 pass")
    through = unjudged.add("proto udp dport 8 pass")
    root = netctl.root
    assert version_in(root / "meta") == spoken(netctl)

    with Blaster(blaster, client, server.ip4, {7: 100, 8: 100}) as flood:
        before = until(lambda: filter.packets()[halt] or None)
        attachment, program = link_id(filter), filter.status()["program_id"]
        upgraded = Filter(newer, server, attach=False)
        assert upgraded.packets()[halt] >= before  # read, and as it was
        assert version_in(root / "meta") == spoken(netctl)
        upgraded.add("proto udp dport 9 drop")
        assert version_in(root / "meta") == spoken(newer)
        assert link_id(filter) == attachment
        assert upgraded.status()["program_id"] != program
        program = upgraded.status()["program_id"]
        assert upgraded.packets()[halt] >= before
        Classifier(newer, server, "ingress", attach=False).add("proto udp dport 9 drop")
        newer("set", "add", "blocked", "203.0.113.9/32")
        elements = newer.json("set", "list", "blocked")
        newer("policy", "rule", "add", "dst", "198.51.100.8", "deny")
        assert newer.json("policy", "status")["rules"][0]["cgroup"] >= 1  # what was denied before
        newer("redirect", "rule", "add", "dport", "9998")
        assert len(newer.json("redirect", "rule", "list")) == 2

        # The older one says that it does not know, and leaves all as it is.
        for words in (("xdp", "status"), ("set", "list"), ("status",), ("set", "test", "blocked", "192.0.2.200")):
            message = netctl.fails(*words, status=4)
            assert f"has ABI version {spoken(newer)}, this netctl speaks version {spoken(netctl)}" in message
        assert "blocked" in netctl("set", "list", check=False).stdout
        for words in (
            ("xdp", "rule", "add", server.name, "dport", "10", "drop"),
            ("xdp", "rule", "flush", server.name),
            ("xdp", "detach", server.name),
            ("set", "add", "blocked", "203.0.113.10/32"),
            ("set", "destroy", "blocked"),
            ("policy", "rule", "add", "dst", "198.51.100.9", "deny"),
            ("redirect", "rule", "add", "dport", "9997"),
            ("detach", "--all"),
        ):
            message = netctl.fails(*words, status=4, netns=server.netns if words[0] == "xdp" else None)
            assert "nothing was changed" in message, words
        assert upgraded.status()["program_id"] == program
        assert newer.json("set", "list", "blocked") == elements
        assert len(newer.json("policy", "rule", "list")) == 2
        seen = upgraded.packets()[halt]
        until(lambda: upgraded.packets()[halt] > seen)
        sent = flood.stop()
    assert sent[7] and sent[8]
    counted = unjudged.packets()
    assert counted[stray] == 0 and counted[through] > 0
    assert not reached(cgroup, client.netns, "198.51.100.7", 9)

    newer("detach", "--all")
    newer("set", "destroy", "blocked")
    assert not root.exists()
