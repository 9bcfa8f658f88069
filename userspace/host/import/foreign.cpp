// SPDX-License-Identifier: GPL-2.0-only
#include "host/import/foreign.hpp"

#include <algorithm>
#include <array>

#include "core/lines.hpp"

namespace netctl::host {

namespace {

constexpr std::string_view names[] = {"nft", "iptables", "ipset", "ufw", "firewalld", "xdp-filter"};

/// Whether a line begins so.
bool has_line(std::string_view text, std::string_view beginning) {
    return std::ranges::any_of(numbered_lines(text), [&](const NumberedLine& line) {
        return line.text.starts_with(beginning);
    });
}

} // namespace

const ForeignChain* Foreign::find(std::string_view table, std::string_view name) const {
    const auto found = std::find_if(chains.begin(), chains.end(), [&](const ForeignChain& chain) {
        return chain.table == table && chain.name == name;
    });
    return found == chains.end() ? nullptr : &*found;
}

std::string_view to_string(Format format) {
    return names[static_cast<std::size_t>(format)];
}

const std::vector<std::string>& format_names() {
    static const std::vector<std::string> all(std::begin(names), std::end(names));
    return all;
}

std::optional<Format> guess_format(std::string_view text) {
    const std::size_t first = text.find_first_not_of(" \t\r\n");
    if (first == text.npos)
        return std::nullopt;
    const std::string_view begin = text.substr(first);
    if (begin.starts_with('{'))
        return begin.find("\"nftables\"") != begin.npos ? std::optional(Format::nft) : std::nullopt;
    if (begin.starts_with('<'))
        return begin.find("<zone") != begin.npos ? std::optional(Format::firewalld) : std::nullopt;
    if (begin.find("CURRENT XDP-FILTER STATUS") != begin.npos)
        return Format::xdp_filter;
    if (has_line(begin, "*filter") || has_line(begin, "*raw") || has_line(begin, "*nat") ||
        has_line(begin, "*mangle")) {
        const bool of_ufw =
            has_line(begin, ":ufw-user-input") || has_line(begin, ":ufw6-user-input");
        return of_ufw && !has_line(begin, ":INPUT") ? Format::ufw : Format::iptables;
    }
    if (has_line(begin, "create ") && !has_line(begin, "table "))
        return Format::ipset;
    return std::nullopt;
}

} // namespace netctl::host
