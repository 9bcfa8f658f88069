// SPDX-License-Identifier: GPL-2.0-only
//
// Commits of few changes to many rules: without a new program.
#pragma once

#include <functional>

#include "core/result.hpp"
#include "core/rule.hpp"
#include "datapath/point.hpp"

namespace netctl::datapath {

/// Rules that a program must have for its rules to be changed without another one: with fewer, a new
/// program takes no longer, and packets pay for changes.
constexpr std::uint32_t least_compiled = 1000;

/// Puts `state`, an edited copy of `live.state`, in force by filling the slot of the program's
/// `changes`, which is one step (invariant I2). False, with nothing touched, if that cannot be
/// done and takes a new program: fields, actions or sets that the program does not know, or more
/// changes than fit. What could not be tidied up behind that step is told in `notes`. `ready` is called right before
/// the step, and may refuse it.
Result<bool> commit_changes(const LivePoint& live, PointState& state, Hook hook,
                            std::vector<std::string>& notes,
                            const std::function<Result<>()>& ready);

} // namespace netctl::datapath
