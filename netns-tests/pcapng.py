# SPDX-License-Identifier: GPL-2.0-only
"""Files of pcapng, block by block (draft-ietf-opsawg-pcapng)."""

import struct
from dataclasses import dataclass

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
COMMENT = 1
# Behind the eight bytes of type and length; a packet's bytes come behind its own.
_FIXED = {SECTION: 16, INTERFACE: 8, STATISTICS: 12, PACKET: 20}


@dataclass
class Block:
    kind: int
    fixed: bytes
    packet: bytes
    options: dict

    @property
    def comment(self):
        return self.options.get(COMMENT, b"").decode()

    @property
    def wire_length(self):
        return struct.unpack_from("<I", self.fixed, 16)[0]

    def number(self, code):
        return int.from_bytes(self.options[code], "little")


def blocks(data):
    """All blocks of a file whose numbers are little-endian."""
    found, at = [], 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert size % 4 == 0 and struct.unpack_from("<I", data, at + size - 4)[0] == size
        end, here = at + size - 4, at + 8 + _FIXED[kind]
        fixed, packet = data[at + 8 : here], b""
        if kind == PACKET:
            captured = struct.unpack_from("<I", fixed, 12)[0]
            packet = data[here : here + captured]
            here += captured + 3 & ~3
        options = {}
        while here < end:
            code, length = struct.unpack_from("<HH", data, here)
            if code == 0:
                break
            options[code] = data[here + 4 : here + 4 + length]
            here += 4 + (length + 3 & ~3)
        found.append(Block(kind, fixed, packet, options))
        at += size
    assert at == len(data)
    return found


def packets(data):
    return [block for block in blocks(data) if block.kind == PACKET]
