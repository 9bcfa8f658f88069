# SPDX-License-Identifier: GPL-2.0-only
"""netctl apply and its kin, with traffic. The letters I1 to I14 are the invariants of docs/architecture.md."""

import json
import os
import random
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import yaml
from lab import run, until

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def write_text(path, text):
    path.write_text(text)
    return path


def plan(netctl, path, status):
    """What would change, by object."""
    done = run(*netctl.argv("plan", path, options=("--json",)), check=False)
    assert done.returncode == status, done
    return {step["object"]: step for step in json.loads(done.stdout)["changes"]}


def apply(netctl, text, *options, tmp, **more):
    path = write_text(tmp / "applied.yaml", text)
    return netctl.json("apply", path, *options, **more)


class Port:
    """Datagrams from one end of a link to a port of the other: whether they arrive."""

    def __init__(self, client, server, number):
        self.client, self.server, self.number = client, server, number
        self.listener = server.netns.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.listener.bind((server.ip4, number))
        self.listener.settimeout(0.05)
        self.count = 0

    def judged(self, netctl):
        """How many packets the filters have seen."""
        hooks = json.loads(run(*netctl.argv("status", options=("--json",)), check=False).stdout)["hooks"]
        return sum(hook["judged"] for hook in hooks)

    def arrives(self):
        """Sends until one arrives; each has a number of its own."""
        with self.client.netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            self.count += 1
            sender.sendto(str(self.count).encode(), (self.server.ip4, self.number))
            try:
                while self.listener.recv(100) != str(self.count).encode():
                    pass
            except TimeoutError:
                return False
            return True

    def opens(self):
        until(self.arrives)

    def is_shut(self, netctl, feature="xdp"):
        """One more is refused, and has not arrived."""

        def refused():
            hooks = json.loads(run(*netctl.argv("status", options=("--json",)), check=False).stdout)["hooks"]
            return sum(hook["refused"] for hook in hooks if hook["feature"] == feature)

        before = refused()
        assert not self.arrives()
        until(lambda: refused() > before)


@pytest.fixture
def port(link):
    client, server = link
    return Port(client, server, 9)


def whole(server, cgroup):
    """A configuration with all features in it."""
    return f"""\
sets:
  bad:
    type: cidr
    elements: [192.0.2.0/24, 2001:db8::/32]
  banned: {{type: host, managed: external}}
xdp:
  - interfaces: ["{server.name}", "none*"]
    netns: {server.netns.name}
    mode: generic
    optional: true
    rules:
      - src @bad drop
      - src @banned drop
      - 'proto udp dport 9 drop comment "of the file: it''s a #1"'
tc:
  - interfaces: {server.name}
    netns: {server.netns.name}
    direction: egress
    rules: |
      # what leaves
      dport 99 drop

      dport 98 drop log
policy:
  cgroup: {cgroup.path}
  layer: cgroup
  default: allow
  rules: [dst 192.0.2.99 deny]
redirect:
  cgroup: {cgroup.path}
  force: all
  rules: [dport 6379]
  to: [dst 192.0.2.98 dport 80 target 127.0.0.1:80]
"""


@pytest.fixture
def text(link, lab):
    return whole(link[1], lab.cgroup("apply"))


def test_a_file_is_in_force_and_applied_again_changes_nothing(netctl, link, text, port, tmp_path):
    _, server = link
    path = write_text(tmp_path / "host.yaml", text)
    port.opens()
    assert set(plan(netctl, path, 2)) == {
        "set bad",
        "set banned",
        f"xdp {server.name} in {server.netns.name}",
        f"tc {server.name} egress in {server.netns.name}",
        "policy",
        "redirect",
    }
    port.opens()  # planned is not done
    done = netctl.json("apply", path)
    assert {step["action"] for step in done["changes"]} == {"add"} and done["confirm_id"] is None
    port.is_shut(netctl)
    assert not plan(netctl, path, 0)
    again = netctl.json("apply", path)
    assert not again["changes"] and again["object_count"] == 6
    assert "nothing to change" in netctl("apply", path).stdout
    netctl("set", "add", "banned", "192.0.2.7")  # theirs
    assert not netctl.json("apply", path)["changes"]
    netctl("set", "add", "bad", "192.0.2.77/32")  # ours
    assert [step["object"] for step in netctl.json("apply", path)["changes"]] == ["set bad"]


