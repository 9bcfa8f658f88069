// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/edit.hpp"

#include <algorithm>
#include <deque>
#include <unordered_map>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace netctl::datapath {

namespace {

constexpr std::uint32_t most_rules = NC_COUNTER_CHUNK * NC_COUNTER_CHUNKS / 2;

std::uint32_t take_id(PointState& state) {
    if (state.point.next_rule_id == 0)
        state.point.next_rule_id = 1;
    return state.point.next_rule_id++;
}

Error no_such_rule(const PointState& state, const std::vector<std::uint32_t>& missing) {
    constexpr std::size_t shown = 20;
    std::vector<std::string> ids;
    for (const InstalledRule& installed : state.rules) {
        if (ids.size() == shown) {
            ids.push_back("...");
            break;
        }
        ids.push_back(std::to_string(installed.rule.id));
    }
    return Error::failed(fmt::format("there is no rule with id {}", fmt::join(missing, ", ")),
                         ids.empty() ? "there are no rules"
                                     : fmt::format("the ids are {}", fmt::join(ids, ", ")));
}

auto find_rule(PointState& state, std::uint32_t id) {
    return std::find_if(state.rules.begin(), state.rules.end(),
                        [&](const InstalledRule& installed) { return installed.rule.id == id; });
}

Result<> check_count(std::size_t count) {
    if (count <= most_rules)
        return {};
    return Error::usage(fmt::format("{} rules are too many: a point holds {}", count, most_rules),
                        "put addresses into a set: one rule then serves a million of them");
}

} // namespace

Result<std::uint32_t> add_rule(PointState& state, Rule rule, std::optional<std::uint32_t> before) {
    NETCTL_TRY(check_count(state.rules.size() + 1));
    auto place = state.rules.end();
    if (before) {
        place = find_rule(state, *before);
        if (place == state.rules.end())
            return no_such_rule(state, {*before});
    }
    rule.id = take_id(state);
    const std::uint32_t id = rule.id;
    state.rules.insert(place, {std::move(rule), not_installed});
    return id;
}

Result<> delete_rules(PointState& state, const std::vector<std::uint32_t>& ids) {
    std::vector<std::uint32_t> missing;
    for (const std::uint32_t id : ids)
        if (find_rule(state, id) == state.rules.end())
            missing.push_back(id);
    if (!missing.empty())
        return no_such_rule(state, missing);
    std::erase_if(state.rules, [&](const InstalledRule& installed) {
        return std::find(ids.begin(), ids.end(), installed.rule.id) != ids.end();
    });
    return {};
}

Result<> replace_rules(PointState& state, std::vector<Rule> rules) {
    NETCTL_TRY(check_count(rules.size()));
    std::unordered_map<std::string, std::deque<InstalledRule>> present;
    for (InstalledRule& installed : state.rules)
        if (installed.why.empty())
            present[to_string(installed.rule)].push_back(std::move(installed));
    state.rules.clear();
    for (Rule& rule : rules) {
        const auto same = present.find(to_string(rule));
        if (same != present.end() && !same->second.empty()) {
            state.rules.push_back(std::move(same->second.front()));
            same->second.pop_front();
            continue;
        }
        rule.id = take_id(state);
        state.rules.push_back({std::move(rule), not_installed});
    }
    return {};
}

} // namespace netctl::datapath
