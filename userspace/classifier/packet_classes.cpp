// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/packet_classes.hpp"

#include <algorithm>
#include <array>
#include <map>

#include <fmt/format.h>

#include "classifier/inputs.hpp"

namespace netctl::classifier {

namespace {

/// All inputs go into one product up to this size: one lookup, and it stays in the caches.
constexpr std::size_t single_product = 1u << 16;
/// Beyond these, a product would be slow to make and to look up.
constexpr std::size_t largest_early = 1u << 20;
constexpr std::size_t largest_product = 1u << 22;
/// Words in sets of shapes or operands that the compiler holds at a time, at most 128 MiB. What needs more than a
/// part of its budget is cheaper as bit vectors, and to find out takes longer than the rest of the commit; but 16 MiB
/// are no matter. One input may take more: how many classes each has decides which rules stand apart, and what was
/// counted in part misleads.
constexpr std::size_t smallest_pool = 1u << 21;
constexpr std::size_t largest_pool = 1u << 24;

/// Sets of shapes by class number.
struct Classes {
    SetPool sets;
    std::uint64_t inputs = 0; ///< bit mask of the inputs that decide
};

class Builder {
  public:
    Builder(const Pieces& pieces, std::size_t budget)
        : pieces_(pieces),
          largest_early_(std::min(largest_early, budget / 4)),
          largest_product_(std::min(largest_product, budget)),
          largest_pool_(std::clamp(budget / 16, smallest_pool, largest_pool)),
          largest_input_(std::clamp(budget / 6, smallest_pool, largest_pool)),
          shapes_(pieces.shapes.size()),
          satisfiable_(shapes_) {
        for (std::uint32_t shape = 0; shape < shapes_; ++shape)
            satisfiable_.set(shape);
        first_.assign(shapes_, no_rule);
        wild_.assign(shapes_, no_rule);
        inputs_of_.assign(shapes_, 0);
        for (std::uint32_t shape = 0; shape < shapes_; ++shape)
            for (std::uint32_t condition : pieces.shapes[shape])
                inputs_of_[shape] |= std::uint64_t{1} << Pieces::input_of(condition);
        for (const Piece& piece : pieces.pieces) {
            first_[piece.shape] = std::min(first_[piece.shape], piece.rule);
            if (piece.src == PrefixForest::any && piece.dst == PrefixForest::any)
                wild_[piece.shape] = std::min(wild_[piece.shape], piece.rule);
        }
    }

    Result<PacketClasses> run(std::array<std::uint32_t, NC_INPUTS>& counts) {
        for (std::uint32_t input : by_use())
            NETCTL_TRY(add_input(input, counts[input]));
        NETCTL_TRY(multiply());
        return std::move(out_);
    }

  private:
    Error explodes(std::string_view stage) const {
        const InputClasses* most = &out_.inputs.front();
        for (const InputClasses& input : out_.inputs)
            if (input.count > most->count)
                most = &input;
        return Error::usage(
            fmt::format("the rules tell too many packets apart {}: {} alone has {} different "
                        "classes of values",
                        stage, input_info(most->input).name, most->count),
            "use fewer different values or ranges, or put them into a set");
    }

    /// Inputs that rules look at, the one that the fewest pieces ask about first. It becomes the
    /// fastest digit of the product, so that classes which most shapes treat alike are neighbours,
    /// and rows of the last stage have long runs.
    std::vector<std::uint32_t> by_use() const {
        std::array<std::size_t, NC_INPUTS> uses{};
        for (const Piece& piece : pieces_.pieces)
            for (std::uint32_t condition : pieces_.shapes[piece.shape])
                ++uses[Pieces::input_of(condition)];
        std::vector<std::uint32_t> inputs;
        for (std::uint32_t input = 0; input < NC_INPUTS; ++input)
            if (uses[input] > 0)
                inputs.push_back(input);
        std::ranges::stable_sort(inputs, {}, [&](std::uint32_t input) { return uses[input]; });
        return inputs;
    }

    // ---- classes of one input ----

