// SPDX-License-Identifier: GPL-2.0-only
//
// What several conditions say together, as the one condition a key that a rule of netctl may have.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/rule.hpp"

namespace netctl::host {

/// Conditions of which there is one a key, in the order of keys.
using Conditions = std::vector<Match>;

/// Both at once. Nothing: no packet is of both.
struct Both {
    std::optional<Conditions> conditions;
    std::string why; ///< not empty: netctl has no words for it
};
Both both(const Conditions& one, const std::vector<Match>& other);

/// Whether all packets of `inner` are of `outer`, as far as that can be told.
bool covers(const Conditions& outer, const Conditions& inner);
/// Whether no packet is of both, as far as that can be told.
bool apart(const Conditions& one, const Conditions& other);

} // namespace netctl::host
