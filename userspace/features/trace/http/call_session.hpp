// SPDX-License-Identifier: GPL-2.0-only
//
// Tracing what processes send and receive, where their sockets report it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "core/root_options.hpp"
#include "features/trace/http/session.hpp"

namespace netctl::trace {

/// Attaches to the socket tracepoints, or to the functions behind them where there are none, and pins
/// the settings below `root`. ErrorKind::unsupported if the kernel lets us do neither.
Result<std::unique_ptr<Session>> open_call_session(const Request& request, const RootOptions& root,
                                                   const Session::Emit& emit);

} // namespace netctl::trace
