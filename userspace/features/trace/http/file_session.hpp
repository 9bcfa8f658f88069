// SPDX-License-Identifier: GPL-2.0-only
//
// Tracing the packets of a capture file, without the kernel and without privileges.
#pragma once

#include <memory>
#include <string>

#include "core/result.hpp"
#include "features/trace/http/session.hpp"
#include "sys/pcap.hpp"

namespace netctl::trace {

/// Where the file's frames begin. Refuses link layers that cannot be read.
Result<FrameStart> frame_start_of(const sys::PcapReader& reader, const std::string& path);
/// How frames of a file that begin there are looked into.
LayerOptions file_layers(FrameStart start, bool tunnels);

/// Reads `request.read`; poll() says when the file is over. Refuses link layers that it cannot read.
/// Ports are selected here, as there is no kernel to do so.
Result<std::unique_ptr<Session>> open_file_session(const Request& request,
                                                   const Session::Emit& emit);

} // namespace netctl::trace
