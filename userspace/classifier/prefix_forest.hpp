// SPDX-License-Identifier: GPL-2.0-only
//
// Address classes: the prefixes that rules name for one side (source or destination), as a tree. An
// address belongs to the class of the longest prefix that contains it.
#pragma once

#include <cstdint>
#include <vector>

#include "core/address.hpp"

namespace netctl::classifier {

/// The leading bits of something looked up in a trie, left-aligned.
struct TrieKey {
    std::uint64_t high = 0;
    std::uint64_t low = 0;
    auto operator<=>(const TrieKey&) const = default;

    /// Whether the first `length` bits are those of `other`.
    bool agrees(const TrieKey& other, unsigned length) const;
    /// `count` bits from bit `from` on (0 is the most significant one); at most 32.
    std::uint32_t bits(unsigned from, unsigned count) const;
    static TrieKey of(const Address& address);
};

/// Nodes are numbered in preorder, so a subtree is the interval [node, end(node)), and what a rule
/// says about a prefix holds for an interval of classes. Node 0 is above both families: it is the
/// class of packets without addresses, and its interval is any packet. Below it stand 0.0.0.0/0 and
/// ::/0, as far as the family is named, and their prefixes.
class PrefixForest {
  public:
    struct Node {
        Prefix prefix; ///< meaningless for node 0
        TrieKey key;
        std::uint32_t parent = 0;
        std::uint32_t end = 0;
    };
    static constexpr std::uint32_t any = 0;

    void add(const Prefix& prefix) { prefixes_.push_back(prefix); }
    /// Adds what was added to `other`.
    void add(const PrefixForest& other) {
        prefixes_.insert(prefixes_.end(), other.prefixes_.begin(), other.prefixes_.end());
    }
    /// Ends adding; nodes have numbers from here on.
    void build();

    std::uint32_t size() const { return static_cast<std::uint32_t>(nodes_.size()); }
    const Node& operator[](std::uint32_t node) const { return nodes_[node]; }
    /// The node of a prefix that was added.
    std::uint32_t find(const Prefix& prefix) const;
    /// The family's root, or `any` if no prefix of it was added.
    std::uint32_t root(Family family) const;

  private:
    std::vector<Prefix> prefixes_;
    std::vector<Node> nodes_;
};

} // namespace netctl::classifier
