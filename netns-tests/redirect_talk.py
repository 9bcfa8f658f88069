#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""A client and a server in one process that exchange small messages, for redirect_test.py.

    redirect_talk.py NETCTL ROOT HOST PORT TURNS [--blocking] [--kill PID]
                     [--unread] [--nothing]

Prints what `netctl redirect list` says of the connection after TURNS turns, as JSON: state, reason,
redirected (messages). --kill kills a process then and goes on: `after` is what is redirected later.
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("netctl")
    parser.add_argument("root")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("turns", type=int)
    parser.add_argument("--blocking", action="store_true")
    parser.add_argument("--kill", type=int)
    parser.add_argument("--unread", action="store_true")
    parser.add_argument("--nothing", action="store_true", help="nothing is to happen: do not wait")
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

    for _ in range(options.turns // 100):
        base.turn(a, b, 100)
    end = time.monotonic() + 30 * base.SLOWNESS
    while True:
        answer = look()
        if options.nothing or answer["state"] == "tcp" or answer["redirected"] > 100:
            break
        if time.monotonic() > end:
            break
        base.turn(a, b, 100)  # the joiner is another process, and may not have had its turn
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
