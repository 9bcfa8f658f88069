# SPDX-License-Identifier: GPL-2.0-only
"""`netctl import`: other firewalls' rules as a configuration.

The rule sets of import/ are of the kind that people have on their hosts. Each is put in force in a namespace, by nft
or by iptables, and packets are sent there; then what import has made of it is put in force instead, and the same
packets come again. Which of them arrived is told by the packets' source addresses on the link, one for each. A packet
may only fare differently where import has said so.
"""

import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
import text_test
from lab import run, until
from scapy.compat import raw
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6ND_RA
from traffic import ICMP, IP, TCP, UDP, Ether, IPv6

RULES = Path(__file__).parent / "import"
# netctl's filters, and what sees the packets that are left; not of the rule sets.
SEEN = """
table inet seen {
    set macs { type ether_addr; flags dynamic; size 65535; }
    chain every {
        type filter hook input priority 2000; policy accept;
        update @macs { ether saddr }
    }
}
"""
SENTINEL = 0x88B5


def sources(client):
    return ("10.1.2.3", "10.9.9.9", "192.168.1.7", "203.0.113.9", "198.51.100.5", client.ip4)


def packets(client, server):
    """Packets of connections that nobody knows of yet, each as its layers above Ethernet."""
    tcp = (22, 25, 53, 80, 110, 143, 443, 465, 587, 853, 953, 993, 995, 2222, 2376, 2380, 3000, 3306, 5432, 6379, 6443,
           8022, 9090, 9100, 9187, 10250, 30001, 40000)  # fmt: skip
    udp = (53, 161, 443, 514, 1194, 1900, 4789, 5353, 8472, 30001, 40000, 51820)
    made = []
    for source in sources(client):
        ip = IP(src=source, dst=server.ip4)
        made += [ip / TCP(sport=40000, dport=port, flags="S") for port in tcp]
        made += [ip / UDP(sport=40001, dport=port) / b"data" for port in udp]
        made += [ip / ICMP(type=8), ip / ICMP(type=13), ip.copy() / UDP(sport=53, dport=40001) / b"data"]
    for source in (client.ip6, "2001:db8::bad", "2001:db8:9::1"):
        ip = IPv6(src=source, dst=server.ip6)
        made += [ip / TCP(sport=40000, dport=port, flags="S") for port in (22, 80, 443, 2222, 5432, 6443, 30001)]
        made += [ip / UDP(sport=40001, dport=port) / b"data" for port in (53, 443, 546, 30001)]
        made += [ip / ICMPv6EchoRequest()]
    made += [IPv6(src="fe80::99", dst=server.ip6) / UDP(sport=547, dport=546) / b"data"]
    made += [IPv6(src=client.ip6, dst=server.ip6, hlim=255) / ICMPv6ND_NS(tgt=server.ip6)]
    made += [IPv6(src="fe80::99", dst=server.ip6, hlim=255) / ICMPv6ND_RA()]
    near = IP(src=client.ip4, dst=server.ip4)
    made += [near.copy() / UDP(sport=40002, dport=514) / b"data"]
    made += [IP(src=client.ip4, dst=server.ip4, tos=0x20) / UDP(sport=40003, dport=514) / b"data"]
    made += [IP(src=client.ip4, dst=server.ip4, ttl=1) / TCP(sport=40003, dport=3000, flags="S")]
    made += [IP(src=client.ip4, dst=server.ip4, proto=proto) / b"payload." for proto in (47, 50, 132)]
    return made


