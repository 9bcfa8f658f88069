// SPDX-License-Identifier: GPL-2.0-only
//
// A packet in the words of the rule language: `src 192.0.2.1 proto tcp dport 22 flags syn`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.hpp"
#include "core/rule.hpp"
#include "netctl/abi/packet.h"

namespace netctl::datapath {

struct SaidPacket {
    nc_packet packet{};
    /// Bits 1 << Key of what was said, or follows from it; all else is made up.
    std::uint32_t said = 0;
};

/// Reads keys of `hook` with one value each. What is not said is made up: TCP with a SYN, ports and addresses
/// of zeroes, no tag, no fragment. `ether`: the point's packets have a link header. Errors are those of the
/// language.
Result<SaidPacket> read_packet(std::string_view text, Hook hook, bool ether);

/// The bytes of hexadecimal digits, in pairs, with blanks and colons between them.
Result<std::vector<std::uint8_t>> read_hex(std::string_view text);

} // namespace netctl::datapath
