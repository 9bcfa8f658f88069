# SPDX-License-Identifier: GPL-2.0-only
"""The commands that write, a row each: what comes before, and the command that is interrupted.

A command stands as it would be typed, behind `netctl`. What follows ` < ` is its standard input, a line
for each part between semicolons. `!` in front: not netctl, but run in the network namespace.
{name} stands for one of World.words: {many4}, {cgroup} and so on.
"""

from dataclasses import dataclass

from faults.counts import COUNTS


@dataclass(frozen=True)
class Row:
    name: str
    before: tuple[str, ...]
    command: str
    on: str = "server"  # whose interface eth0 is meant: the receiver's of the probes, or the sender's
    share: int = 4  # of the points that are tried; what takes seconds has less
    shows: bool = True  # whether one can tell the new state from the old one
    draining: bool = False  # whether it takes time, in which status says so: killed then, it goes on when repeated
    about: tuple[str, ...] = ()  # features, where the commands' first words do not tell
    # Members of netctl's account that are no matter: what is undone by commits has had them.
    aside: frozenset[str] = frozenset()
    undo: tuple[str, ...] = ()  # what takes the new state away, if that is not the opposite of each command

    @property
    def features(self):
        """What is to be read to tell one state from another."""
        return set(self.about) or {words.split()[0] for words in (*self.before, self.command) if words[0] != "!"}


def _rule_commands(point, extra=()):
    """Rows for the `rule` commands of a packet filter, which is `point`, e.g. `xdp eth0`."""
    hook, _, place = point.partition(" ")
    rules = "proto udp dport 7 drop; src 192.0.2.50 proto udp drop; proto udp dport 8 pass"
    start = (*extra, f"{hook} rule replace {place} < {rules}")
    return [
        ("rule add", start, f"{hook} rule add {place} src 192.0.2.51 drop"),
        ("rule insert", start, f"{hook} rule insert {place} --before 2 proto udp dport 7 src 192.0.2.51 pass"),
        ("rule delete", start, f"{hook} rule delete {place} 1 2"),
        ("rule flush", start, f"{hook} rule flush {place}"),
        ("rule replace", start, f"{hook} rule replace {place} < proto udp dport 8 drop; proto udp dport 7 drop"),
    ]  # fmt: skip


def _filters():
    rows = []
    for title, on, point, options in (
        ("xdp", "server", "xdp eth0", ""),
        ("tc ingress tcx", "server", "tc eth0 ingress", "--mode tcx"),
        ("tc egress tcx", "client", "tc eth0 egress", "--mode tcx"),
        ("tc ingress clsact", "server", "tc eth0 ingress", "--mode clsact"),
        ("tc egress clsact", "client", "tc eth0 egress", "--mode clsact"),
    ):
        hook, _, place = point.partition(" ")
        attach = f"{hook} attach {place} {options}"
        rows.append(Row(f"{title} attach", (), attach, on))
        if "egress" not in point:
            rows.append(Row(f"{title} rule add, reject", (attach,),
                            f"{hook} rule add {place} proto udp dport 7 reject", on, share=2))  # fmt: skip
        rows.append(Row(f"{title} detach", (attach, f"{hook} rule add {place} proto udp dport 7 drop"),
                        f"{hook} detach {place}", on))  # fmt: skip
        for verb, before, command in _rule_commands(point, (attach,)):
            rows.append(Row(f"{title} {verb}", before, command, on))
    for hook, place, options in (("xdp", "eth0", ""), ("tc", "eth0 ingress", "--mode tcx")):
        attach = f"{hook} attach {place} {options}"
        rows += [
            Row(f"{hook} rule add, ct", (attach,), f"{hook} rule add {place} ct established proto udp dport 7 drop", share=2),
            Row(f"{hook} rule add, over add", ("set create s --type host", attach),
                f"{hook} rule add {place} proto udp dport 8 pass limit 1000000/s per src over add @s ttl 10m", share=2),
        ]  # fmt: skip
    many = ("xdp attach eth0", "xdp rule replace eth0 < {rules}")
    rows += [
        Row("xdp rule add, syncookie", ("xdp attach eth0",), "xdp rule add eth0 proto tcp dport 7 syncookie", share=2),
        Row("xdp attach --replace", ("!ip link set dev eth0 xdp obj {foreign} sec xdp",),
            "xdp attach eth0 --replace"),
        Row("xdp rule add to many", many, "xdp rule add eth0 proto udp dport 7 drop", share=3),
        Row("xdp rule delete of many", many, "xdp rule delete eth0 1", share=3),
        Row("tc attach --setup-fq", (), "tc attach eth0 egress --mode tcx --setup-fq", "client"),
        Row("tc detach --setup-fq", ("tc attach eth0 egress --mode tcx --setup-fq",),
            "tc detach eth0 egress", "client"),
        Row("tc detach one of two", ("tc attach eth0 ingress --mode clsact", "tc attach eth0 egress --mode clsact"),
            "tc detach eth0 ingress"),
    ]  # fmt: skip
    return rows


