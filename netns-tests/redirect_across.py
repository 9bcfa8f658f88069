#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Connections between network namespaces, all ends in one process, for redirect_test.py.

    redirect_across.py NETCTL ROOT '[{"client": PATH, "server": PATH, "to": [HOST, PORT],
                                      "listen": PORT, "from": PORT, "outside": "client"|"server"}, …]'
                       --until COUNTER=N

Each exchanges small messages that only its own two ends know, until the `status` of netctl has
that counter (`joined`, or a reason) at N, and then some more. `outside` names the end that is made in the parent cgroup.
Prints what `list` and `status` say then, as JSON.
"""
import argparse
import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import time

import redirect_conformance as base

SECONDS = 20 * float(os.environ.get("NETCTL_PATIENCE", "1"))
libc = ctypes.CDLL(None, use_errno=True)


def enter(path):
    with open(path, "rb") as namespace:
        if libc.setns(namespace.fileno(), 0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), f"setns {path}")


def own_cgroup():
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        mount = next(line.split()[4] for line in mounts if " - cgroup2 " in line)
    with open("/proc/self/cgroup", encoding="utf-8") as groups:
        return mount + next(line[3:].strip() for line in groups if line[:3] == "0::")


@contextlib.contextmanager
def placed(cgroup):
    """Sockets belong to the cgroup of who made them."""
    home = own_cgroup()

    def move(path):
        with open(f"{path}/cgroup.procs", "w", encoding="utf-8") as procs:
            procs.write(str(os.getpid()))

    move(cgroup)
    yield
    move(home)


def connect(one):
    home = own_cgroup()
    outside = os.path.dirname(home)
    family = socket.AF_INET6 if ":" in one["to"][0] else socket.AF_INET
    with placed(outside if one.get("outside") == "server" else home):
        enter(one["server"])
        listener = socket.create_server(("", one["listen"]), family=family)
    with placed(outside if one.get("outside") == "client" else home):
        enter(one["client"])
        a = socket.socket(family)
        a.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        a.bind(("", one["from"]))
        a.connect(tuple(one["to"]))
    b, _ = listener.accept()
    listener.close()
    for sock in (a, b):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return a, b


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("netctl")
    parser.add_argument("root")
    parser.add_argument("connections")
    parser.add_argument("--until", required=True)
    options = parser.parse_args()
    counter, count = options.until.split("=")

    def ask(what):
        words = [options.netctl, "--root", options.root, "--json", "redirect", what]
        return json.loads(subprocess.run(words, capture_output=True, check=True).stdout)

    pairs = [connect(one) for one in json.loads(options.connections)]

    def turns(rounds):
        for i in range(rounds):
            for number, (a, b) in enumerate(pairs):
                for name, source, destination in (("request", a, b), ("response", b, a)):
                    message = f"{name} {i} of {number}".encode()
                    source.send(message)
                    got = base.receive(destination, len(message))
                    if got != message:
                        sys.exit(f"{message!r} arrived as {got!r}")

    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        turns(100)
        status = ask("status")
        if {**status, **status["on_tcp"]}[counter] >= int(count):
            break
    turns(300)
    print(json.dumps({"list": ask("list"), "status": ask("status")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
