// SPDX-License-Identifier: GPL-2.0-only
//
// Where the calling process comes from.
#pragma once

#include <optional>
#include <string>

namespace netctl::sys {

/// A variable of the environment: the caller's own, or that of the nearest process above which has it.
/// sudo and su keep few variables.
std::optional<std::string> inherited_variable(const std::string& name);

/// The calling process's cgroup v2, below the mount; nothing if it cannot be told.
std::optional<std::string> own_cgroup();

} // namespace netctl::sys