    /// Which operands hold -> which shapes are satisfied as far as this input goes.
    Result<> add_input(std::uint32_t number, std::uint32_t& count) {
        InputClasses input;
        input.input = number;
        SetPool operands = operand_classes(pieces_, input, largest_input_);
        count = input.count = operands.size();
        if (operands.items() > largest_input_ ||
            std::size_t{operands.size()} * (shapes_ / 64 + 1) > largest_input_) {
            out_.inputs.push_back(std::move(input));
            return explodes("by one field");
        }
        BitSet unasked(shapes_);
        std::vector<std::vector<std::uint32_t>> asked(pieces_.operands(number));
        for (std::uint32_t shape = 0; shape < shapes_; ++shape) {
            unasked.set(shape);
            for (std::uint32_t condition : pieces_.shapes[shape])
                if (Pieces::input_of(condition) == number) {
                    asked[Pieces::operand_of(condition)].push_back(shape);
                    unasked.flip(shape);
                }
        }
        Classes classes{{}, std::uint64_t{1} << number};
        const BitSet decided = decided_by(classes.inputs);
        std::vector<std::uint32_t> renumbered;
        for (std::uint32_t id = 0; id < operands.size(); ++id) {
            BitSet satisfied = unasked;
            BitSet::each_in(operands[id], [&](std::uint32_t operand) {
                for (std::uint32_t shape : asked[operand])
                    satisfied.set(shape);
            });
            renumbered.push_back(intern(classes, decided, satisfied));
        }
        for (std::uint32_t& id : input.classes)
            id = renumbered[id];
        input.absent = renumbered[input.absent];
        input.count = classes.sets.size();
        if (input.count == 1) { // the same for all packets: nothing to look up
            satisfiable_ &= BitSet(classes.sets[0]);
            decided_ |= classes.inputs;
            return {};
        }
        out_.inputs.push_back(std::move(input));
        by_input_.push_back(std::move(classes));
        return {};
    }

    /// Takes out of a set of shapes those that cannot matter any more: a rule that matches
    /// whatever the addresses are hides all shapes whose rules come later. Without this, rules on
    /// several sets would make a class of each combination of answers.
    std::uint32_t intern(Classes& classes, const BitSet& decided, BitSet& satisfied) const {
        std::uint32_t hides = no_rule;
        satisfied.each_common(decided,
                              [&](std::uint32_t shape) { hides = std::min(hides, wild_[shape]); });
        if (hides != no_rule) // shapes are numbered in the order of their first rules
            satisfied.cut(
                static_cast<std::size_t>(std::ranges::upper_bound(first_, hides) - first_.begin()));
        return classes.sets.intern(satisfied.words());
    }

    /// Shapes of rules without addresses that look at none but these inputs.
    BitSet decided_by(std::uint64_t inputs) const {
        BitSet decided(shapes_);
        for (std::uint32_t shape = 0; shape < shapes_; ++shape)
            if (wild_[shape] != no_rule && (inputs_of_[shape] & ~inputs) == 0)
                decided.set(shape);
        return decided;
    }

    // ---- products ----

    /// Multiplies the inputs `members`: the digits' index -> number in the result.
    Result<Classes> product(const std::vector<std::size_t>& members, std::size_t largest,
                            std::vector<std::uint32_t>& table) {
        Classes classes{{}, decided_};
        BitSet both = satisfiable_;
        table = {intern(classes, decided_by(decided_), both)};
        for (std::size_t member : members) {
            InputClasses& input = out_.inputs[member];
            const Classes& factor = by_input_[member];
            input.place = static_cast<std::uint32_t>(table.size());
            if (table.size() * input.count > largest)
                return explodes("in combination");
            // Only different combinations are computed, then the table is filled by number.
            Classes next{{}, classes.inputs | factor.inputs};
            const BitSet decided = decided_by(next.inputs);
            std::vector<std::uint32_t> pairs(std::size_t{classes.sets.size()} * input.count);
            for (std::uint32_t a = 0; a < classes.sets.size(); ++a) {
                for (std::uint32_t b = 0; b < input.count; ++b) {
                    both.assign_common(classes.sets[a], factor.sets[b]);
                    pairs[std::size_t{a} * input.count + b] = intern(next, decided, both);
                    if (next.sets.items() > largest_pool_)
                        return explodes("in combination");
                }
            }
            std::vector<std::uint32_t> wider;
            wider.reserve(table.size() * input.count);
            for (std::uint32_t b = 0; b < input.count; ++b)
                for (std::uint32_t a : table)
                    wider.push_back(pairs[std::size_t{a} * input.count + b]);
            table = std::move(wider);
            classes = std::move(next);
        }
        return classes;
    }

