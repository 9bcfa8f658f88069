// SPDX-License-Identifier: GPL-2.0-only
//
// Whether the kernel's connection tracking, which rules with `ct` ask, is there and at work.
#pragma once

#include <optional>
#include <string>

#include "core/address.hpp"
#include "core/result.hpp"

namespace netctl::datapath {

/// Loads a program that asks connection tracking. An error (unsupported) says what the kernel lacks, and how to get it.
Result<> try_conntrack();

/// Whether packets of this family are tracked in the current network namespace; nothing where that cannot be told. A
/// datagram that this process sends to itself over the loopback interface tells: it leaves an entry for half a minute.
std::optional<bool> tracks(Family family);

/// What is to be said where rules ask and nothing is tracked; empty where it is, or where that cannot be told.
std::string untracked_note();

/// The command that turns connection tracking on.
inline constexpr const char* track_command = "nft 'add table inet track; add chain inet track seen "
                                             "{ type filter hook prerouting priority 0; }; "
                                             "add rule inet track seen ct state new'";

} // namespace netctl::datapath
