# SPDX-License-Identifier: GPL-2.0-only
"""Which capabilities each command needs: found by taking them away, and compared with netctl(8)."""

import contextlib
import platform
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from lab import PATIENCE, run, until

MANUAL = Path(__file__).resolve().parent.parent / "docs/man/netctl.8"

# The head of a capture file, of Ethernet.
NO_PACKETS = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")

XDP = ("xdp attach eth0", "xdp rule add eth0 dport 7 drop")
TCX = ("tc attach eth0 ingress --mode tcx", "tc rule add eth0 ingress dport 7 drop")
CLSACT = ("tc attach eth0 ingress --mode clsact", "tc rule add eth0 ingress dport 7 drop")
SET = ("set create s --type cidr", "set add s 192.0.2.1 2001:db8::/32")
NAMES = ("set create n --type name --resolver 192.0.2.53",)
REDIRECT = ("redirect enable --force all --cgroup {cgroup}", "redirect rule add dport 6379")
POLICY = ("policy enable --layer cgroup --cgroup {cgroup}", "policy rule add dst 192.0.2.9 deny")

# What is to be there before, and the command. One that goes on until it is stopped has a `~` in front.
COMMANDS = {
    "xdp attach": ((), "xdp attach eth0"),
    "xdp detach": (XDP, "xdp detach eth0"),
    "xdp status": (XDP, "xdp status eth0"),
    "xdp rule add": (XDP, "xdp rule add eth0 dport 8 drop"),
    "xdp rule list": (XDP, "xdp rule list eth0"),
    "xdp simulate": (XDP, "xdp simulate eth0 {capture}"),
    "xdp log": (XDP, "~xdp log eth0"),
    "tc attach": ((), "tc attach eth0 ingress --mode tcx"),
    "tc attach --mode clsact": ((), "tc attach eth0 ingress --mode clsact"),
    "tc detach": (TCX, "tc detach eth0 ingress"),
    "tc detach, of clsact": (CLSACT, "tc detach eth0 ingress"),
    "tc status": (TCX, "tc status eth0 ingress"),
    "tc status, of clsact": (CLSACT, "tc status eth0 ingress"),
    "tc rule add": (TCX, "tc rule add eth0 ingress dport 8 drop"),
    "tc rule add, to clsact": (CLSACT, "tc rule add eth0 ingress dport 8 drop"),
    "tc rule list": (TCX, "tc rule list eth0 ingress"),
    "tc simulate": (TCX, "tc simulate eth0 ingress {capture}"),
    "tc log": (TCX, "~tc log eth0 ingress"),
    "tc capture": ((), "tc capture eth0 ingress --duration 1ms"),
    "set create": ((), "set create s --type host"),
    "set create --type name": ((), "set create n --type name --resolver 192.0.2.53"),
    "set resolvers": (NAMES, "set resolvers n 192.0.2.54"),
    "set create --group": ((), "set create s --type host --group nogroup"),
    "set chgrp": (SET, "set chgrp s nogroup"),
    "set destroy": (SET, "set destroy s"),
    "set add": (SET, "set add s 192.0.2.2"),
    "set delete": (SET, "set delete s 192.0.2.1"),
    "set list": (SET, "set list"),
    "set list NAME": (SET, "set list s"),
    "set watch": (SET, "set watch s --duration 1ms"),
    "set test": (SET, "set test s 192.0.2.1"),
    "set import": (SET, "set import s {elements}"),
    "set diff": ((SET[0], "set import s {elements}"), "set diff s {elements}"),
    "set swap": ((*SET, "set create t --type cidr"), "set swap s t"),
    "set fold": (SET, "set fold s"),
    "redirect enable": ((), "redirect enable --cgroup {cgroup}"),
    "redirect enable --force all": ((), "redirect enable --force all --cgroup {cgroup}"),
    "redirect disable": (REDIRECT, "redirect disable"),
    "redirect status": (REDIRECT, "redirect status"),
    "redirect list": (REDIRECT, "redirect list"),
    "redirect run": ((*REDIRECT, "redirect to add dst 192.0.2.9 target 127.0.0.1:80 health tcp"), "~redirect run"),
    "redirect rule add": (REDIRECT, "redirect rule add dport 80"),
    "redirect rule list": (REDIRECT, "redirect rule list"),
    "redirect to add": (REDIRECT, "redirect to add dst 192.0.2.9 target 127.0.0.1:80"),
    "redirect selftest": ((), "redirect selftest"),
    "policy enable": ((), "policy enable --layer cgroup --cgroup {cgroup}"),
    "policy disable": (POLICY, "policy disable"),
    "policy status": (POLICY, "policy status"),
    "policy rule add": (POLICY, "policy rule add dst 192.0.2.10 deny"),
    "policy rule list": (POLICY, "policy rule list"),
    "policy test": (POLICY, "policy test 192.0.2.1 80 tcp"),
    "policy explain": (POLICY, "policy explain 1 192.0.2.1 80 tcp"),
    "policy learn": (POLICY, "policy learn"),
    "policy log": (POLICY, "~policy log --follow"),
    "trace http": ((), "~trace http"),
    "trace http --tls": ((), "~trace http --tls"),
    "trace http -i": ((), "~trace http -i eth0"),
    "trace http --read": ((), "trace http --read {capture}"),
    "trace tcp connlat": ((), "~trace tcp connlat"),
    "trace tcp states": ((), "~trace tcp states"),
    "trace tcp life": ((), "~trace tcp life"),
    "trace tcp backlog": ((), "trace tcp backlog"),
    "trace tcp rtt": ((), "~trace tcp rtt"),
    "trace tcp drops": ((), "~trace tcp drops"),
    "trace tcp reset": ((), "~trace tcp reset"),
    "trace tcp retrans": ((), "~trace tcp retrans"),
    "trace func": ((), "~trace func c:getaddrinfo"),
    "trace profile": ((), "~trace profile"),
    "trace gc": ((), "~trace gc --file /usr/bin/python3"),
    "trace usdt": ((), "~trace usdt --file stdc++ libstdcxx:throw"),
    "trace tls": ((), "~trace tls"),
    "trace tls --read": ((), "trace tls --read {capture}"),
    "doctor": ((), "doctor"),
    "status": ((*XDP, *SET), "status"),
    "top": ((*XDP, *SET), "top --count 1 --interval 1"),
    "check": ((), "check {config}"),
    "import": ((), "import {foreign}"),
    "plan": ((*XDP, *SET), "plan {same}"),
    "export": ((*XDP, *SET), "export"),
    "apply": (SET, "apply {config}"),
    "apply --confirm": (SET, "apply {config} --confirm 1h"),
    "check --load": (SET, "check {config} --load"),
    "confirm": ((*SET, "apply {config} --confirm 1h"), "confirm"),
    "rollback": ((*SET, "apply {config} --confirm 1h"), "rollback"),
    "save": (SET, "save --file {saved}"),
    "restore": ((), "restore --file {config}"),
    "metrics --textfile": ((*XDP, *SET), "metrics --textfile {prom} --once"),
    "metrics --listen": ((*XDP, *SET), "~metrics --listen 127.0.0.1:0"),
    "set add --confirm": (SET, "set add s 192.0.2.9 --confirm 1h"),
    "detach --all": ((*XDP, *TCX[:1], *POLICY), "detach --all"),
}


