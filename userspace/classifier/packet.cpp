// SPDX-License-Identifier: GPL-2.0-only
//
// One header after the other, each a function that takes the bytes from its start on and returns
// what is left of them. No cleverness: this is what the kernel's parser is judged by.
#include "classifier/packet.hpp"

#include <algorithm>
#include <cstring>

namespace netctl::classifier {

namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr unsigned ethernet_header = 14;
constexpr unsigned vlan_tag = 4;
constexpr unsigned ipv4_header = 20;
constexpr unsigned ipv6_header = 40;

constexpr unsigned type_ipv4 = 0x0800;
constexpr unsigned type_ipv6 = 0x86dd;
constexpr unsigned type_8021q = 0x8100;
constexpr unsigned type_8021ad = 0x88a8;

constexpr unsigned hop_by_hop = 0;
constexpr unsigned icmp = 1;
constexpr unsigned tcp = 6;
constexpr unsigned udp = 17;
constexpr unsigned dccp = 33;
constexpr unsigned routing = 43;
constexpr unsigned fragment = 44;
constexpr unsigned authentication = 51;
constexpr unsigned icmp6 = 58;
constexpr unsigned destination_options = 60;
constexpr unsigned sctp = 132;
constexpr unsigned mobility = 135;
constexpr unsigned udplite = 136;
constexpr unsigned hip = 139;
constexpr unsigned shim6 = 140;

unsigned number16(Bytes bytes, std::size_t at) {
    return bytes[at] * 256U + bytes[at + 1];
}

Parsed unparsed(Parsed result, nc_unparsed reason) {
    result.parsed = false;
    result.reason = reason;
    return result;
}

Parsed parsed(Parsed result) {
    result.parsed = true;
    return result;
}

/// `segment` is what the IP packet holds of the transport header and what follows.
void read_transport(Parsed& result, Bytes segment, unsigned icmp_here) {
    nc_packet& packet = result.packet;
    const unsigned proto = packet.proto;
    const bool with_ports =
        proto == tcp || proto == udp || proto == sctp || proto == dccp || proto == udplite;
    const unsigned needed = proto == tcp ? 14 : with_ports ? 4 : proto == icmp_here ? 2 : 0;
    if (packet.frag == NC_FRAG_FIRST && segment.size() < needed)
        packet.frag = NC_FRAG_TINY;
    if (with_ports && segment.size() >= 4) {
        packet.has |= NC_HAS_PORTS;
        packet.sport = static_cast<__u16>(number16(segment, 0));
        packet.dport = static_cast<__u16>(number16(segment, 2));
    }
    if (proto == tcp && segment.size() >= 14) {
        packet.has |= NC_HAS_FLAGS;
        packet.flags = segment[13];
    }
    if (proto == icmp_here && segment.size() >= 2) {
        packet.has |= NC_HAS_ICMP;
        packet.icmp_type = segment[0];
        packet.icmp_code = segment[1];
    }
}

/// `bytes`: from the IPv4 header to the end of the frame.
Parsed read_ipv4(Parsed result, Bytes bytes) {
    if (bytes.size() < ipv4_header)
        return unparsed(result, NC_UNPARSED_CUT);
    const unsigned version = bytes[0] >> 4;
    const unsigned header_length = (bytes[0] & 15) * 4;
    const unsigned total_length = number16(bytes, 2);
    if (version != 4)
        return unparsed(result, NC_UNPARSED_IPV4);
    if (header_length < ipv4_header)
        return unparsed(result, NC_UNPARSED_IPV4);
    if (header_length > bytes.size())
        return unparsed(result, NC_UNPARSED_CUT);
    if (total_length < header_length)
        return unparsed(result, NC_UNPARSED_IPV4);
    if (total_length > bytes.size())
        return unparsed(result, NC_UNPARSED_IPV4);

    nc_packet& packet = result.packet;
    packet.has |= NC_HAS_IPV4 | NC_HAS_PROTO;
    packet.dscp = bytes[1] / 4;
    packet.ttl = bytes[8];
    packet.proto = bytes[9];
    std::memcpy(packet.src, &bytes[12], 4);
    std::memcpy(packet.dst, &bytes[16], 4);

    const bool more_fragments = number16(bytes, 6) & 0x2000;
    const unsigned fragment_offset = number16(bytes, 6) & 0x1fff;
    if (fragment_offset > 0)
        packet.frag = NC_FRAG_LATER;
    else if (more_fragments)
        packet.frag = NC_FRAG_FIRST;
    if (packet.frag != NC_FRAG_LATER)
        read_transport(result, bytes.subspan(header_length, total_length - header_length), icmp);
    return parsed(result);
}

bool is_extension_header(unsigned next) {
    switch (next) {
    case hop_by_hop:
    case routing:
    case fragment:
    case authentication:
    case destination_options:
    case mobility:
    case hip:
    case shim6: return true;
    default: return false;
    }
}

/// `bytes`: from the IPv6 header to the end of the frame.
Parsed read_ipv6(Parsed result, Bytes bytes) {
    if (bytes.size() < ipv6_header)
        return unparsed(result, NC_UNPARSED_CUT);
    const unsigned version = bytes[0] >> 4;
    const unsigned payload_length = number16(bytes, 4);
    if (version != 6)
        return unparsed(result, NC_UNPARSED_IPV6);
    if (payload_length > bytes.size() - ipv6_header)
        return unparsed(result, NC_UNPARSED_IPV6);

    nc_packet& packet = result.packet;
    const unsigned traffic_class = number16(bytes, 0) / 16 % 256;
    unsigned next = bytes[6];
    Bytes rest = bytes.subspan(ipv6_header, payload_length);
    for (unsigned count = 0; is_extension_header(next); count++) {
        if (count == NC_MAX_EXTENSION_HEADERS)
            return unparsed(result, NC_UNPARSED_BOUND);
        if (next == hop_by_hop && count > 0)
            return unparsed(result, NC_UNPARSED_CHAIN);
        if (rest.size() < 8)
            return unparsed(result, NC_UNPARSED_CHAIN);
        unsigned length = 0;
        if (next == fragment) {
            length = 8;
            const unsigned fragment_offset = number16(rest, 2) / 8;
            const bool more_fragments = rest[3] & 1;
            if (fragment_offset > 0)
                packet.frag = NC_FRAG_LATER;
            else if (more_fragments)
                packet.frag = NC_FRAG_FIRST;
        } else if (next == authentication) {
            length = (rest[1] + 2U) * 4;
        } else {
            length = (rest[1] + 1U) * 8;
        }
        if (rest.size() < length)
            return unparsed(result, NC_UNPARSED_CHAIN);
        next = rest[0];
        rest = rest.subspan(length);
        if (packet.frag == NC_FRAG_LATER)
            break; // the rest is out of the middle of a packet
    }

    packet.has |= NC_HAS_IPV6 | NC_HAS_PROTO;
    packet.dscp = static_cast<__u8>(traffic_class / 4);
    packet.ttl = bytes[7];
    packet.proto = static_cast<__u8>(next);
    std::memcpy(packet.src, &bytes[8], 16);
    std::memcpy(packet.dst, &bytes[24], 16);
    if (packet.frag != NC_FRAG_LATER)
        read_transport(result, rest, icmp6);
    return parsed(result);
}

bool is_vlan(unsigned type) {
    return type == type_8021q || type == type_8021ad;
}

} // namespace

