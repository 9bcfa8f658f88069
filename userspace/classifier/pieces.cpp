// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/pieces.hpp"

#include <algorithm>
#include <optional>

#include "classifier/inputs.hpp"
#include "core/rule_keys.hpp"
#include "netctl/abi/packet.h"

namespace netctl::classifier {

namespace {

using Conditions = std::map<std::uint32_t, ValueSet>;

/// Values of [0, highest] outside of `ranges`.
std::vector<Range> complement(const std::vector<Range>& ranges, std::uint64_t highest) {
    std::vector<Range> outside;
    std::uint64_t next = 0;
    for (const Range& range : ranges) {
        if (range.low > next)
            outside.push_back({next, range.low - 1});
        if (range.high >= highest)
            return outside;
        next = range.high + 1;
    }
    outside.push_back({next, highest});
    return outside;
}

std::vector<Range> intersection(const std::vector<Range>& a, const std::vector<Range>& b) {
    std::vector<Range> common;
    for (const Range& x : a)
        for (const Range& y : b)
            if (std::max(x.low, y.low) <= std::min(x.high, y.high))
                common.push_back({std::max(x.low, y.low), std::min(x.high, y.high)});
    std::ranges::sort(common);
    return common;
}

/// Bytes for which (byte & mask) == value, or those for which it is not.
ValueSet masked_byte(std::uint8_t value, std::uint8_t mask, bool negated) {
    ValueSet set;
    for (std::uint64_t byte = 0; byte < 256; ++byte) {
        if (((byte & mask) == value) == negated)
            continue;
        if (!set.ranges.empty() && set.ranges.back().high + 1 == byte)
            set.ranges.back().high = byte;
        else
            set.ranges.push_back({byte, byte});
    }
    return set;
}

std::uint64_t family_value(Family family) {
    return family == Family::ipv4 ? 1 : 2;
}

/// One side of a rule: prefixes to cross, each with the condition on the family that it stands for
/// (0: none), or none at all: any address, or no address.
struct Side {
    std::vector<Prefix> prefixes;
    bool any = true;
};

class TakeApart {
  public:
    /// `crossed`: prefixes are crossed; otherwise they are lists.
    TakeApart(std::span<const Rule> rules, std::span<const SetUse> set_uses, bool crossed)
        : rules_(rules), set_uses_(set_uses), most_crossed_(crossed ? max_crossed_prefixes : 0) {}

    void take(std::uint32_t position) {
        const Rule& rule = rules_[position];
        Side src, dst;
        // A negated mark of several bytes is a union, hence alternatives.
        std::vector<Conditions> alternatives(1);
        lists_.clear();
        for (const Match& match : rule.matches) {
            bool address = match.key == Key::src || match.key == Key::dst;
            Side& side = match.key == Key::src ? src : dst;
            if (!match.set.empty())
                set_match(match, alternatives);
            else if (address && !match.negated && match.prefixes.size() <= most_crossed_)
                side = {match.prefixes, false};
            else if (address)
                list_match(match);
            else if (match.masked)
                masked_match(match, alternatives);
            else
                range_match(match, alternatives);
        }
        for (Conditions& conditions : alternatives)
            place(position, src, dst, conditions);
    }
    /// What was taken so far; its forests are not built yet.
    Pieces& pieces() { return out_; }
    /// Gives each piece its nodes of the forests, which are built now.
    Pieces finish() {
        const std::vector<std::uint32_t> src = nodes(src_prefixes_, out_.src),
                                         dst = nodes(dst_prefixes_, out_.dst);
        out_.pieces.reserve(boxes_.size());
        for (const Box& box : boxes_)
            out_.pieces.push_back(
                {box.rule, box.src == no_prefix ? PrefixForest::any : src[box.src],
                 box.dst == no_prefix ? PrefixForest::any : dst[box.dst], box.shape});
        return std::move(out_);
    }

  private:
    /// Each prefix once: lists on both sides make many boxes of few.
    using Prefixes = SequencePool<Prefix>;
    static constexpr std::uint32_t no_prefix = ~0u;

    struct Box {
        std::uint32_t rule;
        std::uint32_t src, dst; ///< numbers of prefixes, or no_prefix
        std::uint32_t shape;
    };

