// SPDX-License-Identifier: GPL-2.0-only
//
// The command `capture` of every packet filter.
#pragma once

#include <functional>
#include <vector>

#include "core/command.hpp"
#include "datapath/capture.hpp"
#include "datapath/filter_command.hpp"

namespace netctl::datapath {

/// Begins to capture at the place that the arguments name.
using StartCapture =
    std::function<Result<Capture>(const Arguments&, const Context&, const CaptureRequest&)>;

/// The command, for `place`, which `open` opens.
Command capture_command(std::vector<Positional> place, const OpenPoint& open,
                        const StartCapture& start);

} // namespace netctl::datapath
