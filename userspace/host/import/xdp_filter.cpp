// SPDX-License-Identifier: GPL-2.0-only
//
// What `xdp-filter status` prints (xdp-tools).
#include <fmt/format.h>

#include "core/lines.hpp"
#include "host/import/foreign.hpp"
#include "host/import/words.hpp"

namespace netctl::host {

namespace {

/// The words of a line.
std::vector<std::string_view> fields_of(std::string_view line) {
    std::vector<std::string_view> words;
    for (std::size_t at = 0;;) {
        at = line.find_first_not_of(" \t\r", at);
        if (at == line.npos)
            return words;
        const std::size_t end = std::min(line.find_first_of(" \t\r", at), line.size());
        words.push_back(line.substr(at, end - at));
        at = end;
    }
}

bool has_part(std::string_view list, std::string_view part) {
    for (std::size_t at = 0; at <= list.size();) {
        const std::size_t end = std::min(list.find(',', at), list.size());
        if (list.substr(at, end - at) == part)
            return true;
        at = end + 1;
    }
    return false;
}

/// Its elements as rules without an action.
std::vector<std::string> conditions_of(std::string_view section, std::string_view element,
                                       std::string_view mode) {
    std::vector<std::string> rules;
    for (const std::string_view side : {"src", "dst"}) {
        if (!has_part(mode, side))
            continue;
        if (section == "Filtered ports:") {
            const bool tcp = has_part(mode, "tcp"), udp = has_part(mode, "udp");
            if (tcp || udp)
                rules.push_back(fmt::format("proto {} {}port {}",
                                            tcp && udp ? "{tcp, udp}"
                                            : tcp      ? "tcp"
                                                       : "udp",
                                            side[0], element));
        } else if (section == "Filtered IP addresses:") {
            rules.push_back(fmt::format("{} {}", side, element));
        } else {
            rules.push_back(fmt::format("ether-{} {}", side, element));
        }
    }
    return rules;
}

} // namespace

Result<> read_xdp_filter(const std::string& name, std::string_view text, Foreign& foreign) {
    struct Line {
        std::string condition, place;
    };
    std::vector<Line> conditions;
    std::optional<bool> allows; ///< what is listed is dropped, all else passes
    std::string section;
    for (const NumberedLine& one : numbered_lines(text)) {
        const std::string_view line = one.text;
        const std::string place = fmt::format("{}:{}", name, one.number);
        const auto words = fields_of(line);
        if (words.empty())
            continue;
        if (words.back().ends_with(':')) {
            section = line.substr(line.find_first_not_of(" \t\r"));
            while (!section.empty() && section.back() != ':')
                section.pop_back();
            continue;
        }
        if (section == "Loaded on interfaces:") {
            for (const std::string_view word : words)
                for (const bool allow : {true, false})
                    if (has_part(word, allow ? "allow" : "deny")) {
                        if (allows && *allows != allow)
                            return Error::usage(Text::format(
                                "{}: its interfaces do not all have the same policy", place));
                        allows = allow;
                    }
            continue;
        }
        if (!section.starts_with("Filtered ") || words[0] == "Mode")
            continue;
        const auto some = words.size() == 3 ? conditions_of(section, words[0], words[1])
                                            : std::vector<std::string>();
        bool read = !some.empty();
        for (const std::string& condition : some)
            read = read && parse_rule(condition + " drop", Hook::xdp).has_value();
        if (!read)
            foreign.not_taken.push_back({place, std::string(line), "netctl cannot read it",
                                         effect_weaker | effect_stricter});
        else
            for (const std::string& condition : some)
                conditions.push_back({condition, place});
    }
    if (!allows)
        return Error::usage(Text::format("{} does not tell the policy of an interface", name),
                            "what `xdp-filter status` prints, with an interface loaded");
    foreign.filter.emplace();
    foreign.filter->default_verdict = *allows ? NC_VERDICT_PASS : NC_VERDICT_DROP;
    for (const Line& line : conditions) {
        foreign.filter->rules.push_back(
            parse_rule(line.condition + (*allows ? " drop" : " pass"), Hook::xdp).value());
        foreign.filter->remarks.push_back(line.place);
    }
    return {};
}

} // namespace netctl::host
