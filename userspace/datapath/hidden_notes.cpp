// SPDX-License-Identifier: GPL-2.0-only
#include "datapath/hidden_notes.hpp"

#include <algorithm>
#include <unordered_set>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace netctl::datapath {

std::vector<std::uint32_t> ids_of(const std::vector<InstalledRule>& rules) {
    std::vector<std::uint32_t> ids;
    ids.reserve(rules.size());
    for (const InstalledRule& installed : rules)
        ids.push_back(installed.rule.id);
    return ids;
}

std::vector<std::string> hidden_notes(const std::vector<std::uint32_t>& before,
                                      const std::vector<InstalledRule>& now) {
    const std::unordered_set<std::uint32_t> known(before.begin(), before.end());
    std::vector<const Rule*> rules;
    std::vector<bool> fresh;
    for (const InstalledRule& installed : now) {
        rules.push_back(&installed.rule);
        fresh.push_back(!known.contains(installed.rule.id));
    }
    constexpr std::size_t most_notes = 10;
    std::vector<std::string> notes;
    const classifier::HiddenRules found = classifier::hidden_rules(rules, steps_of_notes, fresh);
    for (std::size_t i = 0; i < std::min(most_notes, found.hidden.size()); i++)
        notes.push_back(hidden_text(found.hidden[i], rules));
    if (found.hidden.size() > most_notes)
        notes.push_back(
            fmt::format("{} more rules can never match; `rule list --check` tells which",
                        found.hidden.size() - most_notes));
    return notes;
}

std::string hidden_text(const classifier::Hidden& hidden, const std::vector<const Rule*>& rules) {
    const std::uint32_t id = rules[hidden.rule]->id;
    if (hidden.by.size() == 1) {
        const Rule& earlier = *rules[hidden.by.front()];
        return fmt::format("rule {} can never match: rule {} covers it ({})", id, earlier.id,
                           to_string(earlier));
    }
    constexpr std::size_t most_ids = 5;
    std::vector<std::uint32_t> ids;
    for (std::size_t i = 0; i < std::min(most_ids, hidden.by.size()); i++)
        ids.push_back(rules[hidden.by[i]]->id);
    const std::size_t more = hidden.by.size() - ids.size();
    return fmt::format("rule {} can never match: rules {}{} together cover it", id,
                       fmt::join(ids, ", "), more > 0 ? fmt::format(" and {} more", more) : "");
}

} // namespace netctl::datapath
