# SPDX-License-Identifier: GPL-2.0-only
"""Where commands are interrupted: two namespaces, a root, and everything by which one state is told from
another: netctl's own account, the kernel's of what is attached, the pins, and what happens to packets and
connections."""

import contextlib
import dataclasses
import json
import os
import re
import secrets
import shutil
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from faults.counts import COUNTS
from lab import PATIENCE, Lab, Netctl, bpftool, run, until
from traffic import IP, UDP, Ether, IPv6, compile_bpf, raw

# In a cgroup of its own: is told where to connect to, and says what came of it.
_AGENT = """
import json, socket, sys
listener = socket.create_server(("127.0.0.1", 7777))
for line in sys.stdin:
    outcomes = []
    for kind, address, port in json.loads(line):
        with socket.socket(socket.AF_INET, getattr(socket, kind)) as s:
            outcomes.append(s.connect_ex((address, port)))
    print(json.dumps(outcomes), flush=True)
"""
_CONNECTIONS = [
    *(("SOCK_DGRAM", f"127.0.0.{host}", port) for host in range(6, 12) for port in (7, 8)),
    ("SOCK_STREAM", "127.0.0.10", 7),
]

# For `apply` and its kin.
CONFIGURATIONS = {
    "filters": """\
sets:
  s: {{type: host, elements: [192.0.2.50, "2001:db8:1::50"]}}
xdp:
  - interfaces: [eth0]
    rules: [proto udp dport 8 src 192.0.2.51 drop, "src @s proto udp dport 7 drop"]
tc:
  - interfaces: [eth0]
    direction: ingress
    rules: [proto udp dport 7 src 192.0.2.51 drop]
""",
    "whole_set": """\
sets:
  s: {{type: host, elements: [192.0.2.50, "2001:db8:1::50"]}}
""",
    "connections": """\
policy:
  cgroup: {cgroup}
  layer: cgroup
  rules: [dst 127.0.0.7 deny]
redirect:
  cgroup: {cgroup}
  force: all
  to: [dst 127.0.0.10 dport 7 target "127.0.0.1:7777"]
""",
}

_IDENTITIES = {"program_id", "link_id", "expires_in", "expires"}


def _without(value, names):
    """A JSON document without the members of these names."""
    if isinstance(value, dict):
        drop = set(names)
        if COUNTS <= drop:  # a rule of the policy has counters named after the layers
            drop |= {key for key in ("cgroup", "lsm") if isinstance(value.get(key), int)}
        if names is _IDENTITIES and "own" in value:  # a program in a chain
            drop.add("id")
        return {key: _without(one, names) for key, one in value.items() if key not in drop}
    if isinstance(value, list):
        return [_without(one, names) for one in value]
    return value


def without(state, names):
    """A state whose account has no members of these names."""
    return dataclasses.replace(state, told=_without(state.told, names)) if names else state


def without_counts(value):
    """A JSON document without what traffic and time change."""
    return _without(value, COUNTS)


def _rule_counts(value, where=""):
    """{place and id of a rule: its counters}"""
    found = {}
    if isinstance(value, dict):
        where += "/" + "/".join(str(value[key]) for key in ("interface", "direction") if key in value)
        for rule in value.get("rules") or [] if isinstance(value.get("rules"), list) else []:
            counts = {key: one for key, one in rule.items() if isinstance(one, int) and key != "rule_id"}
            found[f"{where} rule {rule.get('rule_id')}"] = counts
        for key, one in value.items():
            found |= _rule_counts(one, f"{where}/{key}")
    elif isinstance(value, list):
        for one in value:
            found |= _rule_counts(one, where)
    return found


