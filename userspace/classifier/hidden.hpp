// SPDX-License-Identifier: GPL-2.0-only
//
// Rules that can never match, because those before them take every packet or connection that they are
// about.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/rule.hpp"

namespace netctl::classifier {

struct Hidden {
    std::size_t rule = 0;        ///< position of the one that can never match
    std::vector<std::size_t> by; ///< positions of those that hide it: one alone where one suffices
};

struct HiddenRules {
    std::vector<Hidden> hidden; ///< by position
    /// Rules of which it is not known, since it would have taken too long.
    std::size_t unknown = 0;
};

/// Rules hidden by those before them, whatever they do: the first match is final. Told from the texts
/// alone: what a set holds, and whether two paths lead to one executable, is not looked at, so a rule
/// that is not told may still be one. What is told is true. With `fresh`, one for each rule, only what came
/// about by rules that are. `most_steps` bounds the work: comparisons of two rules, about 50 ns each.
HiddenRules hidden_rules(std::span<const Rule* const> rules, std::size_t most_steps,
                         const std::vector<bool>& fresh = {});

} // namespace netctl::classifier
