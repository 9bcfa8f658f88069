# SPDX-License-Identifier: GPL-2.0-only
"""neighbour.py SOCKETS RESULTS: who is at the other end of the guest's network in scripts/boottest.

Asks the guest all the time, by ICMP echo, from two addresses: one that it is to answer, and which answers it, and one whose
packets it is to drop once it filters. Frames go over Unix sockets in SOCKETS, one a datagram. The guest writes what it is about into
RESULTS/phase: `open`, `filtered`, `rebooting`, `rebooted`. Ends when it is told to, and writes its checks then."""

import signal
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path

SOCKETS, RESULTS = map(Path, sys.argv[1:])
OURS, GUEST_MAC = bytes.fromhex("525400000002"), bytes.fromhex("525400000001")
GUEST = socket.inet_aton("192.0.2.1")
FRIEND, STRANGER = socket.inet_aton("192.0.2.2"), socket.inet_aton("192.0.2.66")
INTERVAL = 0.02


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(source, number):
    icmp = struct.pack("!BBHHH", 8, 0, 0, 1, number & 0xFFFF) + b"netctl.."
    icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(icmp), 0, 0, 64, 1, 0, source, GUEST)
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return GUEST_MAC + OURS + b"\x08\x00" + ip + icmp


def echo_reply(request):
    """The checksum is told anew: only the type differs."""
    icmp = b"\0\0\0\0" + request[38:]
    icmp = icmp[:2] + struct.pack("!H", checksum(icmp + b"\0" * (len(icmp) % 2))) + icmp[4:]
    return GUEST_MAC + OURS + request[12:26] + request[30:34] + request[26:30] + icmp


def arp_reply(request):
    asker, asked = request[22:32], request[38:42]
    return asker[:6] + OURS + request[12:20] + b"\x00\x02" + OURS + asked + asker


def phase():
    try:
        return (RESULTS / "phase").read_text().strip() or "open"
    except FileNotFoundError:
        return "booting"


class Stop(Exception):
    pass


def stop(*_):
    raise Stop


def main():
    signal.signal(signal.SIGTERM, stop)
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    wire.bind(str(SOCKETS / "neighbour"))
    seen, sent = Counter(), Counter()
    now, number, next_send = "booting", 0, 0.0
    try:
        while True:
            if time.monotonic() >= next_send:
                now = phase()
                for source in (FRIEND, STRANGER):
                    try:
                        wire.sendto(echo_request(source, number), str(SOCKETS / "guest"))
                        sent[now, source] += 1
                    except OSError:
                        pass  # no guest yet
                number += 1
                next_send = time.monotonic() + INTERVAL
            wire.settimeout(max(next_send - time.monotonic(), 0.001))
            try:
                frame = wire.recv(65536)
            except (TimeoutError, BlockingIOError):
                continue
            if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x01":
                if frame[38:42] in (FRIEND, STRANGER):
                    seen[now, frame[38:42]] += 1
                    wire.sendto(arp_reply(frame), str(SOCKETS / "guest"))
            elif frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[30:35] == FRIEND + b"\x08":
                wire.sendto(echo_reply(frame), str(SOCKETS / "guest"))
            elif frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[34] == 0:
                seen[now, frame[30:34]] += 1
    except Stop:
        pass
    for (when, who), count in sorted(seen.items()):
        print(f"{when}: {count} answers or questions to {socket.inet_ntoa(who)}")
    for (when, who), count in sorted(sent.items()):
        print(f"{when}: {count} requests from {socket.inet_ntoa(who)}")
    with open(RESULTS / "neighbour.checks", "w") as checks:

        def check(what, good, why):
            checks.write(f"ok {what}\n" if good else f"FAILED {what}: {why}\n")

        check("without a filter the stranger is answered", seen["open", STRANGER], "it was not, so the test tells nothing")
        check("the friend is answered before and after the reboot",
              seen["filtered", FRIEND] and seen["rebooted", FRIEND], f"{dict(seen)}")  # fmt: skip
        asked = sent["rebooting", STRANGER]
        check("the stranger asks while the guest reboots", asked > 50, f"{asked} times only")
        answered = seen["rebooting", STRANGER] + seen["rebooted", STRANGER]
        check("the stranger gets no answer from the reboot on", not answered, f"{answered} answers")


main()
