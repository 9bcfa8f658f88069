// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/address_trie.hpp"

#include <algorithm>
#include <bit>

#include "classifier/sequence_pool.hpp"
#include "netctl/abi/crossing.h"

namespace netctl::classifier {

namespace {

constexpr std::uint32_t class_tag = 1u << 31;

class MultibitBuilder {
  public:
    MultibitBuilder(const PrefixForest& forest, std::span<const unsigned> strides)
        : forest_(forest), strides_(strides), levels_(strides.size()) {}

    MultibitTrie run() {
        std::uint32_t root = forest_.root(Family::ipv4);
        node(root + 1, forest_[root].end, root, 0, 0);

        MultibitTrie trie;
        std::size_t highest = forest_.size();
        for (const SequencePool<std::uint32_t>& level : levels_)
            highest = std::max<std::size_t>(highest, level.size());
        trie.width = highest < 1u << 15 ? 1 : 2;
        std::uint32_t leaf = trie.width == 1 ? 1u << 15 : class_tag;
        for (const SequencePool<std::uint32_t>& level : levels_) {
            trie.base.push_back(static_cast<std::uint32_t>(trie.entries.size()));
            for (std::uint32_t id = 0; id < level.size(); ++id)
                for (std::uint32_t entry : level[id])
                    trie.entries.push_back(entry & class_tag ? leaf | (entry & ~class_tag) : entry);
        }
        return trie;
    }

  private:
    /// The node for the forest's nodes [low, high), which agree in the first `depth` bits and are
    /// longer; addresses outside of them are of class `inherited`.
    std::uint32_t node(std::uint32_t low, std::uint32_t high, std::uint32_t inherited,
                       unsigned level, unsigned depth) {
        unsigned stride = strides_[level];
        std::vector<std::uint32_t> entries(1u << stride, class_tag | inherited);
        for (std::uint32_t i = low; i < high;) {
            const PrefixForest::Node& prefix = forest_[i];
            std::uint32_t at = prefix.key.bits(depth, stride);
            if (prefix.prefix.length <= depth + stride) {
                std::fill_n(entries.begin() + at, 1u << (depth + stride - prefix.prefix.length),
                            class_tag | i++);
                continue;
            }
            std::uint32_t next = i;
            while (next < high && forest_[next].key.bits(depth, stride) == at)
                ++next;
            entries[at] = node(i, next, entries[at] & ~class_tag, level + 1, depth + stride);
            i = next;
        }
        return levels_[level].intern(entries);
    }

