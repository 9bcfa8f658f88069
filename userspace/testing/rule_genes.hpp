// SPDX-License-Identifier: GPL-2.0-only
//
// Rule sets described by some numbers, so that a search can change them, and write down what it found. Where
// rule_families.hpp is after firewalls that there are, this is after what a compiler of rules may not like.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/address.hpp"
#include "core/rule.hpp"

namespace netctl::testing {

/// What rules are like. Those with a key's name are how many rules of a hundred look at it.
enum class Gene : std::uint8_t {
    src,
    dst,
    sport,
    dport,
    proto,
    flags,
    dscp,
    len,
    vlan,
    frag,
    src_list, ///< prefixes in a list at most
    dst_list,
    negated,  ///< lists of prefixes, of a hundred
    networks, ///< log2 of how many there are, in which all prefixes are
    shortest, ///< prefix, as of IPv4
    lengths,  ///< how much longer others are at most
    ranges,   ///< of ports and of `len`, of a hundred
    width,    ///< log2 of how long ranges are at most
    values,   ///< log2 of how many different ones a key has
};
constexpr std::size_t genes = 19;

struct GeneBounds {
    std::string_view name;
    std::uint8_t low = 0, high = 0;
};
/// By Gene.
const GeneBounds& bounds_of(std::size_t gene);

using RuleGenes = std::array<std::uint8_t, genes>;

/// Up to `count` rules in one address family, for XDP, no two of which are equal; the same for the same seed. There
/// are fewer where the genes do not allow for so many.
std::vector<Rule> rules_of(const RuleGenes& genes, Family family, std::size_t count,
                           std::uint64_t seed);

} // namespace netctl::testing
