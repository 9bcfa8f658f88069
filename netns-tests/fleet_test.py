# SPDX-License-Identifier: GPL-2.0-only
"""netctl-fleet end to end: several hosts, each a namespace with a root of its own, real netctl, and one folder
that they and the operator share."""

import json
import os
import shutil
import signal

import pytest
from lab import Netctl, run, until

FLEET = os.environ["NETCTL"] + "-fleet"
STAGED = "rollout: {canary: [role=canary], stages: [100%], soak: 1s}\n"


def fleet(*argv, **options):
    return run(FLEET, *argv, **options)


def fleet_json(*argv, status=0):
    done = run(FLEET, "--json", *argv, check=False)
    assert done.returncode == status, done
    return json.loads(done.stdout)


def release(rules, rollout=STAGED, probes=(), name="prod"):
    """A release with one filter, of these rules."""
    lines = "".join(f"      - {rule}\n" for rule in rules)
    return (
        f"fleet: {name}\n{rollout}probes: {json.dumps(list(probes))}\n"
        "---\n"
        f"xdp:\n  - interfaces: [eth0]\n    mode: generic\n    rules:\n{lines}"
    )


class Member:
    """A host of the fleet: a namespace that is joined to one with a server, and what runs there."""

    def __init__(self, lab, site, name, labels):
        self.lab, self.site, self.name, self.labels = lab, site, name, labels
        lab.repeat_addresses()
        self.end, self.gateway = lab.pair()
        self.netctl = Netctl()
        self.state = site.tmp / f"state-{name}"
        self.process = None

    def words(self, *more):
        return [
            *(FLEET, "--root", self.netctl.root, "run", "--fleet", "prod", "--dir", self.site.dir),
            *("--name", self.name, "--labels", self.labels, "--keys", self.site.keys),
            *("--state", self.state, "--netctl", self.netctl.binary, "--heartbeat", "1", *more),
        ]

    def start(self):
        self.process = self.end.netns.start(*self.words())

    def once(self, check=True):
        return self.end.netns.run(*self.words("--once"), check=check, timeout=60)

    def rules(self):
        """What is in force."""
        words = self.netctl.argv("xdp", "rule", "list", "eth0", options=("--json",))
        done = self.end.netns.run(*words, check=False)
        return [rule["rule_text"] for rule in json.loads(done.stdout)] if done.returncode == 0 else []

    def report(self):
        path = self.site.dir / "status" / f"{self.name}.json"
        return json.loads(path.read_text()) if path.exists() else {"state": None, "release": None, "error": None}

    def reaches(self, state, release):
        def reached():
            report = self.report()
            assert (report["state"], report["release"]) == (state, release), f"{report} {self.process}"
            return True

        until(reached, 120)
        return self.report()


class Site:
    """What an operator has."""

    def __init__(self, tmp):
        self.tmp, self.dir, self.keys = tmp, tmp / "source", tmp / "keys"
        self.dir.mkdir()
        self.keys.mkdir(mode=0o755)
        fleet("keygen", tmp / "key")
        shutil.copy(tmp / "key.pub", self.keys)

    def write(self, text):
        path = self.tmp / "release.yaml"
        path.write_text(text)
        return path

    def publish(self, text, *options):
        path = self.write(text)
        return fleet_json("publish", path, "--dir", self.dir, "--key", self.tmp / "key.sec", *options)["release"]

    def looks(self):
        return ("--dir", self.dir, "--keys", self.keys, "--silent-after", "1h")

    def status(self, status=0):
        return fleet_json("status", *self.looks(), status=status)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.fixture
def members(lab, site):
    """A canary and two others, whose agents run."""
    made = [
        Member(lab, site, name, labels)
        for name, labels in (("canary1", "role=canary"), ("web1", "role=web"), ("web2", "role=web"))
    ]
    yield made
    for member in made:
        if member.process:
            member.process.stop(timeout=60)
        with member.netctl:
            pass


