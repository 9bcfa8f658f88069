// SPDX-License-Identifier: GPL-2.0-only
//
// Options that hold several numbers: `80,8000-8010`.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/result.hpp"

namespace netctl::trace {

/// What is between the commas, also if that is nothing.
std::vector<std::string_view> split_list(std::string_view text);
/// `N` or `N-M` with low <= N <= M <= high; false if it is not.
bool parse_range(std::string_view text, int low, int high, int& first, int& last);
/// `80,8000-8010`: ports in host order, rising and without repeats. The error says what a list holds.
Result<std::vector<std::uint16_t>> parse_port_list(std::string_view text);

} // namespace netctl::trace
