# SPDX-License-Identifier: GPL-2.0-only
"""Resolvers, and messages of DNS (RFC 1035) made by hand, for the tests of sets of names."""

import socket
import struct

TYPES = {"A": 1, "CNAME": 5, "AAAA": 28}


def wire(name):
    """A name as it is on the wire."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def record(owner, kind, data, ttl=30):
    """A record; `owner` and a CNAME's `data` are names or bytes of the wire."""
    raw = lambda value: value if isinstance(value, bytes) else wire(value)  # noqa: E731
    if kind == "CNAME":
        data = raw(data)
    elif kind in ("A", "AAAA"):
        data = socket.inet_pton(socket.AF_INET if kind == "A" else socket.AF_INET6, data)
    return raw(owner) + struct.pack("!HHIH", TYPES[kind], 1, ttl, len(data)) + data


def question(name, kind="A", number=1):
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + wire(name) + struct.pack("!HH", TYPES[kind], 1)


def answer(asked, *records, flags=0x8180, count=None):
    """The answer to a question, which it repeats; a pointer to the question's name is b"\\xc0\\x0c"."""
    return (
        asked[:2] + struct.pack("!HHHHH", flags, 1, len(records) if count is None else count, 0, 0)
        + asked[12:] + b"".join(records)
    )  # fmt: skip


def dnsmasq(lab, netns, address, *options, port=53, **more):
    """A resolver at `address` that knows what `options` tell and nothing else."""
    return lab.serve(
        netns, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
        "--pid-file=", "--bind-interfaces", "--except-interface=none", f"--listen-address={address}", "--log-facility=-",
        f"--port={port}", *options, port=port, protocol="udp", **more,
    )  # fmt: skip


def resolving(directory, resolver, argv, *options):
    """The command line that runs `argv` with this resolver in /etc/resolv.conf."""
    conf = directory / f"resolv-{resolver.replace(':', '-')}.conf"
    conf.write_text("".join(f"{line}\n" for line in (f"nameserver {resolver}", *options)))
    return ["unshare", "--mount", "sh", "-c", f'mount --bind "{conf}" /etc/resolv.conf && exec "$@"', "sh",
            *map(str, argv)]  # fmt: skip
