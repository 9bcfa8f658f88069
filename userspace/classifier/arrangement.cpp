// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/arrangement.hpp"

#include <algorithm>
#include <numeric>
#include <span>

namespace netctl::classifier {

namespace {

/// What a piece asks of one input: values in [low, high], or of addresses, classes.
struct Extent {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
};

Extent extent_of(const PrefixForest& forest, const PrefixList& list) {
    Extent all{~0ull, 0};
    for (const Prefix& prefix : list.prefixes) {
        const std::uint32_t node =
            list.negated ? forest.root(prefix.address.family) : forest.find(prefix);
        all.low = std::min<std::uint64_t>(all.low, node);
        all.high = std::max<std::uint64_t>(all.high, forest[node].end - 1);
    }
    return all;
}

Extent extent_of(const ValueSet& values) {
    if (values.ranges.empty())
        return {};
    return {values.ranges.front().low, values.ranges.back().high};
}

class Arranger {
  public:
    explicit Arranger(const Pieces& pieces) : order_(pieces.pieces.size()) {
        std::iota(order_.begin(), order_.end(), 0);
        for (std::uint32_t input = 0; input < NC_INPUTS; ++input) {
            if (pieces.operands(input) == 0)
                continue;
            std::vector<Extent> by_operand;
            for (std::size_t i = 0; i < pieces.operands(input); ++i)
                by_operand.push_back(
                    input == NC_INPUT_SRC   ? extent_of(pieces.src, pieces.src_lists[i])
                    : input == NC_INPUT_DST ? extent_of(pieces.dst, pieces.dst_lists[i])
                                            : extent_of(pieces.values[input][i]));
            // Whoever asks nothing holds everywhere.
            std::vector<Extent> by_piece(pieces.pieces.size(), {0, ~0ull});
            for (std::uint32_t i = 0; i < pieces.pieces.size(); ++i)
                for (std::uint32_t condition : pieces.shapes[pieces.pieces[i].shape])
                    if (Pieces::input_of(condition) == input)
                        by_piece[i] = by_operand[Pieces::operand_of(condition)];
            inputs_.push_back(std::move(by_piece));
        }
    }

    std::vector<std::uint32_t> run() {
        cut(order_);
        for (std::size_t first = 0; first < order_.size(); first += word)
            std::ranges::sort(std::span(order_).subspan(
                first, std::min<std::size_t>(word, order_.size() - first)));
        return std::move(order_);
    }

  private:
    static constexpr std::size_t word = 64;
    /// How many pieces tell where an input is best cut.
    static constexpr std::size_t samples = 256;

    struct Cut {
        const std::vector<Extent>* input = nullptr;
        std::uint64_t at = 0; ///< the first value of the upper part
        std::size_t largest = 0;
    };

    static unsigned part_of(const Extent& extent, std::uint64_t at) {
        return extent.high < at ? 0 : extent.low >= at ? 1 : 2;
    }

    /// The cut of this input whose largest part is smallest.
    Cut best_of(const std::vector<Extent>& input, std::span<const std::uint32_t> part) {
        lows_.clear();
        const std::size_t step = std::max<std::size_t>(1, part.size() / samples);
        for (std::size_t i = 0; i < part.size(); i += step)
            lows_.push_back(input[part[i]].low);
        std::ranges::sort(lows_);
        // In the middle of those that begin anywhere but at the lowest value.
        const auto above = std::ranges::upper_bound(lows_, lows_.front());
        if (above == lows_.end())
            return {};
        Cut best;
        for (const auto& at : {lows_.begin() + static_cast<std::ptrdiff_t>(lows_.size() / 2),
                               above + (lows_.end() - above) / 2}) {
            if (*at == lows_.front())
                continue;
            std::size_t sizes[3] = {};
            for (std::uint32_t piece : part)
                ++sizes[part_of(input[piece], *at)];
            const std::size_t largest = std::max({sizes[0], sizes[1], sizes[2]});
            if (!best.input || largest < best.largest)
                best = {&input, *at, largest};
        }
        return best;
    }

    void cut(std::span<std::uint32_t> part) {
        while (part.size() > word) {
            Cut best;
            for (const std::vector<Extent>& input : inputs_)
                if (const Cut found = best_of(input, part);
                    found.input && (!best.input || found.largest < best.largest))
                    best = found;
            // What hardly any cut divides stays as it is: each takes a look at all pieces.
            if (!best.input || best.largest > part.size() - part.size() / 16)
                return;
            const auto below = [&](unsigned bound) {
                return [&, bound](std::uint32_t piece) {
                    return part_of((*best.input)[piece], best.at) < bound;
                };
            };
            const auto above = std::stable_partition(part.begin(), part.end(), below(1));
            const auto both = std::stable_partition(above, part.end(), below(2));
            cut({part.begin(), above});
            cut({above, both});
            part = {both, part.end()};
        }
    }

    std::vector<std::uint32_t> order_;
    std::vector<std::vector<Extent>> inputs_; ///< by input that is asked about: by piece
    std::vector<std::uint64_t> lows_;
};

} // namespace

std::vector<std::uint32_t> arrange(const Pieces& pieces) {
    return Arranger(pieces).run();
}

} // namespace netctl::classifier