def _sets():
    seen = ("xdp attach eth0", "xdp rule add eth0 src @s drop")  # the datapath tells who is in the set
    ports = ("set create s --type port", "xdp attach eth0", "xdp rule add eth0 proto udp dport @s drop")
    rows = [Row(f"set create {kind}", (), f"set create s --type {kind}") for kind in ("host", "cidr", "port")]
    rows += [Row(f"set destroy {kind}", (f"set create s --type {kind}", f"set add s {element}"), "set destroy s")
             for kind, element in (("host", "192.0.2.50"), ("cidr", "192.0.2.48/28"), ("port", "7"))]  # fmt: skip
    for kind, four, six in (
        ("host", "192.0.2.50", "2001:db8:1::50"),
        ("cidr", "192.0.2.48/28", "2001:db8:1::40/124 2001:db8:1::50"),
    ):
        made = (f"set create s --type {kind}", *seen)
        full = (*made, f"set add s {four} {six}")
        lines = f"{four}; {'; '.join(six.split())}"
        rows += [
            Row(f"set add {kind}", made, f"set add s {four} {six}"),
            Row(f"set add --ttl {kind}", made, f"set add s --ttl 3600 {four} {six}"),
            Row(f"set delete {kind}", full, f"set delete s {four} {six}"),
            Row(f"set swap {kind}", (*full, f"set create t --type {kind}", f"set add t 192.0.2.51 {six}"), "set swap s t"),
            Row(f"set import {kind}", (*made, "set add s 192.0.2.51"), f"set import s < {lines}"),
            Row(f"set import --replace {kind}", full, "set import s --replace < 192.0.2.51; 2001:db8:1::51"),
        ]
    based = ("set create s --type cidr", *seen, "set import s < {many4}; {many6}")
    rows += [
        Row("set add port", ports, "set add s 7 8"),
        Row("set delete port", (*ports, "set add s 7 8"), "set delete s 7 8"),
        Row("set import port", (*ports, "set add s 8"), "set import s < 7; 8"),
        Row("set import --replace port", (*ports, "set add s 8"), "set import s --replace < 7"),
        Row("set import of many host", ("set create s --type host", *seen), "set import s < {hosts4}; {hosts6}"),
        Row("set import into a base", ("set create s --type cidr", *seen, "set add s 192.0.2.51"),
            "set import s < {many4}; {many6}"),
        Row("set import --replace of a base", based,
            "set import s --replace < {others4}; {others6}"),
        Row("set import --replace of a base and live elements", (*based, "set add s 192.0.2.51 2001:db8:1::51"),
            "set import s --replace < {others4}; {others6}"),
        Row("set delete from a base", based, "set delete s 192.0.2.50 2001:db8:1::50"),
        Row("set swap with a base", (*based, "set create t --type cidr", "set add t 192.0.2.51"), "set swap s t"),
        Row("set fold", (*based, "set add s 192.0.2.51 2001:db8:1::51", "set delete s 192.0.2.50"), "set fold s", shows=False),
        Row("set destroy with a base", ("set create s --type cidr", "set import s < {many4}"), "set destroy s"),
    ]  # fmt: skip
    names = "set create s --type name --resolver 192.0.2.53"
    rows += [
        Row("set create name", (), names, share=2),
        Row("set destroy name", (names, "set add s example.org"), "set destroy s", share=2),
        Row("set add name", (names, "set add s example.org"), "set add s *.example.com"),
        Row("set delete name", (names, "set add s example.org"), "set delete s example.org"),
        Row("set resolvers", (names,), "set resolvers s 192.0.2.54"),
    ]
    return rows