class Judge:
    """A host in a namespace, and which of the packets that are sent to it arrive in its input."""

    def __init__(self, lab):
        self.client, self.server = lab.pair(checksums=False)
        self.netns = self.server.netns
        for where in ("all", "default", self.server.name):
            self.netns.sysctl(f"net.ipv4.conf.{where}.rp_filter", 0)
        # Answers to made-up sources would ask for their neighbours.
        self.netns.ip("route", "add", "default", "via", self.client.ip4)
        self.frames = {}
        for number, packet in enumerate(packets(self.client, self.server)):
            mac = f"02:aa:00:00:{number >> 8:02x}:{number & 255:02x}"
            self.frames[mac] = raw(Ether(src=mac, dst=self.server.mac) / packet)
        self.shown = {mac: Ether(frame).summary() for mac, frame in self.frames.items()}
        self.netns.run("nft", "-f", "-", input=SEEN)

    def send(self):
        """All frames, one behind the other on one CPU, where those before have been dealt with when the last is seen."""
        last = raw(Ether(src="02:bb:00:00:00:00", dst=self.server.mac, type=SENTINEL) / bytes(50))
        with self.netns:
            watch = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(SENTINEL))
        with self.client.netns:
            link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        allowed = os.sched_getaffinity(0)
        with watch, link:
            watch.bind((self.server.name, SENTINEL))
            watch.setblocking(False)
            link.bind((self.client.name, 0))
            os.sched_setaffinity(0, {min(allowed)})
            try:
                for frame in (*self.frames.values(), last):
                    link.send(frame)
            finally:
                os.sched_setaffinity(0, allowed)

            def seen():
                try:
                    return watch.recv(2048)
                except BlockingIOError:
                    return None

            until(seen, what="the last frame")

    def arrived(self):
        self.netns.run("nft", "flush", "set", "inet", "seen", "macs")
        self.send()
        listing = json.loads(self.netns.run("nft", "-j", "list", "set", "inet", "seen", "macs").stdout)
        (found,) = [entry["set"] for entry in listing["nftables"] if "set" in entry]
        return {mac for mac in found.get("elem", []) if mac in self.frames}

    def put(self, path):
        """A rule set in force."""
        if path.suffix == ".nft":
            self.netns.run("nft", "-f", path)
        else:
            six = path.read_text().startswith("# Generated by ip6")
            self.netns.run("ip6tables-nft-restore" if six else "iptables-nft-restore", path)

    def take_away(self):
        for table in self.tables():
            self.netns.run("nft", "delete", "table", *table)

    def tables(self):
        listing = json.loads(self.netns.run("nft", "-j", "list", "tables").stdout)
        tables = [entry["table"] for entry in listing["nftables"] if "table" in entry]
        return [(one["family"], one["name"]) for one in tables if one["name"] not in ("seen", "lab")]

    def rules(self, path):
        """The rule set as import takes it: nft's JSON of what is in force, the others as they are."""
        if path.suffix != ".nft":
            return path.read_text()
        listing = json.loads(self.netns.run("nft", "-j", "list", "ruleset").stdout)

        def other(entry):
            ((kind, what),) = entry.items()
            return (what.get("name") if kind == "table" else what.get("table")) not in ("seen", "lab")

        return json.dumps({"nftables": [entry for entry in listing["nftables"] if other(entry)]})


def differences(judge, before, after, told):
    """What fares differently although nobody said so."""
    effects = {entry["effect"] for entry in told}
    weaker = any("weaker" in effect for effect in effects)
    stricter = any(effect in ("stricter", "cuts", "weaker and cuts") for effect in effects)
    more = [] if weaker else sorted(judge.shown[mac] for mac in after - before)
    less = [] if stricter else sorted(judge.shown[mac] for mac in before - after)
    return {"let in": more, "kept out": less}


# What import lists of a rule set, by its name; of the others nothing but notes, which change no verdict.
EXPECTED = {"limited": {"weaker", "stricter"}, "docker": {"weaker and cuts"}, "home": {"stricter"}}


@pytest.mark.kernel(path=RULES / "home.nft")
@pytest.mark.parametrize("path", sorted(RULES.iterdir()), ids=lambda path: path.stem)
def test_the_same_verdicts(lab, netctl, tmp_path, path):
    judge = Judge(lab)
    deliverable = judge.arrived()
    assert len(deliverable) > 250, "most of the packets are for this host"
    judge.put(path)
    text = judge.rules(path)
    before = judge.arrived()
    assert before < deliverable, "the rule set drops some of them"
    judge.take_away()

    rules, config = tmp_path / "rules", tmp_path / "netctl.yaml"
    rules.write_text(text)
    words = ("import", rules, "--interfaces", judge.server.name, "--output", config)
    done = run(*netctl.argv(*words, "--allow-weaker", "--allow-cuts", options=("--json",)), check=False)
    assert done.returncode in (0, 3), done.stderr
    told = json.loads(done.stdout)["not_taken"]
    assert (done.returncode == 3) == bool(told)
    netctl("check", config)
    netctl("apply", config, netns=judge.netns)
    after = judge.arrived()
    assert after, "some arrive"
    assert differences(judge, before, after, told) == {"let in": [], "kept out": []}
    # A remark on answers stands for all of them: none of the packets is one.
    real = [entry for entry in told if "are of no connection here" not in entry["reason"]]
    assert differences(judge, before, after, real) == {"let in": [], "kept out": []}
    effects = {entry["effect"] for entry in real} - {"none"}
    assert effects == EXPECTED.get(path.stem, set())


def test_connections_go_on(lab, netctl, tmp_path):
    """A connection that was there before the import, and those that the host opens itself."""
    client, server = lab.pair()
    lab.http_server(client.netns, port=8080)
    lab.http_server(server.netns, port=9999)
    listener = server.netns.socket()
    with listener:
        listener.bind((server.ip4, 7000))
        listener.listen()
        with client.netns.socket() as caller:
            caller.connect((server.ip4, 7000))
            answer, _ = listener.accept()
            with answer:
                server.netns.run("nft", "-f", RULES / "home.nft")
                listing = server.netns.run("nft", "-j", "list", "ruleset").stdout
                server.netns.run("nft", "delete", "table", "inet", "home")
                done = netctl("import", "-", "--interfaces", server.name, input=listing, check=False)
                assert done.returncode == 3
                # The lab's own table is among them: it drops at egress, and only reports of groups.
                netctl("apply", "-", netns=server.netns, input=done.stdout)
                caller.sendall(b"still there")
                answer.settimeout(None)
                assert answer.recv(64) == b"still there"
                server.netns.run("curl", "-sS", f"http://{client.ip4}:8080/")
                refused = client.netns.run("curl", "-sS", "--max-time", "1", f"http://{server.ip4}:9999/", check=False)
                assert refused.returncode == 28, refused.stderr


