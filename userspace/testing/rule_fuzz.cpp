// SPDX-License-Identifier: GPL-2.0-only
#include "testing/rule_fuzz.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "core/rule_keys.hpp"

namespace netctl::testing {

namespace {

std::uint64_t scramble(std::uint64_t x) {
    x = (x ^ x >> 31) * 0x9e3779b97f4a7c15ull;
    return x ^ x >> 29;
}

bool member(const std::string& set, std::uint64_t element) {
    return scramble(element * 131 + std::hash<std::string>{}(set)) >> 7 & 1;
}

std::uint64_t element_of(const Address& address) {
    std::uint64_t sum = address.family == Family::ipv6;
    for (std::uint8_t byte : address.bytes)
        sum = sum * 257 + byte;
    return sum;
}

std::uint64_t highest(Key key) {
    const std::uint64_t of_addresses = 0xff;
    return std::max<std::uint64_t>(info(key).max, info(key).max == 0 ? of_addresses : 0);
}

void normalize(std::vector<Range>& ranges) {
    std::ranges::sort(ranges);
    std::vector<Range> merged;
    for (const Range& range : ranges) {
        if (!merged.empty() && range.low <= merged.back().high + 1)
            merged.back().high = std::max(merged.back().high, range.high);
        else
            merged.push_back(range);
    }
    ranges = std::move(merged);
}

const Match* match_of(const Rule& rule, Key key) {
    for (const Match& match : rule.matches)
        if (match.key == key)
            return &match;
    return nullptr;
}

} // namespace

const char* to_string(RuleStyle style) {
    constexpr std::array<const char*, rule_styles> names{"mixed",      "everything", "addresses",
                                                         "five-tuple", "ports",      "wildcards",
                                                         "duplicates", "sets",       "headers"};
    return names[static_cast<std::size_t>(style)];
}

/// A value from a small pool, so that different rules meet in it.
std::uint64_t RuleFuzz::value(Key key) {
    std::uint64_t top = highest(key);
    switch (below(4)) {
    case 0: // ends, and the sides of where tables are cut
        return std::array<std::uint64_t, 8>{0, 1, top, top - 1, 63, 64, 127, 128}[below(8)] %
               (top + 1);
    case 1: return below(12) * 37 % (top + 1);
    case 2: return (1500 + below(40)) % (top + 1);
    default: return one_in(3) ? random_() % (top + 1) : scramble(below(10)) % (top + 1);
    }
}

Prefix RuleFuzz::prefix(bool ipv6, RuleStyle style) {
    Prefix prefix;
    prefix.address.family = ipv6 ? Family::ipv6 : Family::ipv4;
    unsigned bits = prefix.address.bits();
    // Few different beginnings, on which prefixes of all lengths nest.
    std::uint64_t seed = below(style == RuleStyle::wildcards ? 4 : 6);
    for (unsigned i = 0; i < bits / 8; ++i)
        prefix.address.bytes[i] = static_cast<std::uint8_t>(
            i < (ipv6 ? 6u : 1u) || one_in(2) ? scramble(seed * 16 + i) : below(4) * 85);
    unsigned length;
    if (style == RuleStyle::wildcards)
        length = static_cast<unsigned>(below(9));
    else if (one_in(3))
        length = static_cast<unsigned>(below(bits + 1));
    else
        length = std::array<unsigned, 8>{8, 16, 24, 28, 31, 32, 17, 15}[below(8)] * (ipv6 ? 4 : 1);
    if (ipv6 && one_in(3))
        length = std::array<unsigned, 6>{48, 63, 64, 65, 127, 128}[below(6)];
    prefix.length = static_cast<std::uint8_t>(length);
    for (unsigned bit = length; bit < bits; ++bit)
        prefix.address.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80 >> bit % 8));
    return prefix;
}

