// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/packet_words.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <type_traits>

#include <fmt/format.h>

#include "core/rule_keys.hpp"
#include "core/rule_parser.hpp"

namespace netctl::datapath {

namespace {

constexpr std::uint32_t bit(Key key) {
    return 1U << static_cast<unsigned>(key);
}

Error several(const Match& match) {
    Rule alone;
    alone.matches.push_back(match);
    return Error::usage(
        fmt::format("a packet has one {}, and not '{}'", to_string(match.key), to_string(alone)));
}

Result<std::uint64_t> only_number(const Match& match) {
    if (match.masked)
        return std::uint64_t{match.masked->value};
    if (match.negated || match.ranges.size() != 1 ||
        match.ranges.front().low != match.ranges.front().high)
        return several(match);
    return match.ranges.front().low;
}

template <class Member> void put_number(Member& member, std::uint64_t number) {
    if constexpr (std::is_array_v<
                      Member>) { // a MAC address, or an IP address, which is put elsewhere
        if constexpr (sizeof(Member) == 6)
            for (int i = 5; i >= 0; i--, number >>= 8)
                member[i] = static_cast<__u8>(number);
    } else {
        member = static_cast<Member>(number);
    }
}

void put_number(nc_packet& packet, Key key, std::uint64_t number) {
#define NETCTL_PUT(NAME, name, ...)                                                                \
    case Key::name: put_number(packet.name, number); break;
    switch (key) {
        NC_PACKET_KEYS(NETCTL_PUT)
    default: break;
    }
#undef NETCTL_PUT
}

class PacketReader {
  public:
    PacketReader(const Rule& rule, bool ether) : rule_(rule), ether_(ether) {}

    Result<SaidPacket> run() {
        nc_packet& packet = made_.packet;
        packet.len = ether_ ? 74 : 60;
        packet.ttl = 64;
        std::optional<Family> family;
        for (const Match& match : rule_.matches) {
            if (match.key == Key::src || match.key == Key::dst) {
                const Address address = NETCTL_TRY(only_address(match));
                family = address.family;
                std::memcpy(match.key == Key::src ? packet.src : packet.dst, address.bytes.data(),
                            address.bytes.size());
            } else if (!match.absent) {
                put_number(packet, match.key, NETCTL_TRY(only_number(match)));
            }
            made_.said |= bit(match.key);
        }
        if (ether_)
            packet.has |= NC_HAS_ETHER;
        if (const Match* vlan = rule_.find(Key::vlan); vlan && !vlan->absent)
            packet.has |= NC_HAS_VLAN;
        const Families families = possible_families(rule_);
        const bool said_type = rule_.find(Key::ether_type) != nullptr;
        if (said_type && !families.ipv4 && !families.ipv6)
            return made_; // no IP
        add_ip(family.value_or(families.ipv4 && possible_icmp(rule_).only() != protocol_icmp6
                                   ? Family::ipv4
                                   : Family::ipv6));
        return made_;
    }

  private:
    static Result<Address> only_address(const Match& match) {
        if (match.negated || match.prefixes.size() != 1 ||
            match.prefixes.front().length != match.prefixes.front().address.bits())
            return several(match);
        return match.prefixes.front().address;
    }

    bool has(Key key) const { return rule_.find(key) != nullptr; }

    void add_ip(Family family) {
        nc_packet& packet = made_.packet;
        const bool ipv4 = family == Family::ipv4;
        const std::uint8_t icmp = ipv4 ? protocol_icmp : protocol_icmp6;
        packet.has |= NC_HAS_PROTO | (ipv4 ? NC_HAS_IPV4 : NC_HAS_IPV6) |
                      (has(Key::ct) ? NC_HAS_CT : 0) | (has(Key::ct_mark) ? NC_HAS_CT_MARK : 0);
        packet.ether_type = ipv4 ? 0x0800 : 0x86dd;
        made_.said |= bit(Key::ether_type);
        if (!has(Key::proto)) {
            const bool related = packet.socket == NC_SOCKET_RELATED;
            packet.proto =
                has(Key::icmp_type) || has(Key::icmp_code) || related ? icmp : protocol_tcp;
            if (related && !has(Key::icmp_type))
                packet.icmp_type = ipv4 ? 3 : 1; // destination unreachable
            if (packet.proto == icmp || has(Key::flags))
                made_.said |= bit(Key::proto);
        }
        if (packet.frag == NC_FRAG_LATER)
            return;
        const bool whole = packet.frag != NC_FRAG_TINY;
        if (std::find(std::begin(port_protocols), std::end(port_protocols), packet.proto) !=
                std::end(port_protocols) &&
            (whole || has(Key::sport) || has(Key::dport)))
            packet.has |= NC_HAS_PORTS;
        if (packet.proto == protocol_tcp && whole) {
            packet.has |= NC_HAS_FLAGS;
            if (!has(Key::flags))
                packet.flags = 2; // SYN
        }
        if (packet.proto == icmp && whole)
            packet.has |= NC_HAS_ICMP;
    }

    const Rule& rule_;
    bool ether_;
    SaidPacket made_;
};

} // namespace

Result<SaidPacket> read_packet(std::string_view text, Hook hook, bool ether) {
    // The language has no packets, only rules: this one is about the packet.
    const Rule rule = NETCTL_TRY(parse_rule(fmt::format("{} pass", text), hook));
    if (rule.actions.size() != 1 || rule.limit || rule.log || !rule.comment.empty())
        return Error::usage(fmt::format("'{}' says more than what a packet is", text),
                            "a packet has keys and values: src 192.0.2.1 proto tcp dport 22");
    return PacketReader(rule, ether).run();
}

Result<std::vector<std::uint8_t>> read_hex(std::string_view text) {
    std::vector<std::uint8_t> bytes;
    for (std::size_t at = 0; at < text.size();) {
        if (text[at] == ' ' || text[at] == ':' || text[at] == '\n') {
            at++;
            continue;
        }
        unsigned byte = 0;
        const std::string_view pair = text.substr(at, 2);
        const auto [end, status] =
            std::from_chars(pair.data(), pair.data() + pair.size(), byte, 16);
        if (pair.size() != 2 || status != std::errc{} || end != pair.data() + 2)
            return Error::usage(
                fmt::format("'{}' at byte {} is no hexadecimal byte", pair, bytes.size()),
                "for example what scapy's bytes_hex() or hexstr(packet, onlyhex=1) print");
        bytes.push_back(static_cast<std::uint8_t>(byte));
        at += 2;
    }
    return bytes;
}

} // namespace netctl::datapath
