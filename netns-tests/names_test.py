# SPDX-License-Identifier: GPL-2.0-only
"""Sets of names: what real resolvers answer to real clients, and what others would like to be taken for it."""

import contextlib
import os
import socket
import struct

import dns_messages as dns
import pytest
from lab import IN_VM, until

PYTHON = "/usr/bin/python3"


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
    """No race: the policy knows an address before whoever asked for it does. NETCTL_LOOKUPS is how many."""
    client, server = ends
    many = int(os.environ.get("NETCTL_LOOKUPS", 60 if IN_VM else 300))
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


class Talk:
    """A resolver and a process that asks it, both in the hands of the test: what was received was also read."""

    def __init__(self, wanted, client, server, family=4):
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        self.wanted, self.family, self._number = wanted, kind, 0
        self.resolver = server.netns.socket(kind, socket.SOCK_DGRAM)
        self.resolver.bind((server.ip(family), 53))
        self.asker = client.netns.socket(kind, socket.SOCK_DGRAM)
        self.asker.bind((client.ip(family), 0))
        self._to = (server.ip(family), 53)
        for each in (self.resolver, self.asker):
            each.settimeout(20)

    def close(self):
        self.resolver.close()
        self.asker.close()

    def ask(self, name="example.test", kind="A", message=None):
        """Asks, and returns the question as the resolver has it."""
        self._number += 1
        message = message or dns.question(name, kind, self._number)
        self.asker.sendto(message, self._to)
        asked = self.resolver.recv(4096)
        assert asked == message
        return asked

    def tell(self, message, by=None, to=None):
        """Sends a message to whoever asked, or another socket, and waits until it is there."""
        to = to or self.asker
        (by or self.resolver).sendto(message, to.getsockname()[:2])
        assert to.recv(65536) == message

    def answer(self, *records, name="example.test", kind="A", **options):
        self.tell(dns.answer(self.ask(name, kind), *records, **options))


SAME = b"\xc0\x0c"


@pytest.fixture
def talk(wanted, ends):
    wanted.create("--grace", "60s")
    wanted.add("example.test", "second.test")
    with contextlib.closing(Talk(wanted, *ends)) as made:
        yield made


@pytest.mark.kernel
def test_only_what_was_asked_is_believed(wanted, talk, ends):
    client, server = ends
    server.netns.ip("address", "add", "192.0.2.77/24", "dev", server.name)
    asked = talk.ask()
    forged = dns.record(SAME, "A", "10.6.6.6")
    with contextlib.ExitStack() as stack:
        def bound(end, *address):
            made = stack.enter_context(end.netns.socket(socket.AF_INET, socket.SOCK_DGRAM))
            made.bind(address)
            made.settimeout(20)
            return made

        talk.tell(dns.answer(asked, forged), by=bound(server, server.ip4, 5353))
        talk.tell(dns.answer(asked, forged), by=bound(server, "192.0.2.77", 53))
        assert wanted.count("unasked") == 0  # of nobody's resolver: not looked at
        talk.tell(dns.answer(asked, forged), to=bound(client, client.ip4, 0))
        for other in (dns.question("example.test", "A", 99), dns.question("second.test", "A", 1),
                      dns.question("example.test", "AAAA", 1)):  # fmt: skip
            talk.tell(dns.answer(other, forged))
        assert wanted.count("unasked") == 4
    talk.tell(dns.answer(dns.question("other.test", "A", 1), forged))
    assert wanted.addresses() == {}
    talk.tell(dns.answer(asked, dns.record(SAME, "A", "10.0.0.1")))
    assert wanted.addresses() == {"10.0.0.1": "example.test"}
    talk.tell(dns.answer(asked, forged))  # answered already
    assert wanted.addresses() == {"10.0.0.1": "example.test"}
    assert wanted.count("unasked") == 5


def ipv4(source, to, message, ports):
    """An IPv4 packet with a UDP datagram, without its checksum."""
    udp = struct.pack("!HHHH", *ports, 8 + len(message), 0) + message
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                       socket.inet_aton(source), socket.inet_aton(to))  # fmt: skip
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + udp


def forgers(netns):
    """Ways in which root sends a packet that says whatever it likes, by loopback."""
    raw = netns.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with netns:
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        link.bind(("lo", 0x0800))
    return [lambda packet, to: raw.sendto(packet, (to, 0)),
            lambda packet, to: link.send(bytes(12) + b"\x08\x00" + packet)]  # fmt: skip


