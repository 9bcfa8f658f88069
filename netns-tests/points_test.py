# SPDX-License-Identifier: GPL-2.0-only
"""Points of the packet filters where something is not as it was: what stands in the maps, who the interface
is by now, who else is on it."""

import json

import pytest
from lab import bpftool, run, until
from traffic import IP, UDP, Ether, Filter, Wire, pins, write_text


def frame(client, server, dport=7):
    return (Ether(src=client.mac, dst=server.mac) / IP(src=client.ip4, dst=server.ip4) / UDP(sport=1, dport=dport))


class Classifier(Filter):
    hook = "tc"

    def __init__(self, netctl, interface, *options, direction="ingress", **more):
        self.direction = (direction,)
        super().__init__(netctl, interface, *options, **more)


KINDS = {
    "xdp": (Filter, ()),
    "tcx": (Classifier, ("--mode", "tcx")),
    "clsact": (Classifier, ("--mode", "clsact")),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def attach(netctl, interface, kind, **more):
    cls, options = KINDS[kind]
    return cls(netctl, interface, *options, **more)


@each_kind
def test_a_rule_that_cannot_be_read(netctl, link, kind):
    """It is shown as what it is, beside the others; they and it can be deleted, replaced, flushed, detached."""
    client, server = link
    netctl("set", "create", "s", "--type", "host")
    netctl("set", "create", "t", "--type", "host")

    def spoil():
        write_text(filter, 1, "src @s \x1b[31mnonsense")

    filter = attach(netctl, server, kind)
    filter.replace("dport 7 drop", "src @s drop", "dport 8 drop")
    spoil()
    listed = filter("rule list")
    assert [each["rule_id"] for each in listed] == [1, 2, 3]
    assert listed[0]["rule_text"] == "dport 7 drop"
    assert listed[1]["rule_text"] == "unreadable: src @s \\x1b[31mnonsense"
    assert "nonsense" in listed[1]["unreadable"]
    text = netctl(filter.hook, "rule", "list", server.name, *filter.direction, netns=server.netns).stdout
    assert "\x1b" not in text and "\\x1b[31mnonsense" in text
    assert filter.status()["rules"][2]["rule_text"] == "dport 8 drop"
    # It may be a use of @s, and is none of @t.
    assert "in use by" in netctl.fails("set", "destroy", "s")
    netctl("set", "destroy", "t")
    assert "cannot be read" in filter.fails("rule test", "proto udp dport 8", "--expect", "pass", status=4)
    message = filter.fails("rule add", "dport 9 drop")
    assert "the stored rule 2 cannot be read" in message
    assert "rule delete 2" in message
    filter("rule delete", "2")
    assert filter.rules() == ["dport 7 drop", "dport 8 drop"]
    dropped = filter.status()["verdicts"]["drop"]
    with Wire(client, server) as wire:
        wire.send(frame(client, server, 7))
        until(lambda: filter.status()["verdicts"]["drop"] == dropped + 1)
    filter.replace("dport 7 drop", "src @s drop", "dport 8 drop")
    spoil()
    filter("rule flush")
    assert filter.rules() == []
    filter.replace("dport 7 drop", "src @s drop", "dport 8 drop")
    spoil()
    filter.replace("dport 8 drop")
    assert filter.rules() == ["dport 8 drop"]
    filter.replace("dport 7 drop", "src @s drop")
    spoil()
    filter("detach")
    netctl("set", "destroy", "s")
    assert not netctl.root.exists()


@each_kind
def test_settings_of_another_version(netctl, lab, link, kind):
    """`status` of all shows the others; rules are replaced; `detach` works."""
    _, server = link
    filter = attach(netctl, server, kind)
    filter.add("dport 7 drop")
    size = bpftool("map", "show", "pinned", pins(filter) / "point")["bytes_value"]

    def spoil():
        run("bpftool", "map", "update", "pinned", pins(filter) / "point", "key", 0, 0, 0, 0,
            "value", *(["255"] * size))  # fmt: skip

    other = lab.pair()[1]
    healthy = attach(netctl, other, kind)
    spoil()
    trouble = {each["netns"]: each["trouble"] for each in netctl.json(filter.hook, "status")}
    assert trouble[other.netns.name] is None
    assert "another version" in trouble[server.netns.name]
    text = netctl(filter.hook, "status").stdout
    assert "it cannot be read" in text and other.netns.name in text
    assert "cannot be read" in filter.fails("rule add", "dport 8 drop")
    assert "cannot be read" in filter.fails("rule list")
    filter.replace("dport 8 drop")
    assert filter.rules() == ["dport 8 drop"]
    assert filter.status()["trouble"] is None
    spoil()
    filter("detach")
    healthy("detach")
    assert not netctl.root.exists()
    assert "clsact" not in server.netns.run("tc", "qdisc", "show", "dev", server.name).stdout or kind != "clsact"


def test_a_kernel_that_is_busy_when_asked(netctl, link, tmp_path):
    """libbpf asks what the kernel can do, and leaves out names if just that is refused: no attachment without
    names, which nobody could find again."""
    _, server = link
    for number in range(1, 5):  # those behind are of BTF, without which the verifier takes minutes
        argv = netctl.argv("tc", "attach", server.name, "ingress", netns=server.netns)
        done = run("strace", "-f", "-o", tmp_path / "trace", "-e", "trace=bpf", "-e",
                   f"inject=bpf:error=EBUSY:when={number}", *argv, check=False)  # fmt: skip
        if done.returncode == 0:
            netctl("tc", "rule", "add", server.name, "ingress", "dport", "7", "drop", netns=server.netns)
            netctl("tc", "status")
            netctl("tc", "detach", server.name, "ingress", netns=server.netns)
        assert not netctl.root.exists(), f"call {number}: {done.stderr}"


def rename(interface, old, new):
    for words in (("down",), ("name", new), ("up",)):
        interface.netns.ip("link", "set", "dev", new if words == ("up",) else old, *words)


@each_kind
def test_a_renamed_interface(netctl, link, kind):
    """The filter is found by the interface's new name, and by the next change it goes by it."""
    client, server = link
    filter = attach(netctl, server, kind)
    filter.add("dport 7 drop")
    rename(server, "eth0", "wan0")
    status = filter.status()
    assert (status["state"], status["interface_now"]) == ("renamed", "wan0")
    assert "called wan0 now" in netctl(filter.hook, "status", "eth0", *filter.direction, netns=server.netns).stdout
    now = type(filter)(netctl, server, attach=False, name="wan0")
    assert now.rules() == ["dport 7 drop"]
    assert now.status()["interface_now"] == "wan0"
    # A new one of the old name is not filtered, and can be.
    server.netns.ip("link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
    done = netctl(filter.hook, "rule", "add", "eth0", *filter.direction, "dport", "8", "drop",
                  netns=server.netns, check=False)  # fmt: skip
    assert done.returncode == 1
    assert "attached to eth0" in done.stderr
    assert now.rules() == ["dport 7 drop"]
    filter("attach")
    filter.add("dport 9 drop")
    now.add("dport 10 drop")
    assert filter.rules() == ["dport 9 drop"]
    assert now.rules() == ["dport 7 drop", "dport 10 drop"]
    assert (now.status()["state"], now.status()["interface"]) == ("attached", "wan0")
    now("detach")
    filter("detach")
    assert not netctl.root.exists()


@each_kind
def test_interfaces_that_change_names(netctl, lab, kind):
    """Each filter stays with its interface."""
    netns = lab.namespace()
    for name in ("a0", "b0"):
        netns.ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-p")
    cls, options = KINDS[kind]
    direction = ("ingress",) if cls is Classifier else ()
    for name, port in (("a0", 1), ("b0", 2)):
        netctl(cls.hook, "attach", name, *direction, *options, netns=netns)
        netctl(cls.hook, "rule", "add", name, *direction, f"dport {port} drop", netns=netns)
    for old, new in (("a0", "x0"), ("b0", "a0"), ("x0", "b0")):
        netns.ip("link", "set", "dev", old, "name", new)
    for name in ("a0", "b0"):
        netctl(cls.hook, "rule", "add", name, *direction, "dport 9 drop", netns=netns)
    for name, port in (("a0", 2), ("b0", 1)):
        rules = netctl.json(cls.hook, "rule", "list", name, *direction, netns=netns)
        assert [each["rule_text"] for each in rules] == [f"dport {port} drop", "dport 9 drop"]


@pytest.mark.parametrize("kind", ("xdp", "tcx"))
def test_a_moved_interface(netctl, lab, link, kind):
    """It is told as such; what is left of it gives way to a new interface of its name."""
    _, server = link
    elsewhere = lab.namespace()
    filter = attach(netctl, server, kind)
    filter.add("dport 7 drop")
    server.netns.ip("link", "set", "dev", server.name, "netns", elsewhere.name)
    assert filter.status()["state"] == "moved"
    assert "another network namespace" in filter.fails("rule add", "dport 8 drop")
    server.netns.ip("link", "add", server.name, "type", "veth", "peer", "name", "peer0")
    done = netctl(filter.hook, "attach", server.name, *filter.direction, netns=server.netns)
    assert "in another network namespace" in done.stderr
    assert filter.rules() == []
    parked = [each for each in netctl.json(filter.hook, "status") if each["state"] == "moved"]
    assert len(parked) == 1 and parked[0]["interface"].startswith("eth0@")
    assert [each["rule_text"] for each in parked[0]["rules"]] == ["dport 7 drop"]
    netctl(filter.hook, "detach", parked[0]["interface"], *filter.direction, netns=server.netns)
    assert [each["state"] for each in netctl.json(filter.hook, "status")] == ["attached"]


def test_two_roots_with_clsact(netctl, link):
    """A filter is told from that of another root by its program, not by its name."""
    _, server = link
    mine = attach(netctl, server, "clsact")
    mine.add("dport 7 drop")
    priority = mine.status()["settings"]["priority"] if "settings" in mine.status() else None
    (own,) = [each for each in mine.status()["clsact"] if each["own"]]
    priority = own["priority"]
    # Somebody takes ours away, and another root comes to its place.
    server.netns.run("tc", "filter", "del", "dev", server.name, "ingress")
    root = netctl.root
    other = netctl.root.with_name(netctl.root.name + "-other")
    netctl.root = other
    try:
        theirs = Classifier(netctl, server, "--mode", "clsact", "--priority", str(priority))
        theirs.add("dport 8 drop")
        netctl.root = root
        assert mine.status()["state"] == "removed"
        assert "attached no more" in mine.fails("rule add", "dport 9 drop")
        mine("detach")
        netctl.root = other
        assert theirs.status()["state"] == "attached"
        assert theirs.rules() == ["dport 8 drop"]
        theirs("detach")
    finally:
        netctl.root = root
        run("rm", "-rf", other)


def test_classbench_rules_that_never_match(netctl, link, tmp_path):
    _, server = link
    filter = Filter(netctl, server)
    rules = tmp_path / "rules"
    rules.write_text(
        "@192.0.2.0/24\t198.51.100.0/24\t119 : 119\t0 : 65535\t0x01/0xFF\t0x0000/0x0000\n"
        "@192.0.2.0/24\t198.51.100.0/24\t0 : 65535\t80 : 80\t0x06/0xFF\t0x0000/0x0000\n"
    )
    done = netctl("xdp", "rule", "replace", server.name, rules, "--format", "classbench", netns=server.netns)
    assert "1 rule of" in done.stderr and "can never match, and is left out" in done.stderr
    assert done.stdout == "1 rules in force\n"
    assert len(filter.rules()) == 1
    filter("rule flush")


def test_deleting_rules_together(netctl, link):
    _, server = link
    filter = Filter(netctl, server)
    filter.replace("dport 7 drop", "dport 8 drop")
    message = filter.fails("rule delete", "1", "99")
    assert "there is no rule with id 99" in message and "the ids are 1, 2" in message
    assert filter.rules() == ["dport 7 drop", "dport 8 drop"]


@pytest.mark.parametrize("mode", ("xdpdrv", "xdpgeneric"))
def test_taking_over_leaves_no_moment_without_a_program(netctl, link, tmp_path, mode):
    """One call replaces the other's program; if it is refused, the other stays."""
    client, server = link
    source = tmp_path / "other.c"
    source.write_text('__attribute__((section("xdp"), used)) int other(void *c) { return 1; }\n'
                      'char l[] __attribute__((section("license"), used)) = "GPL";\n')  # drops all
    run("clang", "-O2", "-target", "bpf", "-c", source, "-o", tmp_path / "other.o")
    server.netns.ip("link", "set", "dev", server.name, mode, "obj", tmp_path / "other.o", "sec", "xdp")
    number = server.netns.ip_json("link", "show", "dev", server.name)[0]["xdp"]["prog"]["id"]
    filter = Filter(netctl, server, attach=False)
    # As refused by the driver: netlink's answer to our attachment is an error.
    wrong = {"xdpdrv": "generic", "xdpgeneric": "native"}[mode]
    assert "another mode cannot take over" in filter.fails("attach", "--replace", "--mode", wrong)
    assert server.netns.ip_json("link", "show", "dev", server.name)[0]["xdp"]["prog"]["id"] == number
    trace = tmp_path / "trace"
    argv = netctl.argv("xdp", "attach", server.name, "--replace", netns=server.netns)
    run("strace", "-f", "-o", trace, "-e", "trace=network,bpf", "-e", "inject=sendto:signal=KILL:when=1000", *argv)
    assert filter.status()["state"] == "attached"
    assert "BPF_LINK_CREATE" not in trace.read_text()
    filter.add("dport 7 drop")
    filter.add("dport 8 drop")
    assert filter.rules() == ["dport 7 drop", "dport 8 drop"]
    with Wire(client, server) as wire:
        wire.deliver([frame(client, server, 7), frame(client, server, 9)], [False, True], where=server)
    filter("detach")
    assert "xdp" not in server.netns.ip_json("link", "show", "dev", server.name)[0]
    assert not netctl.root.exists()


@each_kind
def test_without_the_capability_to_find_it_again(netctl, link, kind):
    """Programs are found by ids, which takes CAP_SYS_ADMIN: who has it not is refused before, not behind."""
    _, server = link
    cls, options = KINDS[kind]
    direction = ("ingress",) if cls is Classifier else ()
    argv = netctl.argv(cls.hook, "attach", server.name, *direction, *options)
    caps = "-all,+bpf,+net_admin,+perfmon"
    with server.netns:
        done = run("setpriv", f"--bounding-set={caps}", *argv, check=False)
    assert done.returncode == 1
    assert "CAP_SYS_ADMIN" in done.stderr
    netctl(cls.hook, "status")
    assert not netctl.root.exists()


@each_kind
def test_a_namespace_that_cannot_be_entered_is_none_that_is_gone(netctl, link, kind):
    """detach would take the pins away and leave the filter."""
    client, server = link
    filter = attach(netctl, server, kind)
    filter.add("proto udp dport 7 drop")
    argv = netctl.argv(filter.hook, "detach", server.name, *filter.direction, netns=server.netns)
    done = run("strace", "-f", "-o", "/dev/null", "-e", "inject=setns:error=EBUSY", *argv, check=False)
    assert done.returncode == 1 and "cannot enter network namespace" in done.stderr, done
    with Wire(client, server) as wire:
        wire.send(frame(client, server, 7))
        until(lambda: filter.status()["verdicts"]["drop"] == 1)
    filter("detach")
    assert not netctl.root.exists()


def test_an_interface_that_could_not_be_asked_for_is_not_taken_for_moved(netctl, link):
    """I13: who takes it for one of another namespace renames its point, and lets a second filter come."""
    _, server = link
    netctl("xdp", "attach", server.name, "--mode", "generic", netns=server.netns)
    netctl("tc", "attach", server.name, "egress", netns=server.netns)
    for calls in ("sendto,sendmsg", "ioctl"):
        for when in range(1, 4):
            inject = ("-e", f"trace={calls}", "-e", f"inject={calls}:error=ENOMEM:when={when}")
            words = ("strace", "-f", "-qq", "-o", "/dev/null", *inject, *netctl.argv("status", options=("--json",)))
            told = json.loads(run(*words, check=False).stdout)
            assert {hook["state"] for hook in told["hooks"]} <= {"attached", "unknown"}, (calls, when, told)
