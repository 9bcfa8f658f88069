// SPDX-License-Identifier: GPL-2.0-only
//
// What a service tells systemd, by the socket that it is given (sd_notify(3)).
#pragma once

#include <string>

namespace netctl::fleet {

/// `READY=1`, `STATUS=…`, `WATCHDOG=1`. Nothing where no systemd asked for it.
void notify_systemd(const std::string& message);
/// How often the watchdog wants to hear of us, in milliseconds; 0: it does not.
unsigned watchdog_ms();

} // namespace netctl::fleet
