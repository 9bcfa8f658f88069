// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/number_list.hpp"

#include <charconv>
#include <cstddef>
#include <set>

#include <fmt/format.h>

namespace netctl::trace {

namespace {

bool parse_number(std::string_view text, int& value) {
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
    return status == std::errc{} && end == text.data() + text.size();
}

} // namespace

std::vector<std::string_view> split_list(std::string_view text) {
    std::vector<std::string_view> parts;
    for (;;) {
        const std::size_t comma = text.find(',');
        parts.push_back(text.substr(0, comma));
        if (comma == std::string_view::npos)
            return parts;
        text.remove_prefix(comma + 1);
    }
}

bool parse_range(std::string_view text, int low, int high, int& first, int& last) {
    const std::size_t dash = text.find('-');
    if (!parse_number(text.substr(0, dash), first))
        return false;
    last = first;
    if (dash != std::string_view::npos && !parse_number(text.substr(dash + 1), last))
        return false;
    return low <= first && first <= last && last <= high;
}

Result<std::vector<std::uint16_t>> parse_port_list(std::string_view text) {
    std::set<std::uint16_t> ports;
    for (std::string_view part : split_list(text)) {
        int first = 0, last = 0;
        if (!parse_range(part, 1, 65535, first, last))
            return Error::usage(fmt::format("'{}' is no port", part),
                                "80, 8000-8010, or several with commas between them");
        for (int port = first; port <= last; ++port)
            ports.insert(static_cast<std::uint16_t>(port));
    }
    return std::vector<std::uint16_t>(ports.begin(), ports.end());
}

} // namespace netctl::trace
