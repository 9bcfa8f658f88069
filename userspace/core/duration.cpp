// SPDX-License-Identifier: GPL-2.0-only
#include "core/duration.hpp"

#include <array>
#include <charconv>
#include <cstdint>

#include <fmt/format.h>

namespace netctl {

namespace {

using std::chrono::nanoseconds;

struct Unit {
    std::string_view name;
    nanoseconds length;
};
constexpr std::array<Unit, 5> units{{{"h", std::chrono::hours(1)},
                                     {"m", std::chrono::minutes(1)},
                                     {"s", std::chrono::seconds(1)},
                                     {"ms", std::chrono::milliseconds(1)},
                                     {"us", std::chrono::microseconds(1)}}};

/// In the largest unit in which it is whole.
std::string to_text(nanoseconds span) {
    for (const Unit& unit : units)
        if (span.count() != 0 && span % unit.length == nanoseconds::zero())
            return fmt::format("{}{}", span / unit.length, unit.name);
    return "0s";
}

} // namespace

Result<nanoseconds> parse_duration(const std::string& option, std::string_view text,
                                   nanoseconds shortest, nanoseconds longest) {
    std::uint64_t number = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
    const std::string_view name = text.substr(static_cast<std::size_t>(end - text.data()));
    for (const Unit& unit : units) {
        if (status != std::errc{} || name != unit.name ||
            number > static_cast<std::uint64_t>(longest / unit.length))
            continue;
        const nanoseconds span = static_cast<std::int64_t>(number) * unit.length;
        if (span >= shortest)
            return span;
    }
    return Error::usage(Text::format("--{} '{}' is no time", option, text),
                        Text::format("a whole number and us, ms, s, m or h, from {} to {}",
                                     to_text(shortest), to_text(longest)));
}

} // namespace netctl
