// SPDX-License-Identifier: GPL-2.0-only
#include "host/import/conditions.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "core/rule_keys.hpp"
#include "host/import/words.hpp"

namespace netctl::host {

namespace {

/// Splitting one prefix from another takes as many as their lengths differ; this bounds a rule's list.
constexpr std::size_t most_pieces = 1024;

struct One {
    std::optional<Match> match; ///< nothing: no packet
    std::string why;
};

std::vector<Range> positive(const Match& match) {
    if (!match.negated)
        return match.ranges;
    std::vector<Range> rest;
    std::uint64_t next = 0;
    for (const Range& range : match.ranges) {
        if (range.low > next)
            rest.push_back({next, range.low - 1});
        next = range.high + 1;
    }
    if (next <= info(match.key).max)
        rest.push_back({next, info(match.key).max});
    return rest;
}

One ranges_of_both(const Match& one, const Match& other) {
    if (one.negated && other.negated) {
        std::vector<Range> all = one.ranges;
        all.insert(all.end(), other.ranges.begin(), other.ranges.end());
        return {ranges_match(one.key, std::move(all), true), {}};
    }
    std::vector<Range> common;
    const std::vector<Range> left = positive(one), right = positive(other);
    for (std::size_t i = 0, j = 0; i < left.size() && j < right.size();) {
        const Range range{std::max(left[i].low, right[j].low),
                          std::min(left[i].high, right[j].high)};
        if (range.low <= range.high)
            common.push_back(range);
        left[i].high < right[j].high ? i++ : j++;
    }
    if (common.empty())
        return {};
    return {ranges_match(one.key, std::move(common)), {}};
}

bool holds_all_of(const Prefix& outer, const Prefix& inner) {
    return outer.length <= inner.length && outer.contains(inner.address);
}

/// What of `whole` is not in `hole`, which is within it.
void without(const Prefix& whole, const Prefix& hole, std::vector<Prefix>& pieces) {
    Prefix rest = whole;
    while (rest.length < hole.length) {
        Prefix half = rest;
        half.length++;
        Prefix upper = half;
        upper.address.bytes[rest.length / 8] |= static_cast<std::uint8_t>(0x80U >> rest.length % 8);
        const bool in_upper = hole.address.bit(rest.length);
        pieces.push_back(in_upper ? half : upper);
        rest = in_upper ? upper : half;
    }
}

bool names_family(const Match& match, Family family) {
    return std::any_of(match.prefixes.begin(), match.prefixes.end(),
                       [&](const Prefix& prefix) { return prefix.address.family == family; });
}

bool same_families(const Match& one, const Match& other) {
    return names_family(one, Family::ipv4) == names_family(other, Family::ipv4) &&
           names_family(one, Family::ipv6) == names_family(other, Family::ipv6);
}

One prefixes_of_both(const Match& one, const Match& other) {
    if (one.negated && other.negated) {
        if (!same_families(one, other))
            return {std::nullopt, fmt::format("'{}' is negated twice, for IPv4 and for IPv6",
                                              to_string(one.key))};
        std::vector<Prefix> all = one.prefixes;
        all.insert(all.end(), other.prefixes.begin(), other.prefixes.end());
        return {prefix_match(one.key, std::move(all), true), {}};
    }
    std::vector<Prefix> common;
    if (!one.negated && !other.negated) {
        for (const Prefix& left : one.prefixes)
            for (const Prefix& right : other.prefixes) {
                if (holds_all_of(left, right))
                    common.push_back(right);
                else if (holds_all_of(right, left))
                    common.push_back(left);
            }
    } else {
        const Match& plus = one.negated ? other : one;
        const Match& minus = one.negated ? one : other;
        for (const Prefix& prefix : plus.prefixes)
            if (names_family(minus, prefix.address.family))
                common.push_back(prefix);
        for (const Prefix& hole : minus.prefixes) {
            std::vector<Prefix> left;
            for (const Prefix& prefix : common) {
                if (holds_all_of(hole, prefix))
                    continue;
                if (holds_all_of(prefix, hole))
                    without(prefix, hole, left);
                else
                    left.push_back(prefix);
            }
            common = std::move(left);
            if (common.size() > most_pieces)
                return {std::nullopt, "its addresses are too many prefixes"};
        }
    }
    if (common.empty())
        return {};
    return {prefix_match(one.key, std::move(common)), {}};
}

One masked_of_both(const Match& one, const Match& other) {
    const Masked left = one.masked.value_or(Masked{}), right = other.masked.value_or(Masked{});
    if (!one.negated && !other.negated) {
        const std::uint32_t shared = left.mask & right.mask;
        if ((left.value & shared) != (right.value & shared))
            return {};
        Match match = one;
        match.masked = Masked{left.value | right.value, left.mask | right.mask};
        return {match, {}};
    }
    if (one.negated != other.negated) {
        const Masked &plus = one.negated ? right : left, minus = one.negated ? left : right;
        const std::uint32_t shared = plus.mask & minus.mask;
        if ((plus.value & shared) != (minus.value & shared)) // not that one in any case
            return {one.negated ? other : one, {}};
        if (shared == minus.mask)
            return {};
    }
    return {std::nullopt,
            fmt::format("two conditions on '{}' that are not one", to_string(one.key))};
}

One one_of_both(const Match& one, const Match& other) {
    if (one == other)
        return {one, {}};
    if (!one.set.empty() || !other.set.empty()) {
        if (one.set == other.set)
            return {}; // a set and what is not in it
        return {std::nullopt,
                fmt::format("two conditions on '{}', one of them a set", to_string(one.key))};
    }
    if (one.masked || other.masked)
        return masked_of_both(one, other);
    if (one.absent || other.absent)
        return {std::nullopt, fmt::format("two conditions on '{}'", to_string(one.key))};
    return is_of_packets(one.key) && info(one.key).form == ValueForm::addresses
               ? prefixes_of_both(one, other)
               : ranges_of_both(one, other);
}

const Match* condition_on(const Conditions& conditions, Key key) {
    const auto found = std::find_if(conditions.begin(), conditions.end(),
                                    [&](const Match& match) { return match.key == key; });
    return found == conditions.end() ? nullptr : &*found;
}

} // namespace

Both both(const Conditions& one, const std::vector<Match>& other) {
    Conditions result = one;
    for (const Match& match : other) {
        const auto at = std::find_if(result.begin(), result.end(), [&](const Match& present) {
            return present.key >= match.key;
        });
        if (at == result.end() || at->key != match.key) {
            result.insert(at, match);
            continue;
        }
        One together = one_of_both(*at, match);
        if (!together.why.empty())
            return {std::nullopt, std::move(together.why)};
        if (!together.match)
            return {};
        *at = std::move(*together.match);
    }
    return {std::move(result), {}};
}

bool covers(const Conditions& outer, const Conditions& inner) {
    return std::all_of(outer.begin(), outer.end(), [&](const Match& match) {
        const Match* present = condition_on(inner, match.key);
        if (present == nullptr)
            return false;
        const One together = one_of_both(match, *present);
        if (!together.match)
            return false;
        if (*together.match == *present)
            return true;
        return !present->ranges.empty() && together.match->ranges == positive(*present);
    });
}

bool apart(const Conditions& one, const Conditions& other) {
    return std::any_of(one.begin(), one.end(), [&](const Match& match) {
        const Match* present = condition_on(other, match.key);
        if (present == nullptr)
            return false;
        const One together = one_of_both(match, *present);
        return !together.match && together.why.empty();
    });
}

} // namespace netctl::host
