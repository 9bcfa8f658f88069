// SPDX-License-Identifier: GPL-2.0-only
//
// All of netctl's commands: those of the features, and those about the host as a whole.
#pragma once

#include "core/command.hpp"

namespace netctl {

Command command_table();

} // namespace netctl
