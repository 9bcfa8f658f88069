// SPDX-License-Identifier: GPL-2.0-only
//
// Ending a command that runs until told to stop.
#pragma once

namespace netctl::sys {

/// From now on SIGINT, SIGTERM and SIGHUP only set a flag, so that a loop can end in order.
void catch_stop_signals();
/// Whether one of them came.
bool stop_requested();

} // namespace netctl::sys
