// SPDX-License-Identifier: GPL-2.0-only
//
// Rules that stand apart from the crossing: for each value of each input one bit a piece of a rule, whether
// the value satisfies it. The conjunction over a packet's values tells which rules match: T. V.
// Lakshman, D. Stiliadis: "High-speed policy-based packet forwarding using efficient multi-
// dimensional range matching", SIGCOMM 1998. Summaries, one bit a word, tell which words are worth a
// look, and bits are arranged so that few are: F. Baboescu, G. Varghese: "Scalable packet
// classification", SIGCOMM 2001. Memory grows with values times rules in the worst case, but never with
// combinations of values.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "classifier/operand_classes.hpp"
#include "classifier/pieces.hpp"

namespace netctl::classifier {

/// Words that one summary speaks of.
constexpr std::uint32_t group_words = 64;

struct BitVectors {
    std::vector<InputClasses> inputs; ///< a class is the index of its row's first word in `rows`
    /// What abi/crossing.h calls rows and blocks.
    std::vector<std::uint64_t> rows;
    std::vector<std::uint32_t> rules; ///< by bit, ascending in each word; `no_rule` for unused bits
    std::vector<std::uint32_t> least; ///< by word: its lowest rule
    std::array<bool, NC_INPUTS> plain{}; ///< whose blocks have all words, and not only those in use
    std::uint32_t words = 0;
    std::uint32_t groups = 0; ///< of 64 words; with one, a row is its block
};

/// The rows of these pieces, of which none is crossed. Fails with ErrorKind::usage if they take more
/// than `largest` bytes, and as soon as that is certain.
Result<BitVectors> bit_vectors(const Pieces& pieces, std::size_t largest);

} // namespace netctl::classifier
