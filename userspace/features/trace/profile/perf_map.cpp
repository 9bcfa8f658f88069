// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/profile/perf_map.hpp"

#include <algorithm>
#include <charconv>
#include <iterator>

namespace netctl::trace::profile {

namespace {

/// A number in hexadecimal at the beginning of the line, with or without 0x, and the blank behind it, which it takes away.
bool take_hex(std::string_view& line, std::uint64_t& number) {
    if (line.starts_with("0x"))
        line.remove_prefix(2);
    const auto [end, status] = std::from_chars(line.data(), line.data() + line.size(), number, 16);
    line.remove_prefix(static_cast<std::size_t>(end - line.data()));
    if (status != std::errc{} || !line.starts_with(' '))
        return false;
    line.remove_prefix(1);
    return true;
}

} // namespace

PerfMap::PerfMap(std::string_view text) {
    while (!text.empty()) {
        std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        std::uint64_t begin = 0, size = 0;
        if (!take_hex(line, begin) || !take_hex(line, size) || line.empty() || size == 0 ||
            begin + size < begin)
            continue;
        auto old = functions_.lower_bound(begin);
        if (old != functions_.begin() && std::prev(old)->second.end > begin)
            --old;
        while (old != functions_.end() && old->first < begin + size)
            old = functions_.erase(old);
        functions_[begin] = {begin + size, std::string(line)};
    }
}

std::string PerfMap::at(std::uint64_t address) const {
    const auto behind = functions_.upper_bound(address);
    if (behind == functions_.begin() || std::prev(behind)->second.end <= address)
        return {};
    return std::prev(behind)->second.name;
}

} // namespace netctl::trace::profile