def manual():
    """{command: what it needs} of the section CAPABILITIES."""
    section = MANUAL.read_text().partition(".SH CAPABILITIES\n")[2].partition("\n.SH ")[0]
    table = {}
    for names, needs in re.findall(r"^\.TP\n\.B (.*)\n(.*)\.$", section, re.MULTILINE):
        for name in names.replace("\\-", "-").split("; "):
            table[name] = set(re.findall(r"CAP_\w+", needs))
    return table


# poll, epoll_wait, clock_nanosleep, ppoll, epoll_pwait: in these a command waits that has come into its own.
WAITS = {"x86_64": {"7", "232", "230", "271", "281"}, "aarch64": {"22", "73", "115"}}[platform.machine()]


def waits(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/syscall").read_text().split()[0] in WAITS
    return False


class Trial:
    """A command in a namespace with an interface eth0, run with some of root's capabilities."""

    def __init__(self, lab, netctl, directory, before, text):
        _, self._server = lab.pair()
        self._netctl = netctl
        (directory / "capture").write_bytes(NO_PACKETS)
        (directory / "elements").write_text("192.0.2.3\n")
        (directory / "config").write_text("sets: {applied: {type: host, elements: [192.0.2.1]}}\n")
        (directory / "foreign").write_text("create foreign hash:net family inet\nadd foreign 192.0.2.0/28\n")
        (directory / "same").write_text("sets: {s: {type: cidr, managed: external}}\n")
        more = {name: directory / name for name in ("config", "foreign", "same", "saved")}
        more["prom"] = directory / "netctl.prom"
        self._words = {**more, "cgroup": lab.cgroup().path, "capture": directory / "capture", "elements": directory / "elements"}
        self._before = before
        self._text = text

    def set_up(self):
        shutil.rmtree(self._netctl.root, ignore_errors=True)
        self._server.netns.run("tc", "qdisc", "del", "dev", "eth0", "clsact", check=False)
        for words in self._before:
            self._server.netns.run(*self._argv(words), timeout=100)

    def _argv(self, text):
        return self._netctl.argv(*(word.format(**self._words) for word in text.split()))

    def run(self, capabilities):
        """Runs it with these alone. Returns how that went, and whether it worked."""
        kept = ["-all", *(f"+{name.lower().removeprefix('cap_')}" for name in sorted(capabilities))]
        argv = ["setpriv", f"--bounding-set={','.join(kept)}", f"--inh-caps={','.join(kept)}"]
        argv += self._argv(self._text.lstrip("~"))
        if not self._text.startswith("~"):
            done = self._server.netns.run(*argv, check=False, timeout=100)
            return done, done.returncode == 0
        words = [str(word) for word in self._server.netns.wrap(argv)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
            until(lambda: process.poll() is not None or waits(process.pid), timeout=100, what="an error, or the wait for events")
            worked = process.returncode is None
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=100)
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr), worked

    def derive(self):
        """Those without any of which it fails; such as stand for others are taken away first."""
        (bounds,) = re.findall(r"Capability bounding set: (.*)", run("setpriv", "--dump").stdout)
        kept = {f"CAP_{name.upper()}" for name in bounds.split(",")}
        for name in ("CAP_SYS_ADMIN", *sorted(kept - {"CAP_SYS_ADMIN"})):
            self.set_up()
            if self.run(kept - {name})[1]:
                kept.discard(name)
        return kept


@pytest.mark.timeout(300 * PATIENCE)
@pytest.mark.parametrize("name", COMMANDS)
def test_capabilities(netctl, lab, tmp_path, name):
    trial = Trial(lab, netctl, tmp_path, *COMMANDS[name])
    needs = manual().get(name, set())
    trial.set_up()
    # Without one of them it fails and says why, and nothing is changed: the next try is as good.
    for missing in sorted(needs):
        done, worked = trial.run(needs - {missing})
        assert not worked, f"without {missing} it worked; it needs {trial.derive()}"
        assert done.stderr.startswith("netctl: ") or "not permitted" in done.stdout, done
    done, worked = trial.run(needs)
    assert worked, f"with {needs} it failed: {done.stderr}; it needs {trial.derive()}"


def test_the_manual_names_no_other_command():
    assert manual().keys() == COMMANDS.keys()
