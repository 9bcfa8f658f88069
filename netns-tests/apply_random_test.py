# SPDX-License-Identifier: GPL-2.0-only
"""From one random state of the host to another, with a system call of `netctl apply` that kills it or fails: behind the next
netctl one of the two is in force, never a mixture (I2), and the exit status says which (I13). NETCTL_APPLIES is how many;
without it there are a few, killed at calls of bpf() only."""

import json
import os
import random
import signal
import subprocess

import pytest
from apply_test import write_text
from lab import run

THOROUGH = "NETCTL_APPLIES" in os.environ
APPLIES = int(os.environ.get("NETCTL_APPLIES", "6"))
SEED = int(os.environ.get("NETCTL_SEED", "20"))
STATES = 6 if THOROUGH else 3
RULES = ["src @one drop", "dport {80, 443} pass", "proto tcp flags syn/syn,ack drop log", "src 2001:db8::/32 drop",
         "proto icmp pass limit 10/s burst 5 per src", "vlan any drop", "proto udp dport 9 drop"]  # fmt: skip
CALLS = ("bpf", "bpf", "bpf", "unlinkat", "renameat2", "mkdirat", "openat", "setns", "sendto,sendmsg")


def state_of(draw, server, cgroup):
    where = {"interfaces": [server.name], "netns": server.netns.name}

    def rules(count):
        return draw.sample(RULES, count)

    state = {
        "sets": {"one": {"type": "cidr", "elements": [f"10.{n}.0.0/16" for n in draw.sample(range(250), draw.randrange(4))]}},
        "xdp": [{**where, "mode": "generic", "default": draw.choice(["pass", "drop"]), "rules": rules(3)}],
        "tc": [{**where, "direction": way, "rules": rules(2)} for way in draw.sample(["ingress", "egress"], draw.randrange(3))],
        "policy": {"cgroup": str(cgroup), "layer": "cgroup", "mode": "audit", "rules": draw.sample(["dport 99 deny log", "dst @one deny"], 1)},
        "redirect": {"cgroup": str(cgroup), "force": ["all"], "rules": [f"dport {draw.randrange(1000, 2000)}"]},
        "prune": True,
    }  # fmt: skip
    if draw.random() < 0.3:
        state["sets"]["two"] = {"type": "port", "elements": draw.sample(range(1, 65535), 2)}
    for optional in draw.sample(["policy", "redirect", "tc", "xdp"], draw.randrange(4)):
        del state[optional]
    return state


@pytest.mark.timeout(120 + 30 * APPLIES)
def test_one_state_or_the_other(netctl, link, lab, tmp_path):
    server, cgroup = link[1], lab.cgroup("random").path
    draw = random.Random(SEED)
    states = []
    for number in range(STATES):
        path = write_text(tmp_path / f"{number}.yaml", json.dumps(state_of(draw, server, cgroup)))
        netctl("apply", path)
        states.append((path, netctl("export").stdout))
    seen = set()
    for number in range(APPLIES):
        (first, before), (second, after) = draw.sample(states, 2)
        netctl("apply", first)
        how = draw.choice(["signal=KILL", "signal=KILL", "error=ENOMEM", "error=EPERM"]) if THOROUGH else "signal=KILL"
        calls = draw.choice(CALLS) if THOROUGH else "bpf"
        # Where there are fewer such calls, nothing is done to it.
        when = draw.randrange(1, 250 if calls == "bpf" else 12)
        what = f"{number}: {first.name} to {second.name}, {how} at call {when} of {calls}"
        done = subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:{how}:when={when}",
             *map(str, netctl.argv("apply", second))],
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        killed = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
        assert killed or done.returncode in (0, 1, 3), (what, done)
        present = run(*netctl.argv("export")).stdout
        if killed:
            assert present in (before, after), f"{what}\nin force:\n{present}"
        else:
            wanted = after if done.returncode == 0 else before
            assert present == wanted, f"{what}: exit status {done.returncode}\n{done.stdout}{done.stderr}\nin force:\n{present}\nwanted:\n{wanted}"
        assert not (netctl.root / "journal").exists(), what
        seen.add((killed, done.returncode == 0, present == after))
    print(f"{APPLIES} applies of seed {SEED}: {sorted(seen)}")