def test_a_change_keeps_ids_and_counters(netctl, link, port, tmp_path):
    """I4: of the rules that stay."""
    _, server = link
    where = {"netns": server.netns}
    head = f"xdp:\n  - interfaces: [{server.name}]\n    mode: generic\n    rules:\n"
    apply(netctl, head + "      - proto udp dport 9 drop\n", tmp=tmp_path, **where)
    port.is_shut(netctl)
    before = netctl.json("xdp", "rule", "list", server.name, **where)[0]
    done = apply(netctl, head + "      - dport 7 drop\n      - proto udp dport 9 drop\n", tmp=tmp_path, **where)
    assert done["changes"][0]["lines"] == ["+ dport 7 drop"]
    after = netctl.json("xdp", "rule", "list", server.name, **where)
    assert after[1] == before and after[0]["rule_text"] == "dport 7 drop"


def test_what_the_file_does_not_name_stays_unless_it_prunes(netctl, link, text, port, tmp_path):
    path = write_text(tmp_path / "host.yaml", text)
    netctl("apply", path)
    only = write_text(tmp_path / "only.yaml", "sets:\n  bad: {type: cidr, elements: [192.0.2.0/24, 2001:db8::/32]}\n")
    assert not netctl.json("apply", only)["changes"]
    port.is_shut(netctl)
    gone = netctl.json("apply", only, "--prune")["changes"]
    assert {step["action"] for step in gone} == {"remove"} and len(gone) == 5
    port.opens()
    assert [one["name"] for one in netctl.json("set", "list")] == ["bad"]
    done = apply(netctl, "absent: [set bad, policy]\n", tmp=tmp_path)
    assert [step["object"] for step in done["changes"]] == ["set bad"]
    assert not netctl.root.exists()  # I9


@pytest.mark.timeout(300)
def test_mistakes_name_their_place(netctl, tmp_path):
    """And change nothing: `check` needs no root at all."""
    for text, place, words in (
        ("xdp:\n  - interfacse: eth0\n", "2:5", "interfaces"),
        ("xpd: []\n", "1:1", "xdp"),
        ("xdp:\n  - interfaces: [eth0]\n    rules:\n      - src @bad dorp\n", "4:18", "drop"),
        ("xdp:\n  - interfaces: [eth0]\n    rules: |\n      # first\n      src @bad drop\n      dprot 7 drop\n", "6:7", "dport"),
        ('xdp:\n  - interfaces: [eth0]\n    rules: ["src 192.0.2.1/24 drop"]\n', "3:18", "192.0.2.0/24"),
        ("xdp:\n  - interfaces: [eth0]\n    mode: naitve\n", "3:11", "native"),
        ("xdp:\n  - interfaces: [eth0]\n    log-rate: many\n", "3:15", "number"),
        ("xdp:\n  - interfaces: [eth0]\n    optional: yes\n", "3:15", "true or false"),
        ("sets:\n  bad: {type: cidr, elements: [192.0.2.1, 192.0.2.300]}\n", "2:43", "no element"),
        ("sets:\n  bad: {type: cidr}\n  bad: {type: host}\n", "3:3", "twice"),
        ("sets:\n  bad: {elements: []}\n", "2:8", "type"),
        ("sets:\n  bad: &one {type: cidr}\n", "2:", "anchors"),
        ("sets:\n  bad: *one\n", "2:", ""),
        ("sets: !!map {}\n", "1:", "tags"),
        ("a: " + "[" * 200 + "]" * 200, "1:", ""),
        ("a: " + "[" * 20000, "1:", ""),
        ("sets: {\n", "", "YAML"),
        ("---\nsets: {}\n---\nsets: {}\n", "", "document"),
        ("tc:\n  - interfaces: [eth0]\n", "2:5", "direction"),
        ("absent: [everything]\n", "1:10", "absent"),
        ("xdp:\n  - interfaces: [eth0]\n    rules:\n      - dport 7 drop #8 too\n", "4:22", "comment"),
    ):  # fmt: skip
        path = write_text(tmp_path / "wrong.yaml", text)
        for command, status in (("check", 2), ("apply", 2), ("plan", 1)):
            told = netctl.fails(command, path, status=status)
            assert f"wrong.yaml:{place}" in told and words in told and "^" in told, (text, told)
    assert not netctl.root.exists()


