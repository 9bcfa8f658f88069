# SPDX-License-Identifier: GPL-2.0-only
"""`set import --mmdb` and `--registry`: the networks of countries, from databases and lists that are made here."""

import ipaddress
import random

import mmdb
import pytest
from traffic import IP, UDP, Ether, Filter, IPv6, Wire

GERMAN, FRENCH = {"country": {"iso_code": "DE", "names": {"en": "Germany"}}}, {"country": {"iso_code": "FR"}}
NETWORKS = {
    "198.51.100.0/25": GERMAN, "198.51.100.128/25": GERMAN, "203.0.113.0/24": FRENCH, "192.0.2.64/26": GERMAN,
    "2001:db8:1::/48": GERMAN, "2001:db8:2::/48": FRENCH, "192.0.2.0/26": {"registered_country": {"iso_code": "DE"}},
}  # fmt: skip
LIST = """\
# of a registry
2|ripencc|1700000000|7|19830705|20231114|+0100
ripencc|*|ipv4|*|4|summary
ripencc|*|ipv6|*|2|summary
ripencc|*|asn|*|1|summary
ripencc|DE|ipv4|198.51.100.0|256|20100910|allocated|7b1a
ripencc|DE|ipv4|192.0.2.64|192|20100910|assigned
ripencc|FR|ipv4|203.0.113.0|256|20100910|allocated
ripencc|DE|ipv4|192.0.2.0|32|20100910|reserved
ripencc|DE|asn|64500|1|20100910|allocated
ripencc|DE|ipv6|2001:db8:1::|48|20100910|allocated
ripencc|FR|ipv6|2001:db8:2::|48|20100910|assigned
"""


@pytest.fixture
def make(netctl):
    netctl("set", "create", "s", "--type", "cidr")
    return lambda *words, **options: netctl("set", "import", "s", *words, **options)


def elements(netctl, name="s"):
    return [entry["element"] for entry in netctl.json("set", "list", name)]


@pytest.mark.parametrize("version,record_size", ((6, 24), (6, 28), (6, 32), (4, 28)))
def test_a_database_gives_the_networks_of_countries(netctl, make, tmp_path, version, record_size):
    """Halves become one network, and what leads to IPv4 again gives nothing."""
    networks = {net: record for net, record in NETWORKS.items() if version == 6 or ":" not in net}
    file = mmdb.write(tmp_path / "c.mmdb", networks, version=version, record_size=record_size)
    assert netctl.json("set", "import", "s", "--mmdb", file, "--country", "DE") == {"elements": 2 + (version == 6), "skipped": 0}
    german = ["192.0.2.64/26", "198.51.100.0/24", *(["2001:db8:1::/48"] if version == 6 else [])]
    assert elements(netctl) == german
    make("--mmdb", file, "--country", "fr", "--replace")
    assert elements(netctl) == ["203.0.113.0/24", *(["2001:db8:2::/48"] if version == 6 else [])]
    make("--mmdb", file, "--country", "DE,FR", "--replace")
    assert len(elements(netctl)) == len(german) + 1 + (version == 6)


def test_databases_with_plain_codes(netctl, make, tmp_path):
    records = {"198.51.100.0/24": {"country": "DE"}, "203.0.113.0/24": {"country_code": "DE", "country": "Germany"},
               "192.0.2.0/24": {"country": "Germany"}}  # fmt: skip
    make("--mmdb", mmdb.write(tmp_path / "c.mmdb", records), "--country", "DE")
    assert elements(netctl) == ["198.51.100.0/24", "203.0.113.0/24"]


def test_a_registrys_list_gives_the_networks_of_countries(netctl, make, tmp_path):
    """Numbers of addresses become prefixes, and neighbours one; a folder has several lists."""
    (tmp_path / "ripe").write_text(LIST)
    make("--registry", tmp_path / "ripe", "--country", "DE")
    assert elements(netctl) == ["192.0.2.64/26", "192.0.2.128/25", "198.51.100.0/24", "2001:db8:1::/48"]
    (tmp_path / "other").write_text("arin|DE|ipv4|192.0.2.0|64|20100910|allocated\r\n")
    make("--registry", tmp_path, "--country", "DE,FR", "--replace")
    assert elements(netctl) == ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8:1::/48", "2001:db8:2::/48"]
    make("--registry", "-", "--country", "FR", "--replace", input=LIST)
    assert elements(netctl) == ["203.0.113.0/24", "2001:db8:2::/48"]


def loop(tree):
    tree.nodes[tree.root_of_ipv4()][1] = tree.root_of_ipv4()


def beyond(tree):
    tree.nodes[0][1] = len(tree.nodes) + 3


