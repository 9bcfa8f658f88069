// SPDX-License-Identifier: GPL-2.0-only
//
// `policy test` and `policy explain`: what would happen to a connection, of a process that is told or of one that runs.
#pragma once

#include "core/command.hpp"

namespace netctl::policy {

Command test_command();
Command explain_command();

} // namespace netctl::policy
