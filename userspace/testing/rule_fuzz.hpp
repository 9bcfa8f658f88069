// SPDX-License-Identifier: GPL-2.0-only
//
// Random rule sets and packets for comparing classifiers: values come from small pools, so that
// rules overlap, nest and repeat, and packets lie on, beside and across their boundaries.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "classifier/engine.hpp"
#include "classifier/reference.hpp"
#include "core/rule.hpp"
#include "netctl/abi/packet.h"

namespace netctl::testing {

/// What a rule set is like.
enum class RuleStyle : std::uint8_t {
    mixed,      ///< every key, few of them a rule
    everything, ///< every key, many of them a rule
    addresses,  ///< both families, nested prefixes, lists, negations
    five_tuple, ///< as in firewalls: prefixes, port ranges, protocols
    ports,      ///< overlapping ranges, hardly any addresses
    wildcards,  ///< short prefixes and rules without any match
    duplicates, ///< few different matches, many times
    sets,       ///< many sets, also negated
    headers,    ///< link layer, flags, ICMP, DSCP, fragments, length, mark
};
constexpr int rule_styles = 9;
const char* to_string(RuleStyle style);

class RuleFuzz {
  public:
    explicit RuleFuzz(std::uint64_t seed) : random_(seed) {}

    std::vector<Rule> rules(RuleStyle style, std::size_t count);
    /// A packet in the neighbourhood of some of the rules.
    nc_packet packet(const std::vector<Rule>& rules);
    /// Names in rules are `s0` to `s19`; what is in them is a function of the name.
    static classifier::SetOracle sets();
    static std::uint64_t set_bits(const std::vector<classifier::SetUse>& uses,
                                  const nc_packet& packet);

  private:
    std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
    bool one_in(std::uint64_t n) { return below(n) == 0; }
    Match match(Key key, RuleStyle style);
    Prefix prefix(bool ipv6, RuleStyle style);
    std::uint64_t value(Key key);
    std::uint64_t near(const Match& match, std::uint64_t otherwise);

    std::mt19937_64 random_;
    unsigned lists_ = 0; ///< one in how many address matches is a list
};

} // namespace netctl::testing
