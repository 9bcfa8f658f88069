// SPDX-License-Identifier: GPL-2.0-only
//
// What `reject` answers to a frame, written for being obviously right: what bpf/include/netctl/lib/reject.h is
// compared with (invariant I7).
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "testing/packet.hpp"

namespace netctl::testing {

/// The frame that goes back, or nothing if this one must stay without an answer. `ether`: it has a link header;
/// else it starts with its IP header. It came by a loopback device, as in test runs.
std::optional<Bytes> answer_to(std::span<const std::uint8_t> frame, bool ether);

} // namespace netctl::testing