def _policies():
    enable = "policy enable --layer cgroup --cgroup {cgroup}"
    start = (enable, "policy rule replace < dst 127.0.0.7 deny; dst 127.0.0.8 dport 7 deny; dst 127.0.0.9 allow")
    return [
        Row("policy enable", (), f"{enable} --rules {{policy}}", share=1),
        Row("policy enable, again", start, "policy enable --mode audit --default allow", share=2),
        Row("policy disable", start, "policy disable", share=1),
        Row("policy rule add", start, "policy rule add dst 127.0.0.10 deny", share=2),
        Row("policy rule insert", start, "policy rule insert dst 127.0.0.7 dport 7 allow", share=2),
        Row("policy rule delete", start, "policy rule delete 1", share=2),
        Row("policy rule flush", start, "policy rule flush", share=2),
        Row("policy rule replace", start, "policy rule replace < dst 127.0.0.10 deny; dst 127.0.0.7 deny", share=2),
    ]


def _redirections():
    enable = "redirect enable --force all --cgroup {cgroup}"
    to = "redirect to add dst 127.0.0.10 dport 7 target 127.0.0.1:7777"
    start = (enable, "redirect rule add dport 6379", "redirect rule add dport 80 dst 127.0.0.0/8")
    return [
        Row("redirect enable", (), enable, share=2),
        Row("redirect disable", (*start, to), "redirect disable", share=2, draining=True),
        Row("redirect rule add", start, "redirect rule add dport 8080", share=2),
        Row("redirect rule insert", start, "redirect rule insert dport 6379 dst 127.0.0.9 deny", share=2),
        Row("redirect rule delete", start, "redirect rule delete 1", share=2),
        Row("redirect rule flush", start, "redirect rule flush", share=2),
        Row("redirect to add", start, to, share=2),
        Row("redirect to add, several targets", start, f"{to},127.0.0.1:7778 weight 2,1", share=2),
        Row("redirect to add, asked targets", start, f"{to},127.0.0.1:7778 health tcp fail open", share=2),
        Row("redirect to delete", (*start, to), "redirect to delete 1", share=2),
    ]


def _hosts():
    filters = ("set create s --type host", "set add s 192.0.2.52", "xdp attach eth0",
               "xdp rule add eth0 proto udp dport 8 src 192.0.2.51 drop")  # fmt: skip
    about = ("apply", "set", "xdp", "tc")
    # What is undone is undone by commits: generations and ids go on, and what comes back begins with new counters.
    commits = COUNTS | {"generation", "rule_id", "users"}
    undo = ("detach --all", "set destroy s")
    return [
        Row("apply", filters, "apply {filters}", share=3, about=about, aside=commits, undo=undo),
        Row("apply of connections", (), "apply {connections}", share=1, about=("apply", "policy", "redirect"),
            undo=("detach --all",)),
        Row("apply, taking away", filters, "apply {whole_set} --prune", share=2, about=about, undo=("set destroy s",),
            aside=commits),
        Row("rollback", (*filters, "apply {filters} --confirm 1h"), "rollback", share=3, about=about, aside=commits,
            undo=undo),
        Row("confirm", (*filters, "apply {filters} --confirm 1h"), "confirm", share=2, about=about, aside=commits,
            undo=undo),
        Row("restore", ("set create t --type port",), "restore --file {whole_set}", share=3, about=("apply", "set"),
            undo=("set destroy s", "set destroy t")),
        Row("save", filters, "save --file {saved}", share=2, about=("save", "set", "xdp"),
            undo=("!rm -r {kept}", *undo)),
        Row("save, again", (*filters, "save --file {saved}", "xdp rule delete eth0 1"), "save --file {saved}", share=2,
            about=("save", "set", "xdp"), undo=("!rm -r {kept}", *undo)),
    ]  # fmt: skip


ROWS = [*_filters(), *_sets(), *_policies(), *_redirections(), *_hosts()]

# What is known to be wrong and stays so for a reason: (row, call, fault, reason). The first three are
# regular expressions; such points are not tried, and stand among the skipped tests.
KNOWN = [
    (".*", r"bpf\(BPF_BTF_LOAD\)", "E.*",
     "libbpf, told that the kernel takes no BTF of functions, loads global ones without it, and the verifier "
     "looks at them for minutes; kernels with BTF refuse none of it"),
]  # fmt: skip
