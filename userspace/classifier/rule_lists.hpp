// SPDX-License-Identifier: GPL-2.0-only
//
// Lists of pieces, as they stand in the leaves of the crossing tries: which rules can match packets
// of a pair of address classes, in order.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "classifier/packet_classes.hpp"

namespace netctl::classifier {

/// What the kernel reads of the lists: {profile, rule, rule, ...} each, and for each profile and
/// packet class the position of the first rule that matches.
struct ListTables {
    std::vector<std::uint32_t> lists;
    std::vector<std::uint32_t> offsets; ///< list number -> index of its profile in `lists`
    std::vector<std::uint32_t> blocks;  ///< empty: `firsts` is a plain matrix
    std::vector<std::uint32_t> firsts;  ///< `no_position` where no rule of the list matches
    unsigned block_bits = 0;
    std::uint32_t longest = 0;
};
constexpr std::uint32_t no_position = ~0u;

class RuleLists {
  public:
    static constexpr std::uint32_t empty = 0;

    RuleLists(const Pieces& pieces, const PacketClasses& classes);

    /// A batch of pieces (ascending numbers) to be added in one go.
    std::uint32_t batch(std::span<const std::uint32_t> pieces);
    /// The list with the batch's pieces in it, without those that earlier ones leave nothing to.
    std::uint32_t add(std::uint32_t list, std::uint32_t batch);
    /// A measure of the memory taken.
    std::size_t items() const { return lists_.items() + batches_.items(); }

    /// Makes the tables for the lists that are wanted. If these have more than `most` pairs of a
    /// profile and a packet class, returns how many instead, otherwise 0.
    std::size_t tables(std::span<const std::uint32_t> used, std::size_t most,
                       ListTables& out) const;
    /// First rule of a list; what a list means if there is one packet class only.
    std::uint32_t first_rule(std::uint32_t list) const;

  private:
    template <class Position>
    void row(std::span<const std::uint32_t> shapes, std::vector<Position>& row,
             std::vector<std::uint64_t>& left) const;
    template <class Position>
    void fill(const SequencePool<std::uint32_t>& profiles, ListTables& out) const;

    const Pieces& pieces_;
    const PacketClasses& classes_;
    SequencePool<std::uint32_t> lists_;
    SequencePool<std::uint32_t> batches_;
    std::unordered_map<std::uint64_t, std::uint32_t> added_;
};

} // namespace netctl::classifier
