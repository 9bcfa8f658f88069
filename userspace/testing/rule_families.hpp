// SPDX-License-Identifier: GPL-2.0-only
//
// Families of rule sets after kinds of real firewalls, beside those of firewall_rules.hpp, which ClassBench
// describes. Published rule sets are nearly all ClassBench's; what holds on them may hold on nothing else.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "core/address.hpp"
#include "core/rule.hpp"

namespace netctl::testing {

enum class RuleFamily : std::uint8_t {
    blocks, ///< nested random prefixes from a few hundred blocks on both sides, ports, ranges, protocols
    zones,   ///< a company's: lists of nested prefixes on both sides, services, some VLANs and DSCP
    hosting, ///< thousands of single hosts with a handful of services each
    block_list, ///< prefixes of a list, one action, no other field
    pods,       ///< Kubernetes: labels expanded to single addresses on both sides
    carrier,    ///< long ranges of ports, TCP flags, DSCP, fragments
    hunted,     ///< no firewall's: of which a packet reads most, as far as rule_hunt.hpp found
};
constexpr int rule_families = 7;
const char* to_string(RuleFamily family);
/// Nothing if there is no family of that name.
std::optional<RuleFamily> rule_family(std::string_view name);

/// `count` rules in one address family, for XDP; the same for the same seed. No two are equal, but any may
/// be hidden by those before it.
std::vector<Rule> family_rules(RuleFamily family, Family addresses, std::size_t count,
                               std::uint64_t seed);

} // namespace netctl::testing