Match RuleFuzz::match(Key key, RuleStyle style) {
    Match match;
    match.key = key;
    bool for_sets = key == Key::src || key == Key::dst || key == Key::sport || key == Key::dport;
    if (for_sets && one_in(style == RuleStyle::sets         ? 2
                           : style == RuleStyle::five_tuple ? 40
                                                            : 10)) {
        match.set = "s" + std::to_string(below(style == RuleStyle::sets ? 10 : 3));
        match.negated = one_in(3);
        return match;
    }
    match.negated = one_in(style == RuleStyle::five_tuple || style == RuleStyle::ports ? 30 : 8);
    if (key == Key::src || key == Key::dst) {
        std::uint64_t count = one_in(lists_) ? 2 + below(one_in(4) ? 30 : 5) : 1;
        for (std::uint64_t i = 0; i < count; ++i)
            match.prefixes.push_back(prefix(one_in(count > 1 ? 2 : 3), style));
        std::ranges::sort(match.prefixes);
        match.prefixes.erase(std::unique(match.prefixes.begin(), match.prefixes.end()),
                             match.prefixes.end());
        return match;
    }
    const ValueForm form = info(key).form;
    if (form == ValueForm::flags || form == ValueForm::mark) {
        Masked masked;
        masked.mask =
            static_cast<std::uint32_t>(one_in(2) ? scramble(below(5)) & scramble(below(5) + 9)
                                                 : 1u << below(form == ValueForm::mark ? 32 : 8));
        if (form == ValueForm::flags)
            masked.mask &= 0xff;
        masked.value =
            one_in(2) ? masked.mask : static_cast<std::uint32_t>(value(key)) & masked.mask;
        match.masked = masked;
        return match;
    }
    if (key == Key::vlan && one_in(4)) {
        match.absent = true;
        return match;
    }
    std::uint64_t count = one_in(4) ? 1 + below(4) : 1;
    for (std::uint64_t i = 0; i < count; ++i) {
        std::uint64_t low = value(key);
        std::uint64_t high = low;
        if (one_in(style == RuleStyle::ports ? 1 : 2) && key != Key::ether_src)
            high = one_in(2) ? value(key) : std::min(highest(key), low + below(1000));
        match.ranges.push_back({std::min(low, high), std::max(low, high)});
    }
    normalize(match.ranges);
    return match;
}

std::vector<Rule> RuleFuzz::rules(RuleStyle style, std::size_t count) {
    auto odds = [&](Key key) -> std::uint64_t { // one in how many rules has the key; 0: none
        bool address = key == Key::src || key == Key::dst;
        bool port = key == Key::sport || key == Key::dport;
        switch (style) {
        case RuleStyle::mixed: return address ? 2 : 5;
        case RuleStyle::everything: return 2;
        case RuleStyle::addresses: return address ? 1 : 0;
        case RuleStyle::five_tuple: return address ? 1 : port || key == Key::proto ? 2 : 0;
        case RuleStyle::ports: return port ? 1 : address ? 10 : 0;
        case RuleStyle::wildcards:
            return address || key == Key::dport ? 2 : key == Key::proto ? 4 : 0;
        case RuleStyle::duplicates: return address || key == Key::dport ? 2 : 20;
        case RuleStyle::sets: return address || port ? 2 : 0;
        case RuleStyle::headers: return address ? 6 : port ? 0 : 3;
        }
        return 0;
    };
    lists_ = style == RuleStyle::addresses ? 3 : 8;
    std::vector<Rule> rules;
    while (rules.size() < count) {
        if (style == RuleStyle::duplicates && rules.size() > 8 && !one_in(10)) {
            // A former rule, maybe with one match less or another one.
            Rule rule = rules[below(rules.size())];
            if (one_in(2) && !rule.matches.empty())
                rule.matches.erase(rule.matches.begin() +
                                   static_cast<std::ptrdiff_t>(below(rule.matches.size())));
            rules.push_back(std::move(rule));
            continue;
        }
        Rule rule;
        rule.actions.emplace_back().kind = ActionKind::drop;
        for (const KeyInfo& key : rule_keys())
            if (std::uint64_t n = is_of_packets(key.key) ? odds(key.key) : 0; n && one_in(n))
                rule.matches.push_back(match(key.key, style));
        // Rules that match nearly everything hide what follows: keep them for the end.
        if (rule.matches.size() < 2 && style != RuleStyle::wildcards &&
            style != RuleStyle::addresses && rules.size() < count - 3 && !one_in(50))
            continue;
        rules.push_back(std::move(rule));
    }
    return rules;
}

/// A value in a range of the match, at its ends, or just outside.
std::uint64_t RuleFuzz::near(const Match& match, std::uint64_t otherwise) {
    if (match.masked) {
        std::uint64_t noise = random_() & ~std::uint64_t{match.masked->mask};
        std::uint64_t value = match.masked->value | (one_in(2) ? noise : 0);
        return one_in(5) ? value ^ (1ull << below(8)) : value;
    }
    if (match.ranges.empty())
        return otherwise;
    const Range& range = match.ranges[below(match.ranges.size())];
    std::uint64_t top = highest(match.key);
    switch (below(7)) {
    case 0: return range.low;
    case 1: return range.high;
    case 2: return range.low == 0 ? top : range.low - 1;
    case 3: return range.high == top ? 0 : range.high + 1;
    default: return range.low + random_() % (range.high - range.low + 1);
    }
}

