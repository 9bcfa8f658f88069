// SPDX-License-Identifier: GPL-2.0-only
//
// The one form in which the values of a match stand, however they were written.
#pragma once

#include <vector>

#include "core/rule.hpp"

namespace netctl {

/// Sorted; those that overlap or follow one another are one.
std::vector<Range> normalised(std::vector<Range> ranges);
/// Sorted, without those that another one holds.
std::vector<Prefix> normalised(std::vector<Prefix> prefixes);

} // namespace netctl
