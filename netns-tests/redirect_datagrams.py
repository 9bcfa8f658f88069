#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""A UDP client for redirect_datagrams_test.py.

    redirect_datagrams.py STEPS

STEPS is a JSON list of what one socket does, in turn; prints what it was told, a line of JSON for each step that tells
something:

    ["socket", 4|6]              a new one
    ["connect", ADDRESS, PORT]   tells getpeername()
    ["ask", ADDRESS, PORT]       sends there, or with null to the peer, and tells [answer, whom recvfrom() names]
    ["ask with tos", ADDRESS, PORT]  the same with control data
    ["bind", ADDRESS, PORT]      and answers itself from here on, if it is asked
    ["many", COUNT, [[ADDRESS, PORT], …]]  sends that many to these in turn, and awaits each window's answers; tells how
                                 many of each came, by the answer's first word and whom recvfrom() names
"""
import collections
import json
import socket
import struct
import sys

WINDOW = 32  # what waits for an answer at a time fits into any socket's queue


def ask(sock, address, control):
    where = () if address[0] is None else (tuple(address),)
    if control:
        family = socket.IPPROTO_IPV6 if sock.family == socket.AF_INET6 else socket.IPPROTO_IP
        kind = socket.IPV6_TCLASS if sock.family == socket.AF_INET6 else socket.IP_TOS
        sock.sendmsg([b"question"], [(family, kind, struct.pack("i", 4))], 0, *where)
    elif where:
        sock.sendto(b"question", *where)
    else:
        sock.send(b"question")
    data, sender = sock.recvfrom(100)
    return [data.decode(), *sender[:2]]


def many(sock, count, addresses):
    seen = collections.Counter()
    sent = 0
    while sent < count:
        window = min(WINDOW, count - sent)
        for i in range(sent, sent + window):
            sock.sendto(struct.pack("=Q", i), tuple(addresses[i % len(addresses)]))
        wanted = set(range(sent, sent + window))
        for _ in range(window):
            data, sender = sock.recvfrom(100)
            name, _, number = data.partition(b" ")
            wanted.remove(struct.unpack("=Q", number)[0])
            seen[f"{name.decode()} {sender[0]} {sender[1]}"] += 1
        sent += window
    return dict(seen)


def main():
    sock = None
    for what, *words in json.loads(sys.argv[1]):
        told = None
        if what == "socket":
            sock = socket.socket(socket.AF_INET6 if words[0] == 6 else socket.AF_INET, socket.SOCK_DGRAM)
            sock.settimeout(60)
        elif what == "connect":
            sock.connect(tuple(words))
            told = sock.getpeername()[:2]
        elif what == "bind":
            sock.bind(tuple(words))
        elif what == "many":
            told = many(sock, *words)
        else:
            try:
                told = ask(sock, words, what == "ask with tos")
            except OSError as error:
                told = error.errno
        if told is not None:
            print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
