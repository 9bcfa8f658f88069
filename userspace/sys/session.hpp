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

} // namespace netctl::sys