@dataclass
class State:
    """What is in force. `told` by netctl, counters included; `attached` by the kernel; `seen` by traffic, read
    behind the others; `pins` in the root and `qdiscs` may be untidy when a command was killed."""

    told: dict
    attached: dict
    seen: dict
    pins: list = field(default_factory=list)
    qdiscs: list = field(default_factory=list)

    def differences(self, other, before=None, tidy=True):
        """In what this differs from `other`. With `before`, counters are to be as they were in that state, for
        all rules that it has; else all of them are to be equal."""
        found = []
        told, wanted = self.told, other.told
        if not tidy:  # the pins of a filter that is off are the next one's to take away
            told = {feature: [one for one in account if not (isinstance(one, dict) and one.get("state") == "removed")]
                    if isinstance(account, list) else account for feature, account in told.items()}  # fmt: skip
        if before is not None:
            told, wanted = _without(told, COUNTS), _without(wanted, COUNTS)
            ours, theirs = _rule_counts(self.told), _rule_counts(before.told)
            for rule in ours.keys() & theirs.keys():
                if ours[rule] != theirs[rule]:
                    found.append(f"counters of {rule}: {ours[rule]}, not {theirs[rule]}")
        attached = self.attached
        if not tidy and "cgroup" in attached:  # these ask rules that are not there, till the next command takes them off
            attached = attached | {"cgroup": [hook for hook in attached["cgroup"]
                                              if hook in other.attached["cgroup"] or hook[1] not in DATAGRAM_HOOKS]}  # fmt: skip
        pairs = [("told", told, wanted), ("attached", attached, other.attached), ("seen", self.seen, other.seen)]
        if tidy:
            pairs += [("pins", self.pins, other.pins), ("qdiscs", self.qdiscs, other.qdiscs)]
        found += [f"{name}: {_first_difference(ours, theirs)}" for name, ours, theirs in pairs if ours != theirs]
        return found


def _first_difference(a, b, where=""):
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        key = next(key for key in a if a[key] != b[key])
        return _first_difference(a[key], b[key], f"{where}.{key}")
    if isinstance(a, list) and isinstance(b, list):
        missing, more = [x for x in b if x not in a], [x for x in a if x not in b]
        if len(missing) == len(more) == 1:
            return _first_difference(more[0], missing[0], f"{where}[]")
        return f"{where} lacks {str(missing)[:160]}, has {str(more)[:160]}"
    return f"{where} is {str(a)[:160]}, not {str(b)[:160]}"


# Of redirection, for datagrams of sockets that are not connected.
DATAGRAM_HOOKS = ("rd_sendmsg4", "rd_sendmsg6")


