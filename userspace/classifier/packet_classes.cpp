// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/packet_classes.hpp"

#include <algorithm>
#include <array>
#include <map>

#include <fmt/format.h>

namespace netctl::classifier {

namespace {

/// All inputs go into one product up to this size: one lookup, and it stays in the caches.
constexpr std::size_t single_product = 1u << 16;
/// Beyond these, a product would be slow to make and to look up.
constexpr std::size_t largest_early = 1u << 20;
constexpr std::size_t largest_product = 1u << 22;
/// Words in sets of shapes or operands that the compiler holds at a time: 128 MiB.
constexpr std::size_t largest_pool = 1u << 24;

using SetPool = SequencePool<std::uint64_t>;

/// Which early product an input goes into when there are many: fields that rules tend to name
/// together have few different combinations.
std::uint32_t early_sum(std::uint32_t input) {
    switch (input) {
    case NC_INPUT_SPORT:
    case NC_INPUT_DPORT: return 0;
    case NC_INPUT_VLAN:
    case NC_INPUT_LEN:
    case NC_INPUT_ETHER_SRC:
    case NC_INPUT_ETHER_DST: return 3;
    default: return input >= NC_INPUT_SRC ? 2 : 1;
    }
}

std::string_view key_name(std::uint32_t input) {
    switch (input) {
    case NC_INPUT_FAMILY: return "address families";
    case NC_INPUT_PROTO: return "proto";
    case NC_INPUT_FLAGS: return "flags";
    case NC_INPUT_ICMP_TYPE: return "icmp-type";
    case NC_INPUT_ICMP_CODE: return "icmp-code";
    case NC_INPUT_FRAG: return "frag";
    case NC_INPUT_DSCP: return "dscp";
    case NC_INPUT_SPORT: return "sport";
    case NC_INPUT_DPORT: return "dport";
    case NC_INPUT_VLAN: return "vlan";
    case NC_INPUT_ETHER_TYPE: return "ether-type";
    case NC_INPUT_LEN: return "len";
    case NC_INPUT_ETHER_SRC: return "ether-src";
    case NC_INPUT_ETHER_DST: return "ether-dst";
    case NC_INPUT_SRC: return "lists in src";
    case NC_INPUT_DST: return "lists in dst";
    default: return input >= NC_INPUT_SETS ? "sets" : "mark";
    }
}

/// Sets of shapes by class number.
struct Classes {
    SetPool sets;
    std::uint32_t inputs = 0; ///< bit mask of the inputs that decide
};

class Builder {
  public:
    explicit Builder(const Pieces& pieces)
        : pieces_(pieces), shapes_(pieces.shapes.size()), satisfiable_(shapes_) {
        for (std::uint32_t shape = 0; shape < shapes_; ++shape)
            satisfiable_.set(shape);
        first_.assign(shapes_, no_rule);
        wild_.assign(shapes_, no_rule);
        inputs_of_.assign(shapes_, 0);
        for (std::uint32_t shape = 0; shape < shapes_; ++shape)
            for (std::uint32_t condition : pieces.shapes[shape])
                inputs_of_[shape] |= 1u << Pieces::input_of(condition);
        for (const Piece& piece : pieces.pieces) {
            first_[piece.shape] = std::min(first_[piece.shape], piece.rule);
            if (piece.src == PrefixForest::any && piece.dst == PrefixForest::any)
                wild_[piece.shape] = std::min(wild_[piece.shape], piece.rule);
        }
    }

    Result<PacketClasses> run() {
        for (std::uint32_t input : by_use())
            NETCTL_TRY(add_input(input));
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
                        stage, key_name(most->input), most->count),
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

    /// Intervals of values, and which operands hold in each. Returns the operand sets; `classes`
    /// and `absent` number them.
    SetPool operand_classes(InputClasses& input) const {
        return input.input == NC_INPUT_SRC   ? list_classes(input, pieces_.src, pieces_.src_lists)
               : input.input == NC_INPUT_DST ? list_classes(input, pieces_.dst, pieces_.dst_lists)
                                             : value_classes(input);
    }

    SetPool value_classes(InputClasses& input) const {
        const std::vector<ValueSet>& operands = pieces_.values[input.input];
        struct Edge {
            std::uint64_t at;
            std::uint32_t operand;
        };
        std::vector<Edge> edges; // an operand begins or ends to hold
        BitSet absent(operands.size());
        for (std::uint32_t i = 0; i < operands.size(); ++i) {
            for (const Range& range : operands[i].ranges) {
                edges.push_back({range.low, i});
                if (range.high < highest_value(input.input))
                    edges.push_back({range.high + 1, i});
            }
            if (operands[i].absent)
                absent.set(i);
        }
        std::ranges::sort(edges, {}, &Edge::at);

        SetPool sets;
        BitSet holds(operands.size());
        std::uint64_t at = 0;
        for (std::size_t i = 0; sets.items() <= largest_pool;) {
            for (; i < edges.size() && edges[i].at == at; ++i)
                holds.flip(edges[i].operand);
            input.starts.push_back(at);
            input.classes.push_back(sets.intern(holds.words()));
            if (i == edges.size())
                break;
            at = edges[i].at;
        }
        input.absent = sets.intern(absent.words());
        return sets;
    }

