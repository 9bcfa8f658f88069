// SPDX-License-Identifier: GPL-2.0-only
//
// Packet classes: what all inputs but the addresses' crossing say about a packet. Packets of one
// class satisfy the same shapes, as far as rules that matter are concerned.
#pragma once

#include <cstdint>
#include <vector>

#include "classifier/pieces.hpp"

namespace netctl::classifier {

constexpr std::uint32_t no_rule = ~0u;

/// An input's values, as intervals with classes of their own. The values of NC_INPUT_SRC and
/// NC_INPUT_DST are address classes.
struct InputClasses {
    std::uint32_t input = 0;
    std::vector<std::uint64_t> starts; ///< first value of each interval, ascending from 0
    std::vector<std::uint32_t> classes;
    std::uint32_t absent = 0; ///< class of packets without the field
    std::uint32_t count = 0;
    std::uint32_t sum = 0; ///< which index it is a digit of: 0 the last product, else an early one
    std::uint32_t place = 1; ///< the digit's value
};

struct PacketClasses {
    std::vector<InputClasses> inputs; ///< only those that tell packets apart
    /// Products before the last one: what they add to its index. Empty where not used.
    std::vector<std::uint32_t> early[NC_SUMS];
    std::vector<std::uint32_t> product; ///< index -> class
    std::uint32_t count = 0;
    std::vector<BitSet> shape_classes; ///< by shape: the classes whose packets satisfy it
    /// By class: the first rule that its packets match whatever their addresses are.
    std::vector<std::uint32_t> wild;
};

/// Fails, naming the key that has the most classes, if the products go beyond what is sensible.
Result<PacketClasses> packet_classes(const Pieces& pieces);

} // namespace netctl::classifier
