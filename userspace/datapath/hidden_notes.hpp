// SPDX-License-Identifier: GPL-2.0-only
//
// What the user is told of rules that can never match.
#pragma once

#include <string>
#include <vector>

#include "classifier/hidden.hpp"
#include "datapath/point.hpp"

namespace netctl::datapath {

/// Comparisons for a note, which is an extra, and for who asks.
constexpr std::size_t steps_of_notes = 500'000, steps_of_checks = 50'000'000;

/// The ids of a list's rules.
std::vector<std::uint32_t> ids_of(const std::vector<InstalledRule>& rules);

/// What a change of the list, whose ids were `before`, has hidden: a note a rule, up to ten.
std::vector<std::string> hidden_notes(const std::vector<std::uint32_t>& before,
                                      const std::vector<InstalledRule>& now);

/// "rule 3 can never match: rule 1 covers it (src 10.0.0.0/8 pass)"
std::string hidden_text(const classifier::Hidden& hidden, const std::vector<const Rule*>& rules);

} // namespace netctl::datapath
