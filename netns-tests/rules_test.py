# SPDX-License-Identifier: GPL-2.0-only
"""What the `rule` commands tell, the same in every hook that filters packets."""

import json
import os
import socket

import pytest
from lab import until
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import PcapWriter, wrpcap
from traffic import Classifier, Filter

HOOKS = {"xdp": lambda netctl, interface: Filter(netctl, interface),
         "tc": lambda netctl, interface: Classifier(netctl, interface, "ingress")}  # fmt: skip


@pytest.fixture(params=HOOKS)
def filter(request, netctl, pair):
    return HOOKS[request.param](netctl, pair[1])


def say(filter, verb, *words, **options):
    """The finished command, as text."""
    return filter.netctl(*filter._words(verb), *words, netns=filter.netns, **options)


def test_rules_that_can_never_match_are_pointed_out(filter):
    def check(status):
        done = say(filter, "rule list", "--check", check=False)
        assert done.returncode == status, done
        return done.stdout

    filter.add("src 10.0.0.0/8 pass")
    assert check(0) == ""
    told = say(filter, "rule add", "src 10.1.0.0/16 drop").stderr
    assert "rule 2 can never match: rule 1 covers it (src 10.0.0.0/8 pass)" in told
    assert "rule 2 can never match" in check(1)
    # What was there before is not told again; what a rule in front hides is.
    assert "can never" not in say(filter, "rule add", "src 192.0.2.77 drop").stderr
    told = say(filter, "rule insert", "src 192.0.2.0/24 pass").stderr
    assert "rule 3 can never match: rule 4 covers it" in told and "rule 2" not in told
    told = say(filter, "rule replace", input="dport 1-9 drop\ndport 10-20 drop\ndport 5-15 pass\n").stderr
    assert "rule 7 can never match: rules 5, 6 together cover it" in told
    done = filter.netctl("--json", *filter._words("rule list"), "--check", netns=filter.netns, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout) == [{"rule_id": 7, "rule_text": "dport 5-15 pass", "hidden_by": [5, 6]}]
    say(filter, "detach")
    assert "attached" in filter.fails("rule list", "--check", status=4)


def test_a_packet_is_judged_rule_by_rule(filter, tmp_path):
    """`rule test` agrees with the program in the kernel, and tells why a rule does not match."""

    def ask(*words, **options):
        return filter("rule test", *words, **options)

    filter.netctl("set", "create", "office", "--type", "cidr")
    filter.netctl("set", "add", "office", "198.51.100.0/24")
    filter.replace("proto udp dport 53 pass", "proto tcp dport 22 src not @office drop", "proto tcp dport 22 pass")
    packet = "src 203.0.113.9 proto tcp dport 22 flags syn"
    answer = ask(packet)
    assert (answer["verdict"], answer["rule_id"], answer["reason"]) == ("drop", 2, "rule")
    assert answer["made_up"] == []
    answer = ask(packet.replace("203.0.113.9", "198.51.100.9"), "--explain")
    assert (answer["verdict"], answer["rule_id"]) == ("pass", 3)
    assert [rule["why_not"] for rule in answer["rules"]] == [
        [{"match": "dport 53", "packet": 22}, {"match": "proto udp", "packet": "tcp"}],
        [{"match": "src not @office", "packet": "198.51.100.9"}],
        [],
    ]
    text = say(filter, "rule test", "proto icmp", "src", "192.0.2.1", "--explain").stdout
    assert "rule 1 does not match: dport 53, and it has none; proto udp, and it has icmp" in text
    assert text.endswith(": no rule matches\n")
    # What is made up is told only where a rule looks at it.
    assert ask("proto tcp dport 22")["made_up"] == ["src"]
    assert "does not say (src)" in say(filter, "rule test", "proto tcp dport 22").stderr

    capture = tmp_path / "frames.pcap"
    frames = [Ether() / IP(src=source, dst="192.0.2.2") / TCP(dport=port)
              for source in ("203.0.113.9", "198.51.100.9") for port in (22, 80)]  # fmt: skip
    wrpcap(str(capture), frames)
    words = filter._words("simulate")
    simulated = filter.netctl("--json", *words, capture, netns=filter.netns).stdout.splitlines()
    for number, (line, frame) in enumerate(zip(simulated, frames, strict=True), 1):
        judged = json.loads(line)
        for answer in (ask("--read", capture, "--frame", number), ask("--hex", bytes(frame).hex())):
            for name in ("verdict", "reason", "rule_id", "packet"):
                assert answer[name] == judged[name], (number, name)
    ask(packet, "--expect", "drop")
    filter.fails("rule test", packet, "dport", "23", status=2)
    assert "has 4 frames" in filter.fails("rule test", "--read", capture, "--frame", 9)
    done = filter.netctl(*filter._words("rule test"), packet, "--expect", "pass", netns=filter.netns, check=False)
    assert done.returncode == 1


