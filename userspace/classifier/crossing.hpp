// SPDX-License-Identifier: GPL-2.0-only
//
// The crossing engine (bpf/include/netctl/lib/crossing.h): cost per packet follows the fields that
// the rules look at, not the number of rules. lib/crossing.h tells the structure.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "classifier/engine.hpp"

namespace netctl::classifier {

/// What the tables of any rule set may take.
constexpr std::size_t largest_tables = std::size_t{64} << 20;

/// What they may take as long as some rules are crossed: a fixed part, since small sets have tables that do not
/// shrink with the rules, and a part for each rule. Where all stand apart there is no way left but to walk
/// rule by rule, and only the largest size counts.
constexpr std::size_t memory_budget(std::size_t rules) {
    return std::min((std::size_t{2} << 20) + rules * 1024, largest_tables);
}

/// `set_uses` are those of the rules, in the order of their bits. Rules that would take the tables
/// beyond the budget stand apart as bit vectors: Compiled::rules_apart of them, for
/// Compiled::reason. Fails with ErrorKind::usage if these go beyond it, too.
Result<Compiled> compile_crossing(std::span<const Rule> rules, std::span<const SetUse> set_uses);
/// The same where those rules stand apart anyway for which `apart` is true; others may join them.
Result<Compiled> compile_crossing(std::span<const Rule> rules, std::span<const SetUse> set_uses,
                                  const std::vector<bool>& apart);

} // namespace netctl::classifier