def test_refuses_what_is_weaker_or_cuts(netctl, tmp_path):
    rules, config = tmp_path / "rules.v4", tmp_path / "netctl.yaml"
    words = ("import", rules, "--interfaces", "eth0", "--output", config)
    rules.write_text("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m recent --name x --rcheck -j DROP\nCOMMIT\n")
    message = netctl.fails(*words)
    assert "rules.v4:3" in message and "--allow-weaker" in message and not config.exists()
    assert netctl(*words, "--allow-weaker", check=False).returncode == 3 and config.exists()
    config.unlink()
    rules.write_text("*filter\n:INPUT ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n"
                     "-A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n")  # fmt: skip
    message = netctl.fails(*words, "--allow-weaker")
    assert "rules.v4:4" in message and "--allow-cuts" in message and not config.exists()


def test_says_what_a_file_is(netctl, tmp_path):
    file = tmp_path / "file"
    file.write_text("table inet filter {\n}\n")
    assert "nft -j list ruleset" in netctl.fails("import", file, status=2)
    file.write_text("hello\n")
    assert "--from" in netctl.fails("import", file, status=2)
    file.write_text("create a hash:net family inet\nadd a 192.0.2.0/24\nadd a nonsense\n")
    done = netctl("import", file, "--allow-weaker", "--allow-cuts", check=False)
    assert done.returncode == 3 and "file:3" in done.stderr and "192.0.2.0/24" in done.stdout
    file.write_text("*filter\n:INPUT DROP [0:0]\n-A INPUT -i eth7 -j ACCEPT\nCOMMIT\n")
    message = netctl.fails("import", file, status=2)
    assert "--interfaces" in message and "eth7" in message


def test_strangers_text_is_shown_and_not_obeyed(netctl, tmp_path):
    """Comments and names with control characters and ends of lines, in rules and in what is listed."""
    evil = "x\n- src 0.0.0.0/0 pass \x1b[2Jabsent: \u202e"
    table = {"family": "inet", "table": "t"}
    rule = {**table, "chain": "input", "handle": 3, "comment": evil, "expr": [{"drop": None}]}
    strange = {**table, "chain": "input", "handle": 4, "expr": [{evil: 1}, {"accept": None}]}
    chain = {**table, "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}
    file = tmp_path / "a\nb"
    file.write_text(json.dumps({"nftables": [{"chain": chain}, {"rule": strange}, {"rule": rule}]}))
    done = netctl("import", file, "--interfaces", "eth0", check=False)
    assert done.returncode == 3, done.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", done.stdout + done.stderr)
    assert not any(line.strip().startswith("- src") for line in done.stdout.splitlines())
    config = tmp_path / "config.yaml"
    config.write_text(done.stdout)
    assert "1 filter" in netctl("check", config).stdout


def test_text_of_strangers_is_never_printed_raw(netctl, tmp_path):
    """Names and comments in others' rules reach neither the terminal nor the file as they are."""
    strange = f"x{text_test.HOSTILE}\nallow\u202e\u009b"
    table, chain = {"family": "inet", "table": "filter"}, f"in{strange}"
    source = {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": f"@s{strange}"}}
    rules = [
        {"table": {"family": "inet", "name": "filter"}},
        {"chain": {**table, "name": chain, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
        {"set": {**table, "name": f"s{strange}", "type": "ipv4_addr", "elem": ["192.0.2.1"]}},
        {"rule": {**table, "chain": chain, "handle": 4, "comment": strange, "expr": [source, {"accept": None}]}},
        {"rule": {**table, "chain": chain, "handle": 5, "expr": [{strange: {"op": strange}}, {"accept": None}]}},
    ]
    texts = {
        "nft": json.dumps({"nftables": rules}),
        "iptables": f'*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp --dport 22 -m comment --comment "{text_test.HOSTILE}" -j ACCEPT\n'
        f"-A INPUT -m {text_test.HOSTILE} -j ACCEPT\nCOMMIT\n",
        "ipset": f'create s{text_test.HOSTILE} hash:ip\nadd s{text_test.HOSTILE} 192.0.2.1 comment "{text_test.HOSTILE}"\n',
        "firewalld": "<zone><service name='a\u202e\u009bowned'/><rule><source address='owned\u009b'/><accept/></rule></zone>",
    }
    for form, text in texts.items():
        path = tmp_path / f"f{text_test.HOSTILE}{form}"
        path.write_text(text)
        for more in ((), ("--json",)):
            argv = netctl.argv("import", path, "--from", form, "--interfaces", "eth0", "--allow-weaker", "--allow-cuts", options=more)
            done = subprocess.run(argv, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
            assert done.returncode in (0, 3), done
            assert b"owned" in done.stdout + done.stderr
            assert not text_test.raw(done.stdout) and not text_test.raw(done.stderr), done
