# SPDX-License-Identifier: GPL-2.0-only
"""Packets for the filters' tests: crafted frames and which of them arrive, and floods of UDP."""

import json
import mmap
import re
import socket
import struct
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from lab import bpftool, run, until
from scapy.compat import raw
from scapy.layers.inet import (  # noqa: F401 (tests take them from here)
    ICMP,
    IP,
    TCP,
    UDP,
    IPOption_NOP,
    IPOption_RR,
)
from scapy.layers.inet6 import (  # noqa: F401
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether  # noqa: F401
from scapy.packet import Raw

_MARK = re.compile(rb"<(\d{8})>")
_ETH_P_ALL = 3
_PACKET_OUTGOING = 4


class Capture:
    """Frames that arrive at an interface: at its stack, behind XDP."""

    def __init__(self, interface):
        self.socket = interface.netns.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
        self.socket.bind((interface.name, _ETH_P_ALL))
        self.socket.setblocking(False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def frames(self):
        """What has come since the last call."""
        come = []
        while True:
            try:
                frame, address = self.socket.recvfrom(65536)
            except BlockingIOError:
                return come
            if address[2] != _PACKET_OUTGOING:
                come.append(frame)


class Wire:
    """From one interface to others: sends crafted frames, and tells which of them arrive where."""

    _serial = 0

    def __init__(self, source, *targets):
        self.source = source
        self._sender = source.netns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sender.bind((source.name, 0))
        self._captures = {target: Capture(target) for target in targets}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._sender.close()
        for capture in self._captures.values():
            capture.socket.close()

    def send(self, *frames):
        """Sends frames as they are."""
        for frame in frames:
            self._sender.send(raw(frame))

    def deliver(self, packets, expected, where=None):
        """Sends `packets`, each with a mark of its own behind it, and awaits those that `expected`
        (one truth value each) says will arrive at `where` (default: the first target). Returns which
        arrived, as a list of truth values, and the frames that were sent."""
        where = where or next(iter(self._captures))
        serials, frames = [], []
        for packet in packets:
            Wire._serial += 1
            serials.append(Wire._serial)
            frames.append(raw(packet / Raw(b"<%08d>" % Wire._serial)))
        wanted = Counter(serial for serial, here in zip(serials, expected, strict=True) if here)
        arrived = Counter()

        sizes = dict(zip(serials, map(len, frames), strict=True))

        def come():
            for frame in self._captures[where].frames():
                # The stack takes VLAN tags off; what is longer is an ICMP error that quotes us.
                arrived.update(serial for serial in map(int, _MARK.findall(frame))
                               if len(frame) <= sizes.get(serial, 0))  # fmt: skip
            return arrived >= wanted

        self.send(*frames)
        until(come, what="the frames that were to arrive")
        come()
        return [arrived[serial] == 1 for serial in serials], frames


class Filter:
    """netctl's XDP filter on an interface."""

    hook = "xdp"
    direction = ()

    def __init__(self, netctl, interface, *options, attach=True, name=None):
        self.netctl = netctl
        self.interface = interface
        self.name = name or interface.name
        self.netns = interface.netns
        self.attached = self("attach", *options) if attach else None

    def __call__(self, verb, *words, **options):
        """Its JSON document for `netctl HOOK VERB IFACE WORDS`, if it prints one."""
        done = self.netctl("--json", *self._words(verb), *words, netns=self.netns, **options)
        return json.loads(done.stdout or "null")

    def fails(self, verb, *words, **options):
        return self.netctl.fails(*self._words(verb), *words, netns=self.netns, **options)

    def _words(self, verb):
        return (self.hook, *verb.split(), self.name, *self.direction)

    def add(self, *rules):
        """Adds rules; returns the last one's id."""
        if len(rules) == 1:
            return self("rule add", *rules)["rule_id"]
        # In one commit: under emulation a load of the program takes seconds.
        self.replace(*self.rules(), *rules)
        return self.status()["rules"][-1]["rule_id"]

    def replace(self, *rules):
        return self("rule replace", input="\n".join(rules))

    def status(self):
        return self("status")

    def packets(self):
        """Packets by rule id; those that no rule decided on are at None."""
        status = self.status()
        counted = {rule["rule_id"]: rule["packets"] for rule in status["rules"]}
        return {**counted, None: status["default_packets"]}

    def await_packets(self, number):
        """Waits until the program has seen so many packets, and returns the status then."""

        def seen():
            status = self.status()
            assert status["packets"] == number, f"{status['packets']} packets seen, not {number}"
            return status

        return until(seen)

    def rules(self):
        return [rule["rule_text"] for rule in self.status()["rules"]]


class Classifier(Filter):
    """netctl's tc classifier in one direction of an interface."""

    hook = "tc"

    def __init__(self, netctl, interface, direction, *options, **keywords):
        self.direction = (direction,)
        super().__init__(netctl, interface, *options, **keywords)


# Ways to have a filter on what comes in.
INGRESS_MODES = ("native", "generic", "tcx", "clsact")


def filter_on(netctl, interface, mode):
    """A filter in one of INGRESS_MODES, of XDP or of tc."""
    if mode in ("native", "generic"):
        return Filter(netctl, interface, "--mode", mode)
    return Classifier(netctl, interface, "ingress", "--mode", mode)


def pins(filter):
    return filter.netctl.root.joinpath(filter.hook, f"{filter.netns.name}:{filter.name}".replace(".", "%2e"), *filter.direction)


def words(text):
    """A rule's record, as somebody else may have written it."""
    return text.encode("latin-1").ljust(116, b"\0").hex(" ").split()


def write_text(filter, index, text):
    """Another text in the place of the rule at `index`, with id and slot as they were."""
    (entry,) = [each for each in bpftool("map", "dump", "pinned", pins(filter) / "rules") if each["formatted"]["key"] == index]
    value = entry["formatted"]["value"]
    head = struct.pack("=IIHH", value["rule_id"], value["slot"], len(text.encode("latin-1")), 0)
    run("bpftool", "map", "update", "pinned", pins(filter) / "rules", "key", *map(str, struct.pack("=I", index)),
        "value", "hex", *head.hex(" ").split(), *words(text))  # fmt: skip


_BLASTER = r"""
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* blaster ADDRESS [PORT SIZE]...: floods each port in turns with numbered datagrams of SIZE bytes,
 * until standard input is at its end. Prints what it sent, a line a port. */
enum { BATCH = 32, FLOWS = 4 };

int main(int argc, char **argv)
{
	static struct { int fd; uint64_t sent; size_t size; } flow[FLOWS];
	static unsigned char data[FLOWS][BATCH][2048];
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	struct pollfd input = {.fd = 0, .events = POLLIN};
	int flows = (argc - 2) / 2;

	for (int i = 0; i < flows; i++) {
		struct sockaddr_in v4 = {.sin_family = AF_INET};
		struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
		int is_v4 = inet_pton(AF_INET, argv[1], &v4.sin_addr);

		v4.sin_port = v6.sin6_port = htons(atoi(argv[2 + 2 * i]));
		flow[i].size = atoi(argv[3 + 2 * i]);
		if (!is_v4 && !inet_pton(AF_INET6, argv[1], &v6.sin6_addr))
			return 2;
		flow[i].fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_DGRAM, 0);
		if (connect(flow[i].fd, is_v4 ? (void *)&v4 : (void *)&v6,
			    is_v4 ? sizeof(v4) : sizeof(v6)))
			return 1;
	}
	while (poll(&input, 1, 0) == 0) {
		for (int i = 0; i < flows; i++) {
			memset(messages, 0, sizeof(messages));
			for (int j = 0; j < BATCH; j++) {
				uint64_t number = flow[i].sent + j;

				memcpy(data[i][j], &number, sizeof(number));
				parts[j] = (struct iovec){data[i][j], flow[i].size};
				messages[j].msg_hdr = (struct msghdr){.msg_iov = &parts[j], .msg_iovlen = 1};
			}
			int sent = sendmmsg(flow[i].fd, messages, BATCH, 0);

			if (sent > 0)
				flow[i].sent += sent;
			else if (errno != ECONNREFUSED && errno != ENOBUFS)
				return 1;
		}
	}
	for (int i = 0; i < flows; i++)
		printf("%s %llu\n", argv[2 + 2 * i], (unsigned long long)flow[i].sent);
	return 0;
}
"""


def compile_bpf(directory, section, verdict):
    """Another tool's program, which gives every packet the same verdict. Returns the object's path."""
    source, built = directory / "foreign.bpf.c", directory / "foreign.bpf.o"
    source.write_text(
        f"""
        __attribute__((section("{section}"), used)) int foreign(void *ctx) {{ return {verdict}; }}
        char _license[] __attribute__((section("license"), used)) = "GPL";
        """
    )
    run("clang", "-O2", "-g", "-target", "bpf", "-c", source, "-o", built)
    return built


class Blaster:
    """A flood of UDP, from its making until `stop`."""

    @staticmethod
    def compile(directory):
        source, program = directory / "blaster.c", directory / "blaster"
        source.write_text(_BLASTER)
        run("gcc", "-O2", "-D_GNU_SOURCE", "-o", program, source)
        return program

    def __init__(self, program, source, address, flows):
        """`flows`: {port: bytes of payload}"""
        words = [str(word) for flow in flows.items() for word in flow]
        self.popen = subprocess.Popen(source.netns.wrap([program, address, *words]), text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()

    def stop(self):
        """Returns how many datagrams went to each port."""
        out, _ = self.popen.communicate(timeout=30)
        assert self.popen.returncode == 0
        return {int(port): int(sent) for port, sent in (line.split() for line in out.splitlines())}


class Stream:
    """Numbered datagrams, one after the other, and which of them arrive: stream.c."""

    _HEADER = 16
    _ROOM = 1 << 22  # numbers

    @staticmethod
    def compile(directory):
        program = directory / "stream"
        run("gcc", "-O2", "-Wall", "-Werror", "-o", program, Path(__file__).with_name("stream.c"))
        return program

    def __init__(self, program, client, server, family, dport):
        kind = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
        with (
            server.netns.socket(kind, socket.SOCK_DGRAM) as receiver,
            client.netns.socket(kind, socket.SOCK_DGRAM) as sender,
            tempfile.TemporaryFile() as shared,
        ):
            receiver.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
            receiver.bind((server.ip(family), dport))
            sender.connect((server.ip(family), dport))
            shared.truncate(self._HEADER + 4 * self._ROOM)
            self._shared = mmap.mmap(shared.fileno(), 0)
            descriptors = [each.fileno() for each in (sender, receiver, shared)]
            self.popen = subprocess.Popen([program, *map(str, descriptors)], pass_fds=descriptors,
                                          stdin=subprocess.PIPE)  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.popen.stdin.close()
        self.popen.wait(timeout=30)

    @property
    def sent(self):
        return struct.unpack_from("=Q", self._shared, 0)[0]

    @property
    def arrived(self):
        (count,) = struct.unpack_from("=Q", self._shared, 8)
        assert count < self._ROOM, "no room for more numbers"
        return list(struct.unpack_from(f"={count}I", self._shared, self._HEADER))

    def hundred(self):
        """Awaits the sending of a hundred; those under way at the call are not among them."""
        first = self.sent + 1
        until(lambda: self.sent > first + 100, timeout=30)
        return range(first, first + 100)

    def arrived_of(self, numbers):
        return [number for number in self.arrived if number in numbers]

    def await_all(self, numbers):
        """Awaits that these have arrived, whole and in order."""

        def come():
            arrived = self.arrived
            return arrived and arrived[-1] >= numbers[-1]

        until(come, timeout=30, what="the last of the stream's datagrams")
        assert self.arrived_of(numbers) == list(numbers)


class Arrivals:
    """Counts the datagrams that reach a namespace's stack, by port, and takes them there: exact at
    any rate, which a socket is not."""

    def __init__(self, interface, ports):
        self.netns = interface.netns
        rules = "".join(f"add rule inet arrivals c udp dport {port} counter drop;" for port in ports)
        self.netns.run(
            "nft",
            "add table inet arrivals; add chain inet arrivals c "
            "{ type filter hook prerouting priority -300; };" + rules,
        )

    def counts(self):
        listing = json.loads(self.netns.run("nft", "-j", "list", "table", "inet", "arrivals").stdout)
        counts = {}
        for entry in listing["nftables"]:
            match, counter, *_ = entry.get("rule", {}).get("expr", [None, None])
            if match:
                counts[match["match"]["right"]] = counter["counter"]["packets"]
        return counts