@pytest.mark.timeout(300)
def test_the_schema_agrees_with_the_parser(netctl, text, tmp_path):
    """Every key of the table is in both: what is taken away from a good file, misspelt or of another kind."""
    schema = json.loads(netctl("apply", "--schema").stdout)

    def valid(value, schema):
        if "enum" in schema:
            return value in schema["enum"]
        if "anyOf" in schema:
            return any(valid(value, one) for one in schema["anyOf"])
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        kind = {bool: "boolean", int: "integer", str: "string", dict: "object", list: "array"}[type(value)]
        if kind not in kinds and not (kind == "integer" and "number" in kinds):
            return False
        if kind == "integer" and "minimum" in schema:
            return schema["minimum"] <= value <= schema["maximum"]
        if kind == "array":
            return all(valid(one, schema["items"]) for one in value)
        if kind != "object":
            return True
        known = schema.get("properties", {})
        more = schema.get("additionalProperties", True)
        return set(schema.get("required", ())) <= set(value) and all(
            valid(one, known[key]) if key in known else isinstance(more, dict) and valid(one, more)
            for key, one in value.items()
        )

    def variants(value):
        """The value with one thing in it changed."""
        if isinstance(value, dict):
            for key, one in value.items():
                rest = {name: other for name, other in value.items() if name != key}
                yield rest
                yield {**rest, key + "x": one}
                for other in ([], {}, 7, True, "native"):
                    yield {**value, key: other}
                for changed in variants(one):
                    yield {**value, key: changed}
        elif isinstance(value, list):
            for i, one in enumerate(value):
                for changed in variants(one):
                    yield [*value[:i], changed, *value[i + 1 :]]

    # A flaw that no schema tells: who keeps a set's elements, names, rules, titles. Only the form is compared.
    meaning = ("a rule", "is no name", "is told of twice", "who keeps", "can be absent", "names none", "no element")
    everything = yaml.safe_load(text)
    everything["xdp"][0]["log-rate"] = 99
    everything["prune"] = False
    tried = random.Random(20).sample(list(variants(everything)), 60)
    told = []
    for value in [everything, *tried]:
        path = write_text(tmp_path / "variant.yaml", yaml.safe_dump(value))
        done = run(*netctl.argv("check", path), check=False)
        form = any(key in done.stderr for key in ("has no key", "needs the key", "here is", "is none of the words", "is a number", "is true or false"))  # fmt: skip
        told.append(not form)
        assert valid(value, schema) == (not form), (value, done.stderr, meaning)
    assert set(told) == {True, False}


def test_a_step_that_fails_takes_all_back(netctl, link, text, port, tmp_path):
    """The last of them: a rule on an interface to which nothing can be redirected."""
    _, server = link
    path = write_text(tmp_path / "host.yaml", text)
    netctl("apply", path)
    before = netctl("export").stdout
    broken = text.replace("proto udp dport 9 drop", "proto udp dport 9 pass").replace("192.0.2.0/24", "198.51.100.0/24")
    broken = broken.replace("dport 98 drop log", "dport 98 redirect nowhere")
    told = netctl.fails("apply", write_text(tmp_path / "broken.yaml", broken))
    assert "nowhere" in told and f"tc {server.name} egress" in told
    assert netctl("export").stdout == before
    port.is_shut(netctl)
    assert not plan(netctl, path, 0)


def test_what_does_not_load_comes_before_anything_is_in_force(netctl, link, tmp_path):
    """All programs are loaded before the first is in force, whatever stands first in the file."""
    client, server = link

    def both(at_server, at_client, element):
        return f"""\
sets:
  bad: {{type: host, elements: [{element}]}}
xdp:
  - {{interfaces: [{server.name}], netns: {server.netns.name}, mode: generic, rules: ['{at_server}']}}
  - {{interfaces: [{client.name}], netns: {client.netns.name}, mode: generic, rules: ['{at_client}']}}
"""

    def generations():
        return [point["generation"] for point in netctl.json("xdp", "status")]

    apply(netctl, both("dport 7 drop", "dport 7 drop", "192.0.2.1"), tmp=tmp_path)
    before, exported = generations(), netctl("export").stdout
    broken = both("dport 8 drop", "dport 8 redirect nowhere", "192.0.2.2")
    told = netctl.fails("apply", write_text(tmp_path / "broken.yaml", broken))
    assert f"xdp {client.name} in {client.netns.name}: " in told and "nowhere" in told and told.count("xdp ") == 1, told
    assert generations() == before  # none was swapped and swapped back
    assert netctl("export").stdout == exported
    # The other way round, and both in their order.
    told = netctl.fails("apply", write_text(tmp_path / "broken.yaml", both("dport 8 redirect nowhere", "dport 8 drop", "192.0.2.2")))
    assert f"xdp {server.name} in {server.netns.name}: " in told and generations() == before
    apply(netctl, both("dport 8 drop", "dport 9 drop", "192.0.2.2"), tmp=tmp_path)
    assert generations() == [one + 1 for one in before]
    rules = [point["rules"][0]["rule_text"] for point in netctl.json("xdp", "status")]
    assert sorted(rules) == ["dport 8 drop", "dport 9 drop"]


