// SPDX-License-Identifier: GPL-2.0-only
//
// Commands about the host as a whole. They stand above the features, which know nothing of them.
#pragma once

#include "core/command.hpp"

namespace netctl::host {

Command status_command();
Command detach_command();
Command doctor_command();
/// check, plan, diff, apply, export, confirm, rollback, save, restore.
std::vector<Command> apply_commands();
Command metrics_command();

} // namespace netctl::host
