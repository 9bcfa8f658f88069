// SPDX-License-Identifier: GPL-2.0-only
//
// The crossing of two sides: for each class of one side (a row) a trie over the classes of the other,
// with rule lists in its leaves. A row differs from its parent's by the pieces that its own prefix
// adds, so rows share all nodes that are equal (persistent tries, hash-consed).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "classifier/rule_lists.hpp"

namespace netctl::classifier {

/// What the kernel walks: node, digit of the class -> node, down to a list.
struct CrossTables {
    std::vector<std::uint32_t> rows;    ///< row -> node of the first level; or list, if no levels
    std::vector<std::uint32_t> entries; ///< all levels; the last one's are list numbers
    std::vector<std::uint32_t> bits, shift, base; ///< of each level
};

class CrossTrie {
  public:
    struct Update {
        std::uint32_t low, high; ///< classes [low, high) of the other side
        std::uint32_t piece;
    };
    /// `classes` of the other side are told apart; one if it is not looked at.
    CrossTrie(std::uint32_t classes, RuleLists& lists);

    /// Adds the next row, which starts as a copy of row `parent` (the first row as an empty trie).
    void add_row(std::uint32_t parent, std::vector<Update> updates);
    /// A measure of the memory taken.
    std::size_t items() const;
    /// Leaves out nodes that only rows' makings used.
    CrossTables tables() const;

  private:
    using Nodes = SequencePool<std::uint32_t>;
    std::uint32_t apply(std::size_t level, std::uint32_t node, std::uint32_t base,
                        std::span<const Update> updates);
    std::uint32_t add_all(std::size_t level, std::uint32_t node, std::uint32_t batch);

    RuleLists& lists_;
    std::vector<std::uint32_t> bits_, shift_;
    std::vector<Nodes> levels_;
    std::vector<std::uint32_t> rows_;
    std::vector<std::unordered_map<std::uint64_t, std::uint32_t>> added_; ///< add_all(), by level
};

} // namespace netctl::classifier