def test_check_can_load(netctl, link, text, port, tmp_path):
    _, server = link
    good = write_text(tmp_path / "good.yaml", text)
    assert "2 filters loaded" in netctl("check", good, "--load").stderr
    assert not netctl.root.exists()  # nothing of it stays
    port.opens()
    broken = write_text(tmp_path / "broken.yaml", text.replace("dport 98 drop log", "dport 98 redirect nowhere"))
    netctl("check", broken)
    assert "nowhere" in netctl.fails("check", broken, "--load") and not netctl.root.exists()
    netctl("apply", good)
    before = netctl("export").stdout
    assert "0 filters loaded" in netctl("check", good, "--load").stderr  # they are in force
    netctl.fails("check", broken, "--load")
    assert netctl("export").stdout == before
    port.is_shut(netctl)


def test_rules_never_see_less_of_a_set_than_before_or_after(netctl, link, port, tmp_path):
    """An address that moves from a set into a rule, and back, is refused all the while. Each call of bpf() takes long, so
    that what is open for a moment is open for long enough."""
    client, server = link
    head = f"xdp:\n  - interfaces: [{server.name}]\n    netns: {server.netns.name}\n    mode: generic\n    rules: ['src @bad drop'"
    sets = "sets:\n  bad: {{type: host, size: 100, elements: [198.51.100.1, {}]}}\n"
    in_set = write_text(tmp_path / "set.yaml", sets.format(client.ip4) + head + "]\n")
    in_rule = write_text(tmp_path / "rule.yaml", sets.format("198.51.100.2") + head + f", 'src {client.ip4} drop']\n")
    netctl("apply", in_set)
    port.is_shut(netctl)
    for path in (in_rule, in_set):
        slow = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=bpf", "-e", "inject=bpf:delay_enter=2000")
        apply = subprocess.Popen([*slow, *map(str, netctl.argv("apply", path))], stdout=subprocess.DEVNULL)
        while apply.poll() is None:
            assert not port.arrives()
        assert apply.returncode == 0
        assert not plan(netctl, path, 0)
        port.is_shut(netctl)


def test_the_ssh_session_is_asked_of_the_whole_plan(netctl, link, tmp_path):
    """I14: also of sets that change under rules which stay, and of rules whose order among the objects is no matter."""
    client, server = link
    where = {"env": {**os.environ, "SSH_CONNECTION": f"{client.ip4} 50022 {server.ip4} 22"}}
    head = f"xdp:\n  - interfaces: [{server.name}]\n    netns: {server.netns.name}\n    mode: generic\n    rules: ['src @bad drop']\n"
    sets = "sets:\n  bad: {{type: cidr, elements: [198.51.100.1, {}]}}\n"
    netctl("apply", write_text(tmp_path / "fine.yaml", sets.format("198.51.100.2") + head), **where)
    before = netctl("export").stdout
    cut = write_text(tmp_path / "cut.yaml", sets.format(client.ip4))
    told = netctl.fails("apply", cut, status=2, **where)
    assert f"xdp {server.name} in {server.netns.name}: 'src @bad drop' would cut this ssh session off" in told
    assert netctl("export").stdout == before and not (netctl.root / "journal").exists()
    told = netctl("apply", cut, "--confirm", "1h", **where).stderr
    assert "would cut this ssh session off" in told and "goes back in 3600 s" in told
    netctl("rollback")
    assert netctl("export").stdout == before
    # In front of it a set that spares the session, made by the same file.
    both = sets.format(client.ip4) + f"  good: {{type: host, elements: [{client.ip4}]}}\n"
    netctl("apply", write_text(tmp_path / "both.yaml", both + head.replace("['src @bad drop", "['src @good pass', 'src @bad drop")), **where)
    netctl("apply", cut, **where)
    netctl("apply", write_text(tmp_path / "yes.yaml", both + head), "--yes", **where)