def test_nothing_replaces_no_rules(filter):
    filter.add("dport 7 drop")
    for empty in ("", "# nothing\n"):
        assert "--allow-empty" in filter.fails("rule replace", status=2, input=empty)
    assert filter.rules() == ["dport 7 drop"]
    say(filter, "rule replace", "--allow-empty", input="")
    assert filter.rules() == []


def test_simulation_of_what_a_capture_cut_or_the_kernel_does_not_run(filter, tmp_path):
    """Frames cut by the capture are judged by what rules look at; runts have numbers; long frames are judged."""
    capture = tmp_path / "cut.pcap"
    tcp = bytes(Ether() / IP(src="192.0.2.9", dst="192.0.2.2") / TCP(dport=22) / bytes(1000))
    udp = bytes(Ether() / IP(src="192.0.2.9", dst="192.0.2.2") / UDP(dport=53) / bytes(1000))
    long = bytes(Ether() / IP(src="192.0.2.9", dst="192.0.2.2") / TCP(dport=22) / bytes(60000))
    long = long.ljust(80000, b"\0")
    writer = PcapWriter(str(capture), linktype=1)
    writer.write_header(None)
    for frame, kept in ((tcp, 96), (b"short", 5), (udp, 14 + 20), (long, len(long)), (udp, 14 + 10)):
        writer.write_packet(frame[:kept], sec=1, usec=0, caplen=kept, wirelen=len(frame))
    writer.close()

    def simulate(*options, status=0):
        done = filter.netctl("--json", *filter._words("simulate"), capture, *options,
                             netns=filter.netns, check=False)  # fmt: skip
        assert done.returncode == status, done
        return [json.loads(line) for line in done.stdout.splitlines()]

    filter.replace("proto tcp dport 22 pass", "src 192.0.2.0/24 proto udp drop")
    told = simulate()
    assert [(one["number"], one["verdict"], one["rule_id"]) for one in told] == [
        (1, "pass", 1), (3, "undecided", None), (4, "pass", 1), (5, "undecided", None)]  # fmt: skip
    assert told[1]["reason"] == "cut by the capture" and told[0]["packet"]["len"] == len(tcp)
    simulate("--expect", "drop", status=1)
    # Who looks at less can tell more.
    filter.replace("proto tcp pass", "src 192.0.2.0/24 proto udp drop")
    assert [one["verdict"] for one in simulate()] == ["pass", "drop", "pass", "undecided"]
    filter.replace("src 192.0.2.0/24 proto udp drop", "pass")
    simulate("--expect", "pass", status=1)
    filter.replace("len 60-90000 pass")
    assert [one["verdict"] for one in simulate()] == ["pass"] * 4
    simulate("--expect", "pass")
    filter.replace("src 192.0.2.0/24 pass", "pass")
    simulate("--expect", "pass", status=4)


def test_settings_change_in_one_step(filter, pair):
    client, server = pair
    first = "pass" if filter.hook == "xdp" else "next"
    filter.add("dport 7 drop")
    before = filter.status()
    assert filter("set", "--default", "drop", "--log-rate", "5")["default"] == "drop"
    assert not client.netns.ping(server.ip4, timeout=0.1)
    status = filter.status()
    assert (status["default"], status["on_unparsed"], status["log"]["rate"]) == ("drop", "drop", 5)
    assert status["generation"] == before["generation"] + 1
    assert filter.rules() == ["dport 7 drop"] and status["default_packets"] > before["default_packets"]
    filter("set", "--default", first, "--on-unparsed", "pass")
    assert client.netns.ping(server.ip4)
    assert filter.status()["on_unparsed"] == "pass"
    assert "nothing is to be set" in filter.fails("set", status=2)


def test_attach_with_rules_and_default(filter, pair, tmp_path):
    """Both are in force from the first packet; a file that cannot be read attaches nothing."""
    client, server = pair
    filter("detach")
    rules = tmp_path / "rules"
    rules.write_text(f"src {client.ip4} proto icmp pass\nether-type arp pass\ndport 7 drp\n")
    assert f"{rules}:3" in filter.fails("attach", "--rules", rules, status=2)
    filter.fails("status")
    rules.write_text(f"src {client.ip4} proto icmp pass\nether-type arp pass\n")
    assert filter("attach", "--rules", rules, "--default", "drop")["rule_count"] == 2
    status = filter.status()
    assert (status["default"], status["generation"]) == ("drop", 1)
    assert client.netns.ping(server.ip4) and not client.netns.ping(server.ip6, timeout=0.1)


