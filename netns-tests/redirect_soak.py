#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Many connections that change their ways, while redirection comes and goes.

    redirect_soak.py --netctl PATH [--seconds N] [--connections N]

Each connection has random phases: turns, bursts one way and both ways, pauses, a slow reader, and at
the end a half-close, a close, or a reset behind the last byte read. Some have two writing threads.
Every byte is accounted for by a hash of what was sent and what arrived. Meanwhile rules come and go,
the joiner is killed and started again, and redirection is disabled and enabled. Exit status 0: no
byte wrong, no reader stuck, no send failed.
"""
import argparse
import hashlib
import itertools
import json
import os
import random
import signal
import socket
import struct
import sys
import threading
import time

import redirect_conformance as base


class Failure(Exception):
    pass


def exchange(a, b, pieces, slow=False):
    """Sends the pieces one way, with a thread that reads; what arrived must be what was sent."""
    sent = hashlib.sha256()
    got = hashlib.sha256()
    total = sum(map(len, pieces))
    error = []

    def read():
        left = total
        while left:
            if not base.readable(b, 30):
                error.append(f"reader stuck with {left} of {total} bytes to come")
                return
            if slow and random.random() < 0.1:
                time.sleep(0.005)
            piece = b.recv(min(left, 65536))
            if not piece:
                error.append(f"end of stream with {left} of {total} bytes to come")
                return
            got.update(piece)
            left -= len(piece)

    reader = threading.Thread(target=read)
    reader.start()
    for piece in pieces:
        view = memoryview(piece)
        while view:
            if error:
                break
            if not base.writable(a, 30):
                raise Failure("writer stuck")
            try:
                count = a.send(view)
            except BlockingIOError:
                continue
            view = view[count:]
        sent.update(piece)
    reader.join()
    if error:
        raise Failure(error[0])
    if sent.digest() != got.digest():
        raise Failure(f"{total} bytes arrived changed")
    return total


def turns(a, b, count, size):
    moved = 0
    for _ in range(count):
        data = os.urandom(size)
        for here, there in ((a, b), (b, a)):
            here.send(data)
            if base.receive(there, size) != data:
                raise Failure("a turn's message was lost or changed")
            moved += size
    return moved


def one_connection(port):
    a, b = base.connect(port)
    moved = 0
    try:
        for _ in range(random.randint(1, 6)):
            kind = random.random()
            if kind < 0.5:
                moved += turns(a, b, random.randint(10, 400), random.choice([1, 64, 1000, 9000]))
            elif kind < 0.65:
                sizes = [random.randint(1, 3000) for _ in range(random.randint(2, 60))]
                moved += exchange(*random.choice([(a, b), (b, a)]), [os.urandom(s) for s in sizes])
            elif kind < 0.75:
                moved += exchange(a, b, [os.urandom(random.randint(1, 400000))], slow=True)
            elif kind < 0.85:
                errors = []

                def run(x, y):
                    try:
                        exchange(x, y, [os.urandom(random.randint(1, 5000)) for _ in range(20)])
                    except Exception as error:  # pylint: disable=broad-except
                        errors.append(error)

                threads = [threading.Thread(target=run, args=p) for p in ((a, b), (b, a))]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                if errors:
                    raise errors[0]
            else:
                time.sleep(random.random() * 0.05)
        end = random.random()
        last = os.urandom(random.randint(1, 5000))
        if end < 0.4:
            a.send(last)
            a.shutdown(socket.SHUT_WR)
            if base.receive_all(b) != last:
                raise Failure("the last words before a half-close")
            b.send(last)
            b.close()
            if base.receive_all(a) != last:
                raise Failure("the answer to a half-close")
        elif end < 0.8:
            a.send(last)
            a.close()
            if base.receive_all(b) != last:
                raise Failure("the last words before a close")
        else:
            a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            a.close()
            if base.receive_all(b) != b"<ECONNRESET>":
                raise Failure("a reset was not seen")
        return moved
    finally:
        a.close()
        b.close()


def disturb(lab, stop, log):
    """Once a second something happens to redirection."""
    for what in itertools.cycle(["disable", "kill", "rules"]):
        if stop.wait(1):
            return
        if what == "kill":
            lab.joiner.send_signal(signal.SIGKILL)
            lab.joiner.wait()
            lab.start_joiner()
        elif what == "rules":
            lab.run("rule", "insert", "dport", "9", "deny")
        else:
            lab.note()
            lab.run("disable", "--timeout", "60")
            lab.joiner.wait()
            lab.enable(tested=False)  # a self-test takes seconds
        log.append(what)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--netctl", required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--calm", action="store_true", help="leave redirection alone")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        os.execvp("unshare", ["unshare", "-n", "-m", sys.executable, *sys.argv, "--inside"])
    random.seed(options.seed)
    stop = threading.Event()
    failures, log = [], []
    done = [0, 0]
    lock = threading.Lock()
    end = time.monotonic() + options.seconds

    def work():
        # To the end of the time, and until there were as many connections.
        while not stop.is_set() and time.monotonic() < (
            end if done[0] >= options.connections else end + 2 * options.seconds
        ):
            try:
                moved = one_connection(base.REDIRECTED_PORT + 100 + threading.get_native_id() % 5000)
            except Exception as error:  # pylint: disable=broad-except
                failures.append(f"{type(error).__name__}: {error}")
                stop.set()
                return
            with lock:
                done[0] += 1
                done[1] += moved

    with base.Lab(os.path.abspath(options.netctl), "7101-12101") as lab:
        workers = [threading.Thread(target=work) for _ in range(options.threads)]
        for worker in workers:
            worker.start()
        trouble = threading.Thread(target=disturb, args=(lab, stop, log))
        if not options.calm:
            trouble.start()
        for worker in workers:
            worker.join()
        stop.set()
        if not options.calm:
            trouble.join()
        lab.note()
        totals = lab.totals
    print(
        json.dumps(
            {
                "connections": done[0],
                "bytes": done[1],
                "disturbances": {what: log.count(what) for what in sorted(set(log))},
                "totals": totals,
                "failures": failures,
            }
        )
    )
    return 1 if failures or not totals["redirected_messages"] else 0


if __name__ == "__main__":
    sys.exit(main())