@pytest.mark.timeout(300)
def test_what_is_exported_applies_to_the_same(netctl, link, lab, tmp_path):
    """Random states of all features."""
    _, server = link
    cgroup = lab.cgroup("export")
    draw = random.Random(2026)
    rules = ["src @one drop", "dport {80, 443} pass", 'proto tcp flags syn/syn,ack drop log comment "a: b # c"',
             "src 2001:db8::/32 drop", "proto icmp pass limit 10/s burst 5 per src", "vlan any drop"]  # fmt: skip
    for _ in range(2):
        state = {
            "sets": {
                "one": {"type": "cidr", "elements": [f"10.{n}.0.0/16" for n in draw.sample(range(250), 5)]},
                "ports": {"type": "port", "elements": draw.sample(range(1, 65535), 3)},
            },
            "xdp": [{"interfaces": [server.name], "netns": server.netns.name, "mode": "generic",
                     "default": draw.choice(["pass", "drop"]), "rules": draw.sample(rules, 4)}],
            "tc": [{"interfaces": [server.name], "netns": server.netns.name, "direction": way,
                    "default": draw.choice(["next", "pass", "drop"]), "log-rate": draw.randrange(1, 1000),
                    "rules": draw.sample(rules, 3)} for way in draw.sample(["ingress", "egress"], draw.randrange(3))],
            "policy": {"cgroup": str(cgroup.path), "mode": "audit", "rules": ["dport 99 deny log", "dst @one deny"]},
            "redirect": {"cgroup": str(cgroup.path), "force": ["all"], "rules": ["dport 6379"]},
            "prune": True,
        }  # fmt: skip
        for optional in draw.sample(["policy", "redirect", "tc"], draw.randrange(3)):
            del state[optional]
        netctl("apply", write_text(tmp_path / "state.yaml", yaml.safe_dump(state)))
        exported = netctl("export").stdout
        path = write_text(tmp_path / "exported.yaml", exported)
        assert not plan(netctl, path, 0), exported
        netctl("apply", write_text(tmp_path / "nothing.yaml", "prune: true\n"))
        assert not netctl.root.exists()
        netctl("apply", path)
        assert netctl("export").stdout == exported


def test_an_interface_that_is_called_like_a_pattern_means_itself(netctl, link, tmp_path):
    _, server = link
    server.netns.ip_batch("link add a* type veth peer name ab")
    netctl("xdp", "attach", "a*", "--mode", "generic", netns=server.netns)
    exported = write_text(tmp_path / "exported.yaml", netctl("export").stdout)
    assert not plan(netctl, exported, 0)  # not of `ab`, too
    netctl("detach", "--all")
    netctl("apply", exported)
    assert [point["interface"] for point in netctl.json("xdp", "status")] == ["a*"]


def test_interfaces_are_told_by_more_than_names(netctl, link, tmp_path):
    _, server = link
    server.netns.ip_batch(
        "link add left type veth peer name right",
        "link set left address 02:00:00:00:77:01",
        "link property add dev right altname a-longer-name-of-it",
    )

    def chosen(match, more=""):
        head = f"prune: true\nxdp:\n  - match: {{{match}}}\n    {more}\n    mode: generic\n    rules: [dport 7 drop]\n"
        apply(netctl, head, tmp=tmp_path, netns=server.netns)
        return {point["interface"] for point in netctl.json("xdp", "status")}

    assert chosen("driver: veth") == {server.name, "left", "right"}
    assert chosen('mac: "02:00:00:00:77:01"') == {"left"}
    assert chosen('mac: "02:00:00:00:77:*", driver: "v*"') == {"left"}
    assert chosen("altname: a-longer-name-of-it") == {"right"}
    assert chosen("driver: veth", "interfaces: [left, right]") == {"left", "right"}
    path = tmp_path / "applied.yaml"
    assert not plan(netctl, write_text(tmp_path / "exported.yaml", netctl("export").stdout), 0)
    for match, status, words in (("driver: e1000", 1, "no interface is of driver e1000"), ("altname: left", 1, "altname left"),
                                 ("mac: ''", 2, "names none")):  # fmt: skip
        text = f"xdp:\n  - match: {{{match}}}\n"
        assert words in netctl.fails("apply", write_text(path, text), status=status, netns=server.netns)
    text = "xdp:\n  - {match: {driver: e1000}, optional: true}\n"
    assert "left out" in netctl("apply", write_text(path, text), netns=server.netns).stderr
    assert {point["interface"] for point in netctl.json("xdp", "status")} == {"left", "right"}