    static SetPool list_classes(InputClasses& input, const PrefixForest& forest,
                                const std::vector<PrefixList>& lists) {
        std::vector<std::vector<std::uint32_t>> lists_at(forest.size());
        BitSet families[2] = {BitSet(lists.size()), BitSet(lists.size())};
        BitSet negated(lists.size());
        for (std::uint32_t i = 0; i < lists.size(); ++i) {
            if (lists[i].negated)
                negated.set(i);
            for (const Prefix& prefix : lists[i].prefixes) {
                lists_at[forest.find(prefix)].push_back(i);
                families[prefix.address.family == Family::ipv6].set(i);
            }
        }
        SetPool sets;
        std::vector<BitSet> members{BitSet(lists.size())}; // by depth: the lists that hold the node
        std::vector<std::uint32_t> path{PrefixForest::any};
        input.starts = {0};
        input.classes = {sets.intern(members.front().words())}; // no address is in no list
        for (std::uint32_t node = 1; node < forest.size() && sets.items() <= largest_pool; ++node) {
            while (path.back() != forest[node].parent)
                path.pop_back();
            path.push_back(node);
            members.resize(path.size());
            BitSet& inside = members.back() = members[path.size() - 2];
            for (std::uint32_t list : lists_at[node])
                inside.set(list);
            BitSet holds = inside;
            negated.each([&](std::uint32_t list) {
                if (families[forest[node].prefix.address.family == Family::ipv6].test(list))
                    holds.flip(list);
            });
            input.starts.push_back(node);
            input.classes.push_back(sets.intern(holds.words()));
        }
        input.absent = input.classes.front();
        return sets;
    }

    /// Which operands hold -> which shapes are satisfied as far as this input goes.
    Result<> add_input(std::uint32_t number) {
        InputClasses input;
        input.input = number;
        SetPool operands = operand_classes(input);
        input.count = operands.size();
        if (operands.items() > largest_pool ||
            std::size_t{operands.size()} * (shapes_ / 64 + 1) > largest_pool) {
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
        Classes classes{{}, 1u << number};
        std::vector<std::uint32_t> renumbered;
        for (std::uint32_t id = 0; id < operands.size(); ++id) {
            BitSet satisfied = unasked;
            BitSet::each_in(operands[id], [&](std::uint32_t operand) {
                for (std::uint32_t shape : asked[operand])
                    satisfied.set(shape);
            });
            renumbered.push_back(intern(classes, std::move(satisfied)));
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
    std::uint32_t intern(Classes& classes, BitSet satisfied) const {
        std::uint32_t hides = no_rule;
        satisfied.each([&](std::uint32_t shape) {
            if ((inputs_of_[shape] & ~classes.inputs) == 0)
                hides = std::min(hides, wild_[shape]);
        });
        if (hides != no_rule) {
            // Shapes are numbered in the order of their first rules.
            auto end = std::ranges::upper_bound(first_, hides) - first_.begin();
            BitSet kept(shapes_);
            satisfied.each([&](std::uint32_t shape) {
                if (shape < end)
                    kept.set(shape);
            });
            satisfied = std::move(kept);
        }
        return classes.sets.intern(satisfied.words());
    }

    // ---- products ----

    /// Multiplies the inputs `members`: the digits' index -> number in the result.
    Result<Classes> product(const std::vector<std::size_t>& members, std::size_t largest,
                            std::vector<std::uint32_t>& table) {
        Classes classes{{}, decided_};
        table = {intern(classes, satisfiable_)};
        for (std::size_t member : members) {
            InputClasses& input = out_.inputs[member];
            const Classes& factor = by_input_[member];
            input.place = static_cast<std::uint32_t>(table.size());
            if (table.size() * input.count > largest)
                return explodes("in combination");
            // Only different combinations are computed, then the table is filled by number.
            Classes next{{}, classes.inputs | factor.inputs};
            std::vector<std::uint32_t> pairs(std::size_t{classes.sets.size()} * input.count);
            for (std::uint32_t a = 0; a < classes.sets.size(); ++a) {
                BitSet left(classes.sets[a]);
                for (std::uint32_t b = 0; b < input.count; ++b) {
                    BitSet both(factor.sets[b]);
                    both &= left;
                    pairs[std::size_t{a} * input.count + b] = intern(next, std::move(both));
                    if (next.sets.items() > largest_pool)
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
            groups[together <= single_product ? 0 : early_sum(out_.inputs[i].input)].push_back(i);
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
            Classes classes = NETCTL_TRY(product(groups[sum], largest_early, out_.early[sum]));
            groups[0].push_back(out_.inputs.size());
            InputClasses factor;
            factor.input = out_.inputs[groups[sum].front()].input;
            factor.count = classes.sets.size();
            factor.sum = sum;
            out_.inputs.push_back(std::move(factor));
            by_input_.push_back(std::move(classes));
        }
        Classes classes = NETCTL_TRY(product(groups[0], largest_product, out_.product));
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
    std::uint32_t shapes_;
    BitSet satisfiable_;               ///< shapes that inputs with a single class leave possible
    std::uint32_t decided_ = 0;        ///< those inputs, as a bit mask
    std::vector<std::uint32_t> first_; ///< by shape: its first rule
    std::vector<std::uint32_t> wild_;  ///< by shape: its first rule without addresses
    std::vector<std::uint32_t> inputs_of_; ///< by shape: bit mask
    std::vector<Classes> by_input_;        ///< parallel to out_.inputs
    PacketClasses out_;
};

} // namespace

Result<PacketClasses> packet_classes(const Pieces& pieces) {
    return Builder(pieces).run();
}

} // namespace netctl::classifier
