// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/explanation.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace netctl::datapath {

namespace {

std::string in_words(const Json& value) {
    if (value.is_null())
        return "has none";
    return "has " + (value.is_string() ? value.get<std::string>() : value.dump());
}

} // namespace

void Explanation::add(const Rule& rule, const std::vector<Reason>& why_not) {
    Json reasons = Json::array();
    std::vector<std::string> texts;
    for (const Reason& reason : why_not) {
        reasons.push_back({{"match", reason.match}, {subject_, reason.value}});
        texts.push_back(fmt::format("{}, and it {}", reason.match, in_words(reason.value)));
    }
    json_.push_back({{"rule_id", rule.id},
                     {"rule_text", to_string(rule)},
                     {"matches", why_not.empty()},
                     {"why_not", std::move(reasons)}});
    if (why_not.empty())
        text_ += Text::format("rule {} matches: {}\n", rule.id, to_string(rule));
    else
        text_ += Text::format("rule {} does not match: {}\n", rule.id,
                              fmt::format("{}", fmt::join(texts, "; ")));
}

} // namespace netctl::datapath
