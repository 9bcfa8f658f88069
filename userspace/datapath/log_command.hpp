// SPDX-License-Identifier: GPL-2.0-only
//
// The command `log` of every packet filter.
#pragma once

#include <vector>

#include "core/command.hpp"
#include "datapath/filter_command.hpp"

namespace netctl::datapath {

/// The handler of `log`, with the options of `log_options`; `form` is that of the point's packets.
Result<int> print_log(const Arguments& arguments, Context& context, FrameForm form,
                      FilterPoint& point);
std::vector<Option> log_options();

} // namespace netctl::datapath
