// SPDX-License-Identifier: GPL-2.0-only
//
// netctl-fleet's commands.
#pragma once

#include "core/command.hpp"

namespace netctl::fleet {

Command fleet_commands();
/// `run`, what hosts run.
Command run_command_of_hosts();

/// What several commands take, and how it is read.
Option dir_option();
Option keys_option();
Option threshold_option();
constexpr const char* default_keys = "/etc/netctl/fleet-keys.d";

} // namespace netctl::fleet
