#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""A client and a server in one process that exchange small messages, for redirect_test.py.

    redirect_talk.py NETCTL ROOT HOST PORT TURNS [--until WHAT] [--blocking] [--kill PID] [--unread]

Prints what `netctl redirect list` says of the connection after TURNS turns, as JSON: state, reason,
redirected (messages). With --until it goes on for up to SECONDS until that is WHAT, a state or a
reason, and then for TURNS more: how soon the joiner runs is the scheduler's business. --kill kills a process then and goes on: `after` is what is redirected later.
--unread leaves a message unread and tells how `disable` answers, and what is read then.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import time

import redirect_conformance as base

SECONDS = 20 * float(os.environ.get("NETCTL_PATIENCE", "1"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("netctl")
    parser.add_argument("root")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("turns", type=int)
    parser.add_argument("--until")
    parser.add_argument("--blocking", action="store_true")
    parser.add_argument("--kill", type=int)
    parser.add_argument("--unread", action="store_true")
    options = parser.parse_args()

    def netctl(*words):
        return subprocess.run(
            [options.netctl, "--root", options.root, "--json", "redirect", *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    a, b = base.connect(options.port, options.host)
    if options.blocking:
        a.setblocking(True)

    def look():
        ports = {options.port, a.getsockname()[1]}
        for one in json.loads(netctl("list").stdout):
            if {one["local_port"], one["remote_port"]} == ports:
                moved = sum(end["redirected_messages"] for end in one["ends"])
                return {"state": one["state"], "reason": one["reason"], "redirected": moved}
        return {"state": "none", "reason": "", "redirected": 0}

    base.turn(a, b, options.turns)
    answer = look()
    deadline = time.monotonic() + SECONDS
    while options.until and options.until not in (answer["state"], answer["reason"]):
        if time.monotonic() > deadline:
            break
        base.turn(a, b, 100)
        answer = look()
    if options.until:
        base.turn(a, b, options.turns)
        answer = look()
    if options.kill:
        os.kill(options.kill, signal.SIGKILL)
        base.turn(a, b, options.turns)
        answer["after"] = look()["redirected"]
    if options.unread:
        a.send(b"unread")
        base.readable(b)
        answer["disable"] = netctl("disable", "--timeout", "0").stderr
        answer["then"] = base.receive(b, 6).decode()
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
