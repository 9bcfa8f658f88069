// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace netctl::fleet {

/// The lines of both texts, each with `+`, `-` or a blank before it; of those that are the same, three around each
/// change. Texts that differ in many thousand lines are shown as all removed and all added.
std::vector<std::string> line_diff(std::string_view before, std::string_view after);

} // namespace netctl::fleet
