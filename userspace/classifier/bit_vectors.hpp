// SPDX-License-Identifier: GPL-2.0-only
//
// Rules that stand apart from the crossing: for each value of each input one bit a rule, whether
// the value satisfies it. The conjunction over a packet's values tells which rules match: T. V.
// Lakshman, D. Stiliadis: "High-speed policy-based packet forwarding using efficient multi-
// dimensional range matching", SIGCOMM 1998. Memory grows with values times rules, but never with
// combinations of values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "classifier/operand_classes.hpp"
#include "classifier/pieces.hpp"

namespace netctl::classifier {

struct BitVectors {
    std::vector<InputClasses> inputs; ///< a class is the index of its row's first word
    std::vector<std::uint64_t> rows;  ///< of `words` words
    std::vector<std::uint32_t> rules; ///< by bit, ascending; `no_rule` from the last one on
    std::uint32_t words = 0;
};

/// The rows of these pieces, of which none is crossed. Fails if they take more than `largest` bytes.
Result<BitVectors> bit_vectors(const Pieces& pieces, std::size_t largest);

} // namespace netctl::classifier
