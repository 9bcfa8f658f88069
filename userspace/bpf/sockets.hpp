// SPDX-License-Identifier: GPL-2.0-only
//
// Programs that work on sockets: attached to a map that holds them, or run when they are needed.
#pragma once

#include <cstdint>

#include "bpf/map.hpp"
#include "bpf/object.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

/// From now on the sk_msg program judges what sockets in the map send. The map holds it.
Result<> attach_msg_verdict(const Program& program, const RawMap& sockets);

/// Runs a program of tc's kind once, in the current network namespace, over a frame of zeroes with this
/// mark, and returns what it returned.
Result<std::uint32_t> run_skb(const Program& program, std::uint32_t mark = 0);

/// Runs an iterator once over all there is in the current network namespace. What it prints is dropped.
Result<> run_iterator(const Program& program);

} // namespace netctl::bpf
