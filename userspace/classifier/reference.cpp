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

} // namespace

std::optional<std::uint64_t> number_of(const nc_packet& packet, Key key) {
#define NETCTL_VALUE_ADDRESS(name) std::optional<std::uint64_t>()
#define NETCTL_VALUE_U8(name) std::optional<std::uint64_t>(packet.name)
#define NETCTL_VALUE_U16(name) std::optional<std::uint64_t>(packet.name)
#define NETCTL_VALUE_U32(name) std::optional<std::uint64_t>(packet.name)
#define NETCTL_VALUE_MASK32(name) std::optional<std::uint64_t>(packet.name)
#define NETCTL_VALUE_MAC(name) std::optional<std::uint64_t>(mac(packet.name))
#define NETCTL_VALUE(NAME, name, text, kind, part, ...)                                            \
    case Key::name:                                                                                \
        if ((part) != 0 && !has(packet, part))                                                     \
            return {};                                                                             \
        return NETCTL_VALUE_##kind(name);
    // Fields with equal parts are no mistake.
    // NOLINTBEGIN(bugprone-branch-clone)
    switch (key) {
        NC_PACKET_KEYS(NETCTL_VALUE)
    default: return {}; // packets have no owner
    }
    // NOLINTEND(bugprone-branch-clone)
}

namespace {

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

    const std::optional<std::uint64_t> found = number_of(packet, match.key);
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
