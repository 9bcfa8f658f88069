# SPDX-License-Identifier: GPL-2.0-only
"""What the `rule` commands tell, the same in every hook that filters packets."""

import json

import pytest
from traffic import Classifier, Filter

HOOKS = {"xdp": lambda netctl, interface: Filter(netctl, interface),
         "tc": lambda netctl, interface: Classifier(netctl, interface, "ingress")}  # fmt: skip


@pytest.fixture(params=HOOKS)
def filter(request, netctl, pair):
    return HOOKS[request.param](netctl, pair[1])


def say(filter, verb, *words, **options):
    """The finished command, as text."""
    return filter.netctl(*filter._words(verb), *words, netns=filter.netns, **options)


def test_rules_that_can_never_match_are_pointed_out(filter):
    def check(status):
        done = say(filter, "rule list", "--check", check=False)
        assert done.returncode == status, done
        return done.stdout

    filter.add("src 10.0.0.0/8 pass")
    assert check(0) == ""
    told = say(filter, "rule add", "src 10.1.0.0/16 drop").stderr
    assert "rule 2 can never match: rule 1 covers it (src 10.0.0.0/8 pass)" in told
    assert "rule 2 can never match" in check(1)
    # What was there before is not told again; what a rule in front hides is.
    assert "can never" not in say(filter, "rule add", "src 192.0.2.77 drop").stderr
    told = say(filter, "rule insert", "src 192.0.2.0/24 pass").stderr
    assert "rule 3 can never match: rule 4 covers it" in told and "rule 2" not in told
    told = say(filter, "rule replace", input="dport 1-9 drop\ndport 10-20 drop\ndport 5-15 pass\n").stderr
    assert "rule 7 can never match: rules 5, 6 together cover it" in told
    done = filter.netctl("--json", *filter._words("rule list"), "--check", netns=filter.netns, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout) == [{"rule_id": 7, "rule_text": "dport 5-15 pass", "hidden_by": [5, 6]}]
    say(filter, "detach")
    assert "attached" in filter.fails("rule list", "--check", status=4)