@pytest.mark.kernel
def test_root_forges_a_distant_resolver(wanted, talk, ends):
    """By loopback, with the right id, port and question, and the resolver's address."""
    client, server = ends
    for where in ("all", "lo"):
        client.netns.sysctl(f"net.ipv4.conf.{where}.rp_filter", 0)
    for send in forgers(client.netns):
        asked = talk.ask()
        message = dns.answer(asked, dns.record(SAME, "A", "10.6.6.6"))
        send(ipv4(server.ip4, client.ip4, message, (53, talk.asker.getsockname()[1])), client.ip4)
        assert talk.asker.recv(4096) == message
    assert wanted.addresses() == {}
    assert wanted.count("astray") == 2


@pytest.mark.kernel
def test_root_forges_a_resolver_of_this_host(netctl, lab):
    """Only what leaves the socket that has the resolver's address and port is believed."""
    netns = lab.namespace("host")
    for where in ("all", "lo"):
        # Else the kernel drops packets of this host's own addresses that came by no route.
        for key, value in (("route_localnet", 1), ("accept_local", 1), ("rp_filter", 0)):
            netns.sysctl(f"net.ipv4.conf.{where}.{key}", value)
    wanted = Names(netctl, lab, netns, "127.0.0.1").create()
    wanted.add("example.test")
    with contextlib.ExitStack() as stack:
        def bound(address, port):
            made = stack.enter_context(netns.socket(socket.AF_INET, socket.SOCK_DGRAM))
            made.bind((address, port))
            made.settimeout(20)
            return made

        resolver, asker, beside = bound("127.0.0.1", 53), bound("127.0.0.1", 0), bound("127.0.0.9", 53)
        question = dns.question("example.test")
        forged = dns.answer(question, dns.record(SAME, "A", "10.6.6.6"))
        port = asker.getsockname()[1]
        asker.sendto(question, ("127.0.0.1", 53))
        assert resolver.recv(512) == question
        for send in forgers(netns):
            send(ipv4("127.0.0.1", "127.0.0.1", forged, (53, port)), "127.0.0.1")
            assert asker.recvfrom(512) == (forged, ("127.0.0.1", 53))
        # A socket of another address that says it were this one (IP_PKTINFO).
        source = struct.pack("=i4s4s", 0, socket.inet_aton("127.0.0.1"), bytes(4))
        beside.sendmsg([forged], [(socket.IPPROTO_IP, 8, source)], 0, ("127.0.0.1", port))
        assert asker.recvfrom(512) == (forged, ("127.0.0.1", 53))
        assert wanted.addresses() == {}
        resolver.sendto(dns.answer(question, dns.record(SAME, "A", "10.0.0.1")), ("127.0.0.1", port))
        asker.recv(512)
    assert wanted.addresses() == {"10.0.0.1": "example.test"}
    assert wanted.status()["resolvers"] == [{"address": "127.0.0.1", "local": True}]


def test_a_real_resolver_of_this_host(netctl, lab):
    netns = lab.namespace("host")
    for name, address in (("four", "127.0.0.1"), ("six", "::1")):
        dns.dnsmasq(lab, netns, address, *RECORDS)
        wanted = Names(netctl, lab, netns, address, name).create()
        wanted.add("example.test")
        assert wanted.look_up("example.test") == [["10.0.0.1", "2001:db8:f::1"]]
        assert set(wanted.addresses()) == {"10.0.0.1", "2001:db8:f::1"}


def test_whoever_has_a_namespace_of_his_own_forges_there(wanted, talk, lab, ends):
    """A user may make one, be root in it, give himself the resolver's address, and answer himself."""
    client, server = ends
    own = lab.namespace("own")
    own.ip("address", "add", f"{server.ip4}/32", "dev", "lo")
    with own.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver, own.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        resolver.bind((server.ip4, 53))
        asker.bind((server.ip4, 0))
        question = dns.question("example.test")
        asker.sendto(question, (server.ip4, 53))
        assert resolver.recv(512) == question
        resolver.sendto(dns.answer(question, dns.record(SAME, "A", "10.6.6.6")), asker.getsockname())
        asker.recv(512)
    assert wanted.addresses() == {}
    assert wanted.count("questions") == wanted.count("unasked") == 0


def test_who_is_not_root_cannot_be_the_resolver(lab):
    netns = lab.namespace("host")
    code = """if True:
        import os, socket
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        for make in (lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
                     lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
                     lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("127.0.0.1", 53))):
            try:
                make()
                print("done")
            except PermissionError:
                print("refused")"""
    assert netns.run(PYTHON, "-c", code).stdout.split() == ["refused"] * 3


