// SPDX-License-Identifier: GPL-2.0-only
#include "features/policy/connection.hpp"

#include <algorithm>
#include <bitset>
#include <cstring>
#include <map>

namespace netctl::policy {

namespace {

nc_packet packet_of(const Connection& connection) {
    nc_packet packet{};
    packet.has = NC_HAS_PROTO;
    packet.has |= connection.dst.family == Family::ipv4 ? NC_HAS_IPV4 : NC_HAS_IPV6;
    std::memcpy(packet.dst, connection.dst.bytes.data(), sizeof packet.dst);
    packet.proto = connection.proto;
    if (has_ports(connection.proto)) {
        packet.has |= NC_HAS_PORTS;
        packet.dport = connection.dport;
        packet.sport = connection.sport;
    }
    return packet;
}

bool in_ranges(const std::vector<Range>& ranges, std::uint64_t number) {
    return std::any_of(ranges.begin(), ranges.end(), [&](const Range& range) {
        return range.low <= number && number <= range.high;
    });
}

bool holds(const Match& match, const Connection& connection, const nc_packet& packet,
           const ResolveExe& resolve, const classifier::SetOracle& sets) {
    switch (match.key) {
    case Key::uid: return in_ranges(match.ranges, connection.uid) != match.negated;
    case Key::gid: return in_ranges(match.ranges, connection.gid) != match.negated;
    case Key::cgroup: return is_below(connection.cgroup, match.path) != match.negated;
    case Key::exe: return (resolve(match.path) == connection.exe) != match.negated;
    case Key::sport:
        if (connection.sport == 0)
            return false;
        [[fallthrough]];
    default: {
        Rule alone;
        alone.matches.push_back(match);
        return classifier::matches(alone, packet, sets);
    }
    }
}

// ---- one rule within another ----

bool prefix_within(const Prefix& inner, const Prefix& outer) {
    return outer.length <= inner.length && outer.contains(inner.address);
}

bool ranges_within(const std::vector<Range>& inner, const std::vector<Range>& outer) {
    return std::all_of(inner.begin(), inner.end(), [&](const Range& range) {
        return std::any_of(outer.begin(), outer.end(), [&](const Range& around) {
            return around.low <= range.low && range.high <= around.high;
        });
    });
}

/// Whether what satisfies `inner` satisfies `outer`; both are of one key.
bool match_within(const Match& inner, const Match& outer) {
    if (inner == outer)
        return true;
    if (inner.negated || outer.negated || inner.set != outer.set)
        return false;
    switch (inner.key) {
    case Key::dst:
        return std::all_of(inner.prefixes.begin(), inner.prefixes.end(), [&](const Prefix& prefix) {
            return std::any_of(outer.prefixes.begin(), outer.prefixes.end(),
                               [&](const Prefix& o) { return prefix_within(prefix, o); });
        });
    case Key::cgroup: return is_below(inner.path, outer.path);
    case Key::exe: return inner.path == outer.path;
    default: return ranges_within(inner.ranges, outer.ranges);
    }
}

std::uint32_t keys_of(const Rule& rule) {
    std::uint32_t keys = 0;
    for (const Match& match : rule.matches)
        keys |= 1U << static_cast<unsigned>(match.key);
    return keys;
}

/// The rule's destination if it is one prefix.
const Prefix* single_prefix(const Rule& rule) {
    const Match* dst = rule.find(Key::dst);
    return dst && !dst->negated && dst->set.empty() && dst->prefixes.size() == 1
               ? &dst->prefixes.front()
               : nullptr;
}

Prefix shortened(Prefix prefix, unsigned length) {
    for (unsigned bit = length; bit < prefix.length; bit++)
        prefix.address.bytes[bit / 8] &= static_cast<std::uint8_t>(~(0x80 >> bit % 8));
    prefix.length = static_cast<std::uint8_t>(length);
    return prefix;
}

} // namespace

Address normalise(const Address& address) {
    static constexpr std::uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    Address result = address;
    if (address.family == Family::ipv6 && std::memcmp(address.bytes.data(), mapped, 12) == 0) {
        result = {};
        std::copy_n(address.bytes.begin() + 12, 4, result.bytes.begin());
    }
    if (std::all_of(result.bytes.begin(), result.bytes.end(),
                    [](auto byte) { return byte == 0; })) {
        if (result.family == Family::ipv4)
            result.bytes[0] = 127, result.bytes[3] = 1;
        else
            result.bytes[15] = 1;
    }
    return result;
}

bool is_below(const std::string& path, const std::string& above) {
    return above == "/" || path == above || path.starts_with(above + "/");
}

bool has_ports(std::uint8_t proto) {
    constexpr std::uint8_t protocols[] = {6, 17, 33, 132, 136};
    return std::find(std::begin(protocols), std::end(protocols), proto) != std::end(protocols);
}

std::optional<std::size_t> first_match(std::span<const Rule> rules, const Connection& connection,
                                       const ResolveExe& resolve,
                                       const classifier::SetOracle& sets) {
    const nc_packet packet = packet_of(connection);
    for (std::size_t position = 0; position < rules.size(); position++) {
        const auto& matches = rules[position].matches;
        if (std::all_of(matches.begin(), matches.end(), [&](const Match& match) {
                return holds(match, connection, packet, resolve, sets);
            }))
            return position;
    }
    return {};
}

bool covers(const Rule& earlier, const Rule& later) {
    return std::all_of(earlier.matches.begin(), earlier.matches.end(), [&](const Match& outer) {
        const Match* inner = later.find(outer.key);
        return inner && match_within(*inner, outer);
    });
}

std::vector<Covered> covered_rules(std::span<const Rule> rules) {
    // Most large policies are lists of destinations: a rule on one prefix is covered by a rule on a
    // prefix above it, or by one of the few that say something else about destinations.
    constexpr std::size_t most_others = 256;
    std::vector<Covered> found;
    std::map<Prefix, std::vector<std::size_t>> by_prefix;
    std::bitset<129> lengths; // that occur in it
    std::vector<std::size_t> others;
    for (std::size_t i = 0; i < rules.size(); i++) {
        const std::uint32_t keys = keys_of(rules[i]);
        const auto blame = [&](const std::vector<std::size_t>& candidates) {
            for (const std::size_t earlier : candidates)
                if ((keys_of(rules[earlier]) & ~keys) == 0 && covers(rules[earlier], rules[i])) {
                    found.push_back({i, earlier});
                    return true;
                }
            return false;
        };
        const Prefix* prefix = single_prefix(rules[i]);
        bool done = blame(others);
        for (unsigned length = 0; prefix && !done && length <= prefix->length; length++) {
            if (!lengths.test(length))
                continue;
            const auto at = by_prefix.find(shortened(*prefix, length));
            done = at != by_prefix.end() && blame(at->second);
        }
        if (done)
            continue; // what it covers is covered by its culprit as well
        if (!prefix && others.size() < most_others)
            others.push_back(i);
        else if (prefix && by_prefix[*prefix].size() < most_others) {
            by_prefix[*prefix].push_back(i);
            lengths.set(prefix->length);
        }
    }
    return found;
}

} // namespace netctl::policy
