// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/line_text.hpp"

#include <ctime>
#include <utility>

#include <fmt/format.h>

#include "features/trace/container.hpp"

namespace netctl::trace {

std::string time_of_day(std::uint64_t time_ns) {
    const auto seconds = static_cast<std::time_t>(time_ns / 1'000'000'000);
    std::tm day{};
    localtime_r(&seconds, &day);
    return fmt::format("{:02}:{:02}:{:02}.{:06}", day.tm_hour, day.tm_min, day.tm_sec,
                       time_ns % 1'000'000'000 / 1000);
}

std::string took_text(std::optional<std::uint64_t> ns) {
    if (!ns)
        return "-";
    const double ms = static_cast<double>(*ns) / 1e6;
    if (ms < 10'000)
        return fmt::format("{:.3f}ms", ms);
    return fmt::format("{:.1f}s", ms / 1e3);
}

Text process_text(const Process& process) {
    if (process.pid == 0)
        return Text::format("-");
    Text text = Text::format("{}[{}]", process.name, process.pid);
    if (process.container)
        text += Text::format("@{}", process.container->label());
    return text;
}

Text padded(Text text, std::size_t width) {
    const std::size_t taken = columns(text.string());
    if (taken < width)
        text += Text(std::string(width - taken, ' '));
    return text;
}

} // namespace netctl::trace
