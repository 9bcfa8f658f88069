// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <cstdint>
#include <string>

namespace netctl::sys {

/// What to add to CLOCK_BOOTTIME, which events carry, to get the time of day; nanoseconds.
std::int64_t boottime_offset();
/// The same for CLOCK_MONOTONIC.
std::int64_t monotonic_offset();
/// CLOCK_MONOTONIC in nanoseconds.
std::int64_t monotonic_now();

/// The time of day: nanoseconds since 1970.
std::uint64_t wall_ns();
/// CLOCK_MONOTONIC in milliseconds.
std::uint64_t now_ms();

/// Date and time of day here, to the microsecond; `time_ns` counts nanoseconds since 1970.
std::string time_text(std::uint64_t time_ns);
/// The same as ISO 8601 in UTC, for JSON: `2026-01-31T12:00:00.123456Z`.
std::string iso_time(std::uint64_t time_ns);

} // namespace netctl::sys
