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
Command top_command();
Command import_command();

/// Gives `--confirm TIME` to each command that changes what is in force.
void add_confirm(Command& root);
/// Their words: `xdp rule add`. What is not in the table below `root` is left out.
const std::vector<std::string>& confirmable_commands();

/// The seconds that an option gives to confirm in; parts of one count as one.
Result<std::uint64_t> confirm_seconds(const std::string& option, const std::string& text);

} // namespace netctl::host