def test_a_name_that_yaml_cannot_hold_is_refused(netctl, lab, tmp_path):
    path = os.fsencode(lab.cgroup().path) + b"/x\xff"
    os.mkdir(path)
    netctl("policy", "enable", "--cgroup", os.fsdecode(path), "--layer", "cgroup", "--mode", "audit")
    assert "x\\xff' is no UTF-8" in netctl.fails("export")
    netctl.fails("save", "--file", tmp_path / "saved.yaml")
    # Nor can what would lead back be written: then nothing is done.
    before = netctl("policy", "status").stdout
    netctl.fails("apply", write_text(tmp_path / "nothing.yaml", "prune: true\n"), "--confirm", "1h")
    assert netctl("policy", "status").stdout == before
    assert list(tmp_path.glob("saved*")) == []
    netctl("policy", "disable")
    os.rmdir(path)


# ---- confirm ----


def shut(server):
    return f"xdp:\n  - interfaces: [{server.name}]\n    netns: {server.netns.name}\n    mode: generic\n    default: drop\n"


def test_what_is_not_confirmed_goes_back(netctl, link, port, tmp_path):
    """I14: by itself."""
    _, server = link
    done = apply(netctl, shut(server), "--confirm", "3s", tmp=tmp_path)
    assert done["confirm_id"]
    until(lambda: not (netctl.root / "journal").exists(), 30)  # nobody calls netctl meanwhile
    until(lambda: not netctl.root.exists())
    port.opens()
    assert "does not wait" in netctl.fails("confirm", done["confirm_id"])


def test_what_is_confirmed_stays_and_nothing_else_comes_between(netctl, link, port, tmp_path):
    _, server = link
    ident = apply(netctl, shut(server), "--confirm", "1h", tmp=tmp_path)["confirm_id"]
    port.is_shut(netctl)
    told = netctl.fails("apply", write_text(tmp_path / "other.yaml", "sets: {}\n"))
    assert ident in told and "netctl confirm" in told
    netctl.fails("save", "--file", tmp_path / "saved")
    netctl("confirm", "--extend", "2h")
    assert "00000000" in netctl.fails("confirm", "00000000")
    netctl("confirm", ident)
    netctl.fails("confirm")
    port.is_shut(netctl)
    netctl("apply", write_text(tmp_path / "nothing.yaml", "prune: true\n"))
    port.opens()


def test_rollback_goes_back_at_once(netctl, link, text, port, tmp_path):
    path = write_text(tmp_path / "host.yaml", text)
    netctl("apply", path)
    before = netctl("export").stdout
    apply(netctl, "prune: true\n", "--confirm", "1h", tmp=tmp_path)
    port.opens()
    netctl("rollback")
    port.is_shut(netctl)
    assert netctl("export").stdout == before
    netctl.fails("rollback")


def test_one_that_finds_the_time_passed_goes_back(netctl, link, port, tmp_path):
    """Though the process that watched was killed."""
    _, server = link
    ident = apply(netctl, shut(server), "--confirm", "1s", tmp=tmp_path)["confirm_id"]
    words = [str(netctl.root).encode(), b"--if-unconfirmed", ident.encode()]
    for line in run("ps", "-eo", "pid=,args=").stdout.splitlines():
        if all(word.decode() in line for word in words):
            subprocess.run(["kill", "-9", line.split()[0]], check=False)
    until(lambda: not netctl.json("status")["hooks"], 10)
    port.opens()


# ---- plans in files, and files in files ----


