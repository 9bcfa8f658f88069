// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/rule_lists.hpp"

#include <algorithm>
#include <bit>

namespace netctl::classifier {

namespace {

/// Up to here `firsts` is a plain matrix, which saves a lookup.
constexpr std::size_t largest_matrix = 1u << 20;

} // namespace

RuleLists::RuleLists(const Pieces& pieces, const PacketClasses& classes)
    : pieces_(pieces), classes_(classes) {
    lists_.intern({});
}

std::uint32_t RuleLists::batch(std::span<const std::uint32_t> pieces) {
    return batches_.intern(pieces);
}

std::uint32_t RuleLists::add(std::uint32_t list, std::uint32_t batch) {
    auto [known, fresh] = added_.try_emplace(std::uint64_t{list} << 32 | batch);
    if (!fresh)
        return known->second;
    std::span<const std::uint32_t> old = lists_[list], more = batches_[batch];
    std::vector<std::uint32_t> merged, kept;
    merged.reserve(old.size() + more.size());
    std::ranges::set_union(old, more, std::back_inserter(merged));
    // A piece whose packet classes all match earlier pieces never decides. What was dropped before
    // stays so, since lists only grow.
    std::size_t words = (classes_.count + 63) / 64;
    std::vector<std::uint64_t> taken(words);
    for (std::uint32_t piece : merged) {
        std::span<const std::uint64_t> its =
            classes_.shape_classes[pieces_.pieces[piece].shape].words();
        bool adds = false;
        for (std::size_t i = 0; i < words; ++i) {
            adds |= (its[i] & ~taken[i]) != 0;
            taken[i] |= its[i];
        }
        if (adds)
            kept.push_back(piece);
    }
    return known->second = lists_.intern(kept);
}

std::uint32_t RuleLists::first_rule(std::uint32_t list) const {
    return lists_[list].empty() ? no_rule : pieces_.pieces[lists_[list].front()].rule;
}

/// Calls `use` with the row of each profile: by class, the position of the first match; `size`
/// entries of which those behind the classes are empty.
template <class Use>
void RuleLists::rows(const SequencePool<std::uint32_t>& profiles, std::size_t size, Use use) const {
    std::vector<std::uint32_t> row;
    for (std::uint32_t profile = 0; profile < profiles.size(); ++profile) {
        row.assign(size, no_position);
        std::span<const std::uint32_t> shapes = profiles[profile];
        for (std::uint32_t i = static_cast<std::uint32_t>(shapes.size()); i-- > 0;)
            classes_.shape_classes[shapes[i]].each([&](std::uint32_t c) { row[c] = i; });
        use(std::span<const std::uint32_t>(row));
    }
}

std::size_t RuleLists::tables(std::span<const std::uint32_t> used, std::size_t most,
                              ListTables& out) const {
    out.offsets.assign(lists_.size(), 0);
    SequencePool<std::uint32_t> profiles; // sequences of shapes
    for (std::uint32_t list : used) {
        out.offsets[list] = static_cast<std::uint32_t>(out.lists.size());
        std::vector<std::uint32_t> shapes;
        for (std::uint32_t piece : lists_[list])
            shapes.push_back(pieces_.pieces[piece].shape);
        out.longest = std::max(out.longest, static_cast<std::uint32_t>(shapes.size()));
        out.lists.push_back(profiles.intern(shapes));
        for (std::uint32_t piece : lists_[list])
            out.lists.push_back(pieces_.pieces[piece].rule);
    }

    const std::size_t entries = std::size_t{profiles.size()} * classes_.count;
    if (entries > most)
        return entries;
    if (entries <= largest_matrix) {
        rows(profiles, classes_.count, [&](std::span<const std::uint32_t> row) {
            out.firsts.insert(out.firsts.end(), row.begin(), row.end());
        });
        return 0;
    }
    // Rows repeat each other in large parts. How large the parts are that repeat best depends on the
    // rules: what takes the least memory is taken.
    std::size_t least = ~std::size_t{0};
    unsigned middle = static_cast<unsigned>(std::bit_width(classes_.count)) / 2;
    for (unsigned bits = std::max(2u, middle - 1); bits <= middle; ++bits) {
        std::vector<std::uint32_t> roots;
        SequencePool<std::uint32_t> blocks;
        std::size_t block = std::size_t{1} << bits;
        // The kernel's arithmetic has one block more than it needs where they come out even.
        rows(profiles, ((classes_.count >> bits) + 1) * block,
             [&](std::span<const std::uint32_t> row) {
                 for (std::size_t i = 0; i < row.size(); i += block)
                     roots.push_back(blocks.intern(row.subspan(i, block)));
             });
        std::size_t bytes = roots.size() * (blocks.size() > 0xffff ? 4 : 2) +
                            blocks.items() * (out.longest < 0xff ? 1 : 2);
        if (bytes >= least)
            continue;
        least = bytes;
        out.block_bits = bits;
        out.blocks = std::move(roots);
        out.firsts.clear();
        for (std::uint32_t id = 0; id < blocks.size(); ++id)
            out.firsts.insert(out.firsts.end(), blocks[id].begin(), blocks[id].end());
    }
    return 0;
}

} // namespace netctl::classifier
