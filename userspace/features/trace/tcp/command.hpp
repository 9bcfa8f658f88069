// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include "core/command.hpp"

namespace netctl::trace::tcp {

/// `netctl trace tcp`.
Command tcp_command();
/// `netctl trace tcp rtt`.
Command rtt_command();
/// `netctl trace tcp backlog`.
Command backlog_command();

} // namespace netctl::trace::tcp
