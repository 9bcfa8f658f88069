// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/covered.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "netctl/abi/packet.h"

namespace netctl::classifier {

namespace {

/// Looks at pairs and comparisons of shapes, for one rule.
constexpr unsigned most_steps = 128;

/// Whether all values of `inner` are among those of `outer`.
bool within(const ValueSet& inner, const ValueSet& outer) {
    return (outer.absent || !inner.absent) &&
           std::ranges::all_of(inner.ranges, [&](const Range& range) {
               // The last one that begins no later: they are disjoint, and not adjacent.
               const auto behind =
                   std::ranges::upper_bound(outer.ranges, range.low, {}, &Range::low);
               return behind != outer.ranges.begin() && (behind - 1)->high >= range.high;
           });
}

class Coverage {
  public:
    explicit Coverage(const Pieces& pieces)
        : pieces_(pieces), named_src_(pieces.src.size()), named_dst_(pieces.dst.size()) {}

    std::vector<bool> run(std::size_t rules) {
        std::vector<bool> covered(rules, true); // what has no pieces has no packets
        const std::vector<Piece>& all = pieces_.pieces;
        for (std::size_t first = 0, end = 0; first < all.size(); first = end) {
            const std::uint32_t rule = all[first].rule;
            for (steps_ = 0; end < all.size() && all[end].rule == rule; ++end)
                covered[rule] = covered[rule] && is_covered(all[end]);
            // What is covered covers nothing that its own cover does not.
            for (std::size_t i = first; i < end && !covered[rule]; ++i)
                add(all[i]);
        }
        return covered;
    }

  private:
    /// Shapes of a pair of prefixes, those first that proved to be of use last.
    struct Shape {
        std::uint32_t shape;
        std::uint32_t next;
    };
    static constexpr std::uint32_t none = ~0u;

    void add(const Piece& piece) {
        named_src_[piece.src] = named_dst_[piece.dst] = true;
        const std::array pair{piece.src, piece.dst};
        const std::uint32_t number = pairs_.intern(pair);
        if (number == heads_.size())
            heads_.push_back(none);
        // Behind the first: earlier rules are wider more often than later ones.
        const auto link = static_cast<std::uint32_t>(shapes_.size());
        std::uint32_t& next =
            heads_[number] == none ? heads_[number] : shapes_[heads_[number]].next;
        const std::uint32_t behind = std::exchange(next, link);
        shapes_.push_back({piece.shape, behind});
    }

    bool is_covered(const Piece& piece) {
        for (std::uint32_t src = piece.src;; src = pieces_.src[src].parent) {
            for (std::uint32_t dst = piece.dst; named_src_[src]; dst = pieces_.dst[dst].parent) {
                if (named_dst_[dst] && covers(src, dst, piece))
                    return true;
                if (dst == PrefixForest::any)
                    break;
            }
            if (src == PrefixForest::any || steps_ > most_steps)
                return false;
        }
    }

    /// Whether a piece with these prefixes covers this one, which is within them.
    bool covers(std::uint32_t src, std::uint32_t dst, const Piece& piece) {
        ++steps_;
        const std::array pair{src, dst};
        const std::uint32_t number = pairs_.find(pair);
        if (number == pairs_.none)
            return false;
        std::uint32_t before = none;
        for (std::uint32_t at = heads_[number]; at != none && steps_ <= most_steps;
             before = at, at = shapes_[at].next) {
            ++steps_;
            if (!implies(piece, shapes_[at].shape))
                continue;
            if (before != none) {
                shapes_[before].next = shapes_[at].next;
                shapes_[at].next = std::exchange(heads_[number], at);
            }
            return true;
        }
        return false;
    }

    /// Whether packets of the piece satisfy `shape`, as far as it is not about prefixes that are crossed.
    bool implies(const Piece& piece, std::uint32_t shape) const {
        if (piece.shape == shape)
            return true;
        const std::span<const std::uint32_t> inner = pieces_.shapes[piece.shape];
        return std::ranges::all_of(pieces_.shapes[shape], [&](std::uint32_t outer) {
            const std::uint32_t input = Pieces::input_of(outer);
            const auto own = std::ranges::find(inner, input, Pieces::input_of);
            if (own != inner.end() && *own == outer)
                return true;
            if (input == NC_INPUT_SRC || input == NC_INPUT_DST)
                return false;
            const std::vector<ValueSet>& values = pieces_.values[input];
            if (own != inner.end())
                return within(values[Pieces::operand_of(*own)], values[Pieces::operand_of(outer)]);
            return input == NC_INPUT_FAMILY &&
                   within(families(piece), values[Pieces::operand_of(outer)]);
        });
    }

    /// What the prefixes of a piece say of the family.
    ValueSet families(const Piece& piece) const {
        for (const auto& [forest, node] :
             {std::pair(&pieces_.src, piece.src), std::pair(&pieces_.dst, piece.dst)})
            if (node != PrefixForest::any) {
                const std::uint64_t family = (*forest)[node].prefix.address.family == Family::ipv4
                                                 ? NC_HAS_IPV4
                                                 : NC_HAS_IPV6;
                return {{{family, family}}, false};
            }
        return {{{0, NC_HAS_IPV4 | NC_HAS_IPV6}}, false};
    }

    const Pieces& pieces_;
    std::vector<bool> named_src_, named_dst_; ///< by node: whether a piece that was added has it
    SequencePool<std::uint32_t> pairs_;
    std::vector<std::uint32_t> heads_; ///< by pair
    std::vector<Shape> shapes_;
    unsigned steps_ = 0;
};

} // namespace

std::vector<bool> covered_rules(const Pieces& pieces, std::size_t rules) {
    return Coverage(pieces).run(rules);
}

} // namespace netctl::classifier
