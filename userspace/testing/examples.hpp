// SPDX-License-Identifier: GPL-2.0-only
//
// What the rule language means, as examples: a rule, a packet, and whether they match. The reference
// and every hook's program are held to the same ones (invariant I7).
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "netctl/abi/packet.h"
#include "testing/packet.hpp"

namespace netctl::testing {

struct Example {
    std::string_view why;   ///< the sentence of docs/rules.md or DESIGN that it shows
    std::string_view match; ///< the rule without its action
    Packet packet;
    bool matches = false;
    std::size_t padding = 0; ///< bytes behind the packet that only belong to the frame
};

/// Packets that rules may match.
const std::vector<Example>& examples();

/// A frame that cannot be parsed.
struct Fault {
    std::string_view what;
    Bytes frame;
    nc_unparsed reason{};
};

const std::vector<Fault>& faults();

} // namespace netctl::testing
