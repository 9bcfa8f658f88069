// SPDX-License-Identifier: GPL-2.0-only
//
// The order of all features' hooks at connect(), and at datagrams of sockets that are not connected, whatever was
// enabled first: the policy judges what the application asked for; then `redirect to` rewrites it
// (docs/architecture.md).
#pragma once

#include <cstdint>

#include "core/result.hpp"
#include "datapath/root.hpp"

namespace netctl::datapath {

enum class ConnectOrder : std::uint8_t {
    apart,           ///< not both of them are asked about any one socket
    judged_first,    ///< as it is to be
    rewritten_first, ///< an older kernel, and redirection on a cgroup below the policy's
};

/// How the root's two features stand to each other, as the kernel says.
Result<ConnectOrder> connect_order(const Root& root);

/// Puts the hooks of `redirect to` behind the policy's, where they are on one cgroup and came before: each
/// is attached once more at the end, and then takes the place of the former. Returns how they stand now.
Result<ConnectOrder> judge_first(const LockedRoot& root);

/// Whether `redirect to` has a rule.
Result<bool> rewrites_anything(const Root& root);

/// What is wrong with ConnectOrder::rewritten_first.
Error judged_too_late();

} // namespace netctl::datapath
