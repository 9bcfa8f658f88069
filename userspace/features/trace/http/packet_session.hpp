// SPDX-License-Identifier: GPL-2.0-only
//
// Tracing the packets of an interface, or of all in a network namespace.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "core/root_options.hpp"
#include "features/trace/http/session.hpp"

namespace netctl::trace {

/// Listens in the request's namespace, and pins the settings below `root`. The file that packets are
/// to be written to is made first: trouble with it is told before anything is loaded.
Result<std::unique_ptr<Session>>
open_packet_session(const Request& request, const RootOptions& root, const Session::Emit& emit);

} // namespace netctl::trace
