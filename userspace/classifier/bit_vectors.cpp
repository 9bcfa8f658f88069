// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/bit_vectors.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "classifier/packet_classes.hpp"

namespace netctl::classifier {

namespace {

class VectorBuilder {
  public:
    VectorBuilder(const Pieces& pieces, std::size_t largest)
        : pieces_(pieces),
          largest_(std::min<std::size_t>(largest / sizeof(std::uint64_t), NC_ROW_MAX)) {
        out_.words = static_cast<std::uint32_t>((pieces.pieces.size() + 63) / 64);
        out_.rules.assign(std::size_t{out_.words} * 64, no_rule);
        for (std::size_t i = 0; i < pieces.pieces.size(); ++i)
            out_.rules[i] = pieces.pieces[i].rule;
    }

    Result<BitVectors> run() {
        for (std::uint32_t input = 0; input < NC_INPUTS; ++input)
            if (pieces_.operands(input) > 0)
                NETCTL_TRY(add(input));
        for (std::uint32_t id = 0; id < rows_.size(); ++id)
            out_.rows.insert(out_.rows.end(), rows_[id].begin(), rows_[id].end());
        return std::move(out_);
    }

  private:
    Result<> add(std::uint32_t number) {
        InputClasses input;
        input.input = number;
        const SetPool operands = operand_classes(pieces_, input, largest_);
        if (operands.items() > largest_)
            return too_big();

        BitSet unasked(pieces_.pieces.size());
        std::vector<std::vector<std::uint32_t>> asked(pieces_.operands(number));
        for (std::uint32_t i = 0; i < pieces_.pieces.size(); ++i) {
            unasked.set(i);
            for (std::uint32_t condition : pieces_.shapes[pieces_.pieces[i].shape])
                if (Pieces::input_of(condition) == number) {
                    asked[Pieces::operand_of(condition)].push_back(i);
                    unasked.flip(i);
                }
        }
        std::vector<std::uint32_t> places;
        for (std::uint32_t id = 0; id < operands.size(); ++id) {
            BitSet satisfied = unasked;
            BitSet::each_in(operands[id], [&](std::uint32_t operand) {
                for (std::uint32_t piece : asked[operand])
                    satisfied.set(piece);
            });
            places.push_back(rows_.intern(satisfied.words()) * out_.words);
            if (rows_.items() > largest_)
                return too_big();
        }
        for (std::uint32_t& id : input.classes)
            id = places[id];
        input.absent = places[input.absent];
        out_.inputs.push_back(std::move(input));
        return {};
    }

    Error too_big() const {
        return Error::usage(fmt::format("bit vectors for {} rules take more than {} KiB",
                                        pieces_.pieces.size(), largest_ * 8 >> 10));
    }

    const Pieces& pieces_;
    std::size_t largest_; ///< words
    SetPool rows_;
    BitVectors out_;
};

} // namespace

Result<BitVectors> bit_vectors(const Pieces& pieces, std::size_t largest) {
    return VectorBuilder(pieces, largest).run();
}

} // namespace netctl::classifier
