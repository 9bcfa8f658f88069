// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/packet_text.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "core/address.hpp"
#include "core/json.hpp"
#include "core/rule_keys.hpp"

namespace netctl::classifier {

namespace {

Address address_of(const nc_packet& packet, const __be32 (&words)[4]) {
    Address address;
    address.family = (packet.has & NC_HAS_IPV6) != 0 ? Family::ipv6 : Family::ipv4;
    std::memcpy(address.bytes.data(), words, address.bits() / 8);
    return address;
}

std::string proto_text(std::uint8_t proto) {
    for (const NamedRange& named : info(Key::proto).names)
        if (named.prints && named.low == proto)
            return std::string(named.name);
    return std::to_string(proto);
}

std::string flags_text(std::uint8_t flags) {
    constexpr std::array names{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"};
    std::string text;
    for (std::size_t i = 0; i < names.size(); i++)
        if ((flags >> i & 1) != 0)
            text += (text.empty() ? "" : ",") + std::string(names[i]);
    return text.empty() ? "none" : text;
}

std::string mac_text(const __u8 (&mac)[6]) {
    return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2], mac[3],
                       mac[4], mac[5]);
}

std::string endpoint(const nc_packet& packet, const __be32 (&words)[4], std::uint16_t port) {
    const Address address = address_of(packet, words);
    if ((packet.has & NC_HAS_PORTS) == 0)
        return address.to_string();
    return address.family == Family::ipv6 ? fmt::format("[{}]:{}", address.to_string(), port)
                                          : fmt::format("{}:{}", address.to_string(), port);
}

const char* frag_text(std::uint8_t frag) {
    switch (frag) {
    case NC_FRAG_FIRST: return "first";
    case NC_FRAG_TINY: return "tiny";
    case NC_FRAG_LATER: return "later";
    default: return "none";
    }
}

/// A value of a key that has names for all of them.
std::string named_text(Key key, std::uint8_t value) {
    for (const NamedRange& named : info(key).names)
        if (named.low == value && named.high == value)
            return std::string(named.name);
    return std::to_string(value);
}

} // namespace

std::string packet_text(const nc_packet& packet) {
    std::string text;
    if ((packet.has & (NC_HAS_IPV4 | NC_HAS_IPV6)) != 0) {
        text = fmt::format("{} > {} {}", endpoint(packet, packet.src, packet.sport),
                           endpoint(packet, packet.dst, packet.dport), proto_text(packet.proto));
        if ((packet.has & NC_HAS_FLAGS) != 0)
            text += " " + flags_text(packet.flags);
        if ((packet.has & NC_HAS_ICMP) != 0)
            text += fmt::format(" type {} code {}", packet.icmp_type, packet.icmp_code);
        if (packet.frag != NC_FRAG_NONE)
            text += fmt::format(" frag {}", frag_text(packet.frag));
        if (packet.socket != NC_SOCKET_NONE)
            text += fmt::format(" socket {}", named_text(Key::socket, packet.socket));
        if ((packet.has & NC_HAS_CT) != 0)
            text += fmt::format(" ct {}", named_text(Key::ct, packet.ct));
        if ((packet.has & NC_HAS_CT_MARK) != 0)
            text += fmt::format(" ct-mark {}", packet.ct_mark);
    } else if ((packet.has & NC_HAS_ETHER) != 0) {
        text = fmt::format("{} > {} ether-type 0x{:04x}", mac_text(packet.ether_src),
                           mac_text(packet.ether_dst), packet.ether_type);
    } else {
        text = "no header that can be read";
    }
    if ((packet.has & NC_HAS_VLAN) != 0)
        text += fmt::format(" vlan {}", packet.vlan);
    return text + fmt::format(" len {}", packet.len);
}

Json packet_json(const nc_packet& packet) {
    const auto json_name = [](std::string name) {
        std::replace(name.begin(), name.end(), '-', '_');
        return name;
    };
    Json json = Json::object();
#define NETCTL_JSON_ADDRESS(name) address_of(packet, packet.name).to_string()
#define NETCTL_JSON_U8(name) packet.name
#define NETCTL_JSON_U16(name) packet.name
#define NETCTL_JSON_U32(name) packet.name
#define NETCTL_JSON_MASK32(name) packet.name
#define NETCTL_JSON_MAC(name) mac_text(packet.name)
#define NETCTL_JSON(NAME, name, text, kind, part, ...)                                             \
    json[json_name(text)] =                                                                        \
        (part) == 0 || (packet.has & (part)) != 0 ? Json(NETCTL_JSON_##kind(name)) : Json();
    NC_PACKET_KEYS(NETCTL_JSON)
    // What people know by name.
    for (const auto& [key, name] : {std::pair("proto", proto_text(packet.proto)),
                                    std::pair("flags", flags_text(packet.flags)),
                                    std::pair("frag", std::string(frag_text(packet.frag))),
                                    std::pair("socket", named_text(Key::socket, packet.socket)),
                                    std::pair("ct", named_text(Key::ct, packet.ct))})
        if (!json[key].is_null())
            json[key] = name;
    json.erase("mark"); // of the host, not of the frame
    return json;
}

} // namespace netctl::classifier
