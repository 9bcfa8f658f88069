// SPDX-License-Identifier: GPL-2.0-only
//
// What the lines of instruments on connections have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "core/text.hpp"
#include "features/trace/parties.hpp"

namespace netctl::trace {

/// `15:04:05.123456`, here; `time_ns` since 1970.
std::string time_of_day(std::uint64_t time_ns);
/// `12.345ms`, as wide as durations from microseconds to days need; `-` for none.
std::string took_text(std::optional<std::uint64_t> ns);
/// `nginx[123]`, with `@` and its container if it is in one; `-` if it is not known.
Text process_text(const Process& process);
/// With blanks behind it, up to so many columns.
Text padded(Text text, std::size_t width);

} // namespace netctl::trace
