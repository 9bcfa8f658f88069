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

/// By class, the position of the first match in a list of shapes.
template <class Position>
void RuleLists::row(std::span<const std::uint32_t> shapes, std::vector<Position>& row,
                    std::vector<std::uint64_t>& left) const {
    std::ranges::fill(row, static_cast<Position>(no_position));
    std::ranges::fill(left, ~0ull);
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        std::span<const std::uint64_t> its = classes_.shape_classes[shapes[i]].words();
        for (std::size_t word = 0; word < its.size(); ++word) {
            std::uint64_t first = its[word] & left[word];
            left[word] ^= first;
            for (; first; first &= first - 1)
                row[word * 64 + static_cast<std::size_t>(std::countr_zero(first))] =
                    static_cast<Position>(i);
        }
    }
}

template <class Position>
void RuleLists::fill(const SequencePool<std::uint32_t>& profiles, ListTables& out) const {
    std::vector<std::uint64_t> left((classes_.count + 63) / 64);
    auto position = [](Position p) {
        return p == static_cast<Position>(no_position) ? no_position : std::uint32_t{p};
    };
    if (std::size_t{profiles.size()} * classes_.count <= largest_matrix) {
        std::vector<Position> entries(classes_.count);
        for (std::uint32_t profile = 0; profile < profiles.size(); ++profile) {
            row(profiles[profile], entries, left);
            for (Position p : entries)
                out.firsts.push_back(position(p));
        }
        return;
    }
    // Rows repeat each other in large parts. How large the parts are that repeat best depends on the
    // rules: what takes the least memory is taken.
    struct Cut {
        unsigned bits;
        std::vector<std::uint32_t> roots{};
        SequencePool<Position> blocks{};
        std::size_t bytes() const {
            return roots.size() * (blocks.size() > 0xffff ? 4 : 2) +
                   blocks.items() * sizeof(Position);
        }
    };
    std::vector<Cut> cuts;
    unsigned middle = static_cast<unsigned>(std::bit_width(classes_.count)) / 2;
    for (unsigned bits = std::max(2u, middle - 1); bits <= middle; ++bits)
        cuts.push_back({bits});
    // The kernel's arithmetic has one block more than it needs where they come out even.
    std::vector<Position> entries(((classes_.count >> cuts.back().bits) + 1) << cuts.back().bits);
    for (std::uint32_t profile = 0; profile < profiles.size(); ++profile) {
        row(profiles[profile], entries, left);
        for (Cut& cut : cuts) {
            const std::size_t block = std::size_t{1} << cut.bits;
            for (std::size_t i = 0; i <= classes_.count >> cut.bits; ++i)
                cut.roots.push_back(cut.blocks.intern(
                    std::span<const Position>(entries).subspan(i * block, block)));
        }
    }
    Cut& least = *std::ranges::min_element(cuts, {}, &Cut::bytes);
    out.block_bits = least.bits;
    out.blocks = std::move(least.roots);
    for (std::uint32_t id = 0; id < least.blocks.size(); ++id)
        for (Position p : least.blocks[id])
            out.firsts.push_back(position(p));
}

std::size_t RuleLists::tables(std::span<const std::uint32_t> used, std::size_t most,
                              ListTables& out) const {
    out.offsets.assign(lists_.size(), 0);
    SequencePool<std::uint32_t> profiles; // sequences of shapes
    std::vector<std::uint32_t> shapes;
    for (std::uint32_t list : used) {
        out.offsets[list] = static_cast<std::uint32_t>(out.lists.size());
        shapes.clear();
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
    if (out.longest < 0xff)
        fill<std::uint8_t>(profiles, out);
    else if (out.longest < 0xffff)
        fill<std::uint16_t>(profiles, out);
    else
        fill<std::uint32_t>(profiles, out);
    return 0;
}

} // namespace netctl::classifier
