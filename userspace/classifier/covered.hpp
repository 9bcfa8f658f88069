// SPDX-License-Identifier: GPL-2.0-only
//
// Rules that tables need not hold, because an earlier one takes all of their packets. Rule sets that grew over years, or were
// generated, are full of them: one wide rule may leave nothing to thousands behind it. (A. Liu, M. Gouda: "Complete
// redundancy detection in firewalls", DBSec 2005, find all of them; these are those that one piece of a rule covers.)
#pragma once

#include <cstddef>
#include <vector>

#include "classifier/pieces.hpp"

namespace netctl::classifier {

/// By position, for `rules` of them: whether each of the rule's pieces lies within a piece before it. `pieces` are those
/// that are to be crossed. What is told is true; there is a bound to the search for each rule, about 5 µs, so that a rule
/// that is not told may still be one.
std::vector<bool> covered_rules(const Pieces& pieces, std::size_t rules);

} // namespace netctl::classifier
