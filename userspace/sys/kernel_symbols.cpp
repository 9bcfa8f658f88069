// SPDX-License-Identifier: GPL-2.0-only
#include "sys/kernel_symbols.hpp"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace netctl::sys {

void KernelSymbols::read() {
    if (std::exchange(read_, true))
        return;
    // ADDRESS TYPE NAME[\t[MODULE]]
    std::ifstream file(file_);
    for (std::string line; std::getline(file, line);) {
        Symbol symbol;
        const auto [end, status] =
            std::from_chars(line.data(), line.data() + line.size(), symbol.address, 16);
        const std::string_view rest(end, static_cast<std::size_t>(line.data() + line.size() - end));
        if (status != std::errc{} || symbol.address == 0 || rest.size() < 4 ||
            (rest[1] != 't' && rest[1] != 'T' && rest[1] != 'w' && rest[1] != 'W'))
            continue;
        symbol.name = rest.substr(3, rest.find('\t') - 3);
        symbols_.push_back(std::move(symbol));
    }
    std::stable_sort(symbols_.begin(), symbols_.end(),
                     [](const Symbol& a, const Symbol& b) { return a.address < b.address; });
}

std::vector<std::string> KernelSymbols::names() {
    read();
    std::vector<std::string> names;
    for (const Symbol& symbol : symbols_)
        names.push_back(symbol.name);
    return names;
}

std::string KernelSymbols::at(std::uint64_t address) {
    read();
    const auto behind = std::upper_bound(
        symbols_.begin(), symbols_.end(), address,
        [](std::uint64_t wanted, const Symbol& symbol) { return wanted < symbol.address; });
    // Further away is no function's inside.
    constexpr std::uint64_t longest = 1 << 20;
    if (behind == symbols_.begin() || address - std::prev(behind)->address > longest)
        return {};
    return fmt::format("{}+{:#x}", std::prev(behind)->name, address - std::prev(behind)->address);
}

} // namespace netctl::sys