@pytest.mark.kernel
def test_broken_and_odd_answers(wanted, talk):
    """What contradicts itself brings nothing that stands behind the contradiction; the reader goes on."""
    good = dns.record(SAME, "A", "10.0.0.1")
    bad = {
        "a pointer to itself": dns.record(b"\xc0\x1e", "A", "10.6.6.6"),
        "a pointer ahead": dns.record(b"\xc0\x40", "A", "10.6.6.6") + bytes(64),
        "a pointer into the header": dns.record(b"\xc0\x02", "A", "10.6.6.6"),
        "a label of 64": dns.record(b"\x40" + b"a" * 64 + b"\0", "A", "10.6.6.6"),
        "data behind the end": dns.record(SAME, "A", "10.6.6.6")[:-2],
        "a name without an end": b"\x05wat",
        "no record": b"",
    }  # fmt: skip
    for number, (what, record) in enumerate(bad.items(), 1):
        talk.tell(dns.answer(talk.ask(), record, count=1))
        assert wanted.addresses() == {}, what
        assert wanted.count("unreadable") == number, what
    loop = dns.record("other.test", "A", "10.6.6.6")  # owner of nothing that was asked
    talk.answer(loop, dns.record("alias.test", "CNAME", "example.test"))
    talk.answer(good, flags=0x8183)  # no such name
    assert wanted.addresses() == {}
    talk.answer(good, flags=0x8380)  # truncated: what is there counts
    assert wanted.addresses() == {"10.0.0.1": "example.test"}
    assert wanted.count("truncated") == 1
    # An alias, written out, in other letters; its target by a pointer into its data.
    chain = dns.record(SAME, "CNAME", b"\x01b\x04ODD1" + b"\x04test\0")
    behind = len(dns.answer(dns.question("example.test"))) + 12
    talk.answer(chain, dns.record("B.odd1.TEST", "CNAME", "c.test"), dns.record("c.test", "A", "10.0.0.2"),
                dns.record(struct.pack("!H", 0xC000 | behind), "A", "10.6.6.6"))  # fmt: skip
    assert set(wanted.addresses()) == {"10.0.0.1", "10.0.0.2"}
    # Two questions, of which the second is wanted.
    two = struct.pack("!6H", 500, 0x0100, 2, 0, 0, 0) + b"".join(dns.question(name)[12:] for name in ("other.test", "second.test"))
    asked = talk.ask(message=two)
    head = asked[:2] + struct.pack("!5H", 0x8180, 2, 2, 0, 0)
    talk.tell(head + asked[12:] + dns.record("other.test", "A", "10.6.6.6") + dns.record("second.test", "A", "10.0.0.3"))
    assert wanted.addresses()["10.0.0.3"] == "second.test"
    assert "10.6.6.6" not in wanted.addresses()
    many = [dns.record(SAME, "A", f"10.3.0.{i}") for i in range(1, 71)]
    talk.answer(*many)
    assert set(wanted.addresses()) >= {f"10.3.0.{i}" for i in range(1, 65)}
    assert "10.3.0.65" not in wanted.addresses()
    assert wanted.count("cut") == 1


def test_times_to_live(wanted, talk):
    talk.answer(dns.record(SAME, "A", "10.0.0.1", ttl=0), dns.record(SAME, "A", "10.0.0.2", ttl=10**7),
                dns.record(SAME, "A", "10.0.0.3", ttl=2**31 + 5), dns.record(SAME, "A", "10.0.0.4", ttl=1000))  # fmt: skip
    left = {entry["element"]: entry["expires_in"] for entry in wanted.list() if entry["element"]}
    assert 0 < left["10.0.0.1"] <= 60 and 0 < left["10.0.0.3"] <= 60
    assert 86400 < left["10.0.0.2"] <= 86460
    assert 1000 < left["10.0.0.4"] <= 1060
    # A shorter one takes nothing away, a longer one counts.
    talk.answer(dns.record(SAME, "A", "10.0.0.4", ttl=5), dns.record(SAME, "A", "10.0.0.1", ttl=1000))
    left = {entry["element"]: entry["expires_in"] for entry in wanted.list() if entry["element"]}
    assert left["10.0.0.4"] > 60 and left["10.0.0.1"] > 60


