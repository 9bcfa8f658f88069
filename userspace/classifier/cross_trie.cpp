// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/cross_trie.hpp"

#include <algorithm>
#include <bit>

#include "netctl/abi/crossing.h"

namespace netctl::classifier {

namespace {

/// Bits of a node at most: wider ones are copied for small differences.
constexpr unsigned widest_cross = 5;

} // namespace

CrossTrie::CrossTrie(std::uint32_t classes, RuleLists& lists) : lists_(lists) {
    auto left = static_cast<unsigned>(std::bit_width(classes - 1));
    unsigned levels = std::min<unsigned>((left + widest_cross - 1) / widest_cross, NC_LEVELS_CROSS);
    for (; levels > 0; --levels) {
        unsigned bits = (left + levels - 1) / levels;
        left -= bits;
        bits_.push_back(bits);
        shift_.push_back(left);
    }
    levels_.resize(bits_.size());
    added_.resize(bits_.size());
}

std::size_t CrossTrie::items() const {
    std::size_t items = 0;
    for (const Nodes& level : levels_)
        items += level.items();
    return items;
}

void CrossTrie::add_row(std::uint32_t parent, std::vector<Update> updates) {
    std::uint32_t root = RuleLists::empty;
    if (rows_.empty())
        for (std::size_t level = levels_.size(); level-- > 0;)
            root = levels_[level].intern(std::vector<std::uint32_t>(1u << bits_[level], root));
    else
        root = rows_[parent];
    if (!updates.empty()) {
        std::ranges::stable_sort(updates, {}, &Update::low);
        root = apply(0, root, 0, updates);
    }
    rows_.push_back(root);
}

/// Node of `level` (or list, behind the last one) for classes from `base` on, with all updates,
/// which are sorted by their low end.
std::uint32_t CrossTrie::apply(std::size_t level, std::uint32_t node, std::uint32_t base,
                               std::span<const Update> updates) {
    bool leaf = level == levels_.size();
    std::uint64_t size = leaf ? 1 : std::uint64_t{1} << (bits_[level] + shift_[level]);
    std::vector<std::uint32_t> whole;
    std::vector<Update> part;
    for (const Update& update : updates) {
        if (update.low <= base && update.high >= base + size)
            whole.push_back(update.piece);
        else
            part.push_back(update);
    }
    if (!whole.empty()) {
        std::ranges::sort(whole);
        node = add_all(level, node, lists_.batch(whole));
    }
    if (part.empty())
        return node;
    std::vector<std::uint32_t> entries(levels_[level][node].begin(), levels_[level][node].end());
    std::uint32_t step = 1u << shift_[level];
    std::vector<Update> within;
    for (std::uint32_t i = 0; i < entries.size(); ++i) {
        std::uint32_t low = base + i * step;
        within.clear();
        for (const Update& update : part) {
            if (update.low >= low + step)
                break;
            if (update.high > low)
                within.push_back(update);
        }
        if (!within.empty())
            entries[i] = apply(level + 1, entries[i], low, within);
    }
    return levels_[level].intern(entries);
}

/// The same with a batch that concerns all classes below; a node that many rows share is made once.
std::uint32_t CrossTrie::add_all(std::size_t level, std::uint32_t node, std::uint32_t batch) {
    if (level == levels_.size())
        return lists_.add(node, batch);
    std::uint64_t key = std::uint64_t{node} << 32 | batch;
    if (auto known = added_[level].find(key); known != added_[level].end())
        return known->second;
    std::vector<std::uint32_t> entries(levels_[level][node].begin(), levels_[level][node].end());
    for (std::uint32_t& entry : entries)
        entry = add_all(level + 1, entry, batch);
    return added_[level][key] = levels_[level].intern(entries);
}

CrossTables CrossTrie::tables() const {
    CrossTables out{rows_, {}, bits_, shift_, {}};
    // Level by level: number what the one above reaches, in order of appearance.
    std::vector<std::uint32_t>* above = &out.rows;
    std::vector<std::uint32_t> entries;
    for (const Nodes& level : levels_) {
        std::vector<std::uint32_t> number(level.size(), ~0u);
        std::vector<std::uint32_t> below;
        std::uint32_t next = 0;
        for (std::uint32_t& node : *above) {
            if (number[node] == ~0u) {
                number[node] = next++;
                below.insert(below.end(), level[node].begin(), level[node].end());
            }
            node = number[node];
        }
        if (above == &entries)
            out.entries.insert(out.entries.end(), entries.begin(), entries.end());
        out.base.push_back(static_cast<std::uint32_t>(out.entries.size()));
        entries = std::move(below);
        above = &entries;
    }
    out.entries.insert(out.entries.end(), entries.begin(), entries.end());
    return out;
}

} // namespace netctl::classifier
