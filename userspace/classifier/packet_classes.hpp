// SPDX-License-Identifier: GPL-2.0-only
//
// Packet classes: what all inputs but the addresses' crossing say about a packet. Packets of one
// class satisfy the same shapes, as far as rules that matter are concerned.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "classifier/operand_classes.hpp"
#include "classifier/pieces.hpp"

namespace netctl::classifier {

constexpr std::uint32_t no_rule = ~0u;

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

/// Fails, naming the key that has the most classes, if the products would take more than `budget`
/// bytes; `counts` then has the number of classes of each input, as far as it was found.
Result<PacketClasses> packet_classes(const Pieces& pieces, std::size_t budget,
                                     std::array<std::uint32_t, NC_INPUTS>& counts);

} // namespace netctl::classifier
