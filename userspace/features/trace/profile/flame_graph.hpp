// SPDX-License-Identifier: GPL-2.0-only
//
// Flame graphs, as B. Gregg describes them (ACM Queue 14/2, 2016): callers below, what they call above them, as wide as their part
// of all is.
#pragma once

#include <string>

#include "features/trace/profile/stacks.hpp"

namespace netctl::trace::profile {

/// An SVG file that is whole in itself: it loads nothing, and searches and zooms by a script of its own. `title` stands above it;
/// `waits` says that amounts are nanoseconds of waits, and no samples. Frames narrower than the twelve-thousandth part are left out.
std::string flame_graph(const Stacks& stacks, const std::string& title, bool waits);

} // namespace netctl::trace::profile
