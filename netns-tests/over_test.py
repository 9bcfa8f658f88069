# SPDX-License-Identifier: GPL-2.0-only
"""`over add @SET ttl T`: who is above a limit goes into a set, by the program itself, and is judged by the set from then on."""

import socket

import pytest
from lab import until
from traffic import INGRESS_MODES, IP, UDP, Ether, Filter, IPv6, Wire, filter_on

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
OTHER = {4: "192.0.2.77", 6: "2001:db8:1::77"}
BURST = 8
LIMIT = f"proto udp dport 9 pass limit {BURST}/day burst {BURST} per src over add @banned"


@pytest.fixture(params=INGRESS_MODES)
def hook(request):
    return request.param


@pytest.fixture
def banned(netctl):
    netctl("set", "create", "banned", "--type", "cidr")


def elements(netctl):
    return {entry["element"] for entry in netctl.json("set", "list", "banned")}


def has(netctl, element):
    return netctl("set", "test", "banned", element, check=False).returncode == 0


def counted(**numbers):
    return {"added": 0, "there": 0, "exception": 0, "full": 0, "changing": 0, **numbers}


def frame(client, server, family, **addresses):
    header = {4: IP, 6: IPv6}[family](**{"src": client.ip(family), "dst": server.ip(family), **addresses})
    return Ether(src=client.mac, dst=server.mac) / header / UDP(sport=7, dport=9)


def receiver(netns, port):
    taker = netns.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    taker.bind(("::", port))
    taker.settimeout(20)
    return taker


def sender(interface, family, address):
    giver = interface.netns.socket(FAMILIES[family], socket.SOCK_DGRAM)
    giver.bind((address, 0))
    return giver


@pytest.mark.kernel(hook="clsact")
def test_who_floods_is_banned_from_the_host(netctl, pair, banned, hook):
    """Real sockets, both families: one address floods a port and is cut off from all of the host by the set; another
    one keeps to the limit, and is heard all the time."""
    client, server = pair
    client.netns.ip("addr", "add", OTHER[4] + "/24", "dev", client.name)
    client.netns.ip("addr", "add", OTHER[6] + "/64", "dev", client.name, "nodad")
    filter = filter_on(netctl, server, hook)
    filter.replace("src @banned drop", LIMIT + " ttl 10m")
    drop, limited = (rule["rule_id"] for rule in filter.status()["rules"])
    with receiver(server.netns, 9) as at_9, receiver(server.netns, 7) as at_7:
        for family in FAMILIES:
            with sender(client, family, OTHER[family]) as good, sender(client, family, client.ip(family)) as bad:
                for _ in range(BURST):
                    good.sendto(b"good", (server.ip(family), 9))
                    assert at_9.recv(10) == b"good"

                def flooded(bad=bad, family=family):
                    for _ in range(BURST):
                        bad.sendto(b"bad", (server.ip(family), 9))
                    return client.ip(family) in elements(netctl)

                until(flooded)
                before = filter.packets()[drop]
                bad.sendto(b"bad", (server.ip(family), 7))
                until(lambda before=before: filter.packets()[drop] > before, what="the flooder is dropped on other ports")
                good.sendto(b"good", (server.ip(family), 7))
                assert at_7.recv(10) == b"good"
                for _ in range(BURST):
                    assert at_9.recv(10) == b"bad"  # what was within the limit
    assert elements(netctl) == {client.ip4, client.ip6}
    assert all(0 < entry["expires_in"] <= 600 for entry in netctl.json("set", "list", "banned"))
    status = filter.status()
    assert status["over_add"]["added"] == 2
    assert sum(status["over_add"].values()) == status["over_limit"] == status["rules"][1]["over_packets"]
    assert status["rules"][1]["packets"] == 4 * BURST
    assert "2 times an address over a rule's limit was added" in netctl(*filter._words("status"), netns=filter.netns).stdout
    assert f"rule {limited}" in netctl.fails("set", "destroy", "banned")


@pytest.mark.kernel(hook="clsact")
def test_networks_go_in_whole_and_exceptions_stay_out(netctl, link, banned, hook):
    """`per src/24/64`; what an exception covers, or somebody added in the meantime, is left as it is; time that ran out runs
    anew."""
    client, server = link
    netctl("set", "import", "banned", input="198.51.100.0/25 absent\n")
    filter = filter_on(netctl, server, hook)
    filter.add("proto udp pass limit 2/day burst 2 per src/24/64 over add @banned ttl 0")
    with Wire(client) as wire:
        for family, near, far in (
            (4, "192.0.2.1", "192.0.2.200"), (6, "2001:db8:1::1", "2001:db8:1:0:8000::1"),
            (4, "198.51.100.7", "198.51.100.8"),
        ):  # fmt: skip
            for source in (near, far, near, far):
                wire.send(frame(client, server, family, src=source))
        filter.await_packets(12)
        assert elements(netctl) == {"192.0.2.0/24", "2001:db8:1::/64", "198.51.100.0/25"}
        assert filter.status()["over_add"] == counted(added=2, there=2, exception=2)
        # The rule does not ask the set, so members are over the limit still, and for good in the set.
        assert {entry["expires_in"] for entry in netctl.json("set", "list", "banned")} == {None}
        # The other half of the exception's network is in none: the network comes, the exception stays in it.
        wire.send(frame(client, server, 4, src="198.51.100.200"))
        filter.await_packets(13)
        assert "198.51.100.0/24" in elements(netctl)
        assert has(netctl, "198.51.100.200") and not has(netctl, "198.51.100.7")