def test_a_plan_is_done_unless_the_host_has_changed(netctl, link, text, port, tmp_path):
    _, server = link
    path = write_text(tmp_path / "host.yaml", text)

    def planned(file=path, *options):
        done = run(*netctl.argv("plan", file, *options, options=("--json",)), check=False)
        assert done.returncode == 2, done
        return write_text(tmp_path / "plan.json", done.stdout)

    netctl("apply", "--plan", planned())
    port.is_shut(netctl)
    assert not plan(netctl, path, 0)
    netctl("set", "add", "bad", "198.51.100.7", "--ttl", "600")
    change = planned(write_text(tmp_path / "other.yaml", text.replace("192.0.2.0/24", "198.51.100.0/24")))
    netctl("set", "add", "banned", "192.0.2.9")  # no matter of it
    netctl("set", "add", "bad", "203.0.113.0/24")
    before = netctl("export").stdout
    assert "not as it was when the plan was made: set bad" in netctl.fails("apply", "--plan", change)
    netctl("set", "delete", "bad", "203.0.113.0/24")
    netctl("apply", "--plan", change)  # as long as elements last is no change
    assert "198.51.100.0/24" in netctl("export").stdout != before
    assert "set bad" in netctl.fails("apply", "--plan", change)  # done already
    remove = planned(write_text(tmp_path / "none.yaml", "prune: true\n"))
    netctl("apply", "--plan", remove)
    assert not netctl.root.exists()
    netctl.fails("apply", path, "--plan", remove, status=2)
    for wrong in ("", "{}", '{"config": "", "changes": [1]}', '{"config": 1, "changes": []}', "[]"):
        assert "is no plan" in netctl.fails("apply", "--plan", write_text(tmp_path / "wrong.json", wrong), status=2)


def test_files_include_files(netctl, tmp_path):
    (tmp_path / "sets").mkdir()
    (tmp_path / "more.d").mkdir()
    write_text(tmp_path / "list", "192.0.2.1\n")
    write_text(tmp_path / "sets" / "bad.yaml", "sets:\n  bad: {type: host, file: ../list}\n")
    write_text(tmp_path / "more.d" / "a.yaml", "sets: {a: {type: port, elements: [80]}}\n")
    write_text(tmp_path / "more.d" / "b.yml", "include: ../deeper.yaml\n")
    write_text(tmp_path / "more.d" / "notes.txt", "no YAML: [\n")
    write_text(tmp_path / "deeper.yaml", "sets: {c: {type: port}}\n")
    path = write_text(tmp_path / "host.yaml", "include: [sets/bad.yaml, more.d]\n")
    assert set(plan(netctl, path, 2)) == {"set a", "set bad", "set c"}
    for text, words in (
        ("include: host.yaml\n", "each file is read once"),
        ("include: missing.yaml\n", "missing.yaml"),
        ("include: [deeper.yaml, more.d]\n", "each file is read once"),
        ("include: deeper.yaml\nsets: {c: {type: port}}\n", "is told of twice"),
    ):  # fmt: skip
        told = netctl.fails("check", write_text(path, text), status=2)
        assert words in told and ":1:" in told.replace(":2:", ":1:"), told
    netctl.fails("check", "-", status=2, input="include: missing.yaml\n")


# ---- probes ----


def test_a_probe_decides(netctl, link, port, lab, tmp_path):
    client, server = link
    lab.http_server(server.netns, 8080)
    web = f"http http://{server.ip4}:8080/"
    head = f"xdp:\n  - interfaces: [{server.name}]\n    netns: {server.netns.name}\n    mode: generic\n"
    good = write_text(tmp_path / "good.yaml", head + "    rules: [proto udp dport 9 drop]\n")
    where = {"netns": client.netns}  # from which it is asked
    for probe in (web, f"tcp {server.ip4}:8080", "command exec true"):
        done = netctl.json("apply", good, "--confirm", "60s", "--probe", probe, **where)
        assert done["confirm_id"] is None and not (netctl.root / "journal").exists()
        port.is_shut(netctl)
        netctl("apply", write_text(tmp_path / "none.yaml", "prune: true\n"))
    bad = write_text(tmp_path / "bad.yaml", head + "    default: drop\n")
    for probe, why in ((web, "cannot connect"), (f"tcp {server.ip4}:8080", "cannot connect"), ("command exit 3", "ended with 3"),
                       (web + "none", "404")):  # fmt: skip
        file = good if why == "404" else bad
        told = netctl.fails("apply", file, "--confirm", "2s", "--probe", probe, **where)
        # Where that took so long that no try came to its end, that is said.
        assert why in told or "in time" in told or "timed out" in told, told
        assert "as it was before" in told and not (netctl.root / "journal").exists(), told
        port.opens()
    for words in (("--probe", web), ("--confirm", "1h", "--probe", "icmp 192.0.2.1"), ("--confirm", "1h", "--probe", "tcp x")):
        netctl.fails("apply", good, *words, status=2, **where)
    assert not netctl.root.exists()