nc_packet RuleFuzz::packet(const std::vector<Rule>& rules) {
    nc_packet p{};
    const Rule& main = rules[below(rules.size())];
    const Rule& other = rules[below(rules.size())];
    auto field = [&](Key key) {
        const Match* match = match_of(one_in(6) ? other : main, key);
        std::uint64_t otherwise = value(key);
        return match ? near(*match, otherwise) : otherwise;
    };
    bool ipv6 = one_in(3);
    for (Key key : {Key::src, Key::dst})
        if (const Match* match = match_of(main, key);
            match && !match->prefixes.empty() && !one_in(10))
            ipv6 = match->prefixes[below(match->prefixes.size())].address.family == Family::ipv6;

    auto address = [&](Key key, __be32(&words)[4]) {
        std::array<std::uint8_t, 16> bytes{};
        const Match* match = match_of(one_in(6) ? other : main, key);
        Prefix at = prefix(ipv6, RuleStyle::addresses);
        if (match)
            for (int tries = 0; tries < 4 && !match->prefixes.empty(); ++tries) {
                const Prefix& named = match->prefixes[below(match->prefixes.size())];
                if ((named.address.family == Family::ipv6) == ipv6) {
                    at = named;
                    break;
                }
            }
        unsigned bits = at.address.bits();
        bytes = at.address.bytes;
        std::uint64_t fill = below(3); // all zero, all one, random: the ends and the inside
        for (unsigned bit = at.length; bit < bits; ++bit)
            if (fill == 1 || (fill == 2 && one_in(2)))
                bytes[bit / 8] |= static_cast<std::uint8_t>(0x80 >> bit % 8);
        if (one_in(5)) { // the neighbour: a step below the first or above the last address
            bool up = fill == 1;
            for (unsigned i = bits / 8; i-- > 0;)
                if (up ? ++bytes[i] != 0 : bytes[i]-- != 0)
                    break;
        } else if (one_in(8) && at.length > 0) {
            unsigned bit = static_cast<unsigned>(below(at.length));
            bytes[bit / 8] ^= static_cast<std::uint8_t>(0x80 >> bit % 8);
        }
        std::memcpy(words, bytes.data(), ipv6 ? 16 : 4);
    };

    auto bytes_of = [](std::uint64_t mac, __u8(&out)[6]) {
        for (unsigned i = 0; i < 6; ++i)
            out[i] = static_cast<__u8>(mac >> (40 - 8 * i));
    };

    // Combinations that no header makes are fine: the classifier takes them as they come.
    if (!one_in(8))
        p.has |= NC_HAS_ETHER | (one_in(2) ? NC_HAS_VLAN : 0);
    if (!one_in(15)) {
        p.has |= NC_HAS_PROTO | (ipv6 ? NC_HAS_IPV6 : NC_HAS_IPV4);
        p.has |= !one_in(5) ? NC_HAS_PORTS : 0;
        p.has |= one_in(2) ? NC_HAS_FLAGS : 0;
        p.has |= one_in(2) ? NC_HAS_ICMP : 0;
    }
    auto number = [&](Key key) { return std::min(field(key), highest(key)); };
#define NETCTL_FILL_ADDRESS(name) address(Key::name, p.name)
#define NETCTL_FILL_U8(name) p.name = static_cast<__u8>(number(Key::name))
#define NETCTL_FILL_U16(name) p.name = static_cast<__u16>(number(Key::name))
#define NETCTL_FILL_U32(name) p.name = static_cast<__u32>(number(Key::name))
#define NETCTL_FILL_MASK32(name) p.name = static_cast<__u32>(number(Key::name))
#define NETCTL_FILL_MAC(name) bytes_of(number(Key::name), p.name)
#define NETCTL_FILL(NAME, name, text, kind, part, ...)                                             \
    if ((part) == 0 || (p.has & (part)) != 0)                                                      \
        NETCTL_FILL_##kind(name);
    NC_PACKET_KEYS(NETCTL_FILL)
    return p;
}

classifier::SetOracle RuleFuzz::sets() {
    return {
        .has_address = [](const std::string& set,
                          const Address& address) { return member(set, element_of(address)); },
        .has_port = [](const std::string& set, std::uint16_t port) { return member(set, port); }};
}

std::uint64_t RuleFuzz::set_bits(const std::vector<classifier::SetUse>& uses,
                                 const nc_packet& packet) {
    // Asked of the reference matcher, so that what a field that is absent means is said once.
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < uses.size(); ++i) {
        Rule rule;
        rule.matches.emplace_back().key = uses[i].key;
        rule.matches.back().set = uses[i].set;
        bits |= std::uint64_t{classifier::matches(rule, packet, sets())} << i;
    }
    return bits;
}

} // namespace netctl::testing
