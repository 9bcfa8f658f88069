// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/changes.hpp"

#include <algorithm>
#include <bit>
#include <string_view>

#include <fmt/format.h>

#include "classifier/prefix_forest.hpp"
#include "core/rule_keys.hpp"

namespace netctl::classifier {

namespace {

/// Rules that are gone at most: each is compared with those behind it.
constexpr std::size_t most_gone = 256;

Error too_many(std::string_view what) {
    return Error::usage(fmt::format("{} are too many changes", what));
}

// ---- what rules have in common ----

constexpr unsigned both_families = NC_HAS_IPV4 | NC_HAS_IPV6;

bool is_plain(const Match& match) {
    return !match.negated && !match.absent && match.set.empty() && !match.masked;
}

/// Families that packets of the rule can be of.
unsigned families(const Rule& rule) {
    unsigned families = both_families;
    for (const Match& match : rule.matches) {
        if (match.prefixes.empty())
            continue;
        unsigned named = 0;
        for (const Prefix& prefix : match.prefixes)
            named |= prefix.address.family == Family::ipv4 ? NC_HAS_IPV4 : NC_HAS_IPV6;
        families &= named;
    }
    return families;
}

bool is_within(const Prefix& inner, const Prefix& outer) {
    return inner.length >= outer.length && outer.contains(inner.address);
}

bool is_within(const Range& inner, const Range& outer) {
    return inner.low >= outer.low && inner.high <= outer.high;
}

bool meet(const Prefix& a, const Prefix& b) {
    return is_within(a, b) || is_within(b, a);
}

bool meet(const Range& a, const Range& b) {
    return a.low <= b.high && b.low <= a.high;
}

template <class T> bool any_meet(const std::vector<T>& a, const std::vector<T>& b) {
    return std::any_of(a.begin(), a.end(), [&](const T& x) {
        return std::any_of(b.begin(), b.end(), [&](const T& y) { return meet(x, y); });
    });
}

template <class T> bool all_within(const std::vector<T>& inner, const std::vector<T>& outer) {
    return std::all_of(inner.begin(), inner.end(), [&](const T& x) {
        return std::any_of(outer.begin(), outer.end(), [&](const T& y) { return is_within(x, y); });
    });
}

/// False only if no packet can match both.
bool may_overlap(const Rule& a, const Rule& b) {
    for (const Match& x : a.matches) {
        const Match* y = b.find(x.key);
        if (!y || !is_plain(x) || !is_plain(*y))
            continue;
        if (!x.prefixes.empty() && !y->prefixes.empty() && !any_meet(x.prefixes, y->prefixes))
            return false;
        if (!x.ranges.empty() && !y->ranges.empty() && !any_meet(x.ranges, y->ranges))
            return false;
    }
    return (families(a) & families(b)) != 0 || families(a) == 0;
}

/// True only if every packet that matches `inner` matches `outer`.
bool covers(const Rule& outer, const Rule& inner) {
    return std::all_of(outer.matches.begin(), outer.matches.end(), [&](const Match& x) {
        const Match* y = inner.find(x.key);
        if (!y)
            return false;
        if (x == *y)
            return true;
        if (!is_plain(x) || !is_plain(*y) || !x.path.empty())
            return false;
        return all_within(y->prefixes, x.prefixes) && all_within(y->ranges, x.ranges);
    });
}

// ---- which rules are in the block ----

/// A longest selection of `positions` that rises; tells for each whether it belongs to it.
std::vector<bool> longest_rise(const std::vector<std::uint32_t>& positions) {
    std::vector<std::uint32_t> last;   // by length: index of the lowest end of a rise
    std::vector<std::uint32_t> before; // by index: the previous one of its rise
    for (std::uint32_t i = 0; i < positions.size(); ++i) {
        const auto place = std::lower_bound(
            last.begin(), last.end(), positions[i],
            [&](std::uint32_t index, std::uint32_t value) { return positions[index] < value; });
        before.push_back(place == last.begin() ? i : *(place - 1));
        if (place == last.end())
            last.push_back(i);
        else
            *place = i;
    }
    std::vector<bool> chosen(positions.size());
    if (last.empty())
        return chosen;
    std::uint32_t i = last.back();
    for (std::size_t left = last.size(); left-- > 0; i = before[i])
        chosen[i] = true;
    return chosen;
}

/// Which of the list stay where their compiled ones are, and which of those stand in.
struct Selection {
    std::vector<bool> stays;   ///< by position in the list
    std::vector<bool> stands;  ///< by position in the list
    std::vector<bool> present; ///< by compiled position
};

Result<Selection> select(std::span<const Rule* const> compiled, std::span<const ListedRule> list) {
    Selection out;
    out.stays.resize(list.size());
    out.stands.resize(list.size());
    out.present.resize(compiled.size());
    std::vector<std::uint32_t> positions, places; // of compiled ones
    for (std::uint32_t i = 0; i < list.size(); ++i)
        if (list[i].compiled != not_compiled) {
            positions.push_back(list[i].compiled);
            places.push_back(i);
        }
    const std::vector<bool> chosen = longest_rise(positions);
    std::size_t stay = 0;
    for (std::size_t i = 0; i < places.size(); ++i)
        if (chosen[i]) {
            out.stays[places[i]] = true;
            out.present[positions[i]] = true;
            ++stay;
        }
    std::size_t used = list.size() - stay;
    if (used > NC_CHANGES)
        return too_many(fmt::format("{} rules that are new or moved", used));
    if (compiled.size() - stay > most_gone)
        return too_many(fmt::format("{} rules that are gone", compiled.size() - stay));

    for (std::uint32_t gone = 0; gone < compiled.size(); ++gone) {
        if (out.present[gone])
            continue;
        for (std::size_t i = 0; i < places.size(); ++i) {
            if (!chosen[i] || positions[i] < gone)
                continue;
            const Rule& behind = *list[places[i]].rule;
            if (!may_overlap(*compiled[gone], behind))
                continue;
            if (!out.stands[places[i]]) {
                out.stands[places[i]] = true;
                if (++used > NC_CHANGES)
                    return too_many("rules that overlap with one that is gone");
            }
            if (covers(behind, *compiled[gone]))
                break;
        }
    }
    return out;
}

// ---- rows ----

/// A rule's match on a field, or null where it looks elsewhere only.
using Matches = std::vector<const Match*>;

std::uint64_t row(const Matches& matches, auto holds) {
    std::uint64_t bits = 0;
    for (std::size_t bit = 0; bit < matches.size(); ++bit)
        if (!matches[bit] || holds(*matches[bit]))
            bits |= std::uint64_t{1} << bit;
    return bits;
}

template <class T> Result<> keep_starts(std::vector<T>& starts) {
    std::sort(starts.begin(), starts.end());
    starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
    if (starts.size() > NC_CHANGE_STARTS)
        return too_many(fmt::format("{} intervals of values", starts.size()));
    return {};
}

/// Where `(x & mask) == value` begins or ends to hold: at a run of the bits below the mask for each
/// value of those within it that it leaves open.
Result<> add_masked(std::vector<std::uint64_t>& starts, Masked masked, unsigned width) {
    if (masked.mask == 0 || masked.value & ~masked.mask)
        return {}; // always, or never
    const unsigned low = static_cast<unsigned>(std::countr_zero(masked.mask));
    const std::uint64_t run = std::uint64_t{1} << low;
    const std::uint64_t open =
        ((std::uint64_t{1} << width) - 1) & ~std::uint64_t{masked.mask} & ~(run - 1);
    if (std::popcount(open) > 6)
        return too_many("the values of a mask");
    for (std::uint64_t part = 0;; part = (part - open) & open) { // each part of the open bits
        starts.push_back(masked.value | part);
        starts.push_back((masked.value | part) + run);
        if (part == open)
            return {};
    }
}

bool holds_number(const Match& match, std::uint64_t number) {
    if (match.masked)
        return ((number & match.masked->mask) == match.masked->value) != match.negated;
    return std::any_of(match.ranges.begin(), match.ranges.end(), [&](const Range& range) {
               return range.low <= number && number <= range.high;
           }) != match.negated;
}

Result<> fill_numbers(nc_change_numbers& out, const Matches& matches, Key key) {
    std::vector<std::uint64_t> starts{0};
    for (const Match* match : matches) {
        if (!match)
            continue;
        for (const Range& range : match->ranges) {
            starts.push_back(range.low);
            starts.push_back(range.high + 1);
        }
        if (match->masked)
            NETCTL_TRY(add_masked(starts, *match->masked, info(key).max > 0xff ? 32 : 8));
    }
    NETCTL_TRY(keep_starts(starts));
    out.absent = row(matches, [](const Match& match) { return match.absent && !match.negated; });
    for (std::size_t i = 0; i < NC_CHANGE_STARTS; ++i) {
        const std::uint64_t start = starts[std::min(i, starts.size() - 1)];
        out.starts[i] = start;
        out.rows[i] = row(matches, [&](const Match& match) { return holds_number(match, start); });
    }
    return {};
}

/// The first address behind a prefix; false if there is none.
bool behind(const Prefix& prefix, TrieKey& key) {
    if (prefix.length == 0)
        return false;
    const std::uint64_t one = std::uint64_t{1} << (63 - (prefix.length - 1) % 64);
    if (prefix.length > 64) {
        key.low += one;
        if (key.low != 0)
            return true;
        ++key.high;
    } else {
        key.high += one;
    }
    return key.high != 0;
}

bool holds_address(const Match& match, const TrieKey& key, Family family) {
    bool named = false, covered = false;
    for (const Prefix& prefix : match.prefixes) {
        if (prefix.address.family != family)
            continue;
        named = true;
        covered |= TrieKey::of(prefix.address).agrees(key, prefix.length);
    }
    return named && covered != match.negated;
}

Result<std::vector<TrieKey>> address_starts(const Matches& matches, Family family) {
    std::vector<TrieKey> starts{{}};
    for (const Match* match : matches) {
        if (!match)
            continue;
        for (const Prefix& prefix : match->prefixes) {
            if (prefix.address.family != family)
                continue;
            TrieKey key = TrieKey::of(prefix.address);
            starts.push_back(key);
            if (behind(prefix, key))
                starts.push_back(key);
        }
    }
    NETCTL_TRY(keep_starts(starts));
    return starts;
}

Result<> fill_addresses(nc_changes& block, const Matches& matches, std::size_t side) {
    const std::vector<TrieKey> v4 = NETCTL_TRY(address_starts(matches, Family::ipv4)),
                               v6 = NETCTL_TRY(address_starts(matches, Family::ipv6));
    nc_change_numbers& numbers = block.numbers[side];
    nc_change_addresses& addresses = block.addresses[side];
    numbers.absent = row(matches, [](const Match&) { return false; });
    const auto row_of = [&](const TrieKey& key, Family family) {
        return row(matches, [&](const Match& match) { return holds_address(match, key, family); });
    };
    for (std::size_t i = 0; i < NC_CHANGE_STARTS; ++i) {
        const TrieKey& four = v4[std::min(i, v4.size() - 1)];
        numbers.starts[i] = four.high >> 32;
        numbers.rows[i] = row_of(four, Family::ipv4);
        const TrieKey& six = v6[std::min(i, v6.size() - 1)];
        addresses.high[i] = six.high;
        addresses.low[i] = six.low;
        addresses.rows[i] = row_of(six, Family::ipv6);
    }
    return {};
}

Result<> fill_rows(nc_changes& block, std::span<const Rule* const> rules) {
    for (const Rule* rule : rules)
        for (const Match& match : rule->matches) {
            if (!is_of_packets(match.key) || !match.set.empty())
                return Error::usage("sets are not looked up for changes");
            block.fields |= 1U << static_cast<unsigned>(match.key);
        }
    for (unsigned field = 0; field < NC_FIELDS; ++field) {
        if (!(block.fields >> field & 1))
            continue;
        const Key key = static_cast<Key>(field);
        Matches matches;
        for (const Rule* rule : rules)
            matches.push_back(rule->find(key));
        if (key == Key::src || key == Key::dst)
            NETCTL_TRY(fill_addresses(block, matches, field));
        else
            NETCTL_TRY(fill_numbers(block.numbers[field], matches, key));
    }
    return {};
}

} // namespace

Result<Changes> compile_changes(std::span<const Rule* const> compiled,
                                std::span<const ListedRule> list) {
    if (compiled.size() > NC_COMPILED_MAX)
        return too_many(fmt::format("changes to {} rules", compiled.size()));
    const Selection selection = NETCTL_TRY(select(compiled, list));
    Changes out{std::make_unique<nc_changes>(), {}};
    nc_changes& block = *out.block;
    block.rules = static_cast<__u32>(list.size());
    for (std::uint32_t i = 0; i < compiled.size(); ++i)
        if (!selection.present[i])
            block.gone[i / 64] |= std::uint64_t{1} << i % 64;

    std::vector<const Rule*> rules;
    for (std::uint32_t i = 0; i < list.size(); ++i) {
        if (selection.stays[i] && !selection.stands[i])
            continue;
        const std::uint64_t bit = std::uint64_t{1} << rules.size();
        block.all |= bit;
        if (!selection.stays[i])
            block.listed |= bit;
        block.action[rules.size()] = list[i].compiled;
        rules.push_back(list[i].rule);
        out.rules.push_back(i);
    }
    auto next = static_cast<std::uint32_t>(compiled.size());
    std::size_t bit = rules.size();
    for (std::size_t i = list.size(); i-- > 0;) {
        if (selection.stays[i])
            next = list[i].compiled;
        if (bit > 0 && out.rules[bit - 1] == i)
            block.before[--bit] = next;
    }
    NETCTL_TRY(fill_rows(block, rules));
    return out;
}

} // namespace netctl::classifier
