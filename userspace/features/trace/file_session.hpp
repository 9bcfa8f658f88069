// SPDX-License-Identifier: GPL-2.0-only
//
// Tracing the packets of a capture file, without the kernel and without privileges.
#pragma once

#include <memory>

#include "core/result.hpp"
#include "features/trace/session.hpp"

namespace netctl::trace {

/// Reads `request.read`; poll() says when the file is over. Refuses link layers that it cannot read.
/// Ports are selected here, as there is no kernel to do so.
Result<std::unique_ptr<Session>> open_file_session(const Request& request,
                                                   const Session::Emit& emit);

} // namespace netctl::trace
