// SPDX-License-Identifier: GPL-2.0-only
//
// Rule sets that are made like those of ClassBench (D. E. Taylor, J. S. Turner: "ClassBench: a
// packet classification benchmark", 2007): prefixes cluster and nest as networks do, few ports and
// ranges occur again and again, and kinds of rule sets differ in how often a field is any.
#pragma once

#include <cstdint>
#include <vector>

#include "core/address.hpp"
#include "core/rule.hpp"

namespace netctl::testing {

enum class FirewallKind : std::uint8_t {
    access_list, ///< as acl1: both addresses, the destination narrow, one port
    firewall,    ///< as fw1: one of the addresses is often any, ranges of ports on both sides
    ip_chain,    ///< as ipc1: anything between
    nested,      ///< hostile: every length of one path crossed with every length of another
};
constexpr int firewall_kinds = 4;
const char* to_string(FirewallKind kind);

/// `count` rules of one family; the same for the same seed.
std::vector<Rule> firewall_rules(FirewallKind kind, Family family, std::size_t count,
                                 std::uint64_t seed);

} // namespace netctl::testing
