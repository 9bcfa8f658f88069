// SPDX-License-Identifier: GPL-2.0-only
//
// The reference parser: bytes of a frame -> the fields that rules match. Written for being
// obviously right; the kernel's parser (bpf/include/netctl/lib/parse.h) is compared with it.
#pragma once

#include <cstdint>
#include <span>

#include "netctl/abi/packet.h"
#include "netctl/abi/rule.h"

namespace netctl::classifier {

/// What parsing found. If not parsed, `packet.has` tells only fields read before the fault, and no
/// rule is asked.
struct Parsed {
    bool parsed = false;
    nc_unparsed reason = NC_UNPARSED_CUT; ///< valid if not parsed
    nc_packet packet{};
};

/// Parses an Ethernet frame (XDP, tc on Ethernet devices).
Parsed parse_ethernet(std::span<const std::uint8_t> frame);
/// Parses an IP packet without link header (tc on L3 devices).
Parsed parse_ip(std::span<const std::uint8_t> packet);

/// Adds to an IP packet what it alone does not tell.
void tell(nc_packet& packet, const nc_told& told);

} // namespace netctl::classifier