@pytest.mark.timeout(600)  # four releases on three hosts, and probes that wait for answers
def test_a_release_is_rolled_out_and_one_that_cuts_a_probe_takes_itself_back(lab, site, members):
    canary, *others = members
    for member in members:
        lab.nginx(member.gateway.netns)
    probe = [f"tcp {canary.gateway.ip4}:80", f"http http://{canary.gateway.ip4}/"]
    for member in members:
        member.start()
        member.reaches("empty", None)

    assert site.publish(release(["proto udp dport 9 drop"], probes=probe)) == 1
    canary.reaches("in-force", 1)
    for other in others:
        assert "turn of stage canary" in other.reaches("waiting", None)["error"]
        assert other.rules() == []
    done = fleet("rollout", "--follow", *site.looks(), timeout=240)
    assert "finished" in done.stdout.splitlines()[-1]
    for member in members:
        member.reaches("in-force", 1)
        assert member.rules() == ["proto udp dport 9 drop"]
    assert {host["state"] for host in site.status()["hosts"]} == {"in-force"}

    # This one drops what the probe's answers come by.
    site.publish(release(["proto tcp sport 80 drop"], probes=probe))
    done = fleet("rollout", "--follow", *site.looks(), check=False, timeout=240)
    assert done.returncode == 1, done
    assert "halted" in done.stdout and "canary1: probe tcp" in done.stdout
    report = canary.reaches("rolled-back", 1)
    assert report["candidate"] == 2
    assert canary.rules() == ["proto udp dport 9 drop"]
    assert canary.end.netns.run("curl", "-sf", "-m", 5, f"http://{canary.gateway.ip4}/").stdout == "hello\n"
    assert not json.loads(run(*canary.netctl.argv("status", options=("--json",)), check=False).stdout).get("pending")
    for other in others:
        assert other.reaches("waiting", 1)["error"].startswith("halted: ")
        # It was never tried: what an agent tries, it writes down as candidate.
        assert not (other.state / "candidate").exists()
        assert other.rules() == ["proto udp dport 9 drop"]
    assert site.status(status=1)["halted"]

    # The next is good, and reaches all.
    site.publish(release(["proto udp dport 10 drop"], probes=probe))
    fleet("rollout", "--follow", *site.looks(), timeout=240)
    for member in members:
        member.reaches("in-force", 3)
        assert member.rules() == ["proto udp dport 10 drop"]

    # Back to what release 1 was, for all at once and without a driver.
    answer = fleet_json("rollback", "--dir", site.dir, "--key", site.tmp / "key.sec", "--to", 1)
    assert (answer["release"], answer["at_once"]) == (4, True)
    for member in members:
        member.reaches("in-force", 4)
        assert member.rules() == ["proto udp dport 9 drop"]


def test_an_agent_that_dies_while_it_tries_goes_back(lab, site, members):
    canary = members[0]
    canary.start()
    site.publish(release(["proto udp dport 9 drop"]))
    canary.reaches("in-force", 1)
    site.publish(release(["proto udp dport 10 drop"], rollout="rollout: {soak: 24h}\n"))
    canary.reaches("soaking", 1)
    assert canary.rules() == ["proto udp dport 10 drop"]
    canary.process.stop(signal.SIGKILL)
    canary.start()
    # It tries anew, which needs that what was tried was taken back.

    def tries_again():
        state = json.loads((canary.state / "state.json").read_text())
        return state["tries"] == 2 and state["attempt_id"]

    until(tries_again, 60)
    canary.process.stop(timeout=60)
    assert canary.rules() == ["proto udp dport 9 drop"]
    assert "stopped while it was tried" in canary.report()["error"]


def test_what_is_forged_replayed_or_damaged_is_refused_and_reported(lab, site, members):
    canary = members[0]
    canary.start()
    site.publish(release(["proto udp dport 9 drop"]))
    canary.reaches("in-force", 1)
    first = (site.dir / "head").read_bytes()
    site.publish(release(["proto udp dport 10 drop"]))
    canary.reaches("in-force", 2)

    def put(name, content):
        (site.dir / "new").write_bytes(content)
        (site.dir / "new").rename(site.dir / name)

    good = (site.dir / "head").read_bytes()
    put("head", first)
    assert "older than 2" in canary.reaches("refused", 2)["error"]
    fleet("keygen", site.tmp / "other")
    path = site.write(release(["proto udp dport 11 drop"]))
    fleet("publish", path, "--dir", site.dir, "--key", site.tmp / "other.sec", "--release", 3)
    until(lambda: "signed by 0" in (canary.report()["error"] or ""), 60)
    put("head", good)
    canary.reaches("in-force", 2)
    # A folder, a pipe that nobody writes to, and too much.
    (site.dir / "head").unlink()
    (site.dir / "head").mkdir()
    canary.reaches("source-lost", 2)
    (site.dir / "head").rmdir()
    os.mkfifo(site.dir / "head")
    until(lambda: "no plain file" in (canary.report()["error"] or ""), 60)
    put("head", b"untrusted comment: " * 10000)
    until(lambda: "larger than" in (canary.report()["error"] or ""), 60)
    assert canary.rules() == ["proto udp dport 10 drop"]
    # A body that is not what was signed: the head is good.
    put("head", good)
    answer = fleet_json("publish", site.write(release(["proto udp dport 12 drop"])), "--dir", site.dir,
                        "--key", site.tmp / "key.sec", "--prepare", site.tmp / "head")  # fmt: skip
    body = site.dir / f"body-{answer['sha256']}"
    put(body.name, body.read_bytes().replace(b"12 drop", b"13 drop"))
    fleet("publish", "--head", site.tmp / "head", "--dir", site.dir, "--keys", site.keys)
    assert "another file than was signed" in canary.reaches("refused", 2)["error"]
    assert canary.rules() == ["proto udp dport 10 drop"]
    assert canary.process.alive()


