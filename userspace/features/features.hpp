// SPDX-License-Identifier: GPL-2.0-only
//
// One command for each feature of meson.build.
#pragma once

#include <vector>

#include "core/command.hpp"

namespace netctl {

std::vector<Command> feature_commands();

} // namespace netctl
