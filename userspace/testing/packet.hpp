// SPDX-License-Identifier: GPL-2.0-only
//
// Packets for tests, composed of layers:
//
//     Packet p = Ether{} / Vlan{.id = 7} / Ipv4{.dscp = 46} / Tcp{.dport = 443, .flags = syn};
//
// What identifies the layer behind, lengths and IPv4's header checksum are filled in, unless a layer
// says otherwise; that is how broken packets are made. Addresses default to those for documentation.
// Transport checksums are zero: nothing here looks at them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/address.hpp"

namespace netctl::testing {

using Bytes = std::vector<std::uint8_t>;

/// An address that is known to be well-formed; aborts otherwise.
Address ip(std::string_view text);
Prefix net(std::string_view text);

struct Ether {
    std::uint64_t src = 0x020000000001; ///< 48 bits, first byte highest
    std::uint64_t dst = 0x020000000002;
    std::optional<std::uint16_t> type{};
};

struct Vlan {
    std::uint16_t id = 1;
    std::uint8_t priority = 0;
    bool drop_eligible = false;
    std::uint16_t tag_type = 0x8100; ///< 0x88a8 for a service tag
    std::optional<std::uint16_t> type{};
};

struct Ipv4 {
    Address src = ip("192.0.2.1");
    Address dst = ip("198.51.100.1");
    std::uint8_t dscp = 0;
    std::uint8_t ttl = 64;
    std::uint8_t option_words = 0; ///< 4 bytes each, 10 at most; filled with "no operation"
    bool more_fragments = false;
    std::uint16_t fragment_offset = 0; ///< in units of 8 bytes
    std::optional<std::uint8_t> proto{};
    std::optional<std::uint8_t> version{};
    std::optional<std::uint8_t> header_words{};
    std::optional<std::uint16_t> total_length{};
};

struct Ipv6 {
    Address src = ip("2001:db8::1");
    Address dst = ip("2001:db8:1::1");
    std::uint8_t dscp = 0;
    std::uint8_t hop_limit = 64;
    std::optional<std::uint8_t> next{};
    std::optional<std::uint8_t> version{};
    std::optional<std::uint16_t> payload_length{};
};

/// An IPv6 extension header of 8 + 8 * `units` bytes (authentication header: see `length`).
struct Extension {
    std::uint8_t kind = 60; ///< destination options
    std::uint8_t units = 0;
    std::optional<std::uint8_t> next{};
    std::optional<std::uint8_t> length{}; ///< the length field, if it is not to be true
};

struct Fragment6 {
    std::uint16_t offset = 0; ///< in units of 8 bytes
    bool more = false;
    std::optional<std::uint8_t> next{};
};

/// Bits of byte 13 of a TCP header.
enum TcpFlag : std::uint8_t { fin = 1, syn = 2, rst = 4, psh = 8, ack = 16, urg = 32 };

struct Tcp {
    std::uint16_t sport = 40000;
    std::uint16_t dport = 80;
    std::uint8_t flags = syn;
};

/// UDP; with another `proto`, any header that starts with two ports.
struct Udp {
    std::uint16_t sport = 40000;
    std::uint16_t dport = 53;
    std::uint8_t proto = 17;
};

struct Icmp {
    std::uint8_t type = 8;
    std::uint8_t code = 0;
    std::uint8_t proto = 1; ///< 58 for ICMPv6
};

/// Bytes behind the headers; `proto` is what an IP header in front says they are.
struct Payload {
    std::size_t size = 0;
    std::uint8_t fill = 0xa5;
    std::uint8_t proto = 253; ///< for experiments, RFC 3692
};

using Layer = std::variant<Ether, Vlan, Ipv4, Ipv6, Extension, Fragment6, Tcp, Udp, Icmp, Payload>;

template <class L>
concept IsLayer = std::is_constructible_v<Layer, L>;

class Packet {
  public:
    Packet() = default;
    template <IsLayer L> Packet(L layer) { layers_.emplace_back(std::move(layer)); }

    Packet& operator/=(const Layer& layer) {
        layers_.push_back(layer);
        return *this;
    }
    friend Packet operator/(Packet packet, const Layer& layer) { return packet /= layer; }

    const std::vector<Layer>& layers() const { return layers_; }
    std::vector<Layer>& layers() { return layers_; }
    Bytes bytes() const;
    /// `Ether() / Ipv4(src=192.0.2.1, …) / Tcp(…)`.
    std::string to_string() const;

  private:
    std::vector<Layer> layers_;
};

template <IsLayer A, IsLayer B> Packet operator/(A first, B second) {
    return Packet(std::move(first)) / Layer(std::move(second));
}

/// `0000: 02 00 … |....|`, 16 bytes a line; of long packets only the start.
std::string hex(std::span<const std::uint8_t> bytes);

} // namespace netctl::testing
