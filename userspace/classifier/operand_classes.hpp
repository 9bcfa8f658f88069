// SPDX-License-Identifier: GPL-2.0-only
//
// The values of one input that rules tell apart.
#pragma once

#include <cstdint>
#include <vector>

#include "classifier/pieces.hpp"
#include "classifier/sequence_pool.hpp"

namespace netctl::classifier {

using SetPool = SequencePool<std::uint64_t>;

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

/// Fills in the intervals of `input.input` and their classes, and returns which operands of the
/// pieces' conditions hold in each class. Ends early when those sets take more than `largest` words.
SetPool operand_classes(const Pieces& pieces, InputClasses& input, std::size_t largest);

} // namespace netctl::classifier