    static std::uint32_t number_of(Prefixes& prefixes, PrefixForest& forest, const Prefix& prefix) {
        const std::uint32_t number = prefixes.intern(std::span(&prefix, 1));
        if (number + 1 == prefixes.size())
            forest.add(prefix);
        return number;
    }
    static std::vector<std::uint32_t> nodes(const Prefixes& prefixes, const PrefixForest& forest) {
        std::vector<std::uint32_t> nodes;
        for (std::uint32_t i = 0; i < prefixes.size(); ++i)
            nodes.push_back(forest.find(prefixes[i].front()));
        return nodes;
    }

    /// Adds a condition to those on its input; false if nothing satisfies both.
    static bool require(Conditions& conditions, std::uint32_t input, ValueSet set) {
        auto [at, fresh] = conditions.try_emplace(input, set);
        if (!fresh)
            at->second = {intersection(at->second.ranges, set.ranges),
                          at->second.absent && set.absent};
        return at->second.absent || !at->second.ranges.empty();
    }

    void set_match(const Match& match, std::vector<Conditions>& alternatives) const {
        auto use = std::ranges::find(set_uses_, SetUse{match.key, match.set});
        auto bit = static_cast<std::uint32_t>(use - set_uses_.begin());
        auto mask = static_cast<std::uint8_t>(1u << bit % 8);
        std::erase_if(alternatives, [&](Conditions& conditions) {
            bool possible = require(conditions, NC_INPUT_SETS + bit / 8,
                                    masked_byte(match.negated ? 0 : mask, mask, false));
            // The bit of a field that is not there is zero.
            if (match.negated)
                possible = possible &&
                           (match.key == Key::src || match.key == Key::dst
                                ? require(conditions, NC_INPUT_FAMILY, {{{1, 2}}, false})
                                : require(conditions, input_of(match.key), {{{0, 65535}}, false}));
            return !possible;
        });
    }

    void list_match(const Match& match) {
        std::vector<PrefixList>& lists = match.key == Key::src ? out_.src_lists : out_.dst_lists;
        auto& numbers = match.key == Key::src ? src_numbers_ : dst_numbers_;
        PrefixForest& forest = match.key == Key::src ? out_.src : out_.dst;
        PrefixList list{match.prefixes, match.negated};
        auto [at, fresh] = numbers.try_emplace(list, static_cast<std::uint32_t>(lists.size()));
        if (fresh) {
            for (const Prefix& prefix : list.prefixes)
                forest.add(prefix);
            lists.push_back(std::move(list));
        }
        lists_.push_back(input_of(match.key) << 24 | at->second);
    }

    static void range_match(const Match& match, std::vector<Conditions>& alternatives) {
        std::uint32_t input = input_of(match.key);
        // `vlan none` is an absent field; negated, it is one that is there.
        ValueSet set{match.ranges, match.absent};
        if (match.negated)
            set = {complement(match.ranges, input_info(input).highest), false};
        std::erase_if(alternatives,
                      [&](Conditions& conditions) { return !require(conditions, input, set); });
    }

    static void masked_match(const Match& match, std::vector<Conditions>& alternatives) {
        std::vector<std::pair<std::uint32_t, std::pair<std::uint8_t, std::uint8_t>>> bytes;
        const unsigned count = inputs_of(match.key);
        for (unsigned i = 0; i < count; ++i) {
            auto value = static_cast<std::uint8_t>(match.masked->value >> 8 * i);
            auto mask = static_cast<std::uint8_t>(match.masked->mask >> 8 * i);
            // A byte that is not looked at is no condition, unless it is the first of a field that not all
            // packets have: flags need a TCP header even where their mask is 0.
            if (mask || value || (i == 0 && (match.negated || info(match.key).part != 0)))
                bytes.push_back({input_of(match.key) + i, {value, mask}});
        }
        std::vector<Conditions> result;
        for (const Conditions& before : alternatives) {
            if (!match.negated) {
                Conditions conditions = before;
                bool possible = true;
                for (const auto& [input, byte] : bytes)
                    possible = possible && require(conditions, input,
                                                   masked_byte(byte.first, byte.second, false));
                if (possible)
                    result.push_back(std::move(conditions));
                continue;
            }
            for (const auto& [input, byte] : bytes) {
                Conditions conditions = before;
                if (require(conditions, input, masked_byte(byte.first, byte.second, true)))
                    result.push_back(std::move(conditions));
            }
        }
        alternatives = std::move(result);
    }

