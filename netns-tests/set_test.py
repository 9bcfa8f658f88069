# SPDX-License-Identifier: GPL-2.0-only
"""`netctl set`, and edits of the pinned maps by another tool, under traffic."""

import contextlib
import ipaddress
import signal
import socket
import struct
import subprocess

import pytest
from lab import IN_VM, bpftool, run, until
from traffic import IP, UDP, Ether, Filter, IPv6, Stream, Wire

FAMILIES = (4, 6)


def make(netctl, name, kind, *elements, size=None):
    options = ("--size", size) if size else ()
    netctl("set", "create", name, "--type", kind, *options)
    if elements:
        netctl("set", "add", name, *elements)


def elements(netctl, name):
    return [entry["element"] for entry in netctl.json("set", "list", name)]


def bpftool_key(kind, element):
    """Which map of the set an element is in, and its key, as docs/pinned-maps.md has them."""
    if kind == "port":
        return "ports", struct.pack("!H", element)
    network = ipaddress.ip_network(element)
    length = struct.pack("=I", network.prefixlen) if kind == "cidr" else b""
    return f"v{network.version}", length + network.network_address.packed


def edit(netctl, name, verb, kind, element, value=bytes(8)):
    """One write into the pinned map, by a tool that knows nothing of netctl."""
    map_name, key = bpftool_key(kind, element)
    words = ("value", "hex", *value.hex(" ").split()) if verb == "update" else ()
    run("bpftool", "map", verb, "pinned", netctl.root / "sets" / name / map_name,
        "key", "hex", *key.hex(" ").split(), *words)  # fmt: skip


CASES = [
    ("host", 4, "src @s drop", lambda client: client.ip4),
    ("host", 6, "src @s drop", lambda client: client.ip6),
    ("cidr", 4, "src @s drop", lambda client: str(ipaddress.ip_network(f"{client.ip4}/25", strict=False))),
    ("cidr", 6, "dst @s drop", lambda client: "2001:db8:1::/64"),
    ("port", 4, "proto udp dport @s drop", lambda client: 4000),
    ("port", 6, "proto udp dport @s drop", lambda client: 4000),
]


@pytest.mark.kernel(kind="cidr", family=4)
@pytest.mark.parametrize(("kind", "family", "rule", "element_of"), CASES,
                         ids=[f"{kind}-{family}" for kind, family, _, _ in CASES])  # fmt: skip
def test_bpftool_edits_under_traffic(netctl, link, streamer, kind, family, rule, element_of):
    client, server = link
    element = element_of(client)
    make(netctl, "s", kind)
    filter = Filter(netctl, server)
    number = filter.add(rule)
    with Stream(streamer, client, server, family, 4000) as stream:
        for _ in range(1 if IN_VM else 5):
            stream.await_all(stream.hundred())
            edit(netctl, "s", "update", kind, element)
            forbidden = stream.hundred()
            assert netctl("set", "test", "s", str(element).split("/")[0]).stdout == "yes\n"
            edit(netctl, "s", "delete", kind, element)
            stream.await_all(stream.hundred())
            assert stream.arrived_of(forbidden) == []
        sent = stream.sent
    assert elements(netctl, "s") == []
    status = filter.status()
    assert 100 < filter.packets()[number] < sent
    assert status["packets"] >= sent


def deliver(wire, client, server, sources, expected, dport=9):
    packets = []
    for source in sources:
        layer = IPv6 if ":" in source else IP
        destination = server.ip6 if ":" in source else server.ip4
        packets.append(Ether(src=client.mac, dst=server.mac) / layer(src=source, dst=destination)
                       / UDP(dport=dport))  # fmt: skip
    assert wire.deliver(packets, expected)[0] == expected


def test_longest_prefix_tombstones_and_negation(netctl, link):
    """One set of prefixes of both families, in a rule and in its negation."""
    client, server = link
    make(netctl, "nets", "cidr", "192.0.2.0/24", "192.0.2.64/26", "2001:db8:1::/48", "198.51.100.7")
    filter = Filter(netctl, server, "--default", "drop")
    filter.add("src @nets proto udp dport 1 pass", "src not @nets proto udp dport 2 pass")
    sources = ["192.0.2.1", "192.0.2.65", "198.51.100.7", "198.51.100.8", "2001:db8:1::9", "2001:db8:2::9"]
    member = [True, True, True, False, True, False]
    with Wire(client, server) as wire:
        deliver(wire, client, server, sources, member, dport=1)
        deliver(wire, client, server, sources, [not here for here in member], dport=2)
        # A tombstone takes a part out of a wider prefix: `flags` of nc_set_value is NC_SET_ABSENT.
        edit(netctl, "nets", "update", "cidr", "192.0.2.64/26", bytes(4) + struct.pack("=I", 1))
        member[1] = False
        deliver(wire, client, server, sources, member, dport=1)
        deliver(wire, client, server, sources, [not here for here in member], dport=2)
    for source, here in zip(sources, member, strict=True):
        assert netctl("set", "test", "nets", source, check=False).returncode == (0 if here else 1)


def test_bits_behind_the_length_are_of_no_account(netctl, link):
    """A prefix that another tool wrote with host bits is the network that the datapath takes it for."""
    client, server = link
    make(netctl, "nets", "cidr")
    filter = Filter(netctl, server)
    filter.add("src @nets drop")
    for version, length, address, network in ((4, 24, "10.77.0.9", "10.77.0.0/24"),
                                              (6, 33, "2001:db8:ffff::9", "2001:db8:8000::/33")):  # fmt: skip
        key = struct.pack("=I", length) + ipaddress.ip_address(address).packed
        run("bpftool", "map", "update", "pinned", netctl.root / f"sets/nets/v{version}",
            "key", "hex", *key.hex(" ").split(), "value", "hex", *bytes(8).hex(" ").split())  # fmt: skip
        inside = str(ipaddress.ip_network(network)[77])
        assert network in elements(netctl, "nets")
        assert netctl("set", "test", "nets", inside).stdout == "yes\n"
        with Wire(client, server) as wire:
            deliver(wire, client, server, [inside], [False])
            netctl("set", "fold", "nets")
            assert network in elements(netctl, "nets")
            deliver(wire, client, server, [inside], [False])
        # What `list` prints is taken back.
        netctl("set", "delete", "nets", network)
        assert elements(netctl, "nets") == []


