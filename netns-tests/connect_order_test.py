# SPDX-License-Identifier: GPL-2.0-only
"""The order of the features' hooks at connect(): the policy judges what the application asked for, then
`redirect to` rewrites it, whatever was enabled first and on which of two nested cgroups (docs/architecture.md)."""

import itertools
import os
import socket
import sys

import pytest
from lab import run

EPERM = 1
DENIED, ALLOWED, NAMED = "10.9.9.9", "10.9.9.8", "10.9.9.7"

# Prints the errno of a connect() to each address, or 0.
CONNECT = """
import socket, sys
for address in sys.argv[2:]:
    with socket.socket() as sock:
        sock.settimeout(20)
        print(sock.connect_ex((address, int(sys.argv[1]))))
"""

# The kernel can put a program of a cgroup above before those of one below.
NESTS = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15)
TOO_LATE = "redirection is on a cgroup below the policy's"


class Nest:
    """Two cgroups, one in the other, in which a policy and `redirect to` are; connections come from below."""

    def __init__(self, netctl, above):
        self.netctl, self.above = netctl, above
        self.below = above.path / "below"
        self.below.mkdir()
        self.server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.server.getsockname()[1]

    def directory(self, place):
        return self.below if place == "below" else self.above.path

    def enable_policy(self, place, **options):
        rules = f"dst {DENIED} deny\ndst {ALLOWED} allow\n"
        return self.netctl("policy", "enable", "--cgroup", self.directory(place), "--layer", "cgroup", "--default",
                           "deny", "--rules", "-", input=rules, **options)  # fmt: skip

    def enable_redirect(self, place, **options):
        self.netctl("redirect", "enable", "--cgroup", self.directory(place), "--force", "all")
        for address in (DENIED, ALLOWED):
            done = self.netctl("redirect", "to", "add", "dst", address, "dport", self.port, "target",
                               f"127.0.0.1:{self.port}", **options)  # fmt: skip
        return done

    def errnos(self, *addresses):
        words = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', self.below]
        out = run(*words, sys.executable, "-c", CONNECT, self.port, *addresses).stdout
        return [int(line) for line in out.split()]

    def check(self):
        # The target's own address is denied by default: it is not what was asked for.
        assert self.errnos(DENIED, ALLOWED, NAMED, "127.0.0.1") == [EPERM, 0, EPERM, EPERM]


@pytest.fixture
def nest(netctl, lab):
    run("ip", "link", "set", "lo", "up")
    made = Nest(netctl, lab.cgroup("nest"))
    yield made
    netctl("policy", "disable", check=False)
    netctl("redirect", "disable", check=False)
    made.server.close()


@pytest.mark.kernel
@pytest.mark.parametrize("first", ("policy", "redirect"))
@pytest.mark.parametrize("policy, redirect", itertools.product(("above", "below"), repeat=2))
def test_the_policy_judges_what_was_asked_for(nest, first, policy, redirect):
    enable = {"policy": lambda **options: nest.enable_policy(policy, **options),
              "redirect": lambda **options: nest.enable_redirect(redirect, **options)}  # fmt: skip
    second = "redirect" if first == "policy" else "policy"
    enable[first]()
    done = enable[second](check=False)
    if done.returncode:  # older kernels, and some of them can
        assert not NESTS and policy == "above" and redirect == "below", done
        assert done.returncode == 3 and TOO_LATE in done.stderr, done
        return
    nest.check()
    # And when either has been away.
    nest.netctl("policy", "disable")
    enable["policy"]()
    nest.check()
    nest.netctl("redirect", "disable")
    enable["redirect"]()
    nest.check()


@pytest.mark.kernel
def test_without_rules_that_rewrite_any_order_will_do(nest):
    nest.netctl("redirect", "enable", "--cgroup", nest.below, "--force", "all")
    nest.enable_policy("above")
    words = ("redirect", "to", "add", "dst", ALLOWED, "dport", nest.port, "target", f"127.0.0.1:{nest.port}")
    done = nest.netctl(*words, check=False)
    if done.returncode == 0:
        assert nest.errnos(DENIED, ALLOWED) == [EPERM, 0]
        return
    assert not NESTS and done.returncode == 3 and TOO_LATE in done.stderr, done
    assert nest.netctl.json("redirect", "to", "list") == []
