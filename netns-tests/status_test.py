# SPDX-License-Identifier: GPL-2.0-only
"""netctl status and netctl detach --all: all features on one screen."""

import json
import signal

import pytest
from lab import run, until
from traffic import Filter, write_text


def look(netctl, status=0):
    done = run(*netctl.argv("status", options=("--json",)), check=False)
    assert done.returncode == status, done
    told = json.loads(done.stdout)
    assert told["healthy"] == (status == 0)
    return told, {(hook["feature"], hook["place"]): hook for hook in told["hooks"]}


@pytest.fixture
def full(netctl, link, lab):
    """A host with all features in use, the interface in a namespace."""
    _, server = link
    cgroup = lab.cgroup("status")
    for words in (
        ("xdp", "attach", server.name, "--mode", "generic"),
        ("xdp", "rule", "add", server.name, "proto", "udp", "dport", "9", "drop"),
        ("tc", "attach", server.name, "egress"),
    ):
        netctl(*words, netns=server.netns)
    netctl("set", "create", "blocked", "--type", "cidr")
    netctl("set", "add", "blocked", "192.0.2.0/24")
    netctl("policy", "enable", "--cgroup", cgroup.path, "--layer", "cgroup")
    netctl("redirect", "enable", "--cgroup", cgroup.path, "--force", "all")
    return server, cgroup


def test_it_shows_all(netctl, link, full):
    client, _ = link
    server, _ = full
    told, hooks = look(netctl)
    assert {feature for feature, _ in hooks} == {"xdp", "tc", "policy", "redirect"}
    xdp = hooks["xdp", server.name]
    assert xdp["netns"] == server.netns.name and xdp["rule_count"] == 1 and xdp["state"] == "attached"
    assert [one["elements"] for one in told["sets"]] == [1] and not told["unread"]
    with client.netns.socket(2, 2) as sender:  # AF_INET, SOCK_DGRAM
        for _ in range(5):
            sender.sendto(b"x", (server.ip4, 9))
    until(lambda: look(netctl)[1]["xdp", server.name]["refused"] == 5)
    text = netctl("status").stdout
    assert text.startswith("healthy\n") and "egress" in text and "blocked" in text


def test_what_is_not_well_is_told(netctl, link, full):
    """Each alone: an interface that is gone, rules without a joiner."""
    server, _ = full
    netctl("redirect", "rule", "add", "dport", "6379")
    _, hooks = look(netctl, status=1)
    assert [feature for (feature, _), hook in hooks.items() if not hook["healthy"]] == ["redirect"]
    netctl("redirect", "rule", "flush")
    look(netctl)
    server.netns.run("ip", "link", "delete", server.name)
    _, hooks = look(netctl, status=1)
    bad = {place: hook for (_, place), hook in hooks.items() if not hook["healthy"]}
    assert set(bad) == {server.name, f"{server.name} egress"}
    assert all(hook["state"] == "vanished" and hook["troubles"] for hook in bad.values())
    assert netctl("status", check=False).stdout.startswith("NOT healthy\n")


def test_a_cgroup_that_is_gone_takes_two_features_along(netctl, full):
    _, cgroup = full
    until(lambda: "populated 0" in (cgroup.path / "cgroup.events").read_text())
    cgroup.path.rmdir()
    _, hooks = look(netctl, status=1)
    assert {feature for (feature, _), hook in hooks.items() if not hook["healthy"]} == {"policy", "redirect"}
    cgroup.path.mkdir()  # made anew it is another one
    _, hooks = look(netctl, status=1)
    assert {feature for (feature, _), hook in hooks.items() if not hook["healthy"]} == {"policy", "redirect"}


def test_a_rule_that_cannot_be_read_is_not_well(netctl, full):
    server, _ = full
    filter = Filter(netctl, server, attach=False)
    write_text(filter, 0, "src @s nonsense")
    _, hooks = look(netctl, status=1)
    (bad,) = [hook for hook in hooks.values() if not hook["healthy"]]
    assert bad["feature"] == "xdp" and bad["troubles"] == ["1 rules cannot be read"]


def test_a_root_that_cannot_be_read_is_neither_well_nor_not(netctl, full):
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    done = run(*bare, *netctl.argv("status"), check=False)
    assert done.returncode == 4 and "CAP_" in done.stderr and not done.stdout, done


def test_nothing_in_use_is_fine(netctl):
    told, _ = look(netctl)
    assert told == {"healthy": True, "hooks": [], "sets": [], "unread": [], "pending": None}


def test_watching_tells_rates(netctl, lab, full):
    server, _ = full
    watcher = netctl.start(lab, "status", "--watch", "1")
    until(lambda: len(watcher.json_lines()) >= 2, 30)
    first, second = watcher.json_lines()[:2]
    assert all(hook["judged_per_second"] is None for hook in first["hooks"])
    assert all(hook["judged_per_second"] is not None for hook in second["hooks"])
    watcher.send(signal.SIGINT)
    assert watcher.wait(30) == 0


def test_detach_all_leaves_sets_and_nothing_attached(netctl, full):
    server, _ = full
    assert netctl("detach", check=False).returncode == 2
    look(netctl)  # nothing has changed
    done = netctl("detach", "--all")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "redirect", f"xdp {server.name}", f"tc {server.name} egress", "policy",
    ]  # fmt: skip
    told, hooks = look(netctl)
    assert not hooks and [one["name"] for one in told["sets"]] == ["blocked"]
    assert "prog" not in server.netns.run("ip", "link", "show", server.name).stdout
    netctl("detach", "--all")  # again is fine
    netctl("set", "destroy", "blocked")
    assert not netctl.root.exists()