def test_what_is_wrong_changes_nothing(netctl, make, tmp_path):
    whole = mmdb.content(NETWORKS)
    files = {"cut": whole[:-40], "half": whole[: len(whole) // 2], "empty": b"", "text": LIST.encode(), "good": whole,
             "loop": mmdb.content(NETWORKS, change=loop), "beyond": mmdb.content(NETWORKS, change=beyond),
             "keys": whole.replace(b"iso_code", b"geo_code"),
             "list": LIST.encode(), "short": LIST[: LIST.rindex("ripencc")].encode(), "line": LIST[:-30].encode()}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    netctl("set", "create", "hosts", "--type", "host")
    make(input="192.0.2.99\n")

    def wrong(expected, *words, name="s", status=1, **options):
        told = netctl.fails("set", "import", name, *words, status=status, **options)
        assert expected in told, told
        assert elements(netctl) == ["192.0.2.99"]

    for name, expected in (
        ("cut", "is no MaxMind DB, or cut"), ("half", "is no MaxMind DB, or cut"), ("empty", "is no MaxMind DB, or cut"),
        ("text", "is no MaxMind DB, or cut"), ("missing", "No such file"), ("loop", "contradicts itself"),
        ("beyond", "contradicts itself"), ("keys", "has no network of DE"), ("good", "has no network of XX"),
    ):  # fmt: skip
        wrong(expected, "--mmdb", tmp_path / name, "--country", "DE,XX", "--replace")
    for name, expected in (
        ("short", "it has 1 records of ipv6, and says that they are 2"), ("line", "this is no line of a registry's list"),
        ("good", "this is no line of a registry's list"), ("empty", "there is no record in it"),
    ):  # fmt: skip
        wrong(expected, "--registry", tmp_path / name, "--country", "DE", "--replace", status=2)
    wrong("no network of XX", "--registry", tmp_path / "list", "--country", "DE,XX")
    for words, expected in (
        (("--country", "DE"), "--country needs --mmdb or --registry"),
        (("--mmdb", tmp_path / "good"), "--country is missing"),
        (("--mmdb", tmp_path / "good", "--registry", tmp_path / "list", "--country", "DE"), "one of --mmdb and --registry"),
        (("--mmdb", tmp_path / "good", "--country", "Germany"), "'Germany' is no code of a country"),
        (("--mmdb", tmp_path / "good", "--country", "DE,"), "'' is no code of a country"),
        ((tmp_path / "list", "--mmdb", tmp_path / "good", "--country", "DE"), "FILE"),
    ):  # fmt: skip
        wrong(expected, *words, status=2)
    wrong("holds addresses", "--mmdb", tmp_path / "good", "--country", "DE", name="hosts", status=2)


def test_many_networks_are_merged_to_the_fewest(netctl, make, tmp_path):
    """Beside Python's own merging, for both sources."""
    random.seed(7)
    lines, networks = [], {}
    for place in range(20000):
        start, size = 0x0B000000 + place * 512, random.choice((256, 256, 512, 384, 100))
        country = random.choice(("DE", "DE", "FR"))
        first, last = ipaddress.ip_address(start), ipaddress.ip_address(start + size - 1)
        lines.append(f"test|{country}|ipv4|{first}|{size}|20200101|allocated")
        for network in ipaddress.summarize_address_range(first, last):
            networks[str(network)] = {"country": {"iso_code": country}}
        lines.append(f"test|{country}|ipv6|2001:db8:{place:x}::|48|20200101|assigned")
        networks[f"2001:db8:{place:x}::/48"] = {"country": {"iso_code": country}}
    all_of = [ipaddress.ip_network(net) for net, record in networks.items() if record["country"]["iso_code"] == "DE"]
    expected = {str(net).removesuffix("/32") for version in (4, 6)
                for net in ipaddress.collapse_addresses(net for net in all_of if net.version == version)}  # fmt: skip
    (tmp_path / "list").write_text("\n".join(lines) + "\n")
    make("--registry", tmp_path / "list", "--country", "DE")
    assert set(elements(netctl)) == expected
    make("--mmdb", mmdb.write(tmp_path / "c.mmdb", networks, aliases=()), "--country", "DE", "--replace")
    assert set(elements(netctl)) == expected


def test_packets_are_judged_by_country(netctl, link, make, tmp_path):
    client, server = link
    make("--mmdb", mmdb.write(tmp_path / "c.mmdb", NETWORKS), "--country", "DE")
    filter = Filter(netctl, server, "--mode", "generic")
    german = filter.add("src @s drop")
    with Wire(client) as wire:
        for header, sources in ((IP, ("198.51.100.9", "203.0.113.9")), (IPv6, ("2001:db8:1::9", "2001:db8:2::9"))):
            for source in sources:
                target = server.ip4 if header is IP else server.ip6
                wire.send(Ether(src=client.mac, dst=server.mac) / header(src=source, dst=target) / UDP(dport=9))
        filter.await_packets(4)
    assert filter.packets()[german] == 2
