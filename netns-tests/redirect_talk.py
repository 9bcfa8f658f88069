#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""A client and a server in one process that exchange small messages, for redirect_test.py.

    redirect_talk.py NETCTL ROOT HOST PORT TURNS [--until WHAT] [--blocking] [--option NAME] [--wait FILE]
                     [--kill PID] [--unread] [--hold] [--repair PID] [--unread-at-join PID]

Prints what `netctl redirect list` says of the connection after TURNS turns, as JSON: state, reason,
redirected (messages). With --until it goes on for up to SECONDS until that is WHAT, a state or a
reason, and then for TURNS more: how soon the joiner runs is the scheduler's business. --option sets
something on the server's end first that the map could not honour; `unknown` tells that this kernel has no
such thing. --wait has the connection wait until FILE is there. --kill kills a process then and goes on:
`after` is what is redirected later. --hold keeps the connection open.
--repair has the server's end in TCP_REPAIR when the joiner, of that process id, hears of the connection.
--unread-at-join leaves a message unread while the joiner, of that process id, hears of the connection and
tries: `unread` is what FIONREAD says then, and `early` what was joined.
--unread leaves a message unread and tells how `disable` answers, and what is read then.
"""
import argparse
import atexit
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import redirect_conformance as base

SECONDS = 20 * float(os.environ.get("NETCTL_PATIENCE", "1"))


def into_sockmap(sock):
    """As another tool would: the socket has a psock from then on."""
    path = f"/sys/fs/bpf/netctl-talk-{os.getpid()}"
    create = f"bpftool map create {path} type sockmap key 4 value 4 entries 1 name talk"
    subprocess.run(create.split(), check=True)
    value = [str(byte) for byte in struct.pack("=I", sock.fileno())]
    update = f"bpftool map update pinned {path} key 0 0 0 0 value".split()
    subprocess.run([*update, *value], check=True, pass_fds=[sock.fileno()])
    atexit.register(os.unlink, path)  # a map that nobody holds lets its sockets go


OPTIONS = {
    "low-water": lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 16),
    "zero-copy": lambda sock: sock.setsockopt(socket.SOL_SOCKET, 60, 1),
    "time-stamp": lambda sock: sock.setsockopt(socket.SOL_SOCKET, 29, 1),
    "urgent-inline": lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
    "peek-offset": lambda sock: sock.setsockopt(socket.SOL_SOCKET, 42, 0),
    "in-queue": lambda sock: sock.setsockopt(socket.IPPROTO_TCP, 36, 1),
    "tls": lambda sock: sock.setsockopt(socket.IPPROTO_TCP, 31, b"tls"),
    "sockmap": into_sockmap,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("netctl")
    parser.add_argument("root")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("turns", type=int)
    parser.add_argument("--until")
    parser.add_argument("--blocking", action="store_true")
    parser.add_argument("--option", choices=OPTIONS)
    parser.add_argument("--wait", type=Path)
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--kill", type=int)
    parser.add_argument("--unread", action="store_true")
    parser.add_argument("--repair", type=int)
    parser.add_argument("--unread-at-join", type=int)
    options = parser.parse_args()

    def netctl(*words):
        return subprocess.run(
            [options.netctl, "--root", options.root, "--json", "redirect", *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    a, b = base.connect(options.port, options.host)
    if options.blocking:
        a.setblocking(True)
    if options.option:
        try:
            OPTIONS[options.option](b)
        except OSError as error:
            print(json.dumps({"unknown": str(error)}))
            return 0
    if options.wait:
        print("open", flush=True)
        base.settled(options.wait.exists, SECONDS)

    def look():
        ports = {options.port, a.getsockname()[1]}
        for one in json.loads(netctl("list").stdout):
            if {one["local_port"], one["remote_port"]} == ports:
                moved = sum(end["redirected_messages"] for end in one["ends"])
                return {"state": one["state"], "reason": one["reason"], "redirected": moved}
        return {"state": "none", "reason": "", "redirected": 0}

    if options.repair:
        repair, on, off_without_probe = 19, 1, -1
        os.kill(options.repair, signal.SIGSTOP)
        base.turn(a, b, 100)  # both ends are announced
        b.setsockopt(socket.IPPROTO_TCP, repair, on)
        os.kill(options.repair, signal.SIGCONT)
        base.settled(lambda: look()["state"] != "none", SECONDS)
        b.setsockopt(socket.IPPROTO_TCP, repair, off_without_probe)

    if options.unread_at_join:
        status = lambda name: json.loads(netctl("status").stdout)[name]
        os.kill(options.unread_at_join, signal.SIGSTOP)
        base.turn(a, b, 100)  # both ends are announced
        a.send(b"unread")
        base.readable(b)
        tried = status("tried_again")
        os.kill(options.unread_at_join, signal.SIGCONT)
        base.settled(lambda: status("tried_again") > tried + 2, SECONDS)
        early = status("joined")
        count = base.ioctl_number(b, base.termios.FIONREAD)
        assert base.receive(b, 6) == b"unread"

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
    if options.unread_at_join:
        answer |= {"unread": count, "early": early}
    if options.kill:
        os.kill(options.kill, signal.SIGKILL)
        base.turn(a, b, options.turns)
        answer["after"] = look()["redirected"]
    if options.unread:
        a.send(b"unread")
        base.readable(b)
        answer["disable"] = netctl("disable", "--timeout", "0").stderr
        answer["then"] = base.receive(b, 6).decode()
    print(json.dumps(answer), flush=True)
    while options.hold:
        time.sleep(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
