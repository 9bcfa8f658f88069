// SPDX-License-Identifier: GPL-2.0-only
//
// Rules taken apart for the crossing engine. A piece is a source prefix, a destination prefix and
// a shape: conditions on the other inputs of the classifier (enum nc_input). A rule is one or more
// pieces; a packet matches it if it is in one of them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "classifier/engine.hpp"
#include "classifier/prefix_forest.hpp"
#include "classifier/sequence_pool.hpp"
#include "netctl/abi/crossing.h"

namespace netctl::classifier {

/// Values of an input that satisfy a condition.
struct ValueSet {
    std::vector<Range> ranges; ///< sorted, disjoint, not adjacent
    bool absent = false;       ///< packets without the field satisfy it, too
    auto operator<=>(const ValueSet&) const = default;
};

/// A long or negated list of prefixes, asked about one side as an input of its own: a rule that
/// went into the crossing for each prefix would make it too big.
struct PrefixList {
    std::vector<Prefix> prefixes;
    bool negated = false;
    auto operator<=>(const PrefixList&) const = default;
};

/// Lists up to this length are crossed prefix by prefix.
constexpr std::size_t max_crossed_prefixes = 16;

struct Piece {
    std::uint32_t rule = 0; ///< position
    std::uint32_t src = 0;  ///< node of Pieces::src
    std::uint32_t dst = 0;
    std::uint32_t shape = 0;
};

struct Pieces {
    PrefixForest src;
    PrefixForest dst;
    std::vector<Piece> pieces; ///< by rule
    /// A shape is a sequence of `input << 24 | operand`, sorted; no two are of one input.
    SequencePool<std::uint32_t> shapes;
    /// Operands of the inputs; src and dst have lists instead.
    std::array<std::vector<ValueSet>, NC_INPUTS> values;
    std::vector<PrefixList> src_lists;
    std::vector<PrefixList> dst_lists;

    static constexpr std::uint32_t input_of(std::uint32_t condition) { return condition >> 24; }
    static constexpr std::uint32_t operand_of(std::uint32_t condition) {
        return condition & 0xffffff;
    }
    std::size_t operands(std::uint32_t input) const {
        return input == NC_INPUT_SRC   ? src_lists.size()
               : input == NC_INPUT_DST ? dst_lists.size()
                                       : values[input].size();
    }
};

/// The pieces of the rules that are crossed, and of those that stand apart. The latter have
/// conditions on lists instead of prefixes to cross. Both have the same forests.
struct DividedPieces {
    Pieces crossed;
    Pieces apart;
};

/// Where a rule is to be found. One that is in no table matches nothing that earlier ones do not.
enum class Place : std::uint8_t { crossed, apart, nowhere };

/// `set_uses` are those of the rules, in the order of their bits; `places` has the place of each rule.
DividedPieces take_apart(std::span<const Rule> rules, std::span<const SetUse> set_uses,
                         const std::vector<Place>& places);

} // namespace netctl::classifier
