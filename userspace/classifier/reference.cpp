// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/reference.hpp"

#include <algorithm>
#include <cstring>

namespace netctl::classifier {

namespace {

bool has(const nc_packet& packet, unsigned part) {
    return (packet.has & part) != 0;
}

std::optional<Address> address(const nc_packet& packet, Key key) {
    const __be32* words = key == Key::src ? packet.src : packet.dst;
    Address address;
    if (has(packet, NC_HAS_IPV4)) {
        address.family = Family::ipv4;
        std::memcpy(address.bytes.data(), words, 4);
        return address;
    }
    if (has(packet, NC_HAS_IPV6)) {
        address.family = Family::ipv6;
        std::memcpy(address.bytes.data(), words, 16);
        return address;
    }
    return {};
}

std::uint64_t mac(const __u8 (&bytes)[6]) {
    std::uint64_t number = 0;
    for (const __u8 byte : bytes)
        number = number * 256 + byte;
    return number;
}

/// The number that a packet has in a field, if it has the field.
std::optional<std::uint64_t> number(const nc_packet& packet, Key key) {
    const auto if_has = [&](unsigned part, std::uint64_t value) {
        return has(packet, part) ? std::optional(value) : std::nullopt;
    };
    switch (key) {
    case Key::sport: return if_has(NC_HAS_PORTS, packet.sport);
    case Key::dport: return if_has(NC_HAS_PORTS, packet.dport);
    case Key::proto: return if_has(NC_HAS_PROTO, packet.proto);
    case Key::flags: return if_has(NC_HAS_FLAGS, packet.flags);
    case Key::icmp_type: return if_has(NC_HAS_ICMP, packet.icmp_type);
    case Key::icmp_code: return if_has(NC_HAS_ICMP, packet.icmp_code);
    case Key::vlan: return if_has(NC_HAS_VLAN, packet.vlan);
    case Key::frag: return if_has(NC_HAS_PROTO, packet.frag);
    case Key::dscp: return if_has(NC_HAS_PROTO, packet.dscp);
    case Key::len: return packet.len;
    case Key::ether_type: return if_has(NC_HAS_ETHER, packet.ether_type);
    case Key::ether_src: return if_has(NC_HAS_ETHER, mac(packet.ether_src));
    case Key::ether_dst: return if_has(NC_HAS_ETHER, mac(packet.ether_dst));
    case Key::mark: return packet.mark;
    default: return {}; // addresses are no numbers; packets have no owner
    }
}

bool address_matches(const Match& match, const nc_packet& packet, const SetOracle& sets) {
    const std::optional<Address> found = address(packet, match.key);
    if (!found)
        return false;
    if (!match.set.empty())
        return sets.has_address(match.set, *found) != match.negated;

    const bool family_is_named =
        std::any_of(match.prefixes.begin(), match.prefixes.end(),
                    [&](const Prefix& prefix) { return prefix.address.family == found->family; });
    const bool covered = std::any_of(match.prefixes.begin(), match.prefixes.end(),
                                     [&](const Prefix& prefix) { return prefix.contains(*found); });
    return family_is_named && covered != match.negated;
}

bool match_holds(const Match& match, const nc_packet& packet, const SetOracle& sets) {
    if (match.key == Key::src || match.key == Key::dst)
        return address_matches(match, packet, sets);

    const std::optional<std::uint64_t> found = number(packet, match.key);
    if (!found)
        return match.absent && !match.negated;
    if (!match.set.empty())
        return sets.has_port(match.set, static_cast<std::uint16_t>(*found)) != match.negated;
    if (match.masked)
        return ((*found & match.masked->mask) == match.masked->value) != match.negated;
    const bool in_a_range =
        std::any_of(match.ranges.begin(), match.ranges.end(), [&](const Range& range) {
            return range.low <= *found && *found <= range.high;
        });
    return in_a_range != match.negated;
}

} // namespace

bool matches(const Rule& rule, const nc_packet& packet, const SetOracle& sets) {
    return std::all_of(rule.matches.begin(), rule.matches.end(),
                       [&](const Match& match) { return match_holds(match, packet, sets); });
}

std::optional<std::size_t> first_match(std::span<const Rule> rules, const nc_packet& packet,
                                       const SetOracle& sets) {
    for (std::size_t position = 0; position < rules.size(); position++)
        if (matches(rules[position], packet, sets))
            return position;
    return {};
}

} // namespace netctl::classifier
