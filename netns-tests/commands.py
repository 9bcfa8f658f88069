# SPDX-License-Identifier: GPL-2.0-only
"""Every command of netctl, with words that make it work on a stage where all features are in use.

A new command has its line here, or `test_every_command_is_on_stage` says so: what is tested over all
commands (errors of writing, the form of JSON, strangers' text) is then tested for it as well.
"""

import os
import re

from lab import run
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap


def leaves(netctl, *path):
    """The command lines that do something, from the help, as tuples of words."""
    text = run(netctl.binary, *path, "--help").stdout
    children = re.search(r"^commands:\n((?:  .*\n)+)", text, re.MULTILINE)
    if not children:
        return [path]
    names = [line.split()[0] for line in children[1].splitlines()]
    return [leaf for name in names for leaf in leaves(netctl, *path, name)]


class Stage:
    """A link with rules on both hooks, a policy, sets and redirection; commands run at its server's end."""

    def __init__(self, netctl, lab, tmp_path, comment="of the stage"):
        self.netctl, self.lab = netctl, lab
        self.client, self.server = lab.pair()
        self.cgroup = lab.cgroup("stage")
        self.rules = tmp_path / "rules"
        self.rules.write_text("src 192.0.2.0/24 pass log\n")
        self.policy_rules = tmp_path / "policy"
        self.policy_rules.write_text("dst 192.0.2.0/24 allow\n")
        self.elements = tmp_path / "elements"
        self.elements.write_text("192.0.2.1\n")
        self.same = tmp_path / "same.yaml"
        self.same.write_text("absent: [set not-there]\n")
        self.config = tmp_path / "config.yaml"
        self.config.write_text("sets:\n  applied: {type: host, elements: [192.0.2.1]}\n")
        self.saved = tmp_path / "saved.yaml"
        self.foreign = tmp_path / "foreign"
        self.foreign.write_text("create foreign hash:net family inet\nadd foreign 192.0.2.0/28\n")
        self.imported = tmp_path / "imported.yaml"
        self.capture = tmp_path / "capture.pcap"
        ends = {"src": "192.0.2.1", "dst": "192.0.2.2"}
        request = b"GET /path HTTP/1.1\r\nHost: example\r\n\r\n"
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        back = {"src": ends["dst"], "dst": ends["src"]}
        wrpcap(str(self.capture), [
            Ether() / IP(**ends) / TCP(sport=4000, dport=80, flags="S", seq=99),
            Ether() / IP(**back) / TCP(sport=80, dport=4000, flags="SA", seq=499, ack=100),
            Ether() / IP(**ends) / TCP(sport=4000, dport=80, flags="PA", seq=100, ack=500) / request,
            Ether() / IP(**back) / TCP(sport=80, dport=4000, flags="PA", seq=500, ack=100 + len(request)) / answer,
            Ether() / IP(**ends) / UDP(sport=4000, dport=9) / b"data",
        ])  # fmt: skip
        self.comment = comment

    def build(self):
        face = self.server.name
        comment = ("comment", self.comment)
        for words in (
            ("set", "create", "stage", "--type", "cidr"),
            ("set", "add", "stage", "192.0.2.0/28", "--ttl", "600"),
            ("xdp", "attach", face, "--mode", "generic"),
            ("xdp", "rule", "add", face, "src", "@stage", "dport", "99", "drop", "log", *comment),
            ("tc", "attach", face, "ingress"),
            ("tc", "attach", face, "egress"),
            ("tc", "rule", "add", face, "ingress", "dport", "99", "drop", "log", *comment),
            ("policy", "enable", "--cgroup", self.cgroup.path, "--layer", "cgroup", "--mode", "audit"),
            ("policy", "rule", "add", "dst", "192.0.2.99", "deny", *comment),
            ("redirect", "enable", "--cgroup", self.cgroup.path, "--force", "all"),
            ("redirect", "rule", "add", "dport", "4000"),
            ("redirect", "to", "add", "dst", "192.0.2.98", "dport", "80", "target", "127.0.0.1:80"),
        ):  # fmt: skip
            self.run(*words)
        return self

    def run(self, *words, **options):
        """Policies are about all networks."""
        return self.netctl(*words, netns=None if words[0] in ("policy", "--json") else self.server.netns, **options)

    def argv(self, words, *options):
        netns = None if words[0] == "policy" else self.server.netns
        return self.netctl.argv(*words, netns=netns, options=options)

    def commands(self):
        """[(leaf, further words)] in an order in which each works, once, on a stage that is built. Those
        that need traffic, a reader or minutes have None and are tested elsewhere."""
        face = self.server.name
        place = {"xdp": (face,), "tc": (face, "ingress")}
        lines = []
        for hook, at in place.items():
            lines += [
                ((hook, "status"), ()),
                ((hook, "status"), at),
                ((hook, "rule", "add"), (*at, "dport", "7", "drop")),
                ((hook, "rule", "insert"), (*at, "dport", "8", "drop")),
                ((hook, "rule", "list"), at),
                ((hook, "set"), (*at, "--log-rate", "99")),
                ((hook, "rule", "test"), (*at, "dport 8")),
                ((hook, "rule", "delete"), (*at, "1")),
                ((hook, "rule", "replace"), (*at, self.rules)),
                ((hook, "simulate"), (*at, self.capture)),
                ((hook, "simulate"), (*at, self.capture, "--summary")),
                ((hook, "rule", "flush"), at),
                ((hook, "log"), None),
                ((hook, "capture"), (*at, "--duration", "1ms", "dport", "7") if hook == "tc" else None),
                ((hook, "detach"), at),
                ((hook, "attach"), (*at, "--mode", "generic") if hook == "xdp" else at),
            ]
        lines += [
            (("set", "create"), ("another", "--type", "host")),
            (("set", "create"), ("other", "--type", "host")),
            (("set", "list"), ()),
            (("set", "chgrp"), ("another", "root")),
            (("set", "add"), ("another", "192.0.2.7")),
            (("set", "list"), ("another",)),
            (("set", "list"), ("stage",)),
            (("set", "watch"), ("another", "--duration", "1ms")),
            (("set", "test"), ("another", "192.0.2.7")),
            (("set", "import"), ("stage", self.elements)),
            (("set", "import"), ("other", self.elements)),
            (("set", "diff"), ("other", self.elements)),
            (("set", "swap"), ("another", "other")),
            (("set", "swap"), ("other", "another")),
            (("set", "fold"), ("stage",)),
            (("set", "delete"), ("another", "192.0.2.7")),
            (("set", "destroy"), ("another",)),
            (("set", "create"), ("named", "--type", "name", "--resolver", "192.0.2.53")),
            (("set", "add"), ("named", "example.com", "*.example.com")),
            (("set", "resolvers"), ("named", "192.0.2.54")),
            (("set", "resolve"), None),
            (("set", "list"), ("named",)),
            (("set", "list"), ()),
            (("set", "destroy"), ("named",)),
            (("policy", "enable"), ("--mode", "audit")),
            (("policy", "status"), ()),
            (("policy", "rule", "add"), ("dport", "7", "allow")),
            (("policy", "rule", "insert"), ("dport", "8", "allow")),
            (("policy", "rule", "list"), ()),
            (("policy", "test"), ("192.0.2.1", "80", "tcp")),
            (("policy", "explain"), (str(os.getpid()), "192.0.2.1", "80", "tcp")),
            (("policy", "log"), ()),
            (("policy", "learn"), ()),
            (("policy", "rule", "delete"), ("1",)),
            (("policy", "rule", "replace"), (self.policy_rules,)),
            (("policy", "rule", "flush"), ()),
            (("policy", "disable"), ()),
            (("redirect", "status"), ()),
            (("redirect", "list"), ()),
            (("redirect", "rule", "add"), ("dport", "4001")),
            (("redirect", "rule", "insert"), ("dport", "4002")),
            (("redirect", "rule", "list"), ()),
            (("redirect", "rule", "delete"), ("1",)),
            (("redirect", "rule", "flush"), ()),
            (("redirect", "to", "add"), ("dst", "192.0.2.97", "dport", "80", "target", "127.0.0.1:80")),
            (("redirect", "to", "list"), ()),
            (("redirect", "to", "delete"), ("1",)),
            (("redirect", "selftest"), None),
            (("redirect", "bench"), None),
            (("redirect", "run"), None),
            (("redirect", "disable"), ()),
            (("redirect", "enable"), ("--cgroup", self.cgroup.path, "--force", "all")),
            (("trace", "http"), ("--read", self.capture)),
            (("trace", "tcp", "connlat"), ("--duration", "1")),
            (("trace", "tcp", "states"), ("--duration", "1")),
            (("trace", "tcp", "life"), ("--duration", "1")),
            (("trace", "tcp", "backlog"), ()),
            (("trace", "tcp", "rtt"), ("--duration", "1")),
            (("trace", "tcp", "drops"), ("--duration", "1")),
            (("trace", "tcp", "reset"), ("--duration", "1")),
            (("trace", "tcp", "retrans"), ("--duration", "1")),
            (("trace", "func"), ("--duration", "1", "c:getaddrinfo")),
            (("trace", "profile"), ("--duration", "1")),
            (("trace", "gc"), ("--file", "/usr/bin/python3", "--duration", "1")),
            (("trace", "usdt"), ("--file", "stdc++", "--list")),
            (("trace", "tls"), ("--duration", "1")),
            (("doctor",), ()),
            (("status",), ()),
            (("top",), ("--count", "1", "--interval", "1")),
            (("check",), (self.config,)),
            (("diff",), (self.same,)),
            (("plan",), (self.same,)),
            (("export",), ()),
            (("import",), (self.foreign, "--output", self.imported)),
            (("save",), ("--file", self.saved)),
            (("restore",), ("--file", self.saved)),
            (("apply",), (self.config, "--confirm", "1h")),
            (("rollback",), ()),
            (("apply",), (self.config, "--confirm", "1h")),
            (("confirm",), ()),
            (("metrics",), ("--textfile", self.elements.with_suffix(".prom"), "--once")),
            (("detach",), ("--all",)),
        ]  # fmt: skip
        return [(leaf, None if words is None else tuple(map(str, words))) for leaf, words in lines]

