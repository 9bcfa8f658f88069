# SPDX-License-Identifier: GPL-2.0-only
"""--confirm of single commands: what is not confirmed goes back. I14 is an invariant of docs/architecture.md."""

import fcntl
import json
import os

import pytest
from apply_test import Port, shut, write_text
from lab import run, until


@pytest.fixture
def port(link):
    client, server = link
    return Port(client, server, 9)


def status(netctl):
    return json.loads(run(*netctl.argv("status", options=("--json",)), check=False).stdout)


@pytest.mark.timeout(300)
def test_every_single_command_can_go_back(netctl, link, lab, tmp_path):
    _, server = link
    face, where = server.name, {"netns": server.netns}
    cgroup = lab.cgroup("confirm").path
    rules = write_text(tmp_path / "rules", "dport 7 drop\ndport 8 drop\n")
    elements = write_text(tmp_path / "elements", "192.0.2.9\n192.0.2.10\n")
    targets = ("dst", "192.0.2.98", "dport", "80", "target", "127.0.0.1:80")
    steps = [
        (("set", "create", "hosts", "--type", "host"), {}),
        (("set", "create", "other", "--type", "host"), {}),
        (("set", "add", "hosts", "192.0.2.1", "192.0.2.2"), {}),
        (("set", "delete", "hosts", "192.0.2.1"), {}),
        (("set", "import", "hosts", elements), {}),
        (("set", "import", "hosts", elements, "--replace"), {}),
        (("set", "swap", "hosts", "other"), {}),
        (("xdp", "attach", face, "--mode", "generic"), where),
        (("xdp", "rule", "add", face, "src", "@hosts", "drop"), where),
        (("xdp", "rule", "insert", face, "dport", "9", "drop"), where),
        (("xdp", "rule", "delete", face, "ID"), where),
        (("xdp", "rule", "replace", face, rules), where),
        (("xdp", "set", face, "--default", "drop"), where),
        (("xdp", "rule", "flush", face), where),
        (("tc", "attach", face, "egress"), where),
        (("tc", "rule", "add", face, "egress", "dport", "9", "drop"), where),
        (("tc", "rule", "flush", face, "egress"), where),
        (("tc", "detach", face, "egress"), where),
        (("policy", "enable", "--cgroup", cgroup, "--layer", "cgroup"), {}),
        (("policy", "rule", "add", "dst", "192.0.2.9", "deny"), {}),
        (("policy", "rule", "replace", write_text(tmp_path / "policy", "dport 7 deny\n")), {}),
        (("redirect", "enable", "--cgroup", cgroup, "--force", "all"), {}),
        (("redirect", "rule", "add", "dport", "6379"), {}),
        (("redirect", "to", "add", *targets), {}),
        (("redirect", "disable"), {}),
        (("policy", "disable"), {}),
        (("xdp", "detach", face), where),
        (("set", "destroy", "hosts"), {}),
    ]  # fmt: skip

    def typed(command):
        """With the id that the first rule has now: what comes back has new ones."""
        return [str(netctl.json("xdp", "rule", "list", face, **where)[0]["rule_id"]) if word == "ID" else word for word in command]

    for command, options in steps:
        before = netctl("export").stdout
        words = typed(command)
        told = netctl(*words, "--confirm", "1h", **options).stderr
        waits = status(netctl)["pending"]
        assert waits["id"] in told and waits["change_count"] == (2 if "swap" in words else 1) and 0 < waits["seconds_left"] <= 3600, words
        assert netctl("export").stdout != before, words
        netctl("rollback")
        assert netctl("export").stdout == before, words
        assert netctl.root.exists() == bool(before) and not (netctl.root / "journal").exists(), words
        netctl(*typed(command), **options)


def test_a_single_command_goes_back_by_itself(netctl, link, port):
    _, server = link
    netctl("xdp", "attach", server.name, "--mode", "generic", netns=server.netns)
    netctl("set", "create", "of-others", "--type", "host")
    netctl("xdp", "rule", "add", server.name, "proto", "udp", "drop", "--confirm", "3s", netns=server.netns)
    netctl("set", "add", "of-others", "192.0.2.1")  # meanwhile, and not lost: the rule was no matter of that set
    until(lambda: not (netctl.root / "journal").exists(), 30)  # nobody calls netctl
    port.opens()
    assert "192.0.2.1" in netctl("export").stdout


def test_what_fails_or_changes_nothing_leaves_nothing_to_confirm(netctl, link):
    _, server = link
    where = {"netns": server.netns}
    netctl("xdp", "attach", server.name, "--mode", "generic", **where)
    netctl.fails("xdp", "rule", "delete", server.name, "99", "--confirm", "1h", **where)
    assert status(netctl)["pending"] is None
    told = netctl("xdp", "rule", "flush", server.name, "--confirm", "1h", **where).stderr
    assert "nothing to confirm" in told and status(netctl)["pending"] is None
    netctl.fails("xdp", "rule", "flush", server.name, "--confirm", "soon", status=2, **where)
    netctl.fails("xdp", "attach", server.name, "--replace", "--confirm", "1h", status=2, **where)
    netctl("xdp", "rule", "add", server.name, "drop", "--confirm", "1h", **where)
    again = netctl.fails("xdp", "rule", "add", server.name, "drop", "--confirm", "1h", **where)
    assert "waits to be confirmed" in again
    netctl("xdp", "rule", "add", server.name, "dport", "9", "pass", **where)  # without is as ever


def test_the_session_that_asks_may_be_cut_if_that_goes_back(netctl, link):
    client, server = link
    where = {"netns": server.netns, "env": {**os.environ, "SSH_CONNECTION": f"{client.ip4} 50022 {server.ip4} 22"}}
    netctl("xdp", "attach", server.name, "--mode", "generic", **where)
    assert "ssh session" in netctl.fails("xdp", "rule", "add", server.name, "drop", status=2, **where)
    netctl("xdp", "rule", "add", server.name, "drop", "--confirm", "1h", **where)
    netctl("rollback")


def test_what_waits_keeps_nobody_waiting(netctl, link, tmp_path):
    """A reader that has the root: others read beside it, and need not have it alone to see that there is time left."""
    netctl("apply", write_text(tmp_path / "shut.yaml", shut(link[1])), "--confirm", "1h")

    def reads_beside_a_reader():
        reader = os.open(netctl.root / "lock", os.O_RDONLY)
        fcntl.flock(reader, fcntl.LOCK_SH)
        done = run(*netctl.argv("status", options=("--lock-timeout", "0")), check=False)
        os.close(reader)
        assert not done.stderr and "goes back in" in done.stdout, done
        return True

    # Who watches the time may still wait for the end of the apply, and then for the reader.
    until(reads_beside_a_reader, 30)


def test_confirmed_is_saved(netctl, link, tmp_path):
    saved = tmp_path / "saved.yaml"
    path = write_text(tmp_path / "shut.yaml", shut(link[1]))
    netctl("apply", path, "--confirm", "1h")
    netctl("confirm", "--file", saved)
    assert saved.read_text() == netctl("export").stdout
    netctl("apply", write_text(tmp_path / "none.yaml", "prune: true\n"), "--confirm", "1h")
    before = saved.read_text()
    told = netctl("confirm", "--file", tmp_path / "no" / "such" / "folder")
    assert "not saved" in told.stderr and "confirmed" in told.stdout  # I13: confirmed it is
    assert saved.read_text() == before
