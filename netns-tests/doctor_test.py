# SPDX-License-Identifier: GPL-2.0-only
"""netctl doctor: what it says of this kernel is what the features' commands find."""

import json
import os
import re
from pathlib import Path

import pytest
from lab import PATIENCE, Cgroup, run

# Each call runs redirection's self-test, which takes its time on a busy machine.
pytestmark = pytest.mark.timeout(300 * PATIENCE)


def examine(netctl, netns, *options, check=True):
    done = run(*netctl.argv("doctor", netns=netns, options=("--json", *options)), check=check, timeout=100)
    findings = json.loads(done.stdout)
    return findings, {(one["area"], one["name"]): one for one in findings["abilities"]}


@pytest.mark.kernel
def test_it_says_what_the_commands_find(netctl, link, lab):
    """Each ability that an option of some command asks for by itself."""
    _, server = link
    _, abilities = examine(netctl, server.netns)
    cgroup = lab.cgroup()
    asked = {
        ("xdp", "native"): ("xdp", "attach", server.name, "--mode", "native"),
        ("xdp", "generic"): ("xdp", "attach", server.name, "--mode", "generic"),
        ("tc", "tcx"): ("tc", "attach", server.name, "ingress", "--mode", "tcx"),
        ("tc", "clsact"): ("tc", "attach", server.name, "egress", "--mode", "clsact"),
        ("policy", "cgroup"): ("policy", "enable", "--cgroup", cgroup.path, "--layer", "cgroup"),
        ("policy", "lsm"): ("policy", "enable", "--cgroup", cgroup.path, "--layer", "lsm"),
        ("redirect", "sockmap"): ("redirect", "enable", "--cgroup", cgroup.path),
    }
    for ability, words in asked.items():
        netns = None if words[0] == "policy" else server.netns
        done = netctl(*words, netns=netns, check=False, timeout=100)
        assert abilities[ability]["answer"] == ("yes" if done.returncode == 0 else "no"), (ability, done)
        if done.returncode == 0:
            where = words[2:4] if words[0] == "tc" else words[2:3] if words[0] == "xdp" else ()
            netctl(words[0], "disable" if words[0] in ("policy", "redirect") else "detach", *where, netns=netns)
    fq = server.netns.run("tc", "qdisc", "replace", "dev", server.name, "root", "fq", check=False, timeout=100)
    assert abilities["tc", "fq"]["answer"] == ("no" if fq.returncode else "yes")
    for one in abilities.values():
        assert one["answer"] in ("yes", "no"), one
        assert bool(one["remedy"]) == (one["answer"] == "no") == bool(one["detail"]), one


def test_it_says_what_is_in_use_and_who_is_there(netctl, link):
    _, server = link
    findings, abilities = examine(netctl, server.netns)
    assert findings["healthy"] == "yes" and not any(one["in_use"] for one in abilities.values())
    netctl("xdp", "attach", server.name, "--mode", "generic", netns=server.netns)
    findings, abilities = examine(netctl, server.netns)
    assert {area for (area, _), one in abilities.items() if one["in_use"]} == {"host", "xdp"}
    (face,) = [one for one in findings["interfaces"] if one["interface"] == server.name]
    assert face["kind"] == "veth"
    assert face["xdp"]["mode"] == "generic" and face["xdp"]["program_name"] == "xdp_filter"
    text = netctl("doctor", netns=server.netns, timeout=100).stdout
    assert "xdp_filter" in text and "generic" in text


def test_without_rights_it_says_that_it_does_not_know(netctl, link):
    """In use and lacking what it requires is 1, not known is 4, and nothing in use is fine."""
    _, server = link
    argv = netctl.argv("doctor", netns=None, options=("--json",))
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    done = server.netns.run(*bare, *argv, check=False, timeout=100)
    assert done.returncode == 0, done
    answers = {(one["area"], one["name"]): one["answer"] for one in json.loads(done.stdout)["abilities"]}
    assert answers["host", "capabilities"] == "no" and answers["xdp", "native"] == "unknown"
    netctl("xdp", "attach", server.name, "--mode", "generic", netns=server.netns)
    done = server.netns.run(*bare, *argv, check=False, timeout=100)
    assert done.returncode == 1 and json.loads(done.stdout)["healthy"] == "no"
    # A user who may not even look into the root.
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    done = server.netns.run(*nobody, *bare, *argv, check=False, timeout=100)
    assert done.returncode == 4 and json.loads(done.stdout)["healthy"] == "unknown", done


def test_a_report_names_nothing_and_overwrites_nothing(netctl, link, tmp_path):
    _, server = link
    netctl("xdp", "attach", server.name, "--mode", "generic", netns=server.netns)
    report = tmp_path / "report.json"
    netctl("doctor", "--report", report, netns=server.netns, timeout=100)
    text = report.read_text()
    findings = json.loads(text)
    assert len(findings["abilities"]) > 10 and len(findings["interfaces"]) >= 2
    for secret in (f'"{server.name}"', "xdp_filter", str(netctl.root), str(tmp_path), os.uname().nodename):
        assert secret not in text, secret
    done = netctl("doctor", "--report", report, netns=server.netns, check=False, timeout=100)
    assert done.returncode == 1 and "File exists" in done.stderr and report.read_text() == text
    done = netctl("doctor", "--report", "/dev/full", netns=server.netns, check=False, timeout=100)
    assert done.returncode == 1, done


def test_nothing_is_left_behind(netctl, link):
    _, server = link

    def abandoned():
        """Cgroups that a process made which is gone; others may run and make their own meanwhile."""
        found = (re.fullmatch(r"netctl-(?!suite|conformance)(?:[a-z-]+-)?(\d+)", one.name)
                 for one in Cgroup.mount().glob("*/"))  # fmt: skip
        return {one[0] for one in found if one and not Path(f"/proc/{one[1]}").exists()}

    def world():
        return (
            server.netns.run("ip", "-j", "link").stdout,
            server.netns.run("tc", "qdisc").stdout,
            netctl.root.exists(),
        )

    before, cgroups = world(), abandoned()
    examine(netctl, server.netns)
    assert world() == before and not before[-1]
    assert abandoned() <= cgroups
