# SPDX-License-Identifier: GPL-2.0-only
"""netctl redirect: what applications see of it (redirect_conformance.py, redirect_soak.py), real
programs with and without it, and its commands.

The first two run in processes with a cgroup and namespaces of their own.
"""

import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import redirect_conformance as conformance
from lab import IN_VM, PATIENCE, Netctl, bpftool, listening, run, until

HERE = Path(__file__).parent
# Behaviours for the guests, which are ten times slower: those where kernels differ.
IN_GUESTS = (
    "unread_count", "unread_count_of_two", "edge_small_then_large", "large_behind_small", "small_behind_much",
    "half_close_with_unread", "reset", "low_water_mark", "upper_layer_protocol", "splice_out",
)  # fmt: skip


def report_of(script, netctl, *argv, timeout=290):
    done = subprocess.run(
        [sys.executable, HERE / script, "--netctl", netctl.binary, *argv],
        capture_output=True,
        text=True,
        timeout=timeout * PATIENCE,
        check=False,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.kernel
@pytest.mark.timeout(300 * PATIENCE)
@pytest.mark.parametrize("share", range(1 if IN_VM else 3))
def test_applications_notice_nothing(netctl, share):
    names = IN_GUESTS if IN_VM else list(conformance.BEHAVIOURS)[share::3]
    only = [word for name in names for word in ("--only", name)]
    report = report_of("redirect_conformance.py", netctl, "--json", *only)
    assert len(report["behaviours"]) == len(names)
    assert report["status"]["redirected_messages"] > 0
    assert not report["differ"], json.dumps(report["differ"], indent=2)
    assert len(report["stayed"]) <= 2, report["stayed"]  # none, but where the machine stands still for seconds


LEAVING = [name for name in conformance.BEHAVIOURS if name.startswith("leaves_")]


@pytest.mark.timeout(300 * PATIENCE)
@pytest.mark.parametrize("disturbed", ("pauses", "stopped-joiner", "busy"))
def test_applications_notice_nothing_whatever_else_goes_on(netctl, disturbed):
    """A choice of the behaviours, all that leave among them, with time between the steps; with the
    joiner stopped and continued; and on CPUs that have much else to do."""
    seed = random.randrange(1 << 32)
    chosen = random.Random(seed)
    print("seed", seed)  # pytest shows it if this fails
    edges = [name for name in conformance.BEHAVIOURS if name.startswith("edge_")]
    # With a pause at each call, those of thousands of calls take minutes.
    quick = [n for n in ("edge_behind_an_option", "edge_sender_turned_blocking", "low_water_mark_with_unread",
                         "half_close_with_unread", "edge_small_then_large", "inherited", "reset_behind_data",
                         "peek_across_messages", "unread_count_of_two", "hang_up_is_reported")]  # fmt: skip
    names, options = {
        "pauses": (quick + chosen.sample(LEAVING, 12), ("--pause", "20")),
        "stopped-joiner": (edges + chosen.sample(LEAVING, 24), ("--stop-joiner", "--seed", str(seed))),
        "busy": (edges[:3] + ["edge_behind_an_option"] + chosen.sample(LEAVING, 8), ("--busy", "8")),
    }[disturbed]
    only = [word for name in names for word in ("--only", name)]
    report = report_of("redirect_conformance.py", netctl, "--json", *options, *only)
    assert len(report["behaviours"]) == len(names)
    assert not report["differ"], json.dumps(report["differ"], indent=2)


@pytest.mark.timeout(600)
def test_soak(netctl):
    report = report_of(
        "redirect_soak.py", netctl, "--seconds", "60", "--connections", "2000", "--seed", "1",
        timeout=500,
    )
    assert not report["failures"], report
    assert report["connections"] >= 2000, report
    assert report["totals"]["redirected_messages"] > 0, report
    assert set(report["disturbances"]) >= {"disable", "kill"}, report


# ---- commands ----


def test_is_off_by_default(netctl):
    assert netctl.json("redirect", "status") == {"enabled": False}
    assert "not enabled" in netctl.fails("redirect", "list")
    assert "not enabled" in netctl.fails("redirect", "rule", "add", "dport", "80")
    assert "not enabled" in netctl.fails("redirect", "run")


@pytest.fixture
def group(lab):
    return lab.cgroup()


@pytest.fixture
def enabled(netctl, group):
    """Enabled on a cgroup of ours, without a self-test."""
    netctl("redirect", "enable", "--cgroup", group.path, "--force", "all")
    yield netctl, group
    netctl("redirect", "disable")


def test_enable_and_disable_leave_nothing_behind(enabled):
    netctl, group = enabled
    kinds = {p["attach_type"] for p in bpftool("cgroup", "show", str(group.path))}
    assert {"cgroup_sock_ops", "cgroup_setsockopt"} <= kinds
    assert "enabled already" in netctl.fails("redirect", "enable", "--cgroup", group.path)
    netctl("redirect", "disable")
    # The kernel takes a link whose last pin is gone off in work of its own.
    until(lambda: not bpftool("cgroup", "show", str(group.path)), what="the cgroup has no programs any more")
    assert not (netctl.root / "redirect").exists()
    netctl("redirect", "disable")  # again is no error


def test_rules_are_kept_in_order(enabled):
    netctl, _ = enabled
    netctl("redirect", "rule", "add", "dport", "80")
    netctl("redirect", "rule", "add", "dst", "::1", "dport", "8000-8100", "deny")
    netctl("redirect", "rule", "insert", "exe", "/bin/sh", "deny")
    assert netctl.json("redirect", "rule", "list") == [
        {"rule_id": 3, "rule_text": "exe /bin/sh deny"},
        {"rule_id": 1, "rule_text": "dport 80 allow"},
        {"rule_id": 2, "rule_text": "dst ::1 dport 8000-8100 deny"},
    ]
    netctl("redirect", "rule", "delete", "1")
    assert [r["rule_id"] for r in netctl.json("redirect", "rule", "list")] == [3, 2]
    assert "no rule 1" in netctl.fails("redirect", "rule", "delete", "1")
    netctl("redirect", "rule", "flush")
    assert netctl.json("redirect", "rule", "list") == []


def test_wrong_words_are_told(enabled):
    netctl, group = enabled
    for status, words, answer in (
        (2, ("rule", "add", "dprt", "80"), "did you mean 'dport'"),
        (2, ("rule", "add", "dport", "70000"), "70000 is too large for 'dport'"),
        (2, ("rule", "add"), "missing"),
        (1, ("rule", "add", "cgroup", "/nowhere"), "no cgroup '/nowhere'"),
        (1, ("rule", "add", "exe", "/nowhere"), "/nowhere"),
        (2, ("rule", "delete", "first"), "'first' is no rule's number"),
        (2, ("enable", "--cgroup", group.path, "--force", "nonsense"), "no case 'nonsense'"),
        (1, ("enable", "--cgroup", "/nowhere"), "no cgroup '/nowhere'"),
    ):
        assert answer in netctl.fails("redirect", *words, status=status), words
    assert netctl.json("redirect", "rule", "list") == []


def test_a_cgroup_that_went_away(netctl, lab):
    """It says so, and `enable` takes it to another cgroup, with its rules."""
    run("ip", "link", "set", "lo", "up")
    parent = lab.cgroup()
    service = parent.path / "service"
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    connect = f"import socket; socket.create_connection(('10.9.9.9', {port}), 0.2)"

    def arrives():
        words = ("sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', service, sys.executable, "-c", connect)
        return run(*words, check=False).returncode == 0

    service.mkdir()
    netctl("redirect", "enable", "--cgroup", service, "--force", "all")
    name = "/" + str(service.relative_to(parent.mount()))
    netctl("redirect", "to", "add", "dst", "10.9.9.9", "cgroup", name, "target", f"127.0.0.1:{port}")
    netctl("redirect", "rule", "add", "dport", port, "cgroup", name)

    def rules():
        lists = (netctl.json("redirect", words, "list") for words in ("rule", "to"))
        return [[(rule["rule_id"], rule["rule_text"]) for rule in one] for one in lists]

    before = rules()
    assert netctl.json("redirect", "status")["live"] and arrives()
    until(lambda: "populated 0" in (service / "cgroup.events").read_text())
    service.rmdir()
    done = netctl("--json", "redirect", "status", check=False)
    assert done.returncode == 1 and not json.loads(done.stdout)["live"]
    service.mkdir()
    assert not arrives()
    assert "with the rules" in netctl("redirect", "enable", "--cgroup", service).stderr
    assert netctl.json("redirect", "status")["live"] and arrives()
    assert rules() == before
    assert "enabled already" in netctl.fails("redirect", "enable", "--cgroup", service)
    netctl("redirect", "disable")
    server.close()


def append_rule(netctl, rule, index):
    """As another tool would, with nothing but bpftool and the header."""
    pins = netctl.root / "redirect"
    conf = bpftool("map", "dump", "pinned", str(pins / "conf"))[0]["formatted"]["value"]
    index = struct.pack("=I", conf["bank"] * 64 + index)
    bpftool(
        "map", "update", "pinned", str(pins / "rules"),
        "key", *map(str, index), "value", *map(str, rule),
    )  # fmt: skip


def packed_rule(number, action, low, high, prefix=8, address=bytes([127])):
    return struct.pack(
        "=IBBBBHH16sIQQ", number, action, 4, prefix, 0, low, high, address.ljust(16, b"\0"), 0, 0, 0
    )


# ---- connections ----


class Redirected:
    """Redirection in a cgroup, with a joiner, and connections of a process in it."""

    def __init__(self, netctl, lab, group):
        self.netctl, self.lab, self.group = netctl, lab, group
        self.joiner = None

    def enable(self, *argv):
        self.netctl("redirect", "enable", "--cgroup", self.group.path, *argv)
        self.start_joiner()

    def start_joiner(self):
        self.joiner = self.netctl.start(self.lab, "redirect", "run", json=False)
        until(lambda: self.status()["joiner"], what="a joiner")

    def status(self):
        return self.netctl.json("redirect", "status")

    def talk(self, port, host="127.0.0.1", turns=2000, until=None, options=(), cgroup=None):
        """A client and a server that exchange small messages; what `list` says of them then, or once
        it says `until`.
        """
        words = (sys.executable, HERE / "redirect_talk.py", self.netctl.binary, self.netctl.root)
        if until:
            options = (*options, "--until", until)
        done = (cgroup or self.group).run(*words, host, port, turns, *options)
        return json.loads(done.stdout)


@pytest.fixture
def redirected(netctl, lab, group):
    made = Redirected(netctl, lab, group)
    made.enable("--force", "all")
    yield made
    made.joiner.stop()
    netctl("redirect", "disable")


@pytest.fixture
def tested(netctl, lab, group):
    """As users have it: with the self-test, forced only where the kernel needs it."""
    made = Redirected(netctl, lab, group)
    if netctl("redirect", "enable", "--cgroup", group.path, check=False).returncode:
        cases = netctl.json("redirect", "selftest", check=False)
        failed = [c["case"] for c in cases if not (c["passed"] or c["avoided"] or c["mended"])]
        refused = netctl.fails("redirect", "enable", "--cgroup", group.path, status=3)
        assert failed[0] in refused and "--force" in refused
        assert not (netctl.root / "redirect").exists()
        netctl("redirect", "enable", "--cgroup", group.path, "--force", ",".join(failed))
    made.start_joiner()
    yield made
    made.joiner.stop()
    netctl("redirect", "disable")


@pytest.mark.timeout(180)
def test_rules_decide(redirected):
    """Each way to say which connections, in one enabled datapath: first match decides."""
    netctl = redirected.netctl
    inner = redirected.group.path / "inner"
    inner.mkdir()
    assert redirected.talk(5000)["state"] == "none"  # opt-in
    netctl("redirect", "rule", "add", "dport", "5000-5009", "dst", "127.0.0.0/8")
    assert redirected.talk(5000, until="redirecting")["redirected"] > 100
    assert redirected.talk(5010)["state"] == "none"
    netctl("redirect", "rule", "insert", "dport", "5001", "deny")
    assert redirected.talk(5001)["state"] == "none"
    netctl("redirect", "rule", "add", "dst", "::1")
    assert redirected.talk(5002, host="::1", until="redirecting")["redirected"] > 100
    netctl("redirect", "rule", "insert", "cgroup", inner, "deny")
    assert redirected.talk(5000, until="redirecting")["redirected"] > 100
    held = type(redirected.group).__new__(type(redirected.group))
    held.path = inner
    assert redirected.talk(5000, until="rule", cgroup=held)["reason"] == "rule"
    append_rule(netctl, packed_rule(77, 1, 6000, 6001), 5 - 1)
    assert netctl.json("redirect", "rule", "list")[4] == {
        "rule_id": 77,
        "rule_text": "dst 127.0.0.0/8 dport 6000-6001 allow",
    }
    assert redirected.talk(6001, until="redirecting")["redirected"] > 100
    reasons = redirected.status()["on_tcp"]
    assert reasons["rule"] >= 1


def test_blocking_sockets_stay_on_tcp(redirected):
    redirected.netctl("redirect", "rule", "add", "dport", "5000")
    assert redirected.talk(5000, until="blocking", options=["--blocking"])["reason"] == "blocking"


@pytest.mark.parametrize("options, reason", [
    (("low-water", "zero-copy", "time-stamp", "urgent-inline", "peek-offset", "in-queue"), "option"),
    (("tls", "sockmap"), "ulp"),
])  # fmt: skip
def test_sockets_with_options_stay_on_tcp(redirected, options, reason):
    """What the map could not honour, set before a connection could join: it never does, and is counted."""
    redirected.netctl("redirect", "rule", "add", "dport", "5000")
    refused = 0
    for option in options:
        answer = redirected.talk(5000, turns=200, until=reason, options=["--option", option])
        if "unknown" in answer:
            continue  # this kernel's sockets have no such option
        assert (answer["state"], answer["reason"]) == ("tcp", reason), (option, answer)
        refused += 1
    status = redirected.status()
    assert refused and status["on_tcp"][reason] == refused
    assert status["joined"] == status["helper_failed"] == 0


def test_sockets_in_repair_stay_on_tcp(redirected):
    """Their queues are being saved or restored. They can send nothing meanwhile, so the joiner is
    stopped until the socket is in repair."""
    port = 5100  # of its own: TCP_REPAIR takes SO_REUSEADDR away
    redirected.netctl("redirect", "rule", "add", "dport", port)
    answer = redirected.talk(port, turns=200, options=["--repair", str(redirected.joiner.pid)])
    assert (answer["state"], answer["reason"]) == ("tcp", "option"), answer
    status = redirected.status()
    assert status["announced"] == 2 and status["on_tcp"]["option"] == 1 and status["joined"] == 0, status


def test_joining_waits_until_all_is_read(redirected):
    """A reader that asks FIONREAD, as nginx does, would be told 0 of what TCP has for a joined socket."""
    redirected.netctl("redirect", "rule", "add", "dport", "5000")
    answer = redirected.talk(5000, until="redirecting", options=["--unread-at-join", str(redirected.joiner.pid)])
    assert (answer["early"], answer["unread"]) == (0, 6), answer
    assert answer["state"] == "redirecting" and redirected.status()["joined"] == 1, answer


def test_two_of_them_leave_each_other_alone(netctl, lab, group):
    """Enabled on a cgroup and below it, as the self-test is where redirection is enabled: a
    connection is the one's that is nearer and wants it, and the other's if that one's rules do not."""
    inner = type(group).__new__(type(group))
    inner.path = group.path / "inner"
    inner.path.mkdir()
    with Netctl() as nearer:
        outside, inside = Redirected(netctl, lab, group), Redirected(nearer, lab, inner)
        outside.enable("--force", "all")
        inside.enable("--force", "all")
        netctl("redirect", "rule", "add", "dport", "5000-5009")
        nearer("redirect", "rule", "add", "dport", "5000-5004")
        for port in range(5000, 5005):
            assert inside.talk(port, until="redirecting")["redirected"] > 100
        assert inside.status()["joined"] == outside.status()["on_tcp"]["ulp"] == 5
        assert outside.status()["announced"] == 0
        for port in range(5005, 5010):
            assert outside.talk(port, until="redirecting", cgroup=inner)["redirected"] > 100
        assert outside.status()["joined"] == inside.status()["joined"] == 5
        assert inside.status()["announced"] == 10
        for made in (inside, outside):
            made.joiner.stop()
            made.netctl("redirect", "disable")


def test_list_tells_both_ends(redirected):
    """While joined, and afterwards why not any more."""
    netctl = redirected.netctl
    netctl("redirect", "rule", "add", "dport", "5000")
    talker = redirected.lab.start(
        *redirected.group.wrap((sys.executable, HERE / "redirect_talk.py", netctl.binary, netctl.root,
                                "127.0.0.1", 5000, 200, "--until", "redirecting", "--hold"))
    )  # fmt: skip
    talker.expect("redirecting")
    (one,) = netctl.json("redirect", "list")
    assert (one["state"], one["reason"], one["cross_netns"]) == ("redirecting", "", False)
    assert (one["local"], one["remote"]) == ("127.0.0.1", "127.0.0.1")
    assert 5000 in (one["local_port"], one["remote_port"])
    for end in one["ends"]:
        assert end["pid"] == talker.popen.pid and end["process"].startswith("python")
        assert end["redirected_messages"] >= 200
        assert end["redirected_bytes"] == 64 * end["redirected_messages"]
        assert end["passed_bytes"] == 64 * end["passed_messages"]
    status = redirected.status()
    assert status["joined_now"] == 1
    assert status["redirected_messages"] == sum(end["redirected_messages"] for end in one["ends"])
    netctl("redirect", "rule", "insert", "dport", "1", "deny")  # all go back to TCP
    (one,) = until(lambda: [c for c in netctl.json("redirect", "list") if c["state"] == "tcp"], what="it left")
    assert one["reason"] == "drained"
    after = redirected.status()
    assert after["on_tcp"]["drained"] == 1 and after["joined_now"] == 0
    # Two ends; and two more for each time that it was in the map for a moment, and not at rest.
    assert after["removed"] in range(2, 3 + 2 * after["tried_again"], 2)
    assert after["redirected_messages"] == status["redirected_messages"]  # kept when a connection leaves


def test_connections_from_before_stay_on_tcp(netctl, lab, group):
    """Opened before `enable`: nobody has seen how they began."""
    go = lab.directory / "go"
    talker = lab.start(*group.wrap((sys.executable, HERE / "redirect_talk.py", netctl.binary, netctl.root,
                                    "127.0.0.1", 5000, 5000, "--wait", go)))  # fmt: skip
    talker.expect("open")
    made = Redirected(netctl, lab, group)
    made.enable("--force", "all")
    netctl("redirect", "rule", "add", "dport", "5000")
    go.touch()
    assert talker.wait() == 0
    assert '"state": "none"' in talker.stdout
    assert made.status()["announced"] == 0
    made.joiner.stop()
    netctl("redirect", "disable")


def test_killed_at_any_point(netctl, lab, group):
    """`enable` and `disable`, killed: they can be repeated, and nothing is left in the end."""
    for verb in ("enable", "disable") * 6:
        words = ("--cgroup", group.path, "--force", "all") if verb == "enable" else ()
        process = netctl.start(lab, "redirect", verb, *words)
        try:
            process.popen.wait(random.random() * 0.3)
        except subprocess.TimeoutExpired:
            process.stop(signal.SIGKILL)
        # Whole or not at all; if it is there, it works.
        if netctl.json("redirect", "status")["enabled"]:
            netctl("redirect", "rule", "add", "dport", "5000")
    netctl("redirect", "disable")
    netctl("redirect", "enable", "--cgroup", group.path, "--force", "all")
    netctl("redirect", "disable")
    assert not bpftool("cgroup", "show", str(group.path))
    assert not list(netctl.root.glob("redirect*"))


def test_refusal_names_the_case(netctl, group):
    """Where a case fails that what is asked for needs, `enable` says so, and leaves nothing behind."""
    cases = {c["case"]: c for c in netctl.json("redirect", "selftest", check=False)}
    if not cases["fionread-passed"]["avoided"]:
        pytest.skip("no case fails on this kernel that matters to blocking sockets only")
    words = ("redirect", "enable", "--cgroup", group.path, "--allow-blocking")
    refused = netctl.fails(*words, status=3)
    assert "would break applications: fionread-passed" in refused
    assert "--force fionread-passed" in refused
    assert not (netctl.root / "redirect").exists()
    assert not bpftool("cgroup", "show", str(group.path))
    netctl(*words, "--force", "fionread-passed")
    assert netctl.json("redirect", "status")["forced"]
    netctl("redirect", "disable")


def test_executables(redirected):
    netctl = redirected.netctl
    python = os.path.realpath(sys.executable)
    netctl("redirect", "rule", "add", "exe", python)
    assert redirected.talk(5000, until="redirecting")["redirected"] > 100
    netctl("redirect", "rule", "insert", "exe", python, "deny")
    assert redirected.talk(5000, until="rule")["reason"] == "rule"


def test_joined_connections_outlive_the_joiner(redirected):
    """Killed at any time; and without one, nothing joins."""
    redirected.netctl("redirect", "rule", "add", "dport", "5000")
    answer = redirected.talk(5000, until="redirecting", options=["--kill", redirected.joiner.pid])
    assert answer["redirected"] > 100
    assert answer["after"] > answer["redirected"]  # went on
    until(lambda: not redirected.status()["joiner"], what="no joiner")
    assert redirected.talk(5000)["state"] == "none"
    redirected.start_joiner()
    assert redirected.talk(5000, until="redirecting")["redirected"] > 100


def test_second_joiner_is_refused(redirected):
    assert "another joiner" in redirected.netctl.fails("redirect", "run")


def test_enable_starts_a_joiner(netctl, group):
    netctl("redirect", "enable", "--cgroup", group.path, "--force", "all", "--run")
    try:
        assert netctl.json("redirect", "status")["joiner"]
    finally:
        netctl("redirect", "disable")  # and it ends
    assert netctl.json("redirect", "status") == {"enabled": False}


def test_readers_that_do_not_read_delay_disable(redirected):
    redirected.netctl("redirect", "rule", "add", "dport", "5000")
    answer = redirected.talk(5000, until="redirecting", options=["--unread"])
    assert "not read yet" in answer["disable"] or "has not read" in answer["disable"], answer
    assert answer["then"] == "unread", answer
    until(lambda: redirected.netctl("redirect", "disable", check=False).returncode == 0)


# ---- across network namespaces ----


@pytest.fixture
def across(netctl, lab, group, request):
    """A function that has connections between namespaces talk; `link` makes two of these, always
    with the same addresses."""
    made = Redirected(netctl, lab, group)
    made.enable("--force", "all", *getattr(request, "param", ("--cross-netns",)))
    netctl("redirect", "rule", "add", "dport", "5000-5001")

    def talk(connections, until):
        words = (sys.executable, HERE / "redirect_across.py", netctl.binary, netctl.root)
        return json.loads(group.run(*words, json.dumps(connections), "--until", until).stdout)

    def link():
        lab.repeat_addresses()
        return lab.pair()

    talk.link = link
    yield talk
    made.joiner.stop()
    netctl("redirect", "disable")


def between(client, server, family=4, **more):
    return {
        "client": str(client.netns.path), "server": str(server.netns.path),
        "to": [server.ip(family), 5000], "listen": 5000, "from": 40000, **more,
    }  # fmt: skip


@pytest.mark.kernel
def test_two_namespaces(across):
    """And two more with the same addresses and ports, at the same time: each end finds its own."""
    first, second = across.link(), across.link()
    six = {"from": 40006, "listen": 5001, "to": [first[1].ip6, 5001]}
    answer = across([between(*first), between(*second), between(*first, **six)], "joined=3")
    states = [(one["state"], one["cross_netns"]) for one in answer["list"]]
    assert states == [("redirecting", True)] * 3, answer
    assert all(end["redirected_messages"] > 100 for one in answer["list"] for end in one["ends"])
    assert not any(answer["status"]["on_tcp"].values()), answer["status"]


def test_same_addresses_do_not_make_a_connection(across):
    """Of two connections with the same addresses one end each is in the cgroup: these never meet."""
    first, second = across.link(), across.link()
    answer = across(
        [between(*first, outside="server"), between(*second, outside="client")], "no-peer=2"
    )
    assert answer["status"]["joined"] == 0
    assert answer["status"]["on_tcp"]["no-peer"] == 2, answer["status"]


def test_translated_addresses_stay_on_tcp(across):
    client, server = across.link()
    client.netns.run(
        "nft", "add table ip lab; add chain ip lab out { type nat hook output priority -100; }; "
        f"add rule ip lab out ip daddr 192.0.2.99 tcp dport 5000 dnat to {server.ip4}:5001",
    )  # fmt: skip
    client.netns.ip_batch(f"route add 192.0.2.99 via {server.ip4}")
    connection = between(client, server, listen=5001, to=["192.0.2.99", 5000])
    answer = across([connection], "no-peer=2")
    assert answer["status"]["joined"] == 0
    assert answer["status"]["on_tcp"]["no-peer"] == 2, answer["status"]


@pytest.mark.parametrize("across", [()], indirect=True)
def test_other_namespaces_only_when_asked(across):
    answer = across([between(*across.link())], "announced=0")
    assert answer["status"]["announced"] == 0


# ---- to ----


@pytest.mark.kernel
def test_connections_go_elsewhere(enabled):
    """Client and proxy are told the address that was asked for; IPv4, mapped, IPv6; TCP and UDP."""
    netctl, group = enabled

    def ask(*words):
        return json.loads(group.run(sys.executable, HERE / "redirect_to.py", *words).stdout)

    for text in (
        ("dst", "192.0.2.0/24", "dport", "80-81", "target", "127.0.0.1:8080"),
        ("dst", "2001:db8::1", "dport", "80", "target", "[::1]:8080"),
        ("dst", "192.0.2.1", "dport", "53", "proto", "udp", "target", "127.0.0.1:5353"),
        ("dst", "127.0.0.1", "dport", "90", "target", "127.0.0.1:9090"),
    ):
        netctl("redirect", "to", "add", *text)
    assert netctl.json("redirect", "to", "list")[2] == {
        "rule_id": 3,
        "rule_text": "dst 192.0.2.1 proto udp dport 53 target 127.0.0.1:5353",
        "targets": [{"target": "127.0.0.1:5353", "weight": 1, "connections": 0, "datagrams": 0, "health": None}],
        "refused": 0,
        "opened": 0,
    }
    tcp, mapped, six, udp, plain, loop, past = ask(
        "tcp", "192.0.2.7:81", "127.0.0.1:8080",
        "tcp", "[::ffff:192.0.2.7]:80", "127.0.0.1:8080",
        "tcp", "[2001:db8::1]:80", "[::1]:8080",
        "udp", "192.0.2.1:53", "127.0.0.1:5353",
        "tcp", "127.0.0.1:8080", "127.0.0.1:8080",  # no rule
        "loop", "127.0.0.1:90", "127.0.0.1:9090",
        "tcp", "127.0.0.1:90", "127.0.0.1:9090",
    )  # fmt: skip
    assert tcp["data"] == "QUESTION"
    assert tcp["peer"] == tcp["original"] == ["192.0.2.7", 81]
    assert mapped["peer"] == ["::ffff:192.0.2.7", 80]
    assert mapped["original"] == ["192.0.2.7", 80]
    assert six["peer"] == six["original"] == ["2001:db8::1", 80]
    assert udp["data"] == "QUESTION"
    assert udp["peer"] == udp["sender"] == ["192.0.2.1", 53]
    assert plain["peer"] == ["127.0.0.1", 8080]
    assert isinstance(plain["original"], int)  # as without netctl
    # Nothing listens on port 90, and who listens on 9090 is not sent to itself.
    assert loop["error"] == "Connection refused"
    assert past["original"] == ["127.0.0.1", 90]
    status = netctl.json("redirect", "status")
    assert (status["rewritten"], status["loops"], status["to_rules"]) == (5, 1, 4)
    netctl("redirect", "to", "delete", "4")
    assert len(netctl.json("redirect", "to", "list")) == 3
    assert ask("loop", "127.0.0.1:90", "127.0.0.1:9090")[0]["error"] == "Connection refused"
    assert netctl.json("redirect", "status")["loops"] == 1
    assert "no rule 4" in netctl.fails("redirect", "to", "delete", "4")
    assert "itself a destination" in netctl.fails(
        "redirect", "to", "add", "dst", "127.0.0.0/8", "target", "127.0.0.1:80", status=2
    )


def test_the_former_destination_is_forgotten(enabled):
    """A port that a rewritten connection had is used again by one that goes where it asked."""
    netctl, group = enabled
    netctl("redirect", "to", "add", "dst", "192.0.2.1", "dport", "90", "target", "127.0.0.1:9090")
    out = group.run(sys.executable, HERE / "redirect_to.py", "tcp:4000", "192.0.2.1:90", "127.0.0.1:9090",
                    "tcp:4000", "127.0.0.1:9090", "127.0.0.1:9090").stdout  # fmt: skip
    rewritten, direct = json.loads(out)
    assert rewritten["original"] == ["192.0.2.1", 90]
    assert isinstance(direct["original"], int), direct  # as without netctl


# What another program changes in values of options: SO_MARK is set to 7 whatever is asked, and
# SO_PRIORITY reads as 7.
OTHERS_OPTIONS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("cgroup/setsockopt") int set(struct bpf_sockopt *ctx)
{
    int *value = ctx->optval;
    if (ctx->level == 1 && ctx->optname == 36 && (void *)(value + 1) <= ctx->optval_end)
        *value = 7;
    else if (ctx->optlen > 4096)
        ctx->optlen = 0;
    return 1;
}
SEC("cgroup/getsockopt") int get(struct bpf_sockopt *ctx)
{
    int *value = ctx->optval;
    if (ctx->level == 1 && ctx->optname == 12 && (void *)(value + 1) <= ctx->optval_end)
        *value = 7;
    else if (ctx->optlen > 4096)
        ctx->optlen = 0;
    return 1;
}
char LICENSE[] SEC("license") = "GPL";
"""


def test_others_may_change_options(enabled, lab):
    """The values that another program puts in place of what was asked for, or answered, stay."""
    _, group = enabled
    source = lab.directory / "others.bpf.c"
    source.write_text(OTHERS_OPTIONS)
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    run("clang", "-O2", "-g", "-target", "bpf", "-I", include, "-c", source, "-o", source.with_suffix(".o"))
    pins = Path("/sys/fs/bpf/others")
    bpftool("prog", "loadall", str(source.with_suffix(".o")), str(pins))
    for kind, name in (("setsockopt", "set"), ("getsockopt", "get")):
        bpftool("cgroup", "attach", str(group.path), kind, "pinned", str(pins / name), "multi")
    ask = "import socket; s = socket.socket(); s.setsockopt(1, 36, 1); print(s.getsockopt(1, 36), s.getsockopt(1, 12))"
    try:
        assert group.run(sys.executable, "-c", ask).stdout.split() == ["7", "7"]
    finally:
        for kind, name in (("setsockopt", "set"), ("getsockopt", "get")):
            bpftool("cgroup", "detach", str(group.path), kind, "pinned", str(pins / name))


def test_to_asks_for_the_cgroup_of_who_connects(enabled):
    netctl, group = enabled
    inner = group.path / "inner"
    inner.mkdir()
    netctl("redirect", "to", "add", "dst", "127.0.0.1", "dport", "90", "target", "127.0.0.1:9090",
           "cgroup", inner)  # fmt: skip
    words = (sys.executable, HERE / "redirect_to.py", "tcp", "127.0.0.1:90", "127.0.0.1:9090")
    assert json.loads(group.run(*words).stdout)[0] == {"error": "Connection refused"}
    held = type(group).__new__(type(group))
    held.path = inner
    assert json.loads(held.run(*words).stdout)[0]["original"] == ["127.0.0.1", 90]


def test_another_tool_can_add_to(enabled):
    netctl, group = enabled
    pins = netctl.root / "redirect"
    conf = bpftool("map", "dump", "pinned", str(pins / "conf"))[0]["formatted"]["value"]
    rule = struct.pack("=IBBBBHHHH16s16sQ", 9, 1, 4, 32, 6, 90, 90, 9090, 0,
                       bytes((127, 0, 0, 1)), bytes((127, 0, 0, 1)), 0)  # fmt: skip
    bpftool(
        "map", "update", "pinned", str(pins / "to"),
        "key", *map(str, struct.pack("=I", conf["to_bank"] * 64)), "value", *map(str, rule),
    )  # fmt: skip
    assert netctl.json("redirect", "to", "list") == [
        {
            "rule_id": 9,
            "rule_text": "dst 127.0.0.1 proto tcp dport 90 target 127.0.0.1:9090",
            "targets": [],
            "refused": 0,
            "opened": 0,
        }
    ]
    words = (sys.executable, HERE / "redirect_to.py", "tcp", "127.0.0.1:90", "127.0.0.1:9090")
    assert json.loads(group.run(*words).stdout)[0]["original"] == ["127.0.0.1", 90]


# ---- real programs ----


def with_and_without(redirected, port, work, least=100):
    """Runs `work` on plain TCP, then redirected, and returns both outcomes."""
    plain = work()
    redirected.netctl("redirect", "rule", "add", "dport", port)
    before = redirected.status()["redirected_messages"]
    with_it = work()
    moved = redirected.status()["redirected_messages"] - before
    assert moved >= least, f"only {moved} messages were redirected: {redirected.status()}"
    return plain, with_it


NGINX = """
daemon off; user root; pid {root}/pid; worker_processes 1; error_log stderr warn; events {{ }}
http {{
    access_log off; sendfile on; keepalive_requests 100000; default_type text/plain;
    client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/f;
    uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
    upstream behind {{ server 127.0.0.1:8080; keepalive 8; }}
    server {{ listen 8080; root {root}; location = /hello {{ return 200 "hello\\n"; }} }}
    server {{ listen 8081; listen 8443 ssl; ssl_certificate {root}/c.pem; ssl_certificate_key {root}/k.pem;
             location / {{ proxy_pass http://behind; proxy_http_version 1.1;
                           proxy_set_header Connection ""; }} }}
}}
"""


@pytest.fixture
def nginx(lab, tested):
    root = lab.directory / "web"
    root.mkdir()
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-subj", "/CN=localhost", "-days", "2", "-keyout", root / "k.pem", "-out", root / "c.pem")  # fmt: skip
    (root / "small").write_bytes(os.urandom(6000))
    (root / "large").write_bytes(os.urandom(3 << 20))
    (root / "nginx.conf").write_text(NGINX.format(root=root))
    argv = ("nginx", "-p", root, "-e", "stderr", "-c", root / "nginx.conf")
    process = lab.start(*tested.group.wrap(argv))
    until(lambda: listening("self", 8081), what="nginx")
    return root, process


def wrk(group, url, seconds=2):
    out = group.run("wrk", "-t1", "-c8", f"-d{seconds}s", url).stdout
    assert "Socket errors" not in out and "Non-2xx" not in out, out
    return int(re.search(r"(\d+) requests in", out).group(1))


@pytest.mark.timeout(180)
def test_nginx(tested, nginx):
    """curl and wrk, kept alive, proxied, with TLS, small answers and files by sendfile."""
    root, process = nginx
    group = tested.group

    def work():
        bodies = []
        for url in ("http://127.0.0.1:8080", "http://127.0.0.1:8081", "https://127.0.0.1:8443"):
            paths = ["hello", "small"] * 40 + ["large"] * 3 + ["hello"] * 20
            out = lab_output(root, "curl")
            group.run("curl", "-sSk", "-o", out, *(f"{url}/{path}" for path in paths[:1]),
                      *(w for path in paths[1:] for w in ("-o", f"{out}.{path}", f"{url}/{path}")))  # fmt: skip
            bodies.append([Path(f"{out}.{path}").read_bytes() for path in ("hello", "small", "large")])
        counts = [
            wrk(group, url)
            for url in (
                "http://127.0.0.1:8080/hello",
                "http://127.0.0.1:8081/small",
                "https://127.0.0.1:8443/hello",
            )
        ]
        assert min(counts) > 100, counts
        return bodies

    expected = [[b"hello\n", (root / "small").read_bytes(), (root / "large").read_bytes()]] * 3
    plain, with_it = with_and_without(tested, "8080-8443", work, 1000)
    assert plain == expected
    assert with_it == expected
    assert process.alive() and "[crit]" not in process.stderr and "[alert]" not in process.stderr


def lab_output(root, name):
    return root / f"{name}-out"


def test_a_tracer_sees_what_is_redirected(netctl, lab, tested, nginx):
    """`trace http` looks where processes hand bytes to sockets, which is above the redirection."""
    netctl("redirect", "rule", "add", "dport", "8080")
    # Of this namespace only: this source sees those of the whole host, where others may test, too.
    words = ("--netns", "/proc/self/ns/net", "trace", "http", "--source", "syscall", "--port", "8080")
    tracer = netctl.start(lab, *words)
    tracer.expect("tracing", timeout=20)
    asked = wrk(tested.group, "http://127.0.0.1:8080/hello", seconds=1)
    assert tested.status()["redirected_messages"] > 100
    tracer.send(signal.SIGINT)
    assert tracer.wait() == 0
    lost = int(re.search(r"(\d+) lost", tracer.stderr).group(1))
    seen = [one for one in tracer.json_lines() if one["target"] == "/hello" and one.get("status") == 200]
    # wrk does not count what was on its way at its end, a request for each connection.
    assert asked - lost <= len(seen) <= asked + 8, tracer.stderr


@pytest.mark.timeout(180)
def test_redis(tested, lab):
    group = tested.group
    argv = ("redis-server", "--port", "6379", "--save", "", "--dir", lab.directory)
    lab.start(*group.wrap(argv))
    until(lambda: listening("self", 6379), what="redis")

    def work():
        tests = "set,get,incr,lpush,lpop,sadd,hset,mset"
        for more in ((), ("-P", "16"), ("-d", "20000", "-n", "500")):
            out = group.run("redis-benchmark", "-n", "8000", "-c", "8", "-t", tests, "-q", *more)
            assert out.stdout.count("requests per second") >= 8, out.stdout
        counter = group.run("redis-cli", "get", "counter:__rand_int__").stdout
        group.run("redis-cli", "flushall")
        return counter

    plain, with_it = with_and_without(tested, 6379, work, 10000)
    assert plain == with_it


@pytest.fixture
def postgres(tested, lab):
    """PostgreSQL on port 5432; a function that runs one of its clients."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))  # one folder a version
    user = run("id", "-u", "postgres").stdout.strip()  # it does not run as root
    wrap = ("setpriv", "--reuid", user, "--regid", "postgres", "--clear-groups")
    with tempfile.TemporaryDirectory() as home:
        os.chown(home, int(user), -1)
        data = f"{home}/data"
        run(*wrap, binaries / "initdb", "-D", data, "-A", "trust", "--no-sync", "-E", "UTF8", cwd=home)
        options = ("listen_addresses=127.0.0.1", f"unix_socket_directories={home}", "fsync=off")
        words = (word for option in options for word in ("-c", option))
        lab.start(*tested.group.wrap((*wrap, binaries / "postgres", "-D", data, *words)), cwd=home)

        def client(program, *argv):
            where = ("-h", "127.0.0.1", "-U", "postgres")
            return tested.group.run(binaries / program, *where, *argv).stdout

        until(lambda: tested.group.run(binaries / "pg_isready", "-h", "127.0.0.1", check=False).returncode == 0,
              timeout=20, what="PostgreSQL")  # fmt: skip
        yield client


@pytest.mark.timeout(180)
def test_postgresql(tested, postgres):
    """pgbench, whose random numbers are the same each time, each protocol, and a large answer."""
    postgres("pgbench", "-q", "-i", "-I", "dtgp", "postgres")

    def work():
        for protocol in ("simple", "extended", "prepared"):
            out = postgres("pgbench", "-n", "-c", 4, "-t", 60, "--random-seed", 7, "-M", protocol, "postgres")
            assert "number of transactions actually processed: 240/240" in out, out
            assert "failed transactions: 0" in out, out
        history = postgres("psql", "-At", "-c", "select count(*), sum(delta) from pgbench_history",
                           "-c", "truncate pgbench_history", "postgres")  # fmt: skip
        return history, postgres("psql", "-c", "copy (select aid, bid from pgbench_accounts order by aid) "
                                 "to stdout", "postgres")  # fmt: skip

    plain, with_it = with_and_without(tested, 5432, work, 2000)
    assert len(plain[1].splitlines()) == 100000
    assert plain == with_it


ENDING_NGINX = """
daemon off; user root; pid {root}/pid; worker_processes 1; error_log stderr warn; events {{ }}
http {{ access_log off; keepalive_requests 300; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
        uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
        server {{ listen 8080; location / {{ return 200 "hello\\n"; }} }} }}
"""


@pytest.mark.timeout(300)
def test_bench_with_a_server(netctl, lab, group):
    """`bench --target`: what it says of servers that fit, that do not answer so, or block."""

    def bench(*words, **options):
        return netctl("--json", "redirect", "bench", "--rounds", 3, "--cgroup", group.path, *words, timeout=100, **options)

    argv = ("redis-server", "--port", "6379", "--save", "", "--dir", lab.directory)
    lab.start(*group.wrap(argv))
    until(lambda: listening("self", 6379), what="redis")
    force = ("--force", "all")  # other tests run the self-test
    ping = ("--target", "localhost:6379", "--send", r"PING\r\n")
    report = json.loads(bench(*ping, *force).stdout)
    assert [line["connections"] for line in report["results"]] == [1, 4], report
    one, four = report["results"]
    assert one["share_redirected"] > 0.9 and four["share_redirected"] > 0.5, report
    assert one["tcp"] > 0 and four["tcp"] > 0 and report["verdict"], report

    # A server that ends connections after so many answers, as nginx does (1,000 if nobody tells it otherwise).
    root = lab.directory / "ending"
    root.mkdir()
    (root / "nginx.conf").write_text(ENDING_NGINX.format(root=root))
    lab.start(*group.wrap(("nginx", "-p", root, "-e", "stderr", "-c", root / "nginx.conf")))
    until(lambda: listening("self", 8080), what="nginx")
    get = r"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    done = bench("--target", "127.0.0.1:8080", "--send", get, *force)
    assert "127.0.0.1:8080 ends a connection after 299 answers" in done.stderr
    report = json.loads(done.stdout)
    assert [line["connections"] for line in report["results"]] == [1, 4], report
    assert report["results"][0]["share_redirected"] > 0.5, report

    # Where redirection is enabled for that server, it has the connections, but for the plain ones.
    with Netctl() as enabled:
        live = Redirected(enabled, lab, group)
        live.enable("--force", "all")
        enabled("redirect", "rule", "add", "dport", "6379")
        report = json.loads(bench(*ping, "--connections", "1", *force).stdout)
        assert report["results"][0]["share_redirected"] == 0
        assert "redirection that is enabled already" in report["verdict"], report
        status = live.status()
        # Of ten connections, six are plain. The others ask without a pause, and may end before they are seen at rest.
        assert status["announced"] == 2 * 10 and status["on_tcp"]["option"] == 6, status
        assert status["joined"] <= 4 and (status["joined"] or status["tried_again"]), status
        live.joiner.stop()
        enabled("redirect", "disable")

    # One connection after the other; those that were not served in time come as ends or resets.
    blocking = "import socket; s = socket.create_server(('127.0.0.1', 7)); print('up', flush=True)\n" \
        "while True:\n c = s.accept()[0]\n try:\n  while d := c.recv(999): c.send(d)\n except OSError: pass"  # fmt: skip
    lab.start(*group.wrap((sys.executable, "-c", blocking))).expect("up")
    # On a machine that has much else to do the two ends may announce themselves too far apart (no-peer).
    for _ in range(5):
        done = bench("--target", "127.0.0.1:7", *force)
        report = json.loads(done.stdout)
        assert [line["share_redirected"] for line in report["results"]] == [0]
        if "(no-peer)" not in report["verdict"]:
            break
    assert "stayed on TCP (blocking)" in report["verdict"], report
    assert "127.0.0.1:7 does not serve 4 connections at once" in done.stderr
    assert "once" not in bench("--target", "127.0.0.1:7", "--connections", "1", *force).stderr

    def refused(*words):
        done = bench(*words, check=False)
        assert done.returncode, done.stdout
        return done.stderr

    assert "does not echo" in refused("--target", "127.0.0.1:6379")
    assert "closed the connection" in refused("--target", "127.0.0.1:6379", "--send", r"QUIT\r\n")
    assert "does not answer" in refused("--target", "127.0.0.1:6379", "--send", "GET")
    assert "Connection refused" in refused("--target", "127.0.0.1:9")
    assert "no HOST:PORT" in refused("--target", "127.0.0.1")
    assert "means nothing" in refused("--target", "127.0.0.1:7", "--send", r"\q")
    assert not list(group.path.glob("netctl-*"))
    assert not bpftool("cgroup", "show", str(group.path))


@pytest.mark.timeout(300)
def test_bench_up_to_the_largest_message(netctl):
    """Messages of 16 KiB are the largest that are redirected."""
    run("ip", "link", "set", "lo", "up")

    def as_expected(line, share):
        # Of several, some may not be joined yet where the machine has much else to do.
        redirected = line["share_redirected"]
        return redirected > (0.5 if line["connections"] == 1 else 0) if share else redirected < 0.1

    for size, share in ((64, 1), (16384, 1), (16385, 0)):
        for _ in range(5):  # there, even a single one's joiner may come late
            report = netctl.json("redirect", "bench", "--rounds", 3, "--size", size, timeout=100)
            if all(as_expected(line, share) for line in report["results"]):
                break
        else:
            pytest.fail(str(report))
        assert report["verdict"] and all(line["unix_socket"] > 0 for line in report["results"])
        assert [line["connections"] for line in report["results"]][-2:] == [1, 4]


@pytest.mark.timeout(180)
def test_iperf3(redirected, lab):
    """Streams: they stay on TCP, whole."""
    redirected.netctl("redirect", "rule", "add", "dport", "5201")
    for more in ((), ("-R",), ("-l", "1000", "-P", "2")):
        # One for each: it serves one at a time, and takes its time to be ready again.
        server = lab.start(*redirected.group.wrap(("iperf3", "-s", "-1")))
        until(lambda: listening("self", 5201), what="iperf3")
        out = redirected.group.run(
            "iperf3", "-c", "127.0.0.1", "-n", "64M", "-J", *more, check=False
        ).stdout
        # It ends when enough was sent, with some of it on its way.
        assert json.loads(out)["end"]["sum_received"]["bytes"] >= 32 << 20, out
        server.wait(30)


@pytest.mark.timeout(180)
def test_tls_program(tested, lab, nginx):
    """openssl s_client to openssl s_server, a session of many lines."""
    root, _ = nginx
    group = tested.group
    argv = ("openssl", "s_server", "-quiet", "-rev", "-port", "4433",
            "-cert", root / "c.pem", "-key", root / "k.pem")  # fmt: skip
    lab.start(*group.wrap(argv))
    until(lambda: listening("self", 4433), what="openssl")
    tested.netctl("redirect", "rule", "add", "dport", "4433")
    lines = "".join(f"line {i} of the session\n" for i in range(2000))
    got = group.run(
        "timeout", "20", "openssl", "s_client", "-quiet", "-connect", "127.0.0.1:4433",
        input=lines + "CLOSE\n", check=False,
    ).stdout  # fmt: skip
    assert got.splitlines() == [line[::-1] for line in lines.splitlines()]