@pytest.mark.parametrize("kind", ["host", "cidr"])
def test_what_ran_out_comes_again_and_a_full_set_is_told(netctl, link, kind):
    client, server = link
    netctl("set", "create", "banned", "--type", kind, "--size", "1")
    filter = Filter(netctl, server, "--mode", "generic")
    filter.add("proto udp pass limit 1/day burst 1 per src over add @banned ttl 1s")
    with Wire(client) as wire:
        seen = 0

        def hit(source):
            nonlocal seen
            wire.send(frame(client, server, 4, src=source))
            seen += 1
            filter.await_packets(seen)
            return filter.status()["over_add"]

        hit("192.0.2.1")
        assert hit("192.0.2.1") == counted(added=1)
        until(lambda: not has(netctl, "192.0.2.1"), what="its second is over")
        until(lambda: hit("192.0.2.1")["added"] == 2, what="the element that ran out counts again")
        # Its map has room for twice its size, as while many elements change at once.
        hit("192.0.2.2")
        assert hit("192.0.2.2")["full"] == 0
        hit("192.0.2.3")
        assert hit("192.0.2.3")["full"] == 1
        # netctl takes out what ran out.
        until(lambda: not has(netctl, "192.0.2.1") and not has(netctl, "192.0.2.2"), what="both have run out")
        netctl("set", *(("fold", "banned") if kind == "cidr" else ("add", "banned", "192.0.2.9")))
        before = filter.status()["over_add"]
        after = hit("192.0.2.3")
        assert (after["added"], after["full"]) == (before["added"] + 1, before["full"])
    assert "1 addresses not added to a set: it has no room" in netctl(*filter._words("status"), netns=filter.netns).stdout
    assert "it has no room" in netctl("status", check=False).stdout


def test_sets_that_do_not_fit_are_refused(netctl, link, banned):
    _, server = link
    for name, kind in (("hosts", "host"), ("ports", "port"), ("names", "name")):
        netctl("set", "create", name, "--type", kind)
    filter = Filter(netctl, server)
    over = "pass limit 9/s per src{} over add @{} ttl 1h"
    for per, name, error in (
        ("/64", "hosts", "'over add @hosts': the set holds addresses, and the limit is one of networks"),
        ("", "ports", "set 'ports' holds ports"),
        ("", "names", "'over add @names': the set gets its addresses from names"),
        ("", "none", "there is no set 'none'"),
    ):
        assert error in filter.fails("rule add", over.format(per, name), status=1 if name == "none" else 2)
    assert filter.rules() == []
    filter.add(over.format("", "hosts"))
    filter.add(over.format("/24/64", "banned"))
    for name in ("hosts", "banned"):
        assert "is in use by xdp/" in netctl.fails("set", "destroy", name)
    assert filter.rules() == ["pass limit 9/s burst 9 per src over add @hosts ttl 1h",
                              "pass limit 9/s burst 9 per src/24/64 over add @banned ttl 1h"]  # fmt: skip
    exported = netctl("export").stdout
    assert "over add @banned ttl 1h" in exported


def test_many_rules_and_commits_in_between(netctl, link, banned):
    """A change to a thousand rules leaves their program in force, but for rules that add: each is in a program that asks
    its set. What is counted outlives both."""
    client, server = link
    netctl("set", "create", "others", "--type", "host")
    filter = Filter(netctl, server, "--mode", "generic")
    filter.replace(*(f"src 10.{i // 256}.{i % 256}.1 dport {i} drop" for i in range(1, 1200)))
    changes = (
        "src 192.0.2.1 pass limit 1/day burst 1 per src over add @banned ttl 1h",
        "src 192.0.2.3 pass limit 1/day burst 1 per src over add @others ttl 1h",
        "dport 7777 drop",
    )
    sources = ("192.0.2.1", "192.0.2.3", "192.0.2.4")
    with Wire(client) as wire:
        for number, (rule, source) in enumerate(zip(changes, sources, strict=True), 1):
            filter.add(rule)
            for _ in range(2):
                wire.send(frame(client, server, 4, src=source))
            filter.await_packets(2 * number)
            assert filter.status()["over_add"] == counted(added=min(number, 2))
    assert elements(netctl) == {sources[0]}
    assert [entry["element"] for entry in netctl.json("set", "list", "others")] == [sources[1]]


def test_a_configuration_leaves_to_the_set_what_rules_have_added(netctl, link, tmp_path):
    client, server = link
    config = tmp_path / "host.yml"
    config.write_text(f"""\
sets:
  banned: {{type: cidr, managed: external}}
xdp:
  - interfaces: {server.name}
    netns: {server.netns.name}
    mode: generic
    rules: |
      proto udp pass limit 1/day burst 1 per src over add @banned ttl 1h
""")
    netctl("apply", config)
    with Wire(client) as wire:
        for _ in range(2):
            wire.send(frame(client, server, 4))
        until(lambda: has(netctl, client.ip4), what="the client is in the set")
    assert netctl("plan", config).returncode == 0  # there is nothing to change
    netctl("apply", config)
    assert elements(netctl) == {client.ip4}
    config.write_text(config.read_text().replace("@banned", "@nosuch"))
    assert "there is no set nosuch" in netctl.fails("apply", config)
