// SPDX-License-Identifier: GPL-2.0-only
//
// What `reject` and `syncookie` answer to a frame, written for being obviously right: what reject.h and syncookie.h of
// bpf/include/netctl/lib/ are compared with (invariant I7).
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "testing/packet.hpp"

namespace netctl::testing {

/// The frame that goes back, or nothing if this one must stay without an answer. `ether`: it has a link header;
/// else it starts with its IP header. It came by a loopback device, as in test runs.
std::optional<Bytes> answer_to(std::span<const std::uint8_t> frame, bool ether);

/// What the kernel and the listener have to say to a SYN.
struct CookieAnswer {
    std::uint16_t port = 0; ///< of the listener
    std::uint32_t cookie = 0;
    std::uint32_t time = 0; ///< milliseconds; the last 6 bits do not matter
    std::uint16_t window = 0;
    std::uint8_t wscale = 0;
    std::uint16_t ipv4_mss = 0;
    std::uint16_t ipv6_mss = 0;
};
/// The segment of a frame with TCP, from its header to the packet's end; else empty.
std::span<const std::uint8_t> segment_in(std::span<const std::uint8_t> frame);
/// Fills in of an answer what only the kernel knows: cookie, time, window.
void learn(CookieAnswer& with, std::span<const std::uint8_t> answer);
/// The frame that goes back if this one has a SYN to be answered; timestamps are kept, as with
/// net.ipv4.tcp_timestamps = 2.
std::optional<Bytes> syn_answer_to(std::span<const std::uint8_t> frame, const CookieAnswer& with);

} // namespace netctl::testing
