// SPDX-License-Identifier: GPL-2.0-only
//
// All of netctl's commands: one subcommand for each feature of meson.build.
#pragma once

#include "core/command.hpp"

namespace netctl {

Command command_table();

} // namespace netctl
