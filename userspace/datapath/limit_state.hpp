// SPDX-License-Identifier: GPL-2.0-only
//
// The state of limits and rates, which outlives programs and goes with its rule.
#pragma once

#include <span>

#include "bpf/object.hpp"
#include "core/result.hpp"
#include "core/rule.hpp"
#include "datapath/point.hpp"

namespace netctl::datapath {

/// Makes the state that limits and rates need, where there is none yet.
Result<> prepare_state(const FindMap& find, Hook hook, std::span<const InstalledRule> rules);

/// Drops the state of limits and rates whose rules are gone. After the program that used them is
/// replaced.
Result<> forget_limits(const bpf::Program& program, const PointState& state, Hook hook);

} // namespace netctl::datapath
