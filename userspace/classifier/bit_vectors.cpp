// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/bit_vectors.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include <fmt/format.h>

#include "classifier/arrangement.hpp"
#include "classifier/inputs.hpp"
#include "classifier/packet_classes.hpp"

namespace netctl::classifier {

namespace {

/// The words of a group as a row keeps them: the summary, then those that are not zero, in order.
using Blocks = SequencePool<std::uint64_t>;
/// A row as the numbers of its groups' blocks.
using Rows = SequencePool<std::uint32_t>;

constexpr std::uint32_t empty_block = 0;

/// One row under way, of which bits are turned over. Only groups in which something changed are
/// looked at for the next row.
class Row {
  public:
    Row(std::uint32_t words, Blocks& blocks)
        : words_(words), numbers_((words + group_words - 1) / group_words), blocks_(blocks) {}

    void flip(std::uint32_t bit) {
        words_[bit / 64] ^= 1ull << bit % 64;
        const std::uint32_t group = bit / (64 * group_words);
        if (changed_.empty() || changed_.back() != group)
            changed_.push_back(group);
    }
    bool test(std::uint32_t bit) const { return words_[bit / 64] >> bit % 64 & 1; }

    /// Its groups' blocks as it is now.
    std::span<const std::uint32_t> numbers() {
        std::ranges::sort(changed_);
        changed_.erase(std::unique(changed_.begin(), changed_.end()), changed_.end());
        for (std::uint32_t group : changed_)
            numbers_[group] = block(group);
        changed_.clear();
        return numbers_;
    }

  private:
    std::uint32_t block(std::uint32_t group) {
        scratch_.assign(1, 0);
        const std::size_t first = std::size_t{group} * group_words;
        for (std::size_t i = 0; i < group_words && first + i < words_.size(); ++i)
            if (words_[first + i]) {
                scratch_[0] |= 1ull << i;
                scratch_.push_back(words_[first + i]);
            }
        return blocks_.intern(scratch_);
    }

    std::vector<std::uint64_t> words_;
    std::vector<std::uint32_t> numbers_, changed_;
    std::vector<std::uint64_t> scratch_;
    Blocks& blocks_;
};

class VectorBuilder {
  public:
    VectorBuilder(const Pieces& pieces, std::size_t largest)
        : pieces_(pieces),
          largest_(std::min<std::size_t>(largest / sizeof(std::uint64_t), NC_ROW_MAX)) {
        const std::vector<std::uint32_t> order = arrange(pieces);
        bit_of_.resize(order.size());
        out_.words = static_cast<std::uint32_t>((order.size() + 63) / 64);
        out_.groups = (out_.words + group_words - 1) / group_words;
        out_.rules.assign(std::size_t{out_.words} * 64, no_rule);
        for (std::uint32_t bit = 0; bit < order.size(); ++bit) {
            bit_of_[order[bit]] = bit;
            out_.rules[bit] = pieces.pieces[order[bit]].rule;
        }
        for (std::uint32_t word = 0; word < out_.words; ++word)
            out_.least.push_back(out_.rules[std::size_t{word} * 64]);
    }

    Result<BitVectors> run() {
        if (out_.groups > NC_APART_GROUPS)
            return too_big();
        for (std::uint32_t input = 0; input < NC_INPUTS; ++input)
            if (pieces_.operands(input) > 0)
                NETCTL_TRY(add(input));
        return std::move(out_);
    }

  private:
    using Asked = std::vector<std::vector<std::uint32_t>>; ///< by operand: the bits that ask for it

    Result<> add(std::uint32_t number) {
        InputClasses input;
        input.input = number;
        Blocks blocks;
        blocks.intern(std::vector<std::uint64_t>{0}); // empty_block
        Rows rows;
        Row row(out_.words, blocks);
        const Asked asked = asked_for(number, row);
        const bool fits =
            number == NC_INPUT_SRC
                ? by_address(input, pieces_.src, pieces_.src_lists, asked, row, rows, blocks)
            : number == NC_INPUT_DST
                ? by_address(input, pieces_.dst, pieces_.dst_lists, asked, row, rows, blocks)
                : by_value(input, pieces_.values[number], asked, row, rows, blocks);
        if (!fits || !emit(input, rows, blocks))
            return too_big();
        out_.inputs.push_back(std::move(input));
        return {};
    }

    /// Sets the bits of the pieces that ask nothing of the input.
    Asked asked_for(std::uint32_t number, Row& row) const {
        Asked asked(pieces_.operands(number));
        for (std::uint32_t i = 0; i < pieces_.pieces.size(); ++i) {
            bool asks = false;
            for (std::uint32_t condition : pieces_.shapes[pieces_.pieces[i].shape])
                if (Pieces::input_of(condition) == number) {
                    asked[Pieces::operand_of(condition)].push_back(bit_of_[i]);
                    asks = true;
                }
            if (!asks)
                row.flip(bit_of_[i]);
        }
        return asked;
    }

    bool fits(const Rows& rows, const Blocks& blocks) const {
        return rows.items() + blocks.items() + out_.rows.size() <= largest_ * 2;
    }