def test_room_is_bounded(wanted, ends):
    wanted.create("--size", "2", "--grace", "0s")
    wanted.add("example.test")
    with contextlib.closing(Talk(wanted, *ends)) as talk:
        talk.answer(dns.record(SAME, "A", "10.0.0.1", ttl=0), dns.record(SAME, "AAAA", "2001:db8::1", ttl=9999),
                    dns.record(SAME, "A", "10.0.0.3", ttl=9999))  # fmt: skip
        # The first had run out when it came, and gave its place away.
        assert set(wanted.addresses()) == {"10.0.0.3", "2001:db8::1"}
        talk.answer(dns.record(SAME, "A", "10.0.0.4", ttl=9999))
        assert set(wanted.addresses()) == {"10.0.0.3", "2001:db8::1"}
    assert wanted.count("full") == 1
    assert wanted.count("learnt") == 3


def test_names_come_and_go(netctl, wanted, talk):
    talk.answer(dns.record(SAME, "A", "10.0.0.1"))
    talk.answer(dns.record(SAME, "A", "10.0.0.2"), name="second.test")
    for asked, yes in (("example.test", True), ("EXAMPLE.test.", True), ("other.test", False), ("10.0.0.1", True),
                       ("10.0.0.3", False)):  # fmt: skip
        assert netctl("set", "test", "wanted", asked, check=False).returncode == (0 if yes else 1)
    assert "other.test is not in set 'wanted'" in netctl.fails("set", "delete", "wanted", "example.test", "other.test")
    assert set(wanted.addresses()) == {"10.0.0.1", "10.0.0.2"}
    netctl("set", "delete", "wanted", "example.test")
    assert wanted.addresses() == {"10.0.0.2": "second.test"}
    talk.answer(dns.record(SAME, "A", "10.0.0.1"))
    assert wanted.addresses() == {"10.0.0.2": "second.test"}
    # What others have written stays.
    netctl("set", "destroy", "wanted")
    talk.ask()
    assert netctl.json("set", "list") == []


def test_resolve(wanted, lab, ends):
    client, server = ends
    dns.dnsmasq(lab, server.netns, server.ip4, *RECORDS)
    wanted.create()
    wanted.add("example.test", "*.wild.test")
    done = wanted.netctl.json("set", "resolve", "wanted", netns=client.netns)
    assert done == [{"name": "example.test", "trouble": []}]
    assert set(wanted.addresses()) == {"10.0.0.1", "2001:db8:f::1"}
    wanted.add("nowhere.test")
    done = wanted.netctl("set", "resolve", "wanted", netns=client.netns, check=False)
    assert done.returncode == 1
    assert "nowhere.test  A: " in done.stdout
    assert "another network namespace" in wanted.netctl.fails("set", "resolve", "wanted", netns=server.netns)


def test_resolvers_are_set_anew(wanted, talk, netctl, ends):
    client, server = ends
    netctl("set", "resolvers", "wanted", "192.0.2.99", "2001:db8::53", netns=client.netns)
    assert [one["address"] for one in wanted.status()["resolvers"]] == ["192.0.2.99", "2001:db8::53"]
    talk.answer(dns.record(SAME, "A", "10.0.0.1"))
    assert wanted.addresses() == {}
    netctl("set", "resolvers", "wanted", server.ip4, client.ip4, netns=client.netns)
    assert wanted.status()["resolvers"] == [{"address": client.ip4, "local": True}, {"address": server.ip4, "local": False}]
    talk.answer(dns.record(SAME, "A", "10.0.0.1"))
    assert wanted.addresses() == {"10.0.0.1": "example.test"}


@pytest.mark.kernel
def test_filters_ask_about_names(netctl, talk, ends):
    client, server = ends
    netctl("xdp", "attach", client.name, "--mode", "generic", netns=client.netns)
    netctl("xdp", "rule", "add", client.name, "src", "@wanted", "proto", "icmp6", "drop", netns=client.netns)
    assert client.netns.ping(server.ip6)
    talk.answer(dns.record(SAME, "AAAA", server.ip6), kind="AAAA")
    client.netns.run("ping", "-nqc", 1, "-W", 1, server.ip6, check=False)
    rule = lambda: netctl.json("xdp", "rule", "list", client.name, netns=client.netns)[0]["packets"]  # noqa: E731
    until(lambda: rule() > 0, what="a packet of a wanted name dropped")
    assert "in use by xdp/" in netctl.fails("set", "destroy", "wanted")