    Result<> multiply() {
        std::size_t together = 1;
        for (const InputClasses& input : out_.inputs)
            together = std::min(together * input.count, std::size_t{1} << 40);
        std::vector<std::size_t> groups[NC_SUMS];
        for (std::size_t i = 0; i < out_.inputs.size(); ++i)
            groups[together <= single_product ? 0 : input_info(out_.inputs[i].input).group]
                .push_back(i);
        // An early product of one input is no product.
        for (std::uint32_t sum = 1; sum < NC_SUMS; ++sum)
            if (groups[sum].size() == 1)
                groups[0].push_back(std::exchange(groups[sum], {}).front());

        // Early products become further factors of the last one, after its own inputs.
        std::size_t inputs = out_.inputs.size();
        for (std::uint32_t sum = 1; sum < NC_SUMS; ++sum) {
            if (groups[sum].empty())
                continue;
            for (std::size_t member : groups[sum])
                out_.inputs[member].sum = sum;
            Classes classes = NETCTL_TRY(product(groups[sum], largest_early_, out_.early[sum]));
            groups[0].push_back(out_.inputs.size());
            InputClasses factor;
            factor.input = out_.inputs[groups[sum].front()].input;
            factor.count = classes.sets.size();
            factor.sum = sum;
            out_.inputs.push_back(std::move(factor));
            by_input_.push_back(std::move(classes));
        }
        Classes classes = NETCTL_TRY(product(groups[0], largest_product_, out_.product));
        for (std::size_t i = inputs; i < out_.inputs.size(); ++i)
            for (std::uint32_t& number : out_.early[out_.inputs[i].sum])
                number *= out_.inputs[i].place;
        out_.inputs.resize(inputs);

        std::vector<std::uint32_t> numbers(classes.sets.size(), ~0u), order;
        for (std::uint32_t& id : out_.product) {
            if (numbers[id] == ~0u) {
                numbers[id] = static_cast<std::uint32_t>(order.size());
                order.push_back(id);
            }
            id = numbers[id];
        }
        out_.count = static_cast<std::uint32_t>(order.size());
        out_.shape_classes.assign(shapes_, BitSet(out_.count));
        out_.wild.assign(out_.count, no_rule);
        for (std::uint32_t id = 0; id < out_.count; ++id)
            BitSet::each_in(classes.sets[order[id]], [&](std::uint32_t shape) {
                out_.shape_classes[shape].set(id);
                out_.wild[id] = std::min(out_.wild[id], wild_[shape]);
            });
        return {};
    }

    const Pieces& pieces_;
    std::size_t largest_early_, largest_product_; ///< entries
    std::size_t largest_pool_, largest_input_;    ///< words
    std::uint32_t shapes_;
    BitSet satisfiable_;               ///< shapes that inputs with a single class leave possible
    std::uint64_t decided_ = 0;        ///< those inputs, as a bit mask
    std::vector<std::uint32_t> first_; ///< by shape: its first rule
    std::vector<std::uint32_t> wild_;  ///< by shape: its first rule without addresses
    std::vector<std::uint64_t> inputs_of_; ///< by shape: bit mask
    std::vector<Classes> by_input_;        ///< parallel to out_.inputs
    PacketClasses out_;
};

} // namespace

Result<PacketClasses> packet_classes(const Pieces& pieces, std::size_t budget,
                                     std::array<std::uint32_t, NC_INPUTS>& counts) {
    counts = {};
    return Builder(pieces, budget).run(counts);
}

} // namespace netctl::classifier