# ---- kills ----


@pytest.mark.timeout(300)
def test_one_that_was_killed_is_undone(netctl, link, text, port, tmp_path):
    """I1, I2: at every change of pins and links that it makes; A or B, never a mixture."""
    first = write_text(tmp_path / "a.yaml", text.split("policy:")[0])
    other = text.split("policy:")[0].replace("192.0.2.0/24", "198.51.100.0/24").replace("dport 9 drop", "dport 8 drop")
    second = write_text(tmp_path / "b.yaml", other.replace("dport 99 drop", "dport 97 drop"))
    netctl("apply", first)
    states = {netctl("export").stdout}
    calls = run("strace", "-f", "-qq", "-e", "trace=bpf", "-o", tmp_path / "calls", *netctl.argv("apply", second)) and (
        (tmp_path / "calls").read_text().count("bpf(")
    )
    states.add(netctl("export").stdout)
    assert len(states) == 2
    netctl("apply", first)
    told = 0
    for call in random.Random(9).sample(range(1, calls), 12):
        done = subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject=bpf:signal=KILL:when={call}", *map(str, netctl.argv("apply", second))],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode in (0, -signal.SIGKILL, 137), done
        after = run(*netctl.argv("export"))
        told += "undone" in after.stderr
        assert after.stdout in states, f"killed at call {call}: {after.stdout}"
        assert not (netctl.root / "journal").exists()
        port.arrives()
        netctl("apply", first)
    assert told > 0


# ---- save and restore ----


def test_what_is_saved_can_be_restored(netctl, link, text, port, tmp_path):
    path = write_text(tmp_path / "host.yaml", text)
    netctl("apply", path)
    saved = tmp_path / "folder" / "saved.yaml"
    netctl("save", "--file", saved)
    assert saved.stat().st_mode & 0o777 == 0o600
    before = netctl("export").stdout
    netctl("apply", write_text(tmp_path / "nothing.yaml", "prune: true\n"))
    port.opens()
    netctl("restore", "--file", saved)
    port.is_shut(netctl)
    assert netctl("export").stdout == before
    netctl("restore", "--file", saved)  # with pins from before


def test_an_interface_that_is_missing_keeps_no_other_from_its_filter(netctl, link, port, tmp_path):
    _, server = link
    saved = write_text(tmp_path / "saved.yaml", shut(server) + "  - interfaces: [gone0]\n    rules: [dport 7 drop]\n")
    told = run(*netctl.argv("restore", "--file", saved)).stderr
    assert "gone0" in told
    port.is_shut(netctl)


# ---- examples ----


def test_the_web_server_lets_in_what_it_says(netctl, link, tmp_path):
    """examples/web-server.yaml, on the interface of the tests."""
    client, server = link
    text = (EXAMPLES / "web-server.yaml").read_text().replace("[eth0]", f"[{server.name}]")
    path = write_text(tmp_path / "web-server.yaml", text)
    netctl("check", path)
    netctl("apply", path, netns=server.netns)
    listeners = {}
    for number in (80, 8080):
        listeners[number] = server.netns.socket(socket.AF_INET, socket.SOCK_STREAM)
        listeners[number].bind((server.ip4, number))
        listeners[number].listen()

    def connects(number, timeout):
        with client.netns.socket(socket.AF_INET, socket.SOCK_STREAM) as sender:
            sender.settimeout(timeout)
            try:
                sender.connect((server.ip4, number))
            except TimeoutError:
                return False
            return True

    until(lambda: connects(80, 5))
    assert not connects(8080, 0.5)
    netctl("set", "add", "banned", str(client.ip4), "--ttl", "600")
    assert not connects(80, 0.5)
    assert not netctl.json("apply", path, netns=server.netns)["changes"]  # the ban stays
    assert not connects(80, 0.5)
    netctl("set", "delete", "banned", str(client.ip4))
    until(lambda: connects(80, 5))
