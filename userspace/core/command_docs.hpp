// SPDX-License-Identifier: GPL-2.0-only
//
// Texts made from the command table.
#pragma once

#include <string>
#include <vector>

#include "core/command.hpp"

namespace netctl {

/// `netctl xdp attach IFACE [--mode auto|native|generic]`; `path` are the words up to the command.
std::string synopsis(const Command& command, const std::string& path);
/// What `--help` prints.
std::string help_text(const Command& command, const std::string& path);
/// The man page `source` with its lines `.\" SYNOPSIS`, `.\" COMMANDS` and `.\" OBJECTS` (the commands right
/// below) replaced by roff made from `command`.
std::string man_page(const std::string& source, const Command& command, const std::string& path);
/// The man page `source` of the rule language with its lines `.\" KEYS`, `.\" ACTIONS` and `.\" MODIFIERS`
/// replaced by tables of which hook has what, and what each means.
std::string rules_page(const std::string& source);
/// A bash completion script for the whole table.
std::string bash_completion(const Command& root);

} // namespace netctl