def test_elements_with_a_time_to_live(netctl, link):
    client, server = link
    make(netctl, "hosts", "host", "192.0.2.51")
    make(netctl, "nets", "cidr")
    filter = Filter(netctl, server)
    filter.add("src @hosts drop", "src @nets drop")
    netctl("set", "add", "hosts", "--ttl", "3600", "192.0.2.52", "192.0.2.53")
    netctl("set", "add", "nets", "--ttl", "1h", "2001:db8:1::/112", "192.0.2.54")
    assert all(3000 < entry["expires_in"] <= 3600 for entry in netctl.json("set", "list", "nets"))
    listed = {entry["element"]: entry.get("expires_in") for entry in netctl.json("set", "list", "hosts")}
    assert listed["192.0.2.51"] is None
    assert 3000 < listed["192.0.2.52"] <= 3600
    sources = ["192.0.2.51", "192.0.2.52", "192.0.2.53", "192.0.2.54", "2001:db8:1::53"]
    with Wire(client, server) as wire:
        deliver(wire, client, server, sources, [False] * 5)
        netctl("set", "add", "hosts", "--ttl", "1", "192.0.2.53")
        netctl("set", "add", "nets", "--ttl", "1", "192.0.2.54", "2001:db8:1::/112")
        for name, element in (("hosts", "192.0.2.53"), ("nets", "192.0.2.54"), ("nets", "2001:db8:1::53")):
            until(lambda: netctl("set", "test", name, element, check=False).stdout == "no\n")  # noqa: B023
        deliver(wire, client, server, sources, [False, False, True, True, True])
        netctl("set", "add", "hosts", "192.0.2.53")  # again, and for good
        deliver(wire, client, server, sources, [False, False, False, True, True])
    listed = {entry["element"]: entry.get("expires_in") for entry in netctl.json("set", "list", "hosts")}
    assert listed["192.0.2.53"] is None


def test_expired_prefix_hides_no_wider_one(netctl, link):
    client, server = link
    make(netctl, "nets", "cidr", "192.0.2.0/24")
    # A second of CLOCK_BOOTTIME long ago, at which this one ran out.
    edit(netctl, "nets", "update", "cidr", "192.0.2.128/25", struct.pack("=II", 1, 0))
    edit(netctl, "nets", "update", "cidr", "198.51.100.0/24", struct.pack("=II", 1, 0))
    filter = Filter(netctl, server)
    filter.add("src @nets drop")
    with Wire(client, server) as wire:
        deliver(wire, client, server, ["192.0.2.1", "192.0.2.129", "198.51.100.1"], [False, False, True])
    assert netctl("set", "test", "nets", "192.0.2.129", check=False).stdout == "yes\n"
    assert netctl("set", "test", "nets", "198.51.100.1", check=False).stdout == "no\n"


def test_import(netctl, link, tmp_path):
    client, server = link
    make(netctl, "nets", "cidr", "203.0.113.0/24")
    filter = Filter(netctl, server)
    filter.add("src @nets drop")
    listing = tmp_path / "nets.txt"
    listing.write_text("# a blocklist\n192.0.2.0/25 # one\n\n2001:db8:1::/64\r\n192.0.2.0/25\n")
    assert netctl("set", "import", "nets", listing).stdout == "2 elements\n"
    assert elements(netctl, "nets") == ["192.0.2.0/25", "203.0.113.0/24", "2001:db8:1::/64"]
    sources = ["192.0.2.1", "203.0.113.1", "2001:db8:1::7"]
    with Wire(client, server) as wire:
        deliver(wire, client, server, sources, [False, False, False])
        netctl("set", "import", "nets", "--replace", input="2001:db8:1::/64\n192.0.2.1\n")
        assert elements(netctl, "nets") == ["192.0.2.1", "2001:db8:1::/64"]
        deliver(wire, client, server, sources, [False, True, False])
        # What cannot be read changes nothing, and says where it is.
        listing.write_text("198.51.100.0/24\n\n192.0.2.1/24\n")
        message = netctl.fails("set", "import", "nets", listing, "--replace", status=2)
        assert f"{listing}:3: '192.0.2.1/24' has bits set behind its /24" in message
        assert elements(netctl, "nets") == ["192.0.2.1", "2001:db8:1::/64"]
        # Nor does what is empty, which is what a download that failed leaves.
        for empty in ("", "# nothing today\n"):
            message = netctl.fails("set", "import", "nets", "--replace", input=empty, status=2)
            assert "--allow-empty" in message
        assert elements(netctl, "nets") == ["192.0.2.1", "2001:db8:1::/64"]
        netctl("set", "import", "nets", "--replace", "--allow-empty", input="")
        deliver(wire, client, server, sources, [True, True, True])


def test_import_reads_what_people_have(netctl, tmp_path):
    """A folder of lists of many kinds; what cannot be read is told, all of it, and nothing is imported."""
    make(netctl, "nets", "cidr")
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "spamhaus.netset").write_bytes(b"\xef\xbb\xbf; Spamhaus\r\n1.10.16.0/20 ; SBL256894\r\n")
    (lists / "ranges.txt").write_text("198.51.100.0 - 198.51.100.255 // one network\n")
    (lists / "bad.ipset").write_text("create bad hash:net family inet\nadd bad 192.0.2.0/25 timeout 3600\n"
                                     "add bad 192.0.2.7 nomatch\n")  # fmt: skip
    (lists / "nft.json").write_text(
        '{"nftables": [{"set": {"name": "s", "elem": [{"prefix": {"addr": "2001:db8::", "len": 32}}]}}]}'
    )
    (lists / ".hidden").write_text("nonsense\n")
    netctl("set", "import", "nets", lists)
    expected = {"1.10.16.0/20": (None, False), "192.0.2.0/25": (3600, False), "192.0.2.7": (None, True),
                "198.51.100.0/24": (None, False), "2001:db8::/32": (None, False)}  # fmt: skip

    def content(name):
        return {e["element"]: (e["expires_in"] and round(e["expires_in"], -2), e["absent"])
                for e in netctl.json("set", "list", name)}  # fmt: skip

    assert content("nets") == expected
    assert netctl("set", "test", "nets", "192.0.2.8").stdout == "yes\n"
    assert netctl("set", "test", "nets", "192.0.2.7", check=False).stdout == "no\n"

    # What `list` prints is read back, as text and as JSON.
    for form in ((), ("--json",)):
        listed = netctl(*form, "set", "list", "nets").stdout
        make(netctl, "copy", "cidr", "203.0.113.1")
        netctl("set", "import", "copy", "--replace", input=listed)
        assert content("copy") == expected
        netctl("set", "destroy", "copy")

    bad = lists / "worse.txt"
    bad.write_text("203.0.113.0/24\n" + 22 * "  10.0.0.1/8 # no network\n")
    message = netctl.fails("set", "import", "nets", lists, status=2)
    for line in (2, 21):
        assert f"{bad}:{line}: '10.0.0.1/8' has bits set behind its /8\n    10.0.0.1/8 # no network\n    ^~~" in message
    assert f"{bad}:22:" not in message and "and 2 more" in message and "--skip-bad" in message
    assert content("nets") == expected
    done = netctl("set", "import", "nets", lists, "--skip-bad")
    assert done.stdout == "6 elements, 22 lines left out\n" and f"{bad}:2:" in done.stderr
    assert content("nets") == {**expected, "203.0.113.0/24": (None, False)}


