# SPDX-License-Identifier: GPL-2.0-only
"""Writes databases of addresses in MaxMind's format, version 2 ("MaxMind DB File Format Specification").

    write(path, {"192.0.2.0/24": {"country": {"iso_code": "DE"}}, "2001:db8::/32": {"country": "FR"}})

Of IP version 6 the tree of IPv4 is at ::/96, and `aliases` lead there from elsewhere.
"""

import ipaddress
import struct

MARKER = b"\xab\xcd\xef" + b"MaxMind." + b"com"  # apart, so that it is not taken for the name of a host
UTF8, MAP, UINT16, UINT32, UINT64, ARRAY = 2, 7, 5, 6, 9, 11
MAPPED, TEREDO, SIX_TO_FOUR = "::ffff:0:0/96", "2001::/32", "2002::/16"


def _control(kind, size):
    assert size < 29
    return bytes((kind << 5 | size,)) if kind < 8 else bytes((size, kind - 7))


def encode(value, kind=UINT32):
    """A text, a map, a list, or a number of a type."""
    if isinstance(value, str):
        return _control(UTF8, len(value.encode())) + value.encode()
    if isinstance(value, dict):
        return _control(MAP, len(value)) + b"".join(encode(name) + encode(inner) for name, inner in value.items())
    if isinstance(value, list):
        return _control(ARRAY, len(value)) + b"".join(map(encode, value))
    if isinstance(value, tuple):
        return encode(*value)
    digits = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return _control(kind, len(digits)) + digits


class Tree:
    """Nodes of two sides; a side is None, the number of a node, or the bytes of a record."""

    def __init__(self):
        self.nodes = [[None, None]]

    def put(self, network, value, version=6):
        network = ipaddress.ip_network(network)
        bits = int(network.network_address) << (128 if version == 6 else 32) - network.max_prefixlen
        length = network.prefixlen
        if network.version == 4 and version == 6:
            bits, length = int(network.network_address), length + 96
        width = 128 if version == 6 else 32
        node = 0
        for depth in range(length):
            side = bits >> width - 1 - depth & 1
            if depth == length - 1:
                assert self.nodes[node][side] is None, network
                self.nodes[node][side] = value
                return
            if self.nodes[node][side] is None:
                self.nodes.append([None, None])
                self.nodes[node][side] = len(self.nodes) - 1
            node = self.nodes[node][side]

    def root_of_ipv4(self):
        node = 0
        for _ in range(96):
            node = self.nodes[node][0]
        return node


def content(networks, version=6, record_size=28, aliases=(MAPPED, TEREDO, SIX_TO_FOUR), change=lambda tree: None):
    """The file's bytes. `change` may spoil the tree."""
    tree, data, places = Tree(), b"", {}
    for network, record in networks.items():
        encoded = encode(record)
        if encoded not in places:
            places[encoded] = len(data)
            data += encoded
        tree.put(network, encoded, version)
    if version == 6:
        for alias in aliases:
            tree.put(alias, tree.root_of_ipv4())
    change(tree)
    count = len(tree.nodes)
    records = (
        count if side is None else side if isinstance(side, int) else count + 16 + places[side]
        for node in tree.nodes for side in node
    )  # fmt: skip
    search = b""
    for left, right in zip(records, records):
        if record_size == 28:
            middle = left >> 24 << 4 | right >> 24
            search += struct.pack(">I", left & 0xFFFFFF)[1:] + bytes((middle,)) + struct.pack(">I", right & 0xFFFFFF)[1:]
        else:
            size = record_size // 8
            search += left.to_bytes(size, "big") + right.to_bytes(size, "big")
    about = {
        "binary_format_major_version": (2, UINT16), "binary_format_minor_version": (0, UINT16),
        "build_epoch": (1_700_000_000, UINT64), "database_type": "Test-Country", "description": {"en": "for tests"},
        "ip_version": (version, UINT16), "languages": ["en"], "node_count": (count, UINT32),
        "record_size": (record_size, UINT16),
    }  # fmt: skip
    return search + bytes(16) + data + MARKER + encode(about)


def write(path, networks, **how):
    path.write_bytes(content(networks, **how))
    return path
