// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <functional>
#include <vector>

#include "core/command.hpp"
#include "features/trace/func/targets.hpp"

namespace netctl::trace::func {

/// `netctl trace func`.
Command func_command();

/// What else is reported as calls of functions are: the options for that but --calls, and the run, until it is to end. `find`
/// tells what is watched when the options are found good.
std::vector<Option> report_options();
Result<int> report(const Arguments& arguments, Look look, Context& context,
                   const std::function<Result<Targets>()>& find);

} // namespace netctl::trace::func
