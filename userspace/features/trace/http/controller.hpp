// SPDX-License-Identifier: GPL-2.0-only
//
// From a request to a running tracer.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "core/root_options.hpp"
#include "features/trace/http/session.hpp"

namespace netctl::trace {

/// Takes the source that was asked for, or the first that works here. Loads, attaches, and pins below
/// `root`; nothing is handed to `emit` before this returns. Fallbacks are told in `notes`.
Result<std::unique_ptr<Session>> open_session(const Request& request, const RootOptions& root,
                                              const Session::Emit& emit,
                                              std::vector<std::string>& notes);

} // namespace netctl::trace