def test_import_of_many(netctl):
    count = 2000 if IN_VM else 100_000
    make(netctl, "many", "host", size=count)
    lines = "".join(f"{ipaddress.ip_address(0x0A000000 + i)}\n" for i in range(count))
    assert netctl.json("set", "import", "many", input=lines) == {"elements": count, "skipped": 0}
    (status,) = netctl.json("set", "list")
    assert status["elements"] == count
    assert netctl("set", "test", "many", str(ipaddress.ip_address(0x0A000000 + count - 1))).stdout == "yes\n"
    netctl("set", "import", "many", "--replace", input="10.0.0.1\n")
    assert elements(netctl, "many") == ["10.0.0.1"]


@pytest.mark.parametrize("kind", ("host", "cidr"))
def test_full_set(netctl, kind):
    """Full means full, also half way through a list: then nothing of it is added."""
    make(netctl, "small", kind, "192.0.2.1", "192.0.2.2", size=4)
    present = ["192.0.2.1", "192.0.2.2"]
    for words, options in (
        (("add", "small", "192.0.2.3", "192.0.2.4", "192.0.2.5"), {}),
        (("import", "small"), {"input": "192.0.2.3\n192.0.2.4\n192.0.2.5\n"}),
        (("import", "small", "--replace"), {"input": "".join(f"192.0.2.{i}\n" for i in range(3, 8))}),
    ):
        message = netctl.fails("set", *words, **options)
        assert "set 'small' is full: it holds 4 elements of each family" in message, words
        assert "--size" in message
        assert elements(netctl, "small") == present, words
    # Each family has its room; what is there already needs none; a replacement may fill it all.
    netctl("set", "add", "small", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8::1")
    netctl("set", "import", "small", "--replace", input="".join(f"192.0.2.{i}\n" for i in range(4, 8)))
    assert elements(netctl, "small") == [f"192.0.2.{i}" for i in range(4, 8)]


@pytest.mark.parametrize("kind", ("host", "cidr"))
def test_expired_elements_make_room(netctl, kind):
    make(netctl, "small", kind, "192.0.2.1", size=3)
    for element in ("192.0.2.2", "192.0.2.3"):
        edit(netctl, "small", "update", kind, element, struct.pack("=II", 1, 0))
    assert elements(netctl, "small") == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    netctl("set", "add", "small", "192.0.2.4")
    assert elements(netctl, "small") == ["192.0.2.1", "192.0.2.4"]
    edit(netctl, "small", "update", kind, "192.0.2.5", struct.pack("=II", 1, 0))
    netctl("set", "add", "small", "192.0.2.4", "192.0.2.6")
    assert elements(netctl, "small") == ["192.0.2.1", "192.0.2.4", "192.0.2.6"]


def test_life_of_a_set(netctl, link):
    client, server = link
    make(netctl, "s", "host", client.ip4)
    assert "there is a set 's' already" in netctl.fails("set", "create", "s", "--type", "port")
    filter = Filter(netctl, server)
    first = filter.add("src @s drop")
    second = filter.add("dst @s dport 7 pass")
    message = netctl.fails("set", "destroy", "s")
    assert "set 's' is in use by" in message
    for rule in (first, second):
        assert f"rule {rule}" in message
    assert netctl.json("set", "list")[0]["users"] != []
    with Wire(client, server) as wire:
        deliver(wire, client, server, [client.ip4, client.ip6], [False, True])
        filter("rule delete", str(first))
        assert "in use" in netctl.fails("set", "destroy", "s")
        filter("rule delete", str(second))
        netctl("set", "destroy", "s")
        assert "there is no set 's'" in netctl.fails("set", "list", "s")
        assert netctl.json("set", "list") == []
        # The name is free again; rules of the old one do not come back.
        make(netctl, "s", "port", "9")
        deliver(wire, client, server, [client.ip4], [True])
        filter.add("proto udp dport @s drop")
        deliver(wire, client, server, [client.ip4], [False])
    filter("detach")
    netctl("set", "destroy", "s")
    assert not netctl.root.exists()


def test_two_interfaces_share_a_set(lab, netctl, link):
    client, server = link
    far, server1 = lab.veth(lab.namespace("far"), server.netns, name_b="eth1", checksums=False)
    make(netctl, "s", "host")
    filters = [Filter(netctl, server), Filter(netctl, server1, "--mode", "generic")]
    filters[0].add("src @s drop")
    filters[1].add("dst 192.0.2.0/24 pass", "src not @s pass", "drop")
    with Wire(client, server) as one, Wire(far, server1) as two:
        for verb, arrive in (("add", False), ("delete", True)):
            netctl("set", verb, "s", "203.0.113.9", "2001:db8::9")
            for wire, ends in ((one, (client, server)), (two, (far, server1))):
                deliver(wire, *ends, ["203.0.113.9", "2001:db8::9", "203.0.113.8"], [arrive, arrive, True])
    users = netctl.json("set", "list")[0]["users"]
    assert len(users) == 2
    filters[0]("detach")
    assert "in use" in netctl.fails("set", "destroy", "s")
    filters[1]("detach")
    netctl("set", "destroy", "s")


@pytest.mark.parametrize("kind", ("host", "cidr", "base", "port"))
def test_what_is_there_for_good_stays(netctl, kind):
    """A time to live is taken by what is new, or has one; adding and deleting twice is as once."""
    both = {"port": ("80", "443", "8080")}.get(kind, ("192.0.2.1", "2001:db8::1", "192.0.2.9"))
    make(netctl, "s", "cidr" if kind == "base" else kind)
    if kind == "base":
        netctl("set", "import", "s", input="\n".join([*both[:2], *networks(1100), *networks6(1100)]))
    else:
        netctl("set", "add", "s", *both[:2])

    def times():
        found = {each["element"]: each["expires_in"] for each in netctl.json("set", "list", "s")}
        return [found.get(element, "absent") for element in both]

    def lasts(seconds):
        return lambda left: left is not None and seconds - 500 < left <= seconds

    for words in (both, both[:1], both[1:2]):
        done = netctl("set", "add", "s", "--ttl", 3600, *words)
        assert ("for good already" in done.stderr) and words[0] in done.stderr
    assert times()[:2] == [None, None] and lasts(3600)(times()[2])
    assert netctl("set", "add", "s", "--ttl", 7200, "--exist", *both).stderr == ""
    assert times()[:2] == [None, None] and lasts(7200)(times()[2])
    # The same from a list, whose other elements are taken.
    done = netctl("set", "import", "s", input="".join(f"{element}  expires in 1800 s\n" for element in both))
    assert f"for good already, and left so: {both[0]}, {both[1]}\n" in done.stderr
    assert times()[:2] == [None, None] and lasts(1800)(times()[2])
    if kind != "port":
        netctl("set", "add", "s", "--ttl", 1800, *(f"198.51.100.{i}" for i in range(9)), both[0])
        assert netctl("set", "test", "s", "198.51.100.8").stdout == "yes\n"
    # What replaces all is believed, and for ever is for ever.
    netctl("set", "add", "s", "--ttl", 0, both[2])
    assert times() == [None, None, None]
    netctl("set", "import", "s", "--replace", input=f"{both[0]}  expires in 1800 s\n{both[1]}\n")
    assert lasts(1800)(times()[0]) and times()[1:] == [None, "absent"]

    message = netctl.fails("set", "delete", "s", both[1], both[2])
    assert f"not in set 's': {both[2]}" in message and times()[1] is None
    netctl("set", "delete", "s", "--exist", *both)
    assert times() == ["absent"] * 3
    netctl("set", "delete", "s", "--exist", *both)
    assert elements(netctl, "s") == []


def test_exceptions_for_good_stay(netctl):
    """A ban for a time takes nothing out of an exception; one for good does."""
    make(netctl, "s", "cidr", "192.0.2.0/24")
    netctl("set", "import", "s", input="192.0.2.1  absent\n")
    netctl("set", "add", "s", "--ttl", 3600, "192.0.2.1")
    assert netctl("set", "test", "s", "192.0.2.1", check=False).stdout == "no\n"
    netctl("set", "add", "s", "192.0.2.1")
    assert netctl("set", "test", "s", "192.0.2.1").stdout == "yes\n"


def test_wrong_words(netctl):
    for kind in ("host", "cidr", "port"):
        make(netctl, kind, kind)
    for status, words, answer in (
        (2, ("create", "a.b", "--type", "host"), "is no name for a set"),
        (2, ("create", "x"), "--type is missing"),
        (2, ("create", "x", "--type", "hosts"), "host or cidr or port or name"),
        (2, ("create", "x", "--type", "host", "--size", "0"), "--size"),
        (2, ("add", "host", "192.0.2.0/24"), "holds addresses"),
        (2, ("add", "host", "192.0.2.256"), "'192.0.2.256'"),
        (2, ("add", "cidr", "192.0.2.1/24"), "bits set behind its /24"),
        (2, ("add", "port", "65536"), "'65536' is no port"),
        (2, ("add", "port", "80", "htpt"), "'htpt' is no port"),
        (2, ("add", "port", "--ttl", "-1", "80"), "'-1' is no time to live"),
        (2, ("add", "host", "--ttl", "3153600001", "192.0.2.1"), "0 is for ever"),
        (2, ("add", "host", "--ttl", "36501d", "192.0.2.1"), "a number with s, m, h or d"),
        (2, ("add", "cidr", "--ttl", "4294967297", "192.0.2.1"), "is no time to live"),
        (2, ("add", "port"), "missing"),
        (2, ("ad", "port", "80"), "did you mean 'add'"),
        (1, ("add", "nobody", "192.0.2.1"), "there is no set 'nobody'"),
        (1, ("delete", "port", "80"), "not in set 'port': 80"),
        (1, ("destroy", "nobody"), "there is no set 'nobody'"),
        (1, ("import", "port", "/nowhere"), "/nowhere"),
    ):
        assert answer in netctl.fails("set", *words, status=status), words
    for kind in ("host", "cidr", "port"):
        assert elements(netctl, kind) == []


def test_pinned_maps_describe_themselves(netctl):
    """bpftool prints the fields' names, since every map has BTF."""
    make(netctl, "s", "cidr", "192.0.2.0/24")
    (entry,) = bpftool("map", "dump", "pinned", netctl.root / "sets/s/v4")
    assert entry["formatted"]["key"]["length"] == 24
    assert entry["formatted"]["value"] == {"expires": 0, "flags": 2}  # NC_SET_FOLD: netctl wrote it


# ---- bases: what is folded ----

MANY = 1500 if IN_VM else 5000
SEGMENT = 32000  # bytes; a base takes whole ones
ROOM = 256 << 10  # bytes that a base of IPv4 may take, however few its elements
TAKEN_OUT = struct.pack("=II", 1, 0)  # a value that expired long ago


def networks(count, first="10.0.0.0"):
    """As many /28, none beside another."""
    start = int(ipaddress.ip_address(first))
    return [f"{ipaddress.ip_address(start + 64 * i)}/28" for i in range(count)]


def size_of(netctl, name):
    return next(status for status in netctl.json("set", "list") if status["name"] == name)


def test_foreign_writes_over_a_base(netctl, link):
    """Adding, taking out, an exception and a time to live, all in the live map, over a big import."""
    client, server = link
    make(netctl, "nets", "cidr")
    filter = Filter(netctl, server)
    filter.add("src @nets drop")
    bulk = [*networks(MANY), "192.0.2.0/24", "198.51.100.0/25", "198.51.100.64/26", "2001:db8:1::/48"]
    netctl("set", "import", "nets", input="\n".join(bulk))
    size = size_of(netctl, "nets")
    assert (size["elements"], size["base"], size["live"]) == (len(bulk), len(bulk), 0)
    assert size["bytes"] <= max(24 * len(bulk), ROOM) + 2 * SEGMENT
    assert set(elements(netctl, "nets")) == set(bulk)
    sources = ["10.0.0.5", "192.0.2.9", "198.51.100.70", "203.0.113.1", "2001:db8:1::1", "2001:db8:2::1"]
    arrive = [False, False, False, True, False, True]
    with Wire(client, server) as wire:

        def step(verb, element, value, changed):
            edit(netctl, "nets", verb, "cidr", element, value)
            for source, passes in changed.items():
                arrive[sources.index(source)] = passes
            deliver(wire, client, server, sources, arrive)
            # Nothing of the kernel is in what the command says: in a guest not all of it, as each takes a second.
            asked = changed if IN_VM else sources
            for source, passes in zip(sources, arrive, strict=True):
                if source not in asked:
                    continue
                answer = netctl("set", "test", "nets", source, check=False).stdout
                assert answer == ("no\n" if passes else "yes\n"), (verb, element, source)

        deliver(wire, client, server, sources, arrive)
        # What is in the base only cannot be deleted from the live map, and says so.
        with pytest.raises(AssertionError, match="No such file"):
            step("delete", "192.0.2.0/24", None, {})
        deliver(wire, client, server, sources, arrive)
        step("update", "203.0.113.0/24", bytes(8), {"203.0.113.1": False})
        step("update", "2001:db8:2::/64", bytes(8), {"2001:db8:2::1": False})
        step("delete", "203.0.113.0/24", None, {"203.0.113.1": True})
        step("update", "192.0.2.0/24", TAKEN_OUT, {"192.0.2.9": True})
        step("update", "2001:db8:1::/48", TAKEN_OUT, {"2001:db8:1::1": True})
        # Nested elements are taken out one by one.
        step("update", "198.51.100.0/25", TAKEN_OUT, {})
        step("update", "198.51.100.64/26", TAKEN_OUT, {"198.51.100.70": True})
        # An exception, inside an element and around one.
        step("update", "10.0.0.4/30", struct.pack("=II", 0, 1), {"10.0.0.5": True})
        step("update", "10.0.0.0/8", struct.pack("=II", 0, 1), {})
        step("delete", "10.0.0.4/30", None, {"10.0.0.5": False})
        step("delete", "192.0.2.0/24", None, {"192.0.2.9": False})
        # Folding changes no verdict.
        netctl("set", "fold", "nets")
        deliver(wire, client, server, sources, arrive)
    size = size_of(netctl, "nets")
    assert size["live"] == 1  # the exception
    gone = {"198.51.100.0/25", "198.51.100.64/26", "2001:db8:1::/48"}
    assert set(elements(netctl, "nets")) == set(bulk) - gone | {"2001:db8:2::/64", "10.0.0.0/8"}


def test_own_edits_over_a_base(netctl, tmp_path):
    make(netctl, "nets", "cidr")
    bulk = networks(MANY)
    netctl("set", "import", "nets", input="\n".join(bulk))
    netctl("set", "delete", "nets", bulk[0], bulk[7])
    assert f"not in set 'nets': {bulk[0]}" in netctl.fails("set", "delete", "nets", bulk[0])
    netctl("set", "add", "nets", "192.0.2.1", bulk[7])
    netctl("set", "delete", "nets", bulk[9])
    netctl("set", "add", "nets", "--ttl", "3600", "192.0.2.2", bulk[9])
    expected = set(bulk) - {bulk[0]} | {"192.0.2.1", "192.0.2.2"}
    assert set(elements(netctl, "nets")) == expected
    assert size_of(netctl, "nets")["elements"] == len(expected)
    netctl("set", "fold", "nets")
    assert set(elements(netctl, "nets")) == expected
    size = size_of(netctl, "nets")
    assert (size["elements"], size["live"]) == (len(expected), 2)  # those that expire
    listed = {entry["element"]: entry.get("expires_in") for entry in netctl.json("set", "list", "nets")}
    assert 3000 < listed[bulk[9]] <= 3600
    # What goes with its time is not in the base either.
    netctl("set", "delete", "nets", bulk[9], "192.0.2.2")
    assert set(elements(netctl, "nets")) == expected - {bulk[9], "192.0.2.2"}
    # Many single writes fold themselves.
    netctl("set", "add", "nets", *networks(1023, "172.16.0.0"))
    netctl("set", "add", "nets", "172.31.0.1")
    assert size_of(netctl, "nets")["live"] == 0
    netctl("set", "import", "nets", "--replace", input="192.0.2.9\n")
    assert elements(netctl, "nets") == ["192.0.2.9"]
    netctl("set", "import", "nets", "--replace", "--allow-empty", input="")
    assert elements(netctl, "nets") == []
    assert size_of(netctl, "nets")["bytes"] == 0
    message = netctl.fails("set", "fold", "absent")
    assert "there is no set 'absent'" in message
    make(netctl, "hosts", "host")
    assert "sets of type cidr are folded" in netctl.fails("set", "fold", "hosts", status=2)
    netctl("set", "destroy", "nets")
    netctl("set", "destroy", "hosts")
    assert not netctl.root.exists()


def test_folding_under_traffic(netctl, lab, link, streamer, tmp_path):
    """No packet from a member gets through, and none from another is dropped, while bases change."""
    client, server = link
    member = str(ipaddress.ip_network(f"{client.ip6}/64", strict=False))
    make(netctl, "nets", "cidr", member)
    filter = Filter(netctl, server)
    filter.add("src @nets drop")
    listing = tmp_path / "list"
    with Stream(streamer, client, server, 4, 4000) as passes, Stream(streamer, client, server, 6, 4000) as never:
        for turn in range(2 if IN_VM else 6):
            listing.write_text("\n".join([*networks(MANY), f"2001:db8:{turn}::/56"]))
            folding = lab.start(*netctl.argv("set", "import", "nets", listing))
            while folding.alive():
                passes.await_all(passes.hundred())
            assert folding.wait() == 0, str(folding)
            netctl("set", "fold", "nets")
            passes.await_all(passes.hundred())
        assert never.sent > 100
    assert never.arrived == []
    assert size_of(netctl, "nets")["live"] == 0


def test_a_killed_fold_leaves_old_or_new(netctl, lab, tmp_path):
    others = maps_named("base_segment")  # of whoever else uses netctl on this kernel
    make(netctl, "nets", "cidr")
    old, new = networks(MANY), networks(MANY, "172.16.0.0")
    netctl("set", "import", "nets", input="\n".join(old))
    listing = tmp_path / "list"
    listing.write_text("\n".join(new))
    before = maps_named("base_segment")
    for delay in (0.005, 0.02, 0.05) if IN_VM else (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05):
        process = lab.start(*netctl.argv("set", "import", "nets", listing))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        process.stop(signal.SIGKILL)
        found = set(elements(netctl, "nets"))
        assert found in (set(old), set(old) | set(new))
        netctl("set", "import", "nets", "--replace", input="\n".join(old))
        assert set(elements(netctl, "nets")) == set(old)
    until(lambda: maps_named("base_segment") <= before)  # the kernel frees what nobody holds
    netctl("set", "destroy", "nets")
    until(lambda: maps_named("base_segment") <= others)
    assert not netctl.root.exists()


def maps_named(name):
    """How many maps of this name the bases of our roots hold, and those that nobody holds yet."""
    return sum(1 for each in bpftool("map", "list") or [] if each.get("name") == name)


# ---- all or nothing, in both families ----


def state_changing_calls(netctl, argv, tmp_path, **options):
    """The numbers, among a command's bpf() calls, of those that change something."""
    trace = tmp_path / "trace"
    run("strace", "-f", "-o", trace, "-e", "trace=bpf", *netctl.argv(*argv), **options)
    calls = [line for line in trace.read_text().splitlines() if "bpf(" in line]
    changing = ("UPDATE", "DELETE", "OBJ_PIN", "TEST_RUN")
    numbers = [i for i, line in enumerate(calls, 1) if any(word in line for word in changing)]
    assert numbers
    return numbers


def inject(netctl, argv, fault, number, **options):
    return run("strace", "-f", "-o", "/dev/null", "-e", "trace=bpf", "-e",
               f"inject=bpf:{fault}:when={number}", *netctl.argv(*argv), check=False, **options)  # fmt: skip


BOTH = {
    "host": ([f"192.0.2.{i}" for i in range(1, 9)] + [f"2001:db8::{i}" for i in range(1, 9)],
             [f"192.0.2.{i}" for i in range(5, 13)] + [f"2001:db8::{i}" for i in range(5, 9)]),
    "cidr": (["192.0.2.0/25", "192.0.2.7", "198.51.100.0/24", "2001:db8::/48", "2001:db8:0:1::/64"],
             ["192.0.2.0/24", "192.0.2.7", "203.0.113.0/24", "2001:db8::/32", "2001:db8:0:1::/64"]),
    "port": (list(map(str, range(80, 90))), list(map(str, range(85, 95)))),
}  # fmt: skip


def listed(netctl, name="s"):
    return {(each["element"], each.get("absent", False), each["expires_in"] is not None)
            for each in netctl.json("set", "list", name)}  # fmt: skip


@pytest.mark.parametrize("fault", ("signal=KILL", "error=ENOMEM"))
@pytest.mark.parametrize("kind", ("host", "cidr", "port", "base"))
def test_an_import_is_all_or_nothing(netctl, tmp_path, kind, fault):
    """At every call of an import into both families, with own, foreign and expiring elements in the set."""
    based, kind = kind == "base", "cidr" if kind == "base" else kind
    old, new = BOTH[kind]
    old = old + (networks(1100) + networks6(1100) if based else [])
    foreign = 60000 if kind == "port" else "100.64.0.1"
    make(netctl, "s", kind)

    def prepare():
        netctl("set", "import", "s", "--replace", input="\n".join(old))
        edit(netctl, "s", "update", kind, foreign)
        if kind == "cidr":
            edit(netctl, "s", "update", kind, "192.0.2.64/26", struct.pack("=II", 0, 1))
        netctl("set", "delete", "s", new[-1], "--exist")
        netctl("set", "add", "s", "--ttl", "100000", new[-1])

    listing = tmp_path / "new"
    listing.write_text("\n".join(new))
    argv = ("set", "import", "s", "--replace", str(listing))
    prepare()
    before = listed(netctl)
    numbers = state_changing_calls(netctl, argv, tmp_path)
    after = listed(netctl)
    assert before != after == {(element, False, False) for element in new}
    told = set()
    if len(numbers) > 12:  # the last are where it is decided; a dozen of all will do
        numbers = numbers[:: len(numbers) // 8 + 1] + numbers[-4:]
    for number in numbers:
        prepare()
        assert listed(netctl) == before
        done = inject(netctl, argv, fault, number)
        found = listed(netctl)
        assert found in (before, after), f"call {number} of {numbers}: neither old nor new"
        if not fault.startswith("signal"):
            assert (done.returncode == 0) == (found == after), f"call {number}: {done.stderr}"
        told.add(found == after)
        netctl("set", "import", "s", "--replace", listing)  # the next command works
        assert listed(netctl) == after
    assert False in told
    # Nothing that was told to turn is left.
    for name in ("ports",) if kind == "port" else ("v4", "v6"):
        for each in bpftool("map", "dump", "pinned", netctl.root / "sets/s" / name):
            assert each["formatted"]["value"]["flags"] in (0, 2)


def networks6(count):
    return [str(ipaddress.ip_network((int(ipaddress.ip_address("2001:db8:1::")) + (i << 64), 64)))
            for i in range(count)]  # fmt: skip


def test_what_does_not_fit_changes_nothing_in_any_family(netctl):
    """The second family has no room; nothing of the first is in force."""
    make(netctl, "s", "cidr", "192.0.2.0/24", size=2000)
    for options in ((), ("--replace",)):
        message = netctl.fails("set", "import", "s", *options, input="\n".join(networks(1100) + networks6(2100)))
        assert "set 's' is full" in message
        assert elements(netctl, "s") == ["192.0.2.0/24"]


@pytest.mark.parametrize("kind", ("host", "cidr", "port"))
def test_words_are_added_and_deleted_together(netctl, tmp_path, kind):
    old, new = BOTH[kind]
    make(netctl, "s", kind, *old)
    before = listed(netctl)
    missing = "7" if kind == "port" else "203.0.113.77"
    message = netctl.fails("set", "delete", "s", old[0], missing, old[1])
    assert f"not in set 's': {missing}" in message
    assert listed(netctl) == before
    for argv in (("set", "add", "s", *new), ("set", "delete", "s", *old[:4], old[-1])):
        netctl("set", "import", "s", "--replace", input="\n".join(old))
        numbers = state_changing_calls(netctl, argv, tmp_path)
        after = listed(netctl)
        for number in numbers[:: len(numbers) // 8 + 1]:
            netctl("set", "import", "s", "--replace", input="\n".join(old))
            inject(netctl, argv, "signal=KILL", number)
            assert listed(netctl) in (before, after), f"{argv[1]}, call {number}"


def test_replacing_a_full_set(netctl):
    """Old and new elements have room beside each other, so that the step between them is one."""
    make(netctl, "s", "host", *[f"192.0.2.{i}" for i in range(1, 5)], size=4)
    netctl("set", "import", "s", "--replace", input="\n".join(f"198.51.100.{i}" for i in range(1, 5)))
    assert elements(netctl, "s") == [f"198.51.100.{i}" for i in range(1, 5)]


def test_a_wider_element_is_not_taken_for_a_narrower_one(netctl):
    """A trie answers with the longest element that covers what is asked for."""
    make(netctl, "s", "cidr", "192.0.2.0/24", "192.0.2.0/28")
    netctl.fails("set", "delete", "s", "192.0.2.0/24", "192.0.2.1")
    assert elements(netctl, "s") == ["192.0.2.0/24", "192.0.2.0/28"]
    netctl("set", "add", "s", "192.0.2.1", "192.0.2.2")
    netctl("set", "delete", "s", "192.0.2.0/24", "192.0.2.0/28")
    assert elements(netctl, "s") == ["192.0.2.1", "192.0.2.2"]


def test_a_group_may_write_one_set(netctl):
    """Its members, without any capability, and nothing else of the root."""
    netctl("set", "create", "open", "--type", "host", "--group", "nogroup")
    netctl("set", "create", "later", "--type", "cidr")
    netctl("set", "create", "shut", "--type", "host")
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
    sets = netctl.root / "sets"

    def write(path, *key):
        return run(*nobody, "bpftool", "map", "update", "pinned", path, "key", *key,
                   "value", *([0] * 8), check=False).returncode == 0  # fmt: skip

    run("chmod", "o+x", sets.parent.parent)  # the bpffs, which netctl leaves alone
    assert write(sets / "open/v4", 192, 0, 2, 1)
    assert elements(netctl, "open") == ["192.0.2.1"]
    prefix = (24, 0, 0, 0, 192, 0, 2, 0)
    assert not write(sets / "later/v4", *prefix)
    assert not write(sets / "shut/v4", 192, 0, 2, 1)
    netctl("set", "chgrp", "later", "nogroup")
    assert write(sets / "later/v4", *prefix)
    netctl("set", "chgrp", "later", "root")
    assert not write(sets / "later/v4", *prefix)
    assert "no group 'nosuch'" in netctl.fails("set", "chgrp", "later", "nosuch", status=2)
    # Nothing else can be opened, listed, removed or made.
    for argv in (
        ("ls", sets), ("ls", netctl.root), ("rm", sets / "open/v4"), ("mkdir", sets / "new"),
        ("bpftool", "map", "dump", "pinned", netctl.root / "meta"),
        ("bpftool", "map", "dump", "pinned", sets / "open/info"),
        ("bpftool", "map", "dump", "pinned", netctl.root / "bases/refs"),
    ):  # fmt: skip
        assert run(*nobody, *argv, check=False).returncode, argv
    netctl("set", "add", "open", "192.0.2.2", "2001:db8::1")  # and the owner goes on
    assert elements(netctl, "open") == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]


# ---- diff, swap, list --sort ----


def test_diff_tells_what_a_replacement_would_change(netctl, tmp_path):
    make(netctl, "s", "cidr", "192.0.2.0/24", "192.0.2.7", "2001:db8::/32", "198.51.100.1")
    netctl("set", "import", "s", input="\n".join(networks(1100)))  # a base
    netctl("set", "add", "s", "--ttl", 3600, "203.0.113.1", "203.0.113.2")
    edit(netctl, "s", "update", "cidr", "203.0.113.9", TAKEN_OUT)  # over, so none
    same = netctl("set", "list", "s").stdout
    assert netctl("set", "diff", "s", input=same).stdout == ""
    listing = tmp_path / "list"
    listing.write_text("\n".join(["192.0.2.0/24", "192.0.2.7  absent", "203.0.113.1", "203.0.113.2  expires in 9 s",
                                  "2001:db8::1", *networks(1100)[1:]]))  # fmt: skip
    before = netctl("set", "list", "s").stdout
    done = netctl("set", "diff", "s", listing, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["- 10.0.0.0/28", "- 198.51.100.1", "- 2001:db8::/32", "+ 2001:db8::1",
                                        "~ 192.0.2.7  absent", "~ 203.0.113.1"]  # fmt: skip
    found = netctl.json("set", "diff", "s", listing, check=False)
    assert {kind: [each["element"] for each in found[kind]] for kind in ("added", "removed", "changed")} == {
        "added": ["2001:db8::1"],
        "removed": ["10.0.0.0/28", "198.51.100.1", "2001:db8::/32"],
        "changed": ["192.0.2.7", "203.0.113.1"],
    }
    assert elements(netctl, "s") == [line.split()[0] for line in before.splitlines()]  # nothing was changed
    netctl("set", "import", "s", listing, "--replace")
    assert netctl("set", "diff", "s", listing).stdout == ""
    # What cannot be read, or is not there, is no answer.
    listing.write_text("192.0.2.0/24\n10.0.0.1/8\n")
    assert "bits set behind" in netctl.fails("set", "diff", "s", listing, status=2)
    assert "1 left out" not in netctl.fails("set", "diff", "s", listing, "--skip-bad", status=1)
    assert "no set 'nobody'" in netctl.fails("set", "diff", "nobody", listing, status=4)
    assert netctl.json("set", "diff", "s", "/dev/null", check=False)["removed"] != []


@pytest.mark.kernel
def test_swap_is_one_step_for_traffic(netctl, link, streamer, tmp_path):
    """Rules go on to mean the name; no packet of who is in both sets gets by, whichever way each holds it."""
    client, server = link
    make(netctl, "a", "cidr", str(ipaddress.ip_network(f"{client.ip4}/25", strict=False)))
    make(netctl, "b", "cidr", str(ipaddress.ip_network(f"{client.ip4}/24", strict=False)), "192.0.2.200")
    netctl("set", "import", "b", input="\n".join(networks(MANY)))  # a base, and a has none
    netctl("set", "add", "a", "--ttl", 3600, "2001:db8:77::/48")
    filter = Filter(netctl, server)
    filter.add("proto udp dport 4000 src @a drop", "proto udp dport 4001 src @b drop", "proto udp dport 7 src @a drop")
    before = {name: listed(netctl, name) for name in "ab"}
    with (
        Stream(streamer, client, server, 4, 4000) as one,
        Stream(streamer, client, server, 4, 4001) as other,
        Stream(streamer, client, server, 6, 4000) as passes,
    ):
        for turn in range(3 if IN_VM else 11):
            netctl("set", "swap", "a", "b")
            passes.await_all(passes.hundred())
            after = {name: listed(netctl, name) for name in "ab"}
            if turn % 2 == 0:
                assert (after["a"], after["b"]) == (before["b"], before["a"])
            else:
                assert after == before
        assert one.sent > 100 and other.sent > 100
    assert one.arrived == [] and other.arrived == []
    # The datapath's word on who is where: a holds what b held.
    assert listed(netctl, "a") == before["b"]
    with Wire(client, server) as wire:
        deliver(wire, client, server, ["10.0.0.1", "2001:db8:77::1", "198.18.0.1"], [False, True, True], dport=7)
        netctl("set", "swap", "b", "a")
        deliver(wire, client, server, ["10.0.0.1", "2001:db8:77::1", "198.18.0.1"], [True, False, True], dport=7)
    for name in "ab":
        netctl("set", "fold", name)
        assert {each[0] for each in listed(netctl, name)} == {each[0] for each in before[name]}


@pytest.mark.parametrize("fault", ("signal=KILL", "error=ENOMEM"))
@pytest.mark.parametrize("kind", ("host", "cidr", "port", "base"))
def test_a_swap_is_all_or_nothing(netctl, tmp_path, kind, fault):
    based, kind = kind == "base", "cidr" if kind == "base" else kind
    old, new = BOTH[kind]
    make(netctl, "s", kind)
    make(netctl, "t", kind)
    foreign = 60000 if kind == "port" else "100.64.0.1"

    def prepare():
        netctl("set", "import", "s", "--replace", input="\n".join(old + (networks(1100) if based else [])))
        netctl("set", "import", "t", "--replace", input="\n".join(new + (networks6(1100) if based else [])))
        edit(netctl, "s", "update", kind, foreign)
        own, in_both = ("99", "86") if kind == "port" else ("100.64.0.2", new[-1])
        netctl("set", "add", "t", "--ttl", "100000", own)
        if not fault.startswith("signal"):  # one that is there for good in s and for a time in t is written by itself
            netctl("set", "delete", "t", in_both)
            netctl("set", "add", "t", "--ttl", "100000", in_both)

    def both():
        return listed(netctl, "s"), listed(netctl, "t")

    prepare()
    before = both()
    argv = ("set", "swap", "s", "t")
    numbers = state_changing_calls(netctl, argv, tmp_path)
    after = both()
    assert after == before[::-1] and before[0] != before[1]
    if len(numbers) > 12:
        numbers = numbers[:: len(numbers) // 8 + 1] + numbers[-4:]
    seen = set()
    for number in numbers:
        prepare()
        done = inject(netctl, argv, fault, number)
        found = both()
        assert found in (before, after), f"call {number} of {numbers}: neither old nor new"
        if not fault.startswith("signal"):
            assert (done.returncode == 0) == (found == after), f"call {number}: {done.stderr}"
        seen.add(found == after)
        # The next command finds what a killed one left, and goes on from there.
        netctl(*argv)
        assert both() == (before if found == after else after)
    assert False in seen
    for name in "st":
        for pin in ("ports",) if kind == "port" else ("v4", "v6"):
            for each in bpftool("map", "dump", "pinned", netctl.root / "sets" / name / pin):
                assert each["formatted"]["value"]["flags"] in (0, 2)


def test_what_cannot_be_swapped(netctl):
    make(netctl, "a", "host", "192.0.2.1", "192.0.2.2", "192.0.2.3", size=3)
    make(netctl, "b", "cidr", "192.0.2.0/24")
    make(netctl, "c", "host", "198.51.100.1", size=2)
    for status, words, answer in (
        (2, ("a", "a"), "is both of the two"),
        (2, ("a", "b"), "set 'a' is of type host, and set 'b' of type cidr"),
        (1, ("a", "c"), "set 'c' is full: it holds 2 elements"),
        (1, ("a", "nobody"), "there is no set 'nobody'"),
    ):
        assert answer in netctl.fails("set", "swap", *words, status=status)
    assert elements(netctl, "a") == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert elements(netctl, "c") == ["198.51.100.1"]


def test_list_sorted(netctl):
    make(netctl, "s", "host", "192.0.2.5", "2001:db8::5")
    for element, seconds in (("192.0.2.3", 3000), ("192.0.2.9", 1000), ("2001:db8::1", 2000)):
        netctl("set", "add", "s", "--ttl", seconds, element)
    by_address = ["192.0.2.3", "192.0.2.5", "192.0.2.9", "2001:db8::1", "2001:db8::5"]
    by_end = ["192.0.2.9", "2001:db8::1", "192.0.2.3", "192.0.2.5", "2001:db8::5"]
    for words, order in (((), by_address), (("--sort", "address"), by_address), (("--sort", "ttl"), by_end),
                         (("--sort", "ttl", "--top", 2), by_end[:2]), (("--top", 9), by_address)):  # fmt: skip
        assert [each["element"] for each in netctl.json("set", "list", "s", *words)] == order, words
        assert [line.split()[0] for line in netctl("set", "list", "s", *words).stdout.splitlines()] == order
    for words in (("s", "--sort", "size"), ("s", "--top", 0), ("--top", 1), ("--sort", "ttl")):
        netctl.fails("set", "list", *words, status=2)


# ---- watching ----


def test_what_changes_in_a_set_is_told(netctl, lab, tmp_path):
    """Whoever changes it: each change once, in the order in which they were made."""
    make(netctl, "s", "cidr", "192.0.2.0/24")
    watcher = netctl.start(lab, "set", "watch", "s", "--interval", "20ms")

    def told():
        return [(line["event"], line["element"]) for line in watcher.json_lines()]

    expected = [("there", "192.0.2.0/24")]

    def then(*events):
        expected.extend(events)
        until(lambda: len(told()) >= len(expected), what=f"{events}")
        assert told() == expected

    then()
    netctl("set", "add", "s", "198.51.100.7", "2001:db8::/32")
    then(("added", "198.51.100.7"), ("added", "2001:db8::/32"))
    edit(netctl, "s", "update", "cidr", "203.0.113.0/24")  # another tool
    then(("added", "203.0.113.0/24"))
    netctl("set", "fold", "s")  # it lies elsewhere now, and is the same
    netctl("set", "delete", "s", "198.51.100.7")
    then(("removed", "198.51.100.7"))
    netctl("set", "add", "s", "198.51.100.8", "--ttl", "1000")
    then(("added", "198.51.100.8"))
    netctl("set", "add", "s", "198.51.100.8", "--ttl", "2000")
    then(("changed", "198.51.100.8"))
    netctl("set", "import", "s", "--replace", input="192.0.2.0/24\n")
    then(*[("removed", each) for each in ("198.51.100.8", "203.0.113.0/24", "2001:db8::/32")])
    netctl("set", "destroy", "s")
    assert watcher.wait() == 1
    assert "no set 's'" in watcher.stderr

    first, *changes = watcher.json_lines()
    assert first["since"] is None and all(line["since"] <= line["time"] for line in changes)
    left = {(line["event"], line["element"]): line["expires_in"] for line in watcher.json_lines()}
    assert 1000 < left["changed", "198.51.100.8"] <= 2000 and left["added", "2001:db8::/32"] is None


def test_a_watch_has_an_end(netctl):
    make(netctl, "s", "port", 80, 443)
    done = netctl("set", "watch", "s", "--count", "1")
    assert done.stdout.endswith(" there 80\n") and done.stdout.count("\n") == 1
    assert netctl("set", "watch", "s", "--changes", "--interval", "10ms", "--duration", "30ms").stdout == ""
    assert "interval" in netctl.fails("set", "watch", "s", "--interval", "9ms", status=2)
    assert "no set 'nobody'" in netctl.fails("set", "watch", "nobody")
