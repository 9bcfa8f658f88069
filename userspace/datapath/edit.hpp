// SPDX-License-Identifier: GPL-2.0-only
//
// Edits of a point's rules, as pure functions of the old state: a commit puts the outcome in force.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "datapath/point.hpp"

namespace netctl::datapath {

/// Adds a rule at the end, or before the rule with id `before`. Returns the new rule's id.
Result<std::uint32_t> add_rule(PointState& state, Rule rule,
                               std::optional<std::uint32_t> before = std::nullopt);
/// Takes rules away by their ids, all or none; the error names those that are not there, and lists the ids
/// there are.
Result<> delete_rules(PointState& state, const std::vector<std::uint32_t>& ids);
/// Puts `rules` in the place of all rules. A rule whose text was there before keeps its id and its
/// counter (invariant I4); of equal rules, the first keeps the first's.
Result<> replace_rules(PointState& state, std::vector<Rule> rules);

} // namespace netctl::datapath