@pytest.mark.parametrize("direction", ("ingress", "egress"))
def test_the_own_ssh_session_is_not_cut_off(netctl, pair, tmp_path, direction):
    client, server = pair
    session = {**os.environ, "SSH_CONNECTION": f"{client.ip4} 50022 {server.ip4} 22"}
    filters = [Classifier(netctl, server, direction)]
    if direction == "ingress":
        filters.append(Filter(netctl, server))
    for filter in filters:
        allowed = f"src {client.ip4} proto tcp dport 22 pass"
        harmful = f"proto tcp sport 50000-60000 src {client.ip4} drop"
        if direction == "egress":
            allowed = f"dst {client.ip4} proto tcp sport 22 pass"
            harmful = f"proto tcp dport 50000-60000 dst {client.ip4} drop"
        state = filter.rules()
        for verb, *words in (("rule add", harmful), ("set", "--default", "drop")):
            told = filter.fails(verb, *words, status=2, env=session)
            assert "would cut this ssh session off" in told and f"`{allowed}`" in told and "--yes" in told
        assert filter.rules() == state and filter.status()["default"] != "drop"
        filter.fails("rule replace", status=2, env=session, input=f"dport 7 pass\n{harmful}\n")
        # What has to come first comes first; who is cut off already, and who is elsewhere, may go on.
        filter("rule add", allowed, env=session)
        filter("rule add", harmful, env=session)
        filter("set", "--default", "drop", env=session)
        filter.fails("rule delete", filter.status()["rules"][0]["rule_id"], status=2, env=session)
        filter("rule flush", "--yes", env=session)
        filter("rule add", harmful, env=session)
        filter("set", "--default", "pass")
        elsewhere = {**session, "SSH_CONNECTION": f"{client.ip4} 50022 192.0.2.77 22"}
        filter("rule flush")
        filter("rule add", harmful, env=elsewhere)
        # Mapped addresses are IPv4 on the wire; a set is asked for what is in it.
        filter("rule flush")
        name = f"bad-{filter.hook}"
        netctl("set", "create", name, "--type", "cidr")
        side = "dst" if direction == "egress" else "src"
        mapped = {**session, "SSH_CONNECTION": f"::ffff:{client.ip4} 50022 ::ffff:{server.ip4} 22"}
        filter("rule add", f"{side} @{name} drop", env=mapped)
        netctl("set", "add", name, client.ip4)
        filter("rule flush")
        filter.fails("rule add", f"{side} @{name} drop", status=2, env=mapped)
        filter("detach")
        filter.fails("attach", "--default", "drop", status=2, env=session)
        filter("attach", "--default", "drop", "--yes", env=session)
        filter("detach")


def test_redirection_to_a_veth_is_told_what_it_needs(netctl, lab, pair):
    client, server = pair
    lab.veth(server.netns, lab.namespace("far"), name_a="eth1")
    filter = Filter(netctl, server)
    told = say(filter, "rule add", "dport 80 redirect eth1").stderr
    assert "ethtool -K IFACE tx off" in told
    assert "ethtool" not in say(filter, "rule add", "dport 81 redirect eth1").stderr


def test_a_limit_of_a_network_holds_all_its_addresses(filter, pair):
    """`per src/64`: who has a /64 gets no further with each of its addresses."""
    client, server = pair
    client.netns.ip_batch(*(f"address add 2001:db8:1::{i:x}/64 dev {client.name} nodad" for i in range(0x100, 0x108)))
    filter.replace("proto udp dport 9 pass limit 3/hour burst 3 per src/64", "proto udp dport 10 pass limit 3/hour burst 3 per src")
    assert filter.rules()[0] == "proto udp dport 9 pass limit 3/hour burst 3 per src/64"
    with client.netns:
        for port in (9, 10):
            for i in range(0x100, 0x108):
                with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
                    sender.bind((f"2001:db8:1::{i:x}", 0))
                    sender.sendto(b"x", (server.ip6, port))

    def counted():
        held, free = filter.status()["rules"]
        assert held["packets"] + held["over_packets"] == free["packets"] == 8
        return held["packets"] == 3

    until(counted)