class World:
    def __init__(self, directory):
        self.lab = Lab(directory)
        self.client, self.server = self.lab.pair(checksums=False)
        for end in (self.client, self.server):
            for name in ("all", end.name):
                end.netns.sysctl(f"net.ipv4.conf.{name}.rp_filter", 0)
        self.cgroup = self.lab.cgroup("faults")
        self._agent = subprocess.Popen(self.server.netns.wrap([sys.executable, "-c", _AGENT], self.cgroup), text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        self._receivers = []
        for port in (7, 8, 9):
            receiver = self.server.netns.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            receiver.bind(("::", port))
            receiver.setblocking(False)
            self._receivers.append(receiver)
        self._sender = self.client.netns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sender.bind((self.client.name, 0))
        self._probes, self._frames = self._make_probes()
        self._round = 0
        many = [f"10.{i // 200}.{i % 200}.0/24" for i in range(1100)]
        others = [f"172.{16 + i // 200}.{i % 200}.0/24" for i in range(1100)]
        v6 = [f"2001:db8:{i + 100:x}::/48" for i in range(1100)]
        self.words = {
            "cgroup": str(self.cgroup.path),
            "foreign": str(compile_bpf(directory, "xdp", 2)),
            "policy": str(directory / "policy"),
            "saved": str(directory / "kept" / "saved.yaml"),
            "kept": str(directory / "kept"),
            "rules": "; ".join(f"src 10.{i // 250}.{i % 250}.0/24 proto udp dport 7 drop" for i in range(1200)),
            "hosts4": "; ".join(["192.0.2.50", *(f"10.9.{i // 250}.{i % 250}" for i in range(1100))]),
            "hosts6": "; ".join(["2001:db8:1::50", *(f"2001:db8:9::{i:x}" for i in range(1100))]),
            "many4": "; ".join(["192.0.2.48/28", "192.0.2.50", *many]),
            "many6": "; ".join(["2001:db8:1::50", "2001:db8:1::40/124", *v6]),
            "others4": "; ".join(["192.0.2.52", *others]),
            "others6": "; ".join(["2001:db8:1::52", *(one.replace("db8", "db9") for one in v6)]),
        }
        (directory / "policy").write_text("dst 127.0.0.7 deny\ndst 127.0.0.8 dport 7 deny\n")
        for name, text in CONFIGURATIONS.items():
            self.words[name] = str(directory / f"{name}.yaml")
            Path(self.words[name]).write_text(text.format(**self.words))
        self.directory = directory
        self.netctl = None
        self.fresh_root()

    def close(self):
        self._agent.stdin.close()
        self._agent.wait(10)
        self.scrub()
        self.lab.__exit__()

    # ---- commands ----

    def fresh_root(self):
        self.netctl = Netctl()

    def scrub(self):
        """Takes away by force whatever there may be."""
        shutil.rmtree(self.netctl.root, ignore_errors=True)
        for end in (self.client, self.server):
            end.netns.run("ip", "link", "set", "dev", end.name, "xdp", "off", check=False)
            for qdisc in ("clsact", "root"):
                end.netns.run("tc", "qdisc", "del", "dev", end.name, qdisc, check=False)
        self.fresh_root()

    def command(self, words, on="server"):
        """The arguments and the options for lab.run() of a command as commands.py has it."""
        end = getattr(self, on)
        words, _, lines = words.partition(" < ")
        options = {}
        if lines:
            options["input"] = re.sub(r"; ?", "\n", lines.format(**self.words)) + "\n"
        words = [word.format(**self.words) for word in words.split()]
        if words[0].startswith("!"):
            return end.netns.wrap([words[0][1:], *words[1:]]), options
        # A set of names reads the traffic of the namespace in which it is made.
        netns = None if words[0] in ("policy", "redirect") or (words[0] == "set" and "name" not in words) else end.netns
        return self.netctl.argv(*words, netns=netns), options

    def run(self, words, on="server", check=True):
        argv, options = self.command(words, on)
        # The policy's programs take the verifier half a minute on a busy machine.
        return run(*argv, check=check, timeout=600, **options)

    # ---- states ----

    def told(self, features):
        """netctl's own account."""
        return {feature: getattr(self, f"_told_{feature}")() for feature in sorted(features)}

    def state(self, features, on):
        """What is in force now. Traffic comes last, so the counters are those before it."""
        told = self.told(features)
        end = getattr(self, on)
        attached = {"net": self._attached(end)}
        if features & {"policy", "redirect"}:
            found = bpftool("cgroup", "show", self.cgroup.path) or []
            attached["cgroup"] = sorted((one["attach_type"], one["name"]) for one in found)
        qdiscs = json.loads(end.netns.run("tc", "-j", "qdisc", "show", "dev", end.name).stdout)
        seen = {}
        if features & {"xdp", "tc"}:
            seen["arrived"] = self._arrived()
        if features & {"policy", "redirect"}:
            seen["connections"] = self._connections()
        if "set" in features:
            seen["members"] = self._members()
        return State(told, attached, seen, self._pins(), sorted(one["kind"] for one in qdiscs))

    def unfinished(self, features):
        """Whether netctl tells of hooks that a killed command left."""
        done = run(*self.netctl.argv("status", options=("--json",)), check=False)
        hooks = json.loads(done.stdout)["hooks"]
        return any(hook["feature"] in features and hook["state"] == "unfinished" for hook in hooks)

    def _json(self, *words, on=None):
        netns = getattr(self, on).netns if on else None
        done = run(*self.netctl.argv(*words, netns=netns, options=("--json",)), check=False)
        if done.returncode != 0:
            return {"error": done.stderr}
        return _without(json.loads(done.stdout or "null"), _IDENTITIES)

    def _told_xdp(self):
        return self._json("xdp", "status")

    def _told_tc(self):
        return self._json("tc", "status")

    def _told_set(self):
        sets = self._json("set", "list")
        names = [one["name"] for one in sets] if isinstance(sets, list) else []
        elements = {name: self._json("set", "list", name) for name in names}
        # Where elements stand is no matter of what is in the set, and a killed fold may leave it half done.
        return {"sets": _without(sets, {"live", "base", "bytes"}), "elements": elements}

    def _told_policy(self):
        return self._json("policy", "status")

    def _told_redirect(self):
        return [self._json("redirect", *words) for words in (("status",), ("rule", "list"), ("to", "list"))]

    def _told_apply(self):
        """Whether one waits to be confirmed. What a killed one has done, the next command undoes."""
        run(*self.netctl.argv("status"), check=False)
        return {"waits": (Path(self.netctl.root) / "journal").exists()}

    def _told_save(self):
        saved = Path(self.words["saved"])
        return {"text": saved.read_text(), "mode": saved.stat().st_mode} if saved.exists() else None

    def _members(self):
        answers = []
        for element in ("192.0.2.50", "192.0.2.51", "2001:db8:1::50", "2001:db8:1::51", "7"):
            done = self.run(f"set test s {element}", check=False)
            answers.append((element, done.stdout))
        return answers

    def _attached(self, end):
        found = json.loads(end.netns.run("bpftool", "-j", "net", "show", "dev", end.name).stdout)[0]
        # A name such as `tc_filter:[125]` has the program's id in it.
        return [(one.get("kind") or one.get("mode"), one.get("name", "").split(":")[0])
                for kind in ("xdp", "tc") for one in found[kind]]  # fmt: skip

    def _pins(self):
        """And what stands beside a saved file."""
        root = Path(self.netctl.root)
        pins = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        kept = Path(self.words["kept"])
        return pins + sorted(map(str, (kept, *kept.iterdir()) if kept.exists() else ()))

    # ---- traffic ----

    def _make_probes(self):
        probes, frames = [], []
        sources = [f"192.0.2.{host}" for host in (50, 51, 52)] + [f"2001:db8:1::{host}" for host in (50, 51, 52)]
        for source in sources:
            for port in (7, 8):
                probes.append(f"{source} to {port}")
                layer, to = (IPv6, self.server.ip6) if ":" in source else (IP, self.server.ip4)
                packet = Ether(src=self.client.mac, dst=self.server.mac) / layer(src=source, dst=to)
                frames.append((packet, port))
        frames.append((Ether(src=self.client.mac, dst=self.server.mac) / IP(src=self.client.ip4, dst=self.server.ip4), 9))
        return probes, frames

    def _arrived(self):
        """Which probes reach the server's sockets. The last one, which no rule is about, comes behind them all."""
        self._round += 1
        cpus = os.sched_getaffinity(0)
        frames = [raw(packet / UDP(sport=1, dport=port) / struct.pack("=II", self._round, number))
                  for number, (packet, port) in enumerate(self._frames)]  # fmt: skip
        os.sched_setaffinity(0, {min(cpus)})  # on one CPU's queue they keep their order
        try:
            for frame in frames:
                # Where it is dropped on its way out, the sender is told so.
                with contextlib.suppress(OSError):
                    self._sender.send(frame)
        finally:
            os.sched_setaffinity(0, cpus)
        come = set()

        def last():
            for receiver in self._receivers:
                while True:
                    try:
                        round_, number = struct.unpack("=II", receiver.recv(100))
                    except BlockingIOError:
                        break
                    if round_ == self._round:
                        come.add(number)
            return len(self._probes) in come

        try:
            until(last, 60, "the probe that no rule is about")
        except AssertionError:
            return "nothing"
        return {probe: number in come for number, probe in enumerate(self._probes)}

    def _connections(self):
        self._agent.stdin.write(json.dumps(_CONNECTIONS) + "\n")
        self._agent.stdin.flush()
        return [f"{kind} {address} {port}: {os.strerror(outcome)}"
                for (kind, address, port), outcome in zip(_CONNECTIONS, json.loads(self._agent.stdout.readline()), strict=True)]  # fmt: skip
