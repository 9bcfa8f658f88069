// SPDX-License-Identifier: GPL-2.0-only
//
// Tries from keys to numbers, in the two forms that the kernel walks (lib/crossing.h).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "classifier/prefix_forest.hpp"
#include "netctl/abi/crossing.h"

namespace netctl::classifier {

/// IPv4: every node of a level looks at the same bits. Equal nodes are stored once.
struct MultibitTrie {
    std::vector<std::uint32_t> entries; ///< top bit of `width`: a class; else a node's index
    std::vector<std::uint32_t> base;    ///< of each level: index of its first entry
    unsigned width = 1;                 ///< log2 of an entry's bytes: 1 or 2
    std::size_t bytes() const { return entries.size() << width; }
};

/// Classes of the forest's IPv4 addresses; `strides` are the bits of each level, 32 together.
MultibitTrie multibit_trie(const PrefixForest& forest, std::span<const unsigned> strides);

/// What it would take at most, in entries: equal nodes are counted as often as they occur.
std::size_t multibit_entries(const PrefixForest& forest, std::span<const unsigned> strides);

/// Path tries: nodes look at any bits and skip those in which no keys differ. Several share one
/// table of entries.
class PathTries {
  public:
    /// What entries are like: of 64 bits, or of 32 for keys of IPv4.
    enum class Form : std::uint8_t { wide, narrow };
    explicit PathTries(Form form = Form::wide) : narrow_(form == Form::narrow) {}

    struct Leaf {
        TrieKey key;
        unsigned length = 0;
        std::uint64_t value = 0; ///< below 1 << 56
    };
    struct Root {
        std::uint64_t entry = 0;
        unsigned levels = 0; ///< how many nodes a lookup passes at most
    };
    /// Adds a trie of `leaves`, in preorder and unique, the first of length 0; the longest one that
    /// holds a key wins.
    Root add(std::span<const Leaf> leaves);
    const std::vector<std::uint64_t>& entries() const { return entries_; }
    /// Whether nodes can name all entries.
    bool fits() const { return !narrow_ || entries_.size() <= NC_NODE4_MAX; }

  private:
    std::uint64_t leaf(std::uint64_t value) const {
        return (narrow_ ? NC_NODE4_LEAF : NC_NODE_LEAF) | value;
    }
    std::uint64_t value_of(std::uint64_t leaf) const {
        return leaf & (narrow_ ? NC_NODE4_LEAF - 1 : ~NC_NODE_FLAGS);
    }
    void add_check(const TrieKey& key, const TrieKey& mask, std::uint64_t otherwise);
    std::uint64_t node(std::size_t base, unsigned from, unsigned bits, bool skips) const;

    struct Walk {
        unsigned least_bits; ///< of a node, as far as there are so many left
        unsigned level;
        unsigned* levels;
    };
    /// The entry for `leaves`, which agree in the first `depth` bits and are longer; other keys get
    /// `inherited`.
    std::uint64_t build(std::span<const Leaf> leaves, unsigned depth, std::uint64_t inherited,
                        Walk walk);
    bool narrow_;
    std::vector<std::uint64_t> entries_;
};

} // namespace netctl::classifier