Parsed parse_ethernet(std::span<const std::uint8_t> frame) {
    Parsed result;
    nc_packet& packet = result.packet;
    packet.len = static_cast<__u32>(frame.size());
    if (frame.size() < ethernet_header)
        return unparsed(result, NC_UNPARSED_CUT);
    packet.has |= NC_HAS_ETHER;
    std::copy_n(&frame[0], 6, packet.ether_dst);
    std::copy_n(&frame[6], 6, packet.ether_src);
    unsigned type = number16(frame, 12);
    Bytes rest = frame.subspan(ethernet_header);

    for (unsigned tags = 0; is_vlan(type); tags++) {
        if (tags == NC_MAX_VLAN_TAGS)
            return unparsed(result, NC_UNPARSED_BOUND);
        if (rest.size() < vlan_tag)
            return unparsed(result, NC_UNPARSED_CUT);
        if (tags == 0) {
            packet.has |= NC_HAS_VLAN;
            packet.vlan = number16(rest, 0) & 0xfff;
        }
        type = number16(rest, 2);
        rest = rest.subspan(vlan_tag);
    }

    packet.ether_type = static_cast<__u16>(type);
    if (type == type_ipv4)
        return read_ipv4(result, rest);
    if (type == type_ipv6)
        return read_ipv6(result, rest);
    return parsed(result);
}

Parsed parse_ip(std::span<const std::uint8_t> packet) {
    Parsed result;
    result.packet.len = static_cast<__u32>(packet.size());
    if (packet.empty())
        return unparsed(result, NC_UNPARSED_CUT);
    if (packet[0] >> 4 == 6)
        return read_ipv6(result, packet);
    return read_ipv4(result, packet);
}

void tell(nc_packet& packet, const nc_told& told) {
    if ((packet.has & NC_HAS_PROTO) == 0)
        return;
    packet.has |= told.has;
    packet.socket = static_cast<__u8>(told.socket);
    packet.ct = static_cast<__u8>(told.ct);
    packet.ct_mark = told.ct_mark;
}

} // namespace netctl::classifier
