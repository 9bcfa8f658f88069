// SPDX-License-Identifier: GPL-2.0-only
//
// A process that goes on when its starter, the terminal and the session are gone.
#pragma once

#include <string>
#include <vector>

#include "core/result.hpp"

namespace netctl::sys {

/// Starts this program anew with `arguments`, with nothing of ours but the namespaces we are in. Where systemd runs
/// the host, as a unit called `unit`, since it may end what a session has left; else as a child of init.
Result<> start_detached(const std::string& unit, const std::vector<std::string>& arguments);

} // namespace netctl::sys