    const PrefixForest& forest_;
    std::span<const unsigned> strides_;
    std::vector<SequencePool<std::uint32_t>> levels_;
};

} // namespace

MultibitTrie multibit_trie(const PrefixForest& forest, std::span<const unsigned> strides) {
    return MultibitBuilder(forest, strides).run();
}

std::size_t multibit_entries(const PrefixForest& forest, std::span<const unsigned> strides) {
    std::size_t entries = std::size_t{1} << strides.front();
    unsigned depth = strides.front();
    for (unsigned stride : strides.subspan(1)) {
        // Prefixes are sorted: those that meet in a node follow each other.
        const PrefixForest::Node* previous = nullptr;
        for (std::uint32_t i = forest.root(Family::ipv4); i < forest[forest.root(Family::ipv4)].end;
             ++i) {
            if (forest[i].prefix.length <= depth)
                continue;
            if (!previous || !previous->key.agrees(forest[i].key, depth))
                entries += std::size_t{1} << stride;
            previous = &forest[i];
        }
        depth += stride;
    }
    return entries;
}

// ---- path tries ----

namespace {

/// A node is as wide as one entry of this many leads somewhere: wider ones cost memory, narrower
/// ones levels.
constexpr unsigned fill_divisor = 4;
constexpr unsigned widest_node = 15;

/// Leading bits that the keys share and that none of them ends in.
unsigned common_bits(std::span<const PathTries::Leaf> leaves) {
    const TrieKey& first = leaves.front().key; // sorted: no two differ earlier than these
    const TrieKey& last = leaves.back().key;
    unsigned common = first.high != last.high
                          ? static_cast<unsigned>(std::countl_zero(first.high ^ last.high))
                          : 64 + static_cast<unsigned>(std::countl_zero(first.low ^ last.low));
    for (const PathTries::Leaf& leaf : leaves)
        common = std::min(common, leaf.length);
    return common;
}

/// Bits [from, to).
TrieKey mask(unsigned from, unsigned to) {
    auto leading = [](unsigned n) { return n >= 64 ? ~0ull : ~(~0ull >> n); };
    auto low = [](unsigned n) { return n > 64 ? n - 64 : 0; };
    return {leading(to) & ~leading(from), leading(low(to)) & ~leading(low(from))};
}

/// How many bits from `from` on a node for `leaves` should look at; they are longer than `from`.
unsigned node_bits(std::span<const PathTries::Leaf> leaves, unsigned from, unsigned least) {
    unsigned longest = 0;
    for (const PathTries::Leaf& leaf : leaves)
        longest = std::max(longest, leaf.length);
    unsigned most = std::min({widest_node, 64 - from % 64, longest - from});
    unsigned bits = std::min(least, most);
    for (unsigned wider = bits + 1; wider <= most; ++wider) {
        std::uint32_t used = 0, previous = ~0u;
        for (const PathTries::Leaf& leaf : leaves) {
            std::uint32_t at = leaf.key.bits(from, wider);
            used += at != previous;
            previous = at;
        }
        if (used * fill_divisor < 1u << wider)
            break;
        bits = wider;
    }
    return bits;
}

} // namespace

PathTries::Root PathTries::add(std::span<const Leaf> leaves) {
    std::size_t start = entries_.size();
    for (unsigned least = 1;; least *= 2) {
        Root root;
        root.entry = build(leaves.subspan(1), 0, leaves.front().value, {least, 0, &root.levels});
        // Nodes of 8 bits pass 128 bits in 16 levels.
        if (root.levels <= NC_LEVELS_PATH || least >= 8)
            return root;
        entries_.resize(start);
    }
}

std::uint64_t PathTries::build(std::span<const Leaf> leaves, unsigned depth,
                               std::uint64_t inherited, Walk walk) {
    if (leaves.empty())
        return leaf(inherited);
    *walk.levels = std::max(*walk.levels, ++walk.level);

    TrieKey path = leaves.front().key;
    unsigned from = common_bits(leaves);
    std::uint64_t inside = inherited;
    if (leaves.front().length == from) {
        inside = leaves.front().value;
        leaves = leaves.subspan(1);
    }
    // Without further leaves it is a node of one entry, whose check is what matters.
    unsigned bits = leaves.empty() ? 0 : node_bits(leaves, from, walk.least_bits);
    bool skips = from > depth;
    if (skips)
        add_check(path, mask(depth, from), leaf(inherited));
    std::size_t base = entries_.size();
    entries_.resize(base + (1ull << bits), leaf(inside));
    for (std::size_t i = 0; i < leaves.size();) {
        std::uint32_t at = leaves[i].key.bits(from, bits);
        if (leaves[i].length <= from + bits) {
            std::fill_n(entries_.begin() + static_cast<std::ptrdiff_t>(base + at),
                        1ull << (from + bits - leaves[i].length), leaf(leaves[i].value));
            ++i;
            continue;
        }
        std::size_t next = i;
        while (next < leaves.size() && leaves[next].key.bits(from, bits) == at)
            ++next;
        std::uint64_t child =
            build(leaves.subspan(i, next - i), from + bits, value_of(entries_[base + at]), walk);
        entries_[base + at] = child;
        i = next;
    }
    return node(base, from, bits, skips);
}

/// What a node compares before it looks at bits.
void PathTries::add_check(const TrieKey& key, const TrieKey& mask, std::uint64_t otherwise) {
    if (narrow_) {
        // With its one entry, such a node mostly has four words: they do not lie across two cache lines.
        entries_.resize((entries_.size() + 3) / 4 * 4);
        entries_.insert(entries_.end(), {(key.high & mask.high) >> 32, mask.high >> 32, otherwise});
        return;
    }
    entries_.insert(entries_.end(),
                    {key.high & mask.high, mask.high, key.low & mask.low, mask.low, otherwise});
}

/// The entry that leads to a node.
std::uint64_t PathTries::node(std::size_t base, unsigned from, unsigned bits, bool skips) const {
    if (narrow_)
        return (base & (NC_NODE4_MAX - 1)) | std::uint64_t{bits == 0 ? 0 : 32 - from - bits} << 21 |
               std::uint64_t{bits} << 26 | (skips ? NC_NODE4_SKIPS : 0);
    unsigned end = from % 64 + bits; // within its half
    // A node of one entry may end at a half's end, where no shift is.
    std::uint64_t shift = bits == 0 ? 0 : 64 - end;
    return base | shift << 32 | std::uint64_t{bits} << 40 | (skips ? NC_NODE_SKIPS : 0) |
           (from >= 64 ? NC_NODE_LOW : 0);
}

} // namespace netctl::classifier
