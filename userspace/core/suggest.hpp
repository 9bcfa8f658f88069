// SPDX-License-Identifier: GPL-2.0-only
//
// Near words, for errors.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace netctl {

/// `; did you mean 'X'?` for the nearest candidate if one is near, else an empty string.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

} // namespace netctl
