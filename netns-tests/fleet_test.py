# SPDX-License-Identifier: GPL-2.0-only
"""netctl-fleet end to end: several hosts, each a namespace with a root of its own, real netctl, and one folder
that they and the operator share."""

import json
import os
import shutil
import signal
import subprocess

import pytest
from lab import Netctl, run, until
from text_test import HOSTILE, raw

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


def test_no_command_prints_strangers_text_raw(site, tmp_path):
    """Reports are written by hosts, unsigned; releases come from a folder that others may write to as well."""
    strange = f"{HOSTILE}\u009b\u202e"
    path = site.write(release(["proto udp dport 9 drop"], rollout=f"inventory: {{web1: {{role: {json.dumps(strange)}}}}}\n"))
    fleet("check", path, check=False)
    site.publish(release(["proto udp dport 9 drop"], rollout="inventory: {web1: {role: web}, web2: {role: web}}\n"))
    reports = site.dir / "status"
    reports.mkdir()
    report = {"host": strange, "state": strange, "release": 1, "candidate": 1, "error": strange, "age": 1, "labels": {strange: strange}}
    (reports / "web1.json").write_text(json.dumps(report))
    (reports / "web2.json").write_bytes(strange.encode() + b"\xff")
    (reports / f"w{HOSTILE}.json").write_text(json.dumps(report))
    wrong = tmp_path / f"w{HOSTILE}.yaml"
    documents = [{"fleet": strange}, {"hosts": {"labels": [strange]}, strange: strange, "xdp": [{"interfaces": [strange], "rules": [strange]}]}]
    wrong.write_text("\n---\n".join(map(json.dumps, documents)))
    fleet("halt", "--why", strange, *site.looks())
    looks = ("--dir", site.dir, "--keys", site.keys)
    seen = b""
    for words in (("status", *site.looks()), ("rollout", *site.looks()), ("check", path), ("check", wrong), ("check", HOSTILE),
                  ("render", "web1", path), ("render", HOSTILE, path), ("diff", "web1", path, *looks), ("diff", "web1", wrong, *looks),
                  ("publish", wrong, "--dir", site.dir, "--key", site.tmp / "key.sec"), ("verify", wrong, "--keys", site.keys),
                  ("sign", wrong, "--key", wrong), ("rollback", *looks, "--to", HOSTILE), ("keygen", tmp_path / HOSTILE / "key"),
                  ("run", "--fleet", HOSTILE, "--dir", HOSTILE), (HOSTILE,), ("status", f"--{HOSTILE}")):  # fmt: skip
        for more in ((), ("--json",)):
            done = subprocess.run([FLEET, *more, *map(str, words)], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
            assert done.returncode in range(5), (words, done)
            for stream in (done.stdout, done.stderr):
                assert not raw(stream), (words, stream)
            seen += done.stdout + done.stderr
    assert seen.count(b"owned") > 10


def test_signify_reads_keys_and_heads(site):
    site.publish(release(["proto udp dport 9 drop"]))
    out = site.tmp / "message"
    run("signify-openbsd", "-V", "-e", "-p", site.tmp / "key.pub", "-x", site.dir / "head", "-m", out)
    assert json.loads(out.read_text())["release"] == 1


class Etcd:
    """etcd with client certificates, in the namespace that all members are linked to."""

    def __init__(self, lab, tmp, addresses):
        self.lab, self.tmp = lab, tmp
        self.netns = lab.namespace("etcd")
        self.data = tmp / "etcd"
        self.process = None
        (tmp / "pki").mkdir()
        self.pki = tmp / "pki"
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 30,
                     "-subj", "/CN=fleet CA", "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
        names = ",".join(f"IP:{address}" for address in ("127.0.0.1", *addresses))
        self.certificate("server", f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")

    def openssl(self, *argv):
        return run("openssl", *argv, cwd=self.pki)

    def certificate(self, name, extensions="extendedKeyUsage=clientAuth\n"):
        (self.pki / f"{name}.ext").write_text(extensions)
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                     "-days", 30, "-extfile", f"{name}.ext", "-out", f"{name}.pem")  # fmt: skip

    def start(self):
        self.process = self.lab.serve(
            self.netns,
            *("etcd", "--data-dir", self.data, "--listen-client-urls", "https://0.0.0.0:2379"),
            *("--advertise-client-urls", "https://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380"),
            *("--cert-file", self.pki / "server.pem", "--key-file", self.pki / "server.key"),
            *("--trusted-ca-file", self.pki / "ca.pem", "--client-cert-auth"),
            port=2379,
        )

    def ctl(self, *argv, **options):
        return self.netns.run(
            *("etcdctl", "--endpoints", "https://127.0.0.1:2379", "--cacert", self.pki / "ca.pem"),
            *("--cert", self.pki / "root.pem", "--key", self.pki / "root.key", "--command-timeout", "30s", *argv),
            env={**os.environ, "ETCDCTL_API": "3"},
            **options,
        )

    def enrol(self, host):
        """What a host may: read what all read, and write its own report."""
        self.certificate(host)
        # Twice is as good as once.
        self.fleet("enrol", host)
        self.fleet("enrol", host)

    def words(self, user, address="127.0.0.1"):
        return ("--etcd", f"https://{address}:2379", "--fleet", "prod", "--ca", self.pki / "ca.pem",
                "--cert", self.pki / f"{user}.pem", "--cert-key", self.pki / f"{user}.key")  # fmt: skip

    def fleet(self, *argv, user="root", **options):
        return self.netns.run(FLEET, "--json", *argv, *self.words(user), timeout=240, **options)


class EtcdMember(Member):
    """A host that reaches etcd over its eth0."""

    def __init__(self, lab, site, etcd, name, labels):
        self.lab, self.site, self.name, self.labels, self.etcd = lab, site, name, labels, etcd
        self.end, self.gateway = lab.veth(lab.namespace(name), etcd.netns, name_b=f"to-{name}")
        self.netctl = Netctl()
        self.state = site.tmp / f"state-{name}"
        self.process = None

    def words(self, *more):
        return [
            *(FLEET, "--root", self.netctl.root, "run", *self.etcd.words(self.name, self.gateway.ip4)),
            *("--name", self.name, "--labels", self.labels, "--keys", self.site.keys),
            *("--state", self.state, "--netctl", self.netctl.binary, "--heartbeat", "2", *more),
        ]

    def report(self):
        done = self.etcd.ctl("get", "--print-value-only", f"/netctl/v1/prod/status/{self.name}", check=False)
        empty = {"state": None, "release": None, "error": None}
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else empty


@pytest.mark.timeout(600)  # etcd is cut off, killed and compacted; what comes back waits for a while first
def test_by_etcd_a_release_that_cuts_it_off_takes_itself_back(lab, site):
    # The addresses that the lab's first links have.
    etcd = Etcd(lab, site.tmp, ("192.0.2.2", "198.51.100.2"))
    etcd.certificate("root")
    canary = EtcdMember(lab, site, etcd, "canary1", "role=canary")
    other = EtcdMember(lab, site, etcd, "web1", "role=web")
    members = (canary, other)
    etcd.start()
    for member in members:
        etcd.enrol(member.name)
    etcd.ctl("user", "add", "root", "--no-password")
    etcd.ctl("user", "grant-role", "root", "root")
    etcd.ctl("auth", "enable")

    def publish(text):
        path = site.write(text)
        return json.loads(etcd.fleet("publish", path, "--key", site.tmp / "key.sec").stdout)["release"]

    looks = ("--keys", site.keys, "--silent-after", "1h")
    try:
        for member in members:
            member.start()
            member.reaches("empty", None)
        assert publish(release(["proto udp dport 9 drop"])) == 1
        canary.reaches("in-force", 1)
        assert other.rules() == []
        etcd.fleet("rollout", "--follow", *looks)
        other.reaches("in-force", 1)

        # Its answers no longer come in: nobody but the canary itself can take that back.
        assert publish(release(["proto tcp sport 2379 drop"])) == 2
        done = etcd.fleet("rollout", "--follow", *looks, check=False)
        assert done.returncode == 1 and '"halted":true' in done.stdout, done
        canary.reaches("rolled-back", 1)
        assert canary.rules() == ["proto udp dport 9 drop"]
        other.reaches("waiting", 1)
        assert not (other.state / "candidate").exists()
        assert other.rules() == ["proto udp dport 9 drop"]

        # A host's certificate reads what all may, and writes its own report, and nothing else.
        path = site.write(release(["proto udp dport 10 drop"]))
        for words in (
            ("publish", path, "--key", site.tmp / "key.sec"),
            ("halt", *looks),
            ("rollout", "--next", *looks),
            ("status", *looks),
        ):
            done = etcd.fleet(*words, user="web1", check=False)
            assert done.returncode == 1 and "permission denied" in done.stderr, done
        # Nor is one that etcd's authority has not signed let in.
        etcd.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 30,
                     "-subj", "/CN=root", "-keyout", "forged.key", "-out", "forged.pem")  # fmt: skip
        done = etcd.fleet("status", *looks, user="forged", check=False)
        assert done.returncode == 1 and "https://127.0.0.1:2379" in done.stderr, done

        # etcd dies, comes back, and has forgotten the past: hosts keep what they have, and take what comes.
        etcd.process.stop(signal.SIGKILL)
        assert canary.rules() == ["proto udp dport 9 drop"]
        etcd.start()
        revision = json.loads(etcd.ctl("get", "x", "-w", "json").stdout)["header"]["revision"]
        etcd.ctl("compact", revision)
        assert publish(release(["proto udp dport 10 drop"])) == 3
        etcd.fleet("rollout", "--follow", *looks)
        for member in members:
            member.reaches("in-force", 3)
            assert member.rules() == ["proto udp dport 10 drop"]
        status = json.loads(etcd.fleet("status", *looks).stdout)
        assert [(host["host"], host["state"]) for host in status["hosts"]] == [
            ("canary1", "in-force"),
            ("web1", "in-force"),
        ]
        # Drivers are told of each other here, too.
        publish(release(["proto udp dport 11 drop"], rollout="rollout: {canary: [role=none]}\n"))
        words = etcd.netns.wrap([FLEET, "rollout", "--follow", *looks, *etcd.words("root")])
        driver = lab.start(*words)
        driver.expect("no host is a canary", 60)
        done = etcd.fleet("rollout", "--follow", *looks, check=False)
        assert done.returncode == 1 and "is driving" in done.stderr, done
        driver.stop(timeout=60)
    finally:
        for member in members:
            if member.process:
                member.process.stop(timeout=60)
            with member.netctl:
                pass
