# SPDX-License-Identifier: GPL-2.0-only
"""Sets of names: what real resolvers answer to real clients, and what others would like to be taken for it."""

import contextlib
import errno
import ipaddress
import os
import socket
import struct
import subprocess

import dns_messages as dns
import pytest
from lab import IN_VM, run, until

PYTHON = "/usr/bin/python3"
NOBODY = 65534


class Names:
    """A set of names, and the namespace whose answers it reads."""

    def __init__(self, netctl, lab, netns, resolver, name="wanted"):
        self.netctl, self.lab, self.netns, self.resolver, self.name = netctl, lab, netns, resolver, name

    def create(self, *options):
        self.netctl("set", "create", self.name, "--type", "name", "--resolver", self.resolver, *options, netns=self.netns)
        return self

    def add(self, *names):
        self.netctl("set", "add", self.name, *names)

    def list(self):
        return self.netctl.json("set", "list", self.name)

    def addresses(self):
        """Address to the name that it was asked for by."""
        return {entry["element"]: entry["asked"] for entry in self.list() if entry["element"]}

    def status(self):
        (status,) = [each for each in self.netctl.json("set", "list") if each["name"] == self.name]
        return status["names"]

    def count(self, which):
        return self.status()[which]

    def run(self, *argv, cgroup=None, options=(), **more):
        """Runs a command that asks the set's resolver."""
        return self.netns.run(*dns.resolving(self.lab.directory, self.resolver, argv, *options), cgroup=cgroup, **more)

    def look_up(self, *names, **options):
        """What getaddrinfo() tells of each name, with AF_INET and AF_INET6 both asked for."""
        code = ("import socket, sys\n"
                "for name in sys.argv[1:]:\n"
                "    try: print(*sorted({info[4][0] for info in socket.getaddrinfo(name, 443)}))\n"
                "    except OSError as problem: print('-')\n")  # fmt: skip
        return [line.split() for line in self.run(PYTHON, "-c", code, *names, **options).stdout.splitlines()]


@pytest.fixture
def ends(lab):
    return lab.pair()


@pytest.fixture
def wanted(netctl, lab, ends):
    """A set whose resolver is on the other end of a link."""
    client, server = ends
    return Names(netctl, lab, client.netns, server.ip4)


RECORDS = (
    "--local-ttl=300", "--host-record=example.test,10.0.0.1,2001:db8:f::1", "--cname=alias.test,www.test",
    "--cname=www.test,example.test", "--host-record=a.b.wild.test,10.0.0.2", "--host-record=wild.test,10.0.0.3",
    "--host-record=notwild.test,10.0.0.4", "--host-record=other.test,10.0.0.5",
)  # fmt: skip


@pytest.mark.kernel
def test_answers_bring_addresses(wanted, lab, ends):
    client, server = ends
    dns.dnsmasq(lab, server.netns, server.ip4, *RECORDS)
    wanted.create("--grace", "100s")
    wanted.add("Example.TEST.", "alias.test", "*.wild.test")
    assert wanted.addresses() == {}
    assert wanted.look_up("example.TEST", "other.test", "notwild.test", "wild.test") == [
        ["10.0.0.1", "2001:db8:f::1"], ["10.0.0.5"], ["10.0.0.4"], ["10.0.0.3"]]  # fmt: skip
    assert wanted.addresses() == {"10.0.0.1": "example.test", "2001:db8:f::1": "example.test"}
    assert wanted.look_up("a.b.wild.test", "alias.test") == [["10.0.0.2"], ["10.0.0.1", "2001:db8:f::1"]]
    assert wanted.addresses()["10.0.0.2"] == "a.b.wild.test"
    named = {entry["element"]: entry for entry in wanted.list()}
    assert 300 < named["10.0.0.1"]["expires_in"] <= 400
    assert named["10.0.0.2"]["name"] == "*.wild.test"
    assert {entry["name"] for entry in wanted.list()} == {"example.test", "alias.test", "*.wild.test"}
    status = wanted.status()
    assert status["answers"] == status["questions"] == 6
    assert status["learnt"] == 3
    assert status["unasked"] == status["astray"] == status["unreadable"] == 0
    # Others ask in other ways.
    assert "10.0.0.1" in wanted.run("getent", "ahostsv4", "example.test").stdout
    assert wanted.count("answers") > status["answers"]


def test_what_is_asked_for_may_be_connected_to_at_once(wanted, lab, ends, netctl):
    """No race: the policy knows an address before whoever asked for it does."""
    client, server = ends
    many = 60 if IN_VM else 300
    hosts = lab.directory / "hosts"
    hosts.write_text("".join(f"10.1.{i // 200}.{i % 200 + 1} n{i}.race.test\n10.2.{i // 200}.{i % 200 + 1} u{i}.race.other\n"
                             for i in range(many)))  # fmt: skip
    dns.dnsmasq(lab, server.netns, server.ip4, f"--addn-hosts={hosts}", "--local-ttl=60")
    client.netns.ip("route", "add", "default", "via", server.ip4)
    wanted.create()
    wanted.add("*.race.test")
    group = lab.cgroup("asking")
    netctl("policy", "enable", "--cgroup", group.path, "--layer", "cgroup", "--default", "deny", "--yes")
    netctl("policy", "rule", "add", "dst", server.ip4, "dport", "53", "allow")
    netctl("policy", "rule", "add", "dst", "@wanted", "dport", "443", "allow")
    code = """if True:
        import socket, sys
        refused = {'n': 0, 'u': 0}
        for i in range(int(sys.argv[1])):
            for kind, name in (('n', f'n{i}.race.test'), ('u', f'u{i}.race.other')):
                address = socket.getaddrinfo(name, 443, socket.AF_INET, socket.SOCK_DGRAM)[0][4]
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                    try:
                        one.connect(address)
                    except PermissionError:
                        refused[kind] += 1
        print(refused['n'], refused['u'])"""
    assert wanted.run(PYTHON, "-c", code, many, cgroup=group).stdout.split() == ["0", str(many)]
    assert len(wanted.addresses()) == many
