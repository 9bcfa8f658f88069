// SPDX-License-Identifier: GPL-2.0-only
#include "features/policy/connection.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "core/rule_keys.hpp"

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

bool match_holds(const Match& match, const Connection& connection, const nc_packet& packet,
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

std::string protocol_name(std::uint8_t number) {
    for (const NamedRange& name : info(Key::proto).names)
        if (name.low == number && name.prints)
            return std::string(name.name);
    return std::to_string(number);
}

std::vector<Match> unmet(const Rule& rule, const Connection& connection, const ResolveExe& resolve,
                         const classifier::SetOracle& sets) {
    const nc_packet packet = packet_of(connection);
    std::vector<Match> found;
    std::copy_if(
        rule.matches.begin(), rule.matches.end(), std::back_inserter(found),
        [&](const Match& match) { return !match_holds(match, connection, packet, resolve, sets); });
    return found;
}

std::optional<std::size_t> first_match(std::span<const Rule> rules, const Connection& connection,
                                       const ResolveExe& resolve,
                                       const classifier::SetOracle& sets) {
    const nc_packet packet = packet_of(connection);
    for (std::size_t position = 0; position < rules.size(); position++) {
        const auto& matches = rules[position].matches;
        if (std::all_of(matches.begin(), matches.end(), [&](const Match& match) {
                return match_holds(match, connection, packet, resolve, sets);
            }))
            return position;
    }
    return {};
}

} // namespace netctl::policy