    /// Makes the boxes of one alternative.
    void place(std::uint32_t position, const Side& src, const Side& dst,
               const Conditions& conditions) {
        auto whole = [](const Prefix& prefix) { return prefix.length == 0; };
        // By the family that is asked for, if any; of boxes there are many.
        struct Shape {
            bool known = false, possible = false;
            std::uint32_t number = 0;
        };
        std::array<Shape, 3> shapes;
        auto shape_of = [&](std::optional<Family> family) {
            Shape& known = shapes[family ? family_value(*family) : 0];
            if (known.known)
                return known;
            Conditions all = conditions;
            known = {true,
                     !family || require(all, NC_INPUT_FAMILY,
                                        {{{family_value(*family), family_value(*family)}}, false})};
            if (known.possible)
                known.number = shape(all);
            return known;
        };
        auto box = [&](const Prefix* s, const Prefix* d) {
            if (s && d && s->address.family != d->address.family)
                return;
            // All addresses of a family are a condition on the family, if it is not implied by
            // the other side: it keeps the rule out of the crossing, or in one row of it.
            std::optional<Family> family;
            if (s && whole(*s) && (!d || whole(*d)))
                family = s->address.family;
            else if (d && whole(*d) && !s)
                family = d->address.family;
            const Shape its = shape_of(family);
            if (!its.possible)
                return;
            boxes_.push_back(
                {position, s && !whole(*s) ? number_of(src_prefixes_, out_.src, *s) : no_prefix,
                 d && !whole(*d) ? number_of(dst_prefixes_, out_.dst, *d) : no_prefix, its.number});
        };
        auto sources = [&](const Prefix* d) {
            if (src.any)
                box(nullptr, d);
            for (const Prefix& s : src.prefixes)
                box(&s, d);
        };
        if (dst.any)
            sources(nullptr);
        for (const Prefix& d : dst.prefixes)
            sources(&d);
    }

    std::uint32_t shape(const Conditions& conditions) {
        std::vector<std::uint32_t> shape = lists_;
        for (const auto& [input, set] : conditions) {
            auto& numbers = value_numbers_[input];
            auto [at, fresh] =
                numbers.try_emplace(set, static_cast<std::uint32_t>(out_.values[input].size()));
            if (fresh)
                out_.values[input].push_back(set);
            shape.push_back(input << 24 | at->second);
        }
        std::ranges::sort(shape);
        return out_.shapes.intern(shape);
    }

    std::span<const Rule> rules_;
    std::span<const SetUse> set_uses_;
    std::size_t most_crossed_; ///< prefixes of a match that is crossed
    Pieces out_;
    std::vector<Box> boxes_;
    Prefixes src_prefixes_, dst_prefixes_;
    std::vector<std::uint32_t> lists_; ///< conditions of the present rule on prefix lists
    std::array<std::map<ValueSet, std::uint32_t>, NC_INPUTS> value_numbers_;
    std::map<PrefixList, std::uint32_t> src_numbers_, dst_numbers_;
};

} // namespace

DividedPieces take_apart(std::span<const Rule> rules, std::span<const SetUse> set_uses,
                         const std::vector<Place>& places) {
    TakeApart crossed(rules, set_uses, true), rest(rules, set_uses, false);
    for (std::uint32_t i = 0; i < rules.size(); ++i)
        if (places[i] != Place::nowhere)
            (places[i] == Place::apart ? rest : crossed).take(i);
    // An address has one class, whoever asks about it.
    Pieces &all = crossed.pieces(), &others = rest.pieces();
    all.src.add(others.src);
    all.dst.add(others.dst);
    all.src.build();
    all.dst.build();
    if (std::ranges::find(places, Place::apart) != places.end()) {
        others.src = all.src;
        others.dst = all.dst;
    }
    return {crossed.finish(), rest.finish()};
}

} // namespace netctl::classifier
