// SPDX-License-Identifier: GPL-2.0-only
//
// The reference matcher (invariant I7): walks the rules in order over a parsed packet.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>

#include "core/rule.hpp"
#include "netctl/abi/packet.h"

namespace netctl::classifier {

/// Tells whether a set has an address or, for port sets, a port.
struct SetOracle {
    std::function<bool(const std::string& set, const Address&)> has_address;
    std::function<bool(const std::string& set, std::uint16_t port)> has_port;
};

/// The number that a packet has in the field of a key, if it has the field and that is a number.
std::optional<std::uint64_t> number_of(const nc_packet& packet, Key key);

/// Whether every match of the rule holds for the packet.
bool matches(const Rule& rule, const nc_packet& packet, const SetOracle& sets);

/// Position of the first rule that matches.
std::optional<std::size_t> first_match(std::span<const Rule> rules, const nc_packet& packet,
                                       const SetOracle& sets);

} // namespace netctl::classifier
