// SPDX-License-Identifier: GPL-2.0-only
#include "sys/clock.hpp"

#include <ctime>

#include <fmt/format.h>

namespace netctl::sys {

namespace {

std::int64_t nanoseconds(clockid_t clock) {
    timespec time{};
    clock_gettime(clock, &time);
    return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

} // namespace

std::int64_t boottime_offset() {
    return nanoseconds(CLOCK_REALTIME) - nanoseconds(CLOCK_BOOTTIME);
}

std::int64_t monotonic_offset() {
    return nanoseconds(CLOCK_REALTIME) - nanoseconds(CLOCK_MONOTONIC);
}

std::uint64_t wall_ns() {
    return static_cast<std::uint64_t>(nanoseconds(CLOCK_REALTIME));
}

std::uint64_t now_ms() {
    return static_cast<std::uint64_t>(nanoseconds(CLOCK_MONOTONIC) / 1'000'000);
}

std::int64_t monotonic_now() {
    return nanoseconds(CLOCK_MONOTONIC);
}

std::string time_text(std::uint64_t time_ns) {
    const auto seconds = static_cast<time_t>(time_ns / 1'000'000'000);
    tm parts{};
    localtime_r(&seconds, &parts);
    char text[32] = "";
    std::strftime(text, sizeof text, "%F %T", &parts);
    return fmt::format("{}.{:06}", text, time_ns % 1'000'000'000 / 1000);
}

std::string iso_time(std::uint64_t time_ns) {
    const auto seconds = static_cast<time_t>(time_ns / 1'000'000'000);
    tm parts{};
    gmtime_r(&seconds, &parts);
    char text[32] = "";
    std::strftime(text, sizeof text, "%FT%T", &parts);
    return fmt::format("{}.{:06}Z", text, time_ns % 1'000'000'000 / 1000);
}

} // namespace netctl::sys
