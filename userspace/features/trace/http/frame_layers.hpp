// SPDX-License-Identifier: GPL-2.0-only
//
// Where in a captured frame a TCP segment is: link layers, tags, IP, and tunnels.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "features/trace/http/http_connection.hpp"

namespace netctl::trace {

/// Numbers of headers, in network byte order.
inline std::uint16_t be16(const std::uint8_t* at) {
    return static_cast<std::uint16_t>(at[0] << 8 | at[1]);
}
inline std::uint32_t be32(const std::uint8_t* at) {
    return static_cast<std::uint32_t>(be16(at)) << 16 | be16(at + 2);
}

/// Where a frame begins; the numbers of link types are libpcap's.
enum class FrameStart : std::uint8_t {
    ethernet,
    ip,            ///< IPv4 or IPv6, by its version
    linux_cooked,  ///< LINKTYPE_LINUX_SLL: 16 bytes, the ether type in the last two
    linux_cooked2, ///< LINKTYPE_LINUX_SLL2: 20 bytes, the ether type in the first two
    loopback,      ///< LINKTYPE_NULL and LOOP: an address family of four bytes, in any byte order
    ppp,           ///< PPP with or without its HDLC header (LINKTYPE_PPP and PPP_HDLC)
};

/// What may be around an IP packet.
enum class Tunnel : std::uint8_t { gre, ipip, six_in_four, vxlan, geneve, mpls, pppoe };
constexpr std::size_t tunnel_kinds = 7;
const char* tunnel_name(Tunnel tunnel);

struct FrameCounters {
    std::uint64_t fragments = 0; ///< IP fragments: not put together
    std::uint64_t damaged = 0;   ///< headers that are cut or contradict themselves
    std::uint64_t other = 0;     ///< not TCP
    std::uint64_t deep = 0;      ///< more layers than are looked through
    /// Frames in tunnels that were not looked into, by kind.
    std::array<std::uint64_t, tunnel_kinds> tunnelled{};
};

struct TcpPlace {
    Endpoint source;
    Endpoint target;
    std::span<const std::uint8_t> bytes; ///< what was captured, from the TCP header on
    std::uint32_t length = 0;            ///< of the same on the wire
    /// Of the tags and tunnels around it: what differs in it is another connection.
    std::uint64_t path = 0;
    bool checksum_wrong = false; ///< and all that it covers was captured
    /// There is no segment, but a datagram of UDP that is no tunnel's: `bytes` and `length` are its payload's.
    bool datagram = false;
};

struct LayerOptions {
    bool tunnels = true;
    bool vlans = true; ///< the same addresses in two VLANs are two connections
    bool checksums = true;
};

/// Finds the segment in a frame; `length` is the frame's on the wire. False, and counted, if there is
/// none.
bool find_tcp(FrameStart start, std::span<const std::uint8_t> frame, std::uint32_t length,
              const LayerOptions& options, FrameCounters& counters, TcpPlace& place);

} // namespace netctl::trace
