// SPDX-License-Identifier: GPL-2.0-only
//
// Not to lock oneself out: whether a point would refuse the packets of the ssh session that the command
// comes from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "classifier/reference.hpp"
#include "core/result.hpp"
#include "datapath/point.hpp"
#include "datapath/root.hpp"

namespace netctl::datapath {

/// An ssh session, as SSH_CONNECTION tells it.
struct SshSession {
    Address client, server;
    std::uint16_t client_port = 0, server_port = 0;
};

/// The session that this process was started in; nothing if it is none.
std::optional<SshSession> ssh_session();

/// The session's packets as they come by at a point: from the client, or at egress towards it.
std::vector<nc_packet> packets_of(const SshSession& session, bool egress, bool ether);

/// Where a point looks at packets.
struct Passage {
    std::string interface; ///< in the current network namespace
    bool egress = false;
    bool ether = true; ///< packets have a link header
};

/// Rules, and the sets that they name, as they are or will be.
struct GuardedState {
    PointState state;
    classifier::SetOracle sets;
};

/// An error if `after` refuses packets of the session and `before`, if there is one, does not. Asks only where the
/// interface has the address that the session came to.
Result<> check_session(const std::optional<GuardedState>& before, const GuardedState& after,
                       const Passage& passage);

/// The same with the sets as they are. An error if `state` refuses packets of the session and what is in force, `before`, does not; null: nothing
/// is. Asks only where the interface has the address that the session came to.
Result<> check_session(const Root& root, const PointState* before, const PointState& state,
                       const Passage& passage);

} // namespace netctl::datapath