    /// Runs of values, each with a row: an operand's bits turn over where it begins or ends to hold.
    bool by_value(InputClasses& input, const std::vector<ValueSet>& operands, const Asked& asked,
                  Row& row, Rows& rows, const Blocks& blocks) const {
        const auto turn = [&](std::uint32_t operand) {
            for (std::uint32_t bit : asked[operand])
                row.flip(bit);
        };
        struct Edge {
            std::uint64_t at;
            std::uint32_t operand;
        };
        std::vector<Edge> edges;
        for (std::uint32_t i = 0; i < operands.size(); ++i)
            for (const Range& range : operands[i].ranges) {
                edges.push_back({range.low, i});
                if (range.high < input_info(input.input).highest)
                    edges.push_back({range.high + 1, i});
            }
        std::ranges::sort(edges, {}, &Edge::at);

        const auto each_absent = [&] {
            for (std::uint32_t i = 0; i < operands.size(); ++i)
                if (operands[i].absent)
                    turn(i);
        };
        each_absent();
        input.absent = rows.intern(row.numbers());
        each_absent();
        std::uint64_t at = 0;
        for (std::size_t i = 0; fits(rows, blocks);) {
            for (; i < edges.size() && edges[i].at == at; ++i)
                turn(edges[i].operand);
            input.starts.push_back(at);
            input.classes.push_back(rows.intern(row.numbers()));
            if (i == edges.size())
                return true;
            at = edges[i].at;
        }
        return false;
    }

    /// Address classes, each with a row: what holds for a prefix holds for those within it, too.
    bool by_address(InputClasses& input, const PrefixForest& forest,
                    const std::vector<PrefixList>& lists, const Asked& asked, Row& row, Rows& rows,
                    const Blocks& blocks) const {
        std::vector<std::vector<std::uint32_t>> enters(forest.size()), leaves(forest.size());
        for (std::uint32_t i = 0; i < lists.size(); ++i)
            for (const Prefix& prefix : lists[i].prefixes)
                if (lists[i].negated) {
                    // All addresses of the family, less the list's.
                    enters[forest.root(prefix.address.family)].push_back(i);
                    leaves[forest.find(prefix)].push_back(i);
                } else {
                    enters[forest.find(prefix)].push_back(i);
                }
        struct Level {
            std::uint32_t node;
            std::vector<std::uint32_t> flipped;
        };
        std::vector<Level> path{{PrefixForest::any, {}}};
        input.starts = {0};
        input.classes = {rows.intern(row.numbers())}; // no address is in no list
        for (std::uint32_t node = 1; node < forest.size(); ++node) {
            while (path.back().node != forest[node].parent) {
                for (std::uint32_t bit : path.back().flipped)
                    row.flip(bit);
                path.pop_back();
            }
            path.push_back({node, {}});
            for (const bool hold : {true, false})
                for (std::uint32_t list : (hold ? enters : leaves)[node])
                    for (std::uint32_t bit : asked[list])
                        if (row.test(bit) != hold) {
                            row.flip(bit);
                            path.back().flipped.push_back(bit);
                        }
            input.starts.push_back(node);
            input.classes.push_back(rows.intern(row.numbers()));
            if (!fits(rows, blocks))
                return false;
        }
        input.absent = input.classes.front();
        return true;
    }

    /// Lays the rows out, and has the input's classes lead to them.
    bool emit(InputClasses& input, const Rows& rows, const Blocks& blocks) {
        const auto words_of = [&](std::uint32_t group) {
            return std::min(group_words, out_.words - group * group_words);
        };
        // A block with all its words needs no count of the bits before one: it is worth some memory.
        std::vector<std::uint32_t> longest(blocks.size());
        for (std::uint32_t id = 0; id < rows.size(); ++id)
            for (std::uint32_t group = 0; group < out_.groups; ++group)
                longest[rows[id][group]] = std::max(longest[rows[id][group]], words_of(group));
        std::size_t whole = 0;
        for (std::uint32_t length : longest)
            whole += 1 + length;
        const bool plain = whole <= std::max(blocks.items() * 2, few_words);
        out_.plain[input.input] = plain;

        std::vector<std::uint32_t> block_at, row_at;
        for (std::uint32_t id = 0; id < blocks.size(); ++id) {
            block_at.push_back(static_cast<std::uint32_t>(out_.rows.size()));
            const std::span<const std::uint64_t> block = blocks[id];
            if (!plain) {
                out_.rows.insert(out_.rows.end(), block.begin(), block.end());
                continue;
            }
            out_.rows.push_back(block[0]);
            for (std::uint32_t word = 0, next = 1; word < longest[id]; ++word)
                out_.rows.push_back(block[0] >> word & 1 ? block[next++] : 0);
        }
        for (std::uint32_t id = 0; id < rows.size(); ++id) {
            if (out_.groups == 1) {
                row_at.push_back(block_at[rows[id][0]]);
                continue;
            }
            row_at.push_back(static_cast<std::uint32_t>(out_.rows.size()));
            std::uint64_t top = 0;
            for (std::uint32_t group = 0; group < out_.groups; ++group)
                top |= std::uint64_t{rows[id][group] != empty_block} << group;
            out_.rows.push_back(top);
            for (std::uint32_t group : rows[id])
                out_.rows.push_back(block_at[group]);
        }
        for (std::uint32_t& id : input.classes)
            id = row_at[id];
        input.absent = row_at[input.absent];
        return out_.rows.size() <= largest_;
    }

    Error too_big() const {
        return Error::usage(fmt::format("bit vectors for {} rules take more than {} KiB",
                                        pieces_.pieces.size(), largest_ * 8 >> 10));
    }

    static constexpr std::size_t few_words = 4096;

    const Pieces& pieces_;
    std::size_t largest_;               ///< words
    std::vector<std::uint32_t> bit_of_; ///< by piece
    BitVectors out_;
};

} // namespace

Result<BitVectors> bit_vectors(const Pieces& pieces, std::size_t largest) {
    return VectorBuilder(pieces, largest).run();
}

} // namespace netctl::classifier
