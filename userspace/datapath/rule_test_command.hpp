// SPDX-License-Identifier: GPL-2.0-only
//
// `rule test`: which rule decides about a packet, and why those before it do not.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "core/command.hpp"
#include "datapath/filter_command.hpp"

namespace netctl::datapath {

/// The verb for a point named by `place`; `verdicts` are those that its hook has.
Command rule_test_command(Hook hook, const std::vector<Positional>& place, const OpenPoint& open,
                          std::initializer_list<nc_verdict> verdicts);

} // namespace netctl::datapath