def test_two_signers_of_two_keys(lab, site, members):
    fleet("keygen", site.tmp / "second")
    shutil.copy(site.tmp / "second.pub", site.keys)
    head = site.tmp / "head"
    path = site.write(release(["proto udp dport 9 drop"]))
    fleet("publish", path, "--dir", site.dir, "--key", site.tmp / "key.sec", "--prepare", head)
    verify = ("verify", head, "--keys", site.keys, "--threshold", 2)
    done = fleet(*verify, check=False)
    assert done.returncode == 1 and "signed by 1 of the 2 keys" in done.stderr
    done = fleet("publish", "--head", head, "--dir", site.dir, "--keys", site.keys, "--threshold", 2, check=False)
    assert done.returncode == 1 and not (site.dir / "head").exists()
    fleet("sign", head, "--key", site.tmp / "second.sec")
    assert len(fleet_json(*verify)["signed_by"]) == 2
    fleet("publish", "--head", head, "--dir", site.dir, "--keys", site.keys, "--threshold", 2)
    member = members[0]
    done = member.end.netns.run(*member.words("--threshold", 2, "--once"), timeout=60)
    assert member.rules() == ["proto udp dport 9 drop"], done


def test_an_object_that_a_release_no_longer_names_goes(site, members):
    member = members[0]
    sets = "---\nsets: {bad: {type: cidr, elements: [192.0.2.0/24]}}\n"
    site.publish(release(["src @bad drop"]) + sets)
    member.once()
    site.publish(release(["proto udp dport 9 drop"]))
    member.once()
    assert member.rules() == ["proto udp dport 9 drop"]
    assert member.netctl.json("set", "list") == []
    # And another start puts in force again what somebody took away.
    member.end.netns.run(*member.netctl.argv("xdp", "detach", "eth0"))
    assert member.rules() == []
    member.once()
    assert member.rules() == ["proto udp dport 9 drop"]


def test_operators_are_told_of_each_other(lab, site):
    site.publish(release(["proto udp dport 9 drop"]))
    driver = lab.start(FLEET, "rollout", "--follow", *site.looks())
    driver.expect("no host is a canary", 20)
    done = fleet("rollout", "--follow", *site.looks(), check=False)
    assert done.returncode == 1 and f"({driver.pid}) is driving" in done.stderr
    # Halting is everybody's.
    fleet("halt", "--why", "it looks wrong", *site.looks())
    assert driver.wait() == 1
    assert "halted: it looks wrong" in driver.stdout
    assert site.status(status=1)["why"] == "halted: it looks wrong"
    fleet("rollout", "--resume", *site.looks())
    assert not site.status()["halted"]


def test_check_render_and_diff_need_no_host(site):
    path = site.write(
        release(["proto udp dport 9 drop"], rollout="inventory: {web1: {role: web}, db1: {role: db}}\n")
        + "---\nhosts: {labels: [role=db]}\npolicy: {rules: [dport 25 deny]}\n"
    )
    assert fleet_json("check", path)["hosts"] == 2
    web, db = fleet_json("render", "web1", path), fleet_json("render", "db1", path)
    assert "policy" not in web["yaml"] and "policy" in db["yaml"]
    assert web["skipped"][0]["why"] == "it is for role=db, and the host has role=web"
    fleet("publish", path, "--dir", site.dir, "--key", site.tmp / "key.sec")
    looks = ("--dir", site.dir, "--keys", site.keys)
    assert fleet_json("render", "db1", *looks) == db
    assert fleet("diff", "db1", path, *looks).stdout == ""
    path.write_text(path.read_text().replace("dport 25", "dport 26"))
    done = fleet("diff", "db1", path, *looks, check=False)
    assert done.returncode == 2 and "+policy: {rules: [dport 26 deny]}" in done.stdout
    assert fleet("diff", "web1", path, *looks).stdout == ""
    path.write_text("fleet: prod\n---\nxdp: [{interfaces: [eth0], rules: [src 1 drop]}]\n")
    done = fleet("check", path, check=False)
    assert done.returncode == 2 and f"{path}:3:" in done.stderr


def test_signify_reads_keys_and_heads(site):
    site.publish(release(["proto udp dport 9 drop"]))
    out = site.tmp / "message"
    run("signify-openbsd", "-V", "-e", "-p", site.tmp / "key.pub", "-x", site.dir / "head", "-m", out)
    assert json.loads(out.read_text())["release"] == 1
