// SPDX-License-Identifier: GPL-2.0-only
//
// Spans of time as options take them.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "core/result.hpp"

namespace netctl {

/// A whole number and its unit: `500us`, `1ms`, `60s`, `5m`, `1h`. Errors, of kind usage, name `option` (without its
/// dashes): no such span, or none from `shortest` to `longest`.
Result<std::chrono::nanoseconds> parse_duration(const std::string& option, std::string_view text,
                                                std::chrono::nanoseconds shortest,
                                                std::chrono::nanoseconds longest);

} // namespace netctl