def test_wrong_words(netctl, lab):
    netns = lab.namespace("host")
    Names(netctl, lab, netns, "127.0.0.1").create()
    netctl("set", "create", "hosts", "--type", "host")
    for words, answer in (
        (("add", "wanted", "192.0.2.1"), "is an address, and the set holds names"),
        (("add", "wanted", "a..b"), "'a..b' is no name: between dots there are 1 to 63 characters"),
        (("add", "wanted", "a" * 64), "between dots there are 1 to 63"),
        (("add", "wanted", ".".join(["a" * 63] * 4)), "longer than 253"),
        (("add", "wanted", "a.*.b"), "a * stands for whole labels"),
        (("add", "wanted", "*"), "a * stands for whole labels"),
        (("add", "wanted", "*."), "there is nothing in it"),
        (("add", "wanted", "a b"), "it has the character ' '"),
        (("add", "wanted", "münchen.example"), "xn--"),
        (("add", "wanted", "a.example", "--ttl", "5"), "names have no time to live"),
        (("import", "wanted"), "holds names: `set import` is not for it"),
        (("swap", "wanted", "hosts"), "holds names: `set swap` is not for it"),
        (("fold", "wanted"), "holds names"),
        (("create", "x", "--type", "host", "--resolver", "192.0.2.1"), "about sets of type name"),
        (("create", "x", "--type", "name", "--resolver", "dns.example"), "'dns.example'"),
        (("create", "x", "--type", "name", "--resolver", "192.0.2.1", "--grace", "60"), "--grace '60' is no time"),
        (("resolvers", "wanted", "nobody"), "'nobody'"),
    ):  # fmt: skip
        assert answer in netctl.fails("set", *words, status=2), words
    assert [entry for entry in netctl.json("set", "list", "wanted")] == []
    assert "does not hold names" in netctl.fails("set", "resolve", "hosts")


def test_configurations_have_names(netctl, lab, tmp_path):
    netns = lab.namespace("host")
    run = lambda *words, **more: netctl(*words, netns=netns, **more)  # noqa: E731
    file = tmp_path / "host.yaml"

    def write(names, resolvers="[192.0.2.53, '2001:db8::53']", more=""):
        file.write_text(f"sets:\n  wanted:\n    type: name\n    names: {names}\n    resolvers: {resolvers}\n{more}")

    def names():
        return netctl.json("set", "list")[0]["names"]

    write("[example.test, '*.WILD.test']", more="    grace: 5\n    size: 100\n")
    run("apply", file)
    assert names()["names"] == ["example.test", "*.wild.test"]
    assert names()["grace"] == 5
    assert run("plan", file).returncode == 0
    exported = tmp_path / "exported.yaml"
    exported.write_text(run("export").stdout)
    assert run("plan", exported).returncode == 0
    write("[second.test, '*.wild.test']", "[192.0.2.54]")
    planned = run("plan", file, check=False)
    assert planned.returncode == 2
    for line in ("+ second.test", "- example.test", "resolvers 192.0.2.53, 2001:db8::53 -> 192.0.2.54"):
        assert line in planned.stdout
    run("apply", file, "--confirm", "1h")
    assert names()["names"] == ["second.test", "*.wild.test"]
    assert [one["address"] for one in names()["resolvers"]] == ["192.0.2.54"]
    run("rollback")
    assert run("plan", exported).returncode == 0
    run("set", "add", "wanted", "third.test", "--confirm", "1h")
    run("rollback")
    assert run("plan", exported).returncode == 0
    for wrong, answer in (("    elements: [192.0.2.1]\n", "has no `elements`"), ("    grace: 60s\n", "grace")):
        write("[a.test]", more=wrong)
        assert answer in netctl.fails("check", file, status=2, netns=netns)
    write("[a..test]")
    assert "between dots" in netctl.fails("check", file, status=2, netns=netns)
    write("[a.test]", more="    grace: 7\n")
    assert "has grace 5" in netctl.fails("plan", file, netns=netns)
    assert f'netns: "{netns.name}"' in netctl("export").stdout
    assert "cannot get its own" in netctl.fails("plan", file)
    file.write_text("absent: [set wanted]\n")
    run("apply", file)
    assert netctl.json("set", "list") == []


def test_status_tells_of_names(netctl, wanted, talk):
    talk.answer(dns.record(SAME, "A", "10.0.0.1"))
    (hook,) = netctl.json("status")["hooks"]
    assert (hook["feature"], hook["place"], hook["state"], hook["rule_count"]) == ("names", "wanted", "reading", 2)
    assert hook["healthy"] and hook["judged"] == 1 and hook["refused"] == 0
    (netctl.root / "sets" / "wanted" / "names_in").unlink()
    done = netctl("status", check=False)
    assert done.returncode == 1
    assert "no answer is read" in done.stdout
